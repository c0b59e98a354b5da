//! Transfers that are slow for a reason that is not the adapter's: a reader that pauses, a source that trickles. They
//! take longer than `idle` and `deadline` of their backend, and end whole.

use std::time::Duration;

use futures::StreamExt as _;
use tidelock::snapshot::StreamSource;
use tidelock::{Host, SnapshotId, Source, StoreOptions};
use tidelock_tests::data::{MIB, assert_same, noise};
use tokio::io::AsyncWriteExt as _;

use crate::support::{host, read, store};

/// Far below what the transfers take.
const LIMITS: &str = "limits = { idle = '500ms', deadline = '1s' }";

const SIZE: usize = 24 * MIB;

/// Reads a snapshot with a pause of two seconds after the first bytes and another before the last.
async fn read_with_pauses(host: &Host, id: SnapshotId) -> Vec<u8> {
    let mut body = host.retrieve(id, None).await.unwrap().body;
    let mut all = Vec::new();
    let (mut first, mut last) = (true, true);
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk.unwrap_or_else(|error| panic!("after {} bytes: {error}", all.len())));
        if std::mem::take(&mut first) || (all.len() > SIZE - 4 * MIB && std::mem::take(&mut last)) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    all
}

/// The bytes go past the guest, which has ended.
#[tokio::test]
async fn a_reader_that_pauses_gets_all_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (host, bytes) = (host(dir.path(), "fs", LIMITS).await, noise(SIZE, 1));
    let stored = store(&host, &bytes).await.unwrap();
    assert_same(&read_with_pauses(&host, stored.id).await, &bytes, "with pauses");
}

/// The guest carries every byte, and waits with the reader.
#[tokio::test]
async fn a_reader_that_pauses_gets_all_bytes_of_a_guest_that_carries_them() {
    let dir = tempfile::tempdir().unwrap();
    let (host, bytes) = (host(dir.path(), "copying", LIMITS).await, noise(SIZE, 2));
    let stored = store(&host, &bytes).await.unwrap();
    assert_same(&read_with_pauses(&host, stored.id).await, &bytes, "with pauses");
}

#[tokio::test]
async fn a_source_that_pauses_is_stored_whole() {
    for adapter in ["fs", "copying"] {
        let dir = tempfile::tempdir().unwrap();
        let (host, bytes) = (host(dir.path(), adapter, LIMITS).await, noise(SIZE, 3));
        let (mut give, take) = tokio::io::duplex(MIB);
        let given = bytes.clone();
        let giving = tokio::spawn(async move {
            let (first, last) = given.split_at(SIZE - MIB);
            give.write_all(first).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            give.write_all(last).await.unwrap();
        });
        let source = Source::Stream(StreamSource::new(take, "a pipe").of_size(SIZE as u64));
        let stored = host.store(source, StoreOptions::default()).await.unwrap();
        giving.await.unwrap();
        assert_same(&read(&host, stored.id).await.unwrap(), &bytes, adapter);
    }
}
