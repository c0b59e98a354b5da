//! Changes that the disk does not give back as they were written.

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::connector::change::tests::{SIZE, file, host, images};
use crate::connector::labels::is_identity_name;
use crate::connector::payload::PackFile;
use crate::snapshot::Identifier;
use crate::snapshot::pages::Image as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_disk_gives_back_otherwise_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = images();
    let (host, memory, base) = host(dir.path(), &old).await;
    let options = StoreOptions::default();
    let pack = host.change_of(base, None, &file(&new), None, &options).await.unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(pack.file.size()).unwrap()];
    pack.file.image().unwrap().read_at(&mut bytes, 0).unwrap();
    let mut written = Identifier::new();
    written.update(&bytes);
    let written = written.finish().id();
    bytes[1_000_000] ^= 1;
    let mut on_disk = tempfile::tempfile().unwrap();
    on_disk.write_all(&bytes).unwrap();
    let damaged = PackFile {
        file: FileSource::own(on_disk, "the pack", Some(written)).unwrap(),
        identity: pack.identity.clone(),
        pack: pack.pack.clone(),
        changed: None,
    };
    let damaged = Arc::new(damaged);
    let change = Change { base: Some(base), pack: Some(&damaged), ..Change::default() };
    let (stored, as_pack) = host.store_change(file(&new), change, &options).await.unwrap();
    assert!(!as_pack, "it was sent as it is on disk");
    let read = host.retrieve(stored.id, None).await.unwrap().body.collect(SIZE).await.unwrap();
    assert!(read == new, "other bytes");
    // What came of the first attempt is gone.
    let objects = memory.objects().into_iter().filter(|name| !is_identity_name(name)).count();
    assert_eq!(objects, 2);
    assert!(memory.objects().iter().any(|name| memory.bytes(name).is_some_and(|bytes| bytes.len() == SIZE)));

    // The same as it was written.
    let change = Change { base: Some(base), pack: Some(&pack), ..Change::default() };
    let (_, as_pack) = host.store_change(file(&new), change, &options).await.unwrap();
    assert!(as_pack);
}
