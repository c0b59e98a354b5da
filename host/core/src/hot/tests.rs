//! The hot tier as a backend.

use std::sync::Arc;

use super::*;
use crate::backend::testing::MemoryUpload;
use crate::backend::{UploadSource, testing};
use crate::types::StoreHint;

/// An upload with a key and labels of the caller's.
struct Labelled(Vec<u8>, String, Vec<(String, String)>);

impl UploadSource for Labelled {
    fn is_replayable(&self) -> bool {
        false
    }

    fn begin(&self, _: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        let hint = StoreHint { key: self.1.clone(), size: None, labels: self.2.clone() };
        let body = Body::from_bytes(self.0.clone());
        Box::pin(std::future::ready(Ok(UploadAttempt { body, hint, base: None })))
    }

    fn end<'a>(&'a self, _: &'a str, _: std::result::Result<&'a Receipt, &'a Error>) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn hot(dir: &Path) -> HotBackend {
    HotBackend::new("hot", dir.join("hot"), Platform::system())
}

async fn put(hot: &HotBackend, key: &str, bytes: &[u8], labels: &[(&str, &str)]) -> ObjectId {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let upload = Labelled(bytes.to_vec(), key.to_owned(), labels);
    hot.put(Upload::new(Arc::new(upload))).await.unwrap().id
}

#[tokio::test]
async fn objects_are_files_with_holes_and_their_labels_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let hot = hot(dir.path());
    let mut bytes = vec![0; 8 << 20];
    bytes[5 << 20] = 1;
    let plain = put(&hot, "snap-a", &bytes, &[]).await;
    let labelled = put(&hot, "snap-b", b"pack", &[(Encoding::LABEL, "pages"), ("tidelock-name", "web 7 ü")]).await;
    assert_eq!((plain.as_str(), labelled.as_str()), ("snap-a", "snap-b.pages"));
    let usage = hot.usage().unwrap();
    assert!(usage.bytes() < 1 << 20 && usage.entries.len() == 2, "{usage:?}");
    assert_eq!(hot.stat(&plain).await.unwrap().size, 8 << 20);
    let mut labels = hot.stat(&labelled).await.unwrap().labels;
    labels.sort();
    assert_eq!(labels, [(Encoding::LABEL, "pages"), ("tidelock-name", "web 7 ü")].map(|(a, b)| (a.into(), b.into())));
    let part = hot.get(&plain, Some(ByteRange::of(5 << 20, 3))).await.unwrap().collect(3).await.unwrap();
    assert_eq!(part[..], [1, 0, 0]);
    let listed = hot.list(None, 10).await.unwrap();
    assert_eq!(listed.entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["snap-a", "snap-b.pages"]);
    assert_eq!(hot.local_file(&plain).unwrap().metadata().unwrap().len(), 8 << 20);
    for id in [plain, labelled] {
        hot.delete(&id).await.unwrap();
        hot.delete(&id).await.unwrap();
        assert!(hot.local_file(&id).is_none());
        assert_eq!(*hot.stat(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(hot.usage().unwrap(), HotUsage::default());
}

#[tokio::test]
async fn what_was_used_last_is_last() {
    let dir = tempfile::tempdir().unwrap();
    let hot = hot(dir.path());
    let mut ids = Vec::new();
    for key in ["snap-a", "snap-b", "snap-c"] {
        ids.push(put(&hot, key, key.as_bytes(), &[]).await);
        // Times of files go by the ticks of the kernel.
        std::thread::sleep(Duration::from_millis(20));
    }
    let order = || hot.usage().unwrap().entries.into_iter().map(|entry| entry.object).collect::<Vec<_>>();
    assert_eq!(order(), ids);
    drop(hot.get(&ids[0], None).await.unwrap());
    assert_eq!(order(), [ids[1].clone(), ids[2].clone(), ids[0].clone()]);
    std::thread::sleep(Duration::from_millis(20));
    drop(hot.local_file(&ids[1]));
    assert_eq!(order(), [ids[2].clone(), ids[0].clone(), ids[1].clone()]);
    assert_eq!(hot.hits(), 2);
}

#[tokio::test]
async fn leftovers_are_swept_and_other_names_are_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let hot = hot(dir.path());
    let kept = put(&hot, "snap-a", b"kept", &[("tidelock-name", "x")]).await;
    let path = |name: &str| dir.path().join("hot").join(name);
    std::fs::write(path("snap-b.side"), "label a b").unwrap();
    std::fs::write(path("other.side"), "").unwrap();
    std::fs::write(path(".tmp/left"), "left").unwrap();
    assert_eq!(hot.sweep().await.unwrap(), 3);
    assert_eq!(hot.stat(&kept).await.unwrap().labels.len(), 1);
    for name in ["../x", "snap-a.side", ".tmp", "SNAP", "a/b", "snap-a.pages.side", "a b"] {
        let id = ObjectId::new(name).unwrap();
        assert!(hot.local_file(&id).is_none(), "{name}");
        assert_eq!(*hot.get(&id, None).await.unwrap_err().kind(), ErrorKind::NotFound, "{name}");
        hot.delete(&id).await.unwrap();
    }
    assert_eq!(hot.list(None, 10).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_fails_each_operation() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hot"), "a file").unwrap();
    let hot = hot(dir.path());
    let error = hot.put(Upload::new(Arc::new(MemoryUpload::new("x", true)))).await.unwrap_err();
    assert_eq!((error.backend(), error.operation()), (Some("hot"), Some("store")));
    std::fs::remove_file(dir.path().join("hot")).unwrap();
    let upload = testing::MemoryUpload::new("x", true);
    hot.put(Upload::new(Arc::new(upload))).await.unwrap();
}
