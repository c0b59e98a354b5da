//! Damage and outages of one copy while another is whole: no reader notices, whatever is wrong and wherever, and a store
//! counts no copy that is known to be bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelock::backend::testing::MemoryBackend;
use tidelock::backend::{Backend, Operation};
use tidelock::config::Config;
use tidelock::snapshot::SEGMENT;
use tidelock::types::{ArchiveState, PaymentDue};
use tidelock::{
    ByteRange, Error, ErrorKind, Host, HostOptions, NoSecrets, Result, SnapshotId, Source, StoreOptions, Stored,
};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::files;

/// A route of two backends in folders, `first` and `second`, and as many copies.
pub fn two(copies: usize, more: &str) -> String {
    let backend = |name| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    let route = format!("[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = {copies}\n");
    format!("data_dir = \"data\"\n{}{}{route}{more}", backend("first"), backend("second"))
}

/// A host with that route over two models.
async fn models(dir: &Path, copies: usize) -> (Host, [Arc<MemoryBackend>; 2]) {
    let memory = ["first", "second"].map(|name| Arc::new(MemoryBackend::new(name)));
    let named = |memory: &Arc<MemoryBackend>| (memory.name().to_owned(), memory.clone() as Arc<dyn Backend>);
    let options = HostOptions { backends: memory.iter().map(named).collect(), ..HostOptions::default() };
    let config = Config::parse(&two(copies, ""), dir).unwrap();
    (Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap(), memory)
}

pub async fn store_file(host: &Host, path: &Path, bytes: &[u8], options: StoreOptions) -> Result<Stored> {
    std::fs::write(path, bytes).unwrap();
    host.store(Source::open(path).await?, options).await
}

fn named(name: &str) -> StoreOptions {
    StoreOptions { name: Some(name.to_owned()), ..StoreOptions::default() }
}

/// What a backend can say that keeps it from serving, whatever is asked of another one.
fn refusals() -> Vec<ErrorKind> {
    vec![
        ErrorKind::Denied,
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
        ErrorKind::Conflict,
        ErrorKind::NotFound,
        ErrorKind::Corrupt,
        ErrorKind::Unavailable,
        ErrorKind::RateLimited(None),
        ErrorKind::InsufficientBalance(PaymentDue::default()),
        ErrorKind::Trapped,
        ErrorKind::Limit,
        ErrorKind::TimedOut,
        ErrorKind::Archived(ArchiveState::Archived),
        ErrorKind::Other,
    ]
}

#[tokio::test]
async fn a_store_goes_on_to_the_secondary_whatever_the_primary_says() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, _]) = models(dir.path(), 1).await;
    for (number, kind) in refusals().into_iter().enumerate() {
        first.fail_next(Operation::Put, kind.clone(), false);
        let bytes = noise(1000 + number, number as u64);
        let stored = store_file(&host, &dir.path().join("image"), &bytes, StoreOptions::default()).await;
        let stored = stored.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(stored.placements[0].backend, "second", "{kind:?}");
    }
}

#[tokio::test]
async fn a_read_goes_on_to_the_secondary_whatever_the_primary_says() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let bytes = noise(3 * SEGMENT + 7, 2);
    let stored = store_file(&host, &dir.path().join("image"), &bytes, StoreOptions::default()).await.unwrap();
    let range = ByteRange::of(SEGMENT as u64 - 9, 100);
    for kind in refusals() {
        // An earlier one may have left the primary to be tried last.
        for memory in [&first, &second] {
            memory.fail_next(Operation::Get, kind.clone(), false);
            memory.fail_next(Operation::Get, kind.clone(), false);
            let read = host.retrieve(stored.id, None).await.unwrap().body.collect(bytes.len()).await;
            assert_same(&read.unwrap_or_else(|error| panic!("{kind:?}: {error}")), &bytes, "whole");
            let part = host.retrieve(stored.id, Some(range)).await.unwrap().body.collect(100).await;
            assert_same(&part.unwrap(), &bytes[SEGMENT - 9..SEGMENT + 91], "a part");
            memory.forgive();
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_moves_no_name_and_says_what_it_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let image = dir.path().join("image");
    let old = store_file(&host, &image, &noise(5000, 1), named("web")).await.unwrap();
    second.fail_next(Operation::Put, ErrorKind::Unavailable, false);
    let bytes = noise(6000, 2);
    let error = store_file(&host, &image, &bytes, named("web")).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Unavailable, Some("second")));
    let left = error.left().expect("it says what is left").clone();
    assert!(error.message().contains(&left.snapshot.to_string()), "{error}");
    assert!(error.message().contains("kept on `first`, without a name"), "{error}");
    assert_eq!(left.placements.iter().map(|(backend, _)| backend.as_str()).collect::<Vec<_>>(), ["first"]);
    // The name is where it was; the rest is a snapshot without one, and it is whole.
    assert_eq!(host.find("web").await.unwrap(), old.id);
    assert_eq!(host.stat(left.snapshot).await.unwrap().name, None);
    let read = host.retrieve(left.snapshot, None).await.unwrap().body.collect(bytes.len()).await.unwrap();
    assert_same(&read, &bytes, "what is kept");
    // The second time only what is missing is sent, and the name goes with it.
    let objects = first.objects();
    let done = store_file(&host, &image, &bytes, named("web")).await.unwrap();
    assert_eq!((done.id, done.placements.len(), done.stored_bytes), (left.snapshot, 2, bytes.len() as u64));
    assert_eq!((host.find("web").await.unwrap(), first.objects()), (done.id, objects));
}

#[tokio::test]
async fn an_image_that_changes_between_its_copies_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let image = dir.path().join("image");
    std::fs::write(&image, noise(3 * SEGMENT, 1)).unwrap();
    let source = Source::open(&image).await.unwrap();
    let path = image.clone();
    first.after_next_put(move || {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 5).unwrap();
    });
    let error = host.store(source, named("web")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(host.list(None, 10).await.unwrap().snapshots, []);
    assert_eq!((first.objects(), second.objects()), (Vec::new(), Vec::new()), "what was made is removed");
}
