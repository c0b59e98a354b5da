//! The adapter steers, the host hauls: stored and retrieved bytes do not pass through guest memory.

use tidelock::Host;
use tidelock::config::Config;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::server;

use crate::support::{Keys, host, read, round_trip, store};

const SIZE: usize = 64 * MIB;

#[tokio::test]
async fn no_byte_of_an_object_crosses_the_memory_of_fs() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "").await;
    let bytes = noise(SIZE, 1);
    let stored = round_trip(&host, &bytes).await;
    let range = host.retrieve(stored.id, Some("5000..40000000".parse().unwrap())).await.unwrap();
    assert_same(&range.body.collect(SIZE).await.unwrap(), &bytes[5000..40_000_000], "a range");
    assert_eq!(host.bytes_through_guests(), 0);
}

#[tokio::test]
async fn an_update_carries_its_side_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "").await;
    let base = store(&host, &noise(SIZE / 2, 1)).await.unwrap();
    let file = dir.path().join("new");
    std::fs::write(&file, noise(SIZE / 2, 2)).unwrap();
    let source = tidelock::Source::open(&file).await.unwrap();
    let new = host.update(base.id, source, Default::default()).await.unwrap();
    assert_eq!(new.base, Some(base.id));
    assert_same(&read(&host, new.id).await.unwrap(), &noise(SIZE / 2, 2), "the new version");
    let carried = host.bytes_through_guests();
    assert!((1..4096).contains(&carried), "{carried} bytes for a side file");
}

#[tokio::test]
async fn no_byte_of_an_object_crosses_the_memory_of_s3() {
    let server = tokio::task::spawn_blocking(server::shared).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config::parse(&server::config(server, "splice"), dir.path()).unwrap();
    let keys = Keys(server.access_key.clone(), server.secret_key.clone());
    let host = Host::start(&config, &keys).await.unwrap();
    round_trip(&host, &noise(SIZE, 1)).await;
    assert_eq!(host.bytes_through_guests(), 0);
}

/// The control: a counter that stays at 0 here would count nothing above.
#[tokio::test]
async fn an_adapter_that_copies_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = noise(SIZE, 1);
    let stored = store(&host, &bytes).await.unwrap();
    let written = host.bytes_through_guests();
    assert!(written >= 2 * SIZE as u64, "{written}: in and out of the guest");
    assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "through the guest's memory");
    let read = host.bytes_through_guests() - written;
    assert!(read >= 2 * SIZE as u64, "{read}: in and out of the guest");
}
