//! Hosts as values: several in a process, concurrent operations, bodies that are not read to the end.

use std::time::Duration;

use futures::StreamExt;
use tidelock::{ErrorKind, Host, NoSecrets, Source, StoreOptions};
use tidelock_tests::data::{MIB, assert_same, noise};
use tokio::time::timeout;

use crate::support::{config, host, objects, read, round_trip, store};

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn hosts_in_one_process_are_independent() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (first, second) = (host(dirs[0].path(), "fs", "").await, host(dirs[1].path(), "copying", "").await);
    let bytes = noise(MIB, 1);
    let stored = round_trip(&first, &bytes).await;
    assert_eq!(*second.stat(stored.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(round_trip(&second, &bytes).await.id, stored.id, "identity is of the bytes, not of the host");
    assert_eq!(first.bytes_through_guests(), 0);
    assert!(second.bytes_through_guests() > 0);
    drop(second);
    assert_same(&read(&first, stored.id).await.unwrap(), &bytes, "after another host ended");
}

#[tokio::test]
async fn hosts_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (host(dir.path(), "fs", "").await, host(dir.path(), "fs", "").await);
    let stored = store(&first, &noise(MIB, 1)).await.unwrap();
    assert_same(&read(&second, stored.id).await.unwrap(), &noise(MIB, 1), "stored by another host");
    let collected = first.gc(Duration::ZERO).await.unwrap();
    assert_eq!((collected.leftovers, collected.objects), (0, 0));
}

#[tokio::test]
async fn many_operations_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "limits = { in_flight = 4 }").await;
    let one = |n: u64| {
        let host = host.clone();
        async move {
            let bytes = noise(100_000 + n as usize, n);
            let stored = store(&host, &bytes).await.unwrap();
            assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "beside others");
        }
    };
    let all = futures::stream::iter((0..60).map(one)).buffer_unordered(20).collect::<Vec<()>>();
    timeout(PATIENCE, all).await.expect("it hangs");
    assert_eq!(objects(dir.path()), 60);
}

#[test]
fn a_runtime_of_one_thread_is_enough() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), "fs", "").await;
        timeout(PATIENCE, round_trip(&host, &noise(5 * MIB, 1))).await.expect("it hangs");
    });
}

#[tokio::test]
async fn a_body_that_is_dropped_half_way_frees_its_place() {
    for adapter in ["fs", "copying"] {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), adapter, "limits = { in_flight = 1 }").await;
        let bytes = noise(32 * MIB, 1);
        let stored = store(&host, &bytes).await.unwrap();
        for _ in 0..3 {
            let mut body = host.retrieve(stored.id, None).await.unwrap().body;
            let first = body.next().await.unwrap().unwrap();
            assert_same(&first, &bytes[..first.len()], "the beginning");
            drop(body);
        }
        // With one place, an operation that had kept its own would make this wait for ever.
        let again = timeout(PATIENCE, read(&host, stored.id)).await;
        assert_same(&again.expect("the place was not freed").unwrap(), &bytes, adapter);
        let again = timeout(PATIENCE, store(&host, &noise(5000, 2))).await;
        again.expect("the place was not freed").unwrap();
    }
}

#[tokio::test]
async fn a_further_operation_waits_for_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "limits = { in_flight = 2 }").await;
    let stored = store(&host, &noise(32 * MIB, 1)).await.unwrap();
    // Two readers that read no further hold both places.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut body = host.retrieve(stored.id, None).await.unwrap().body;
        body.next().await.unwrap().unwrap();
        held.push(body);
    }
    let mut third = Box::pin(round_trip(&host, b"patient"));
    tokio::select! {
        _ = &mut third => panic!("there was no place for it"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    held.pop();
    timeout(PATIENCE, third).await.expect("the place was not handed on");
}

#[tokio::test]
async fn a_store_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "limits = { in_flight = 1 }").await;
    let stuck = || {
        let (writer, reader) = tokio::io::duplex(MIB);
        (writer, Source::Stream(tidelock::snapshot::StreamSource::new(reader, "a pipe".to_owned())))
    };
    for _ in 0..3 {
        let (mut writer, source) = stuck();
        let storing = host.store(source, StoreOptions::default());
        let feeding = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, &noise(8 * MIB, 3)).await.unwrap();
        };
        tokio::select! {
            _ = storing => panic!("it cannot be over: its source is open"),
            () = feeding => {}
        }
    }
    assert_eq!(objects(dir.path()), 0);
    assert!(host.list(None, 10).await.unwrap().snapshots.is_empty());
    timeout(PATIENCE, round_trip(&host, &noise(5 * MIB, 4))).await.expect("the place was not freed");
}

/// A source that breaks off is not a shorter image.
#[tokio::test]
async fn a_source_that_fails_half_way_is_no_snapshot() {
    struct Breaks(u64);
    impl tokio::io::AsyncRead for Breaks {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 > 5 << 20 {
                return std::task::Poll::Ready(Err(std::io::Error::other("the cable was pulled")));
            }
            let count = buffer.remaining().min(4096);
            buffer.put_slice(&vec![7; count]);
            self.0 += count as u64;
            std::task::Poll::Ready(Ok(()))
        }
    }
    for adapter in ["fs", "copying"] {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), adapter, "").await;
        let source = Source::Stream(tidelock::snapshot::StreamSource::new(Breaks(0), "a pipe".to_owned()));
        let stored = timeout(PATIENCE, host.store(source, StoreOptions::default())).await.expect("it hangs");
        let error = stored.unwrap_err();
        assert!(format!("{error:?}").contains("cable"), "{error:?}");
        assert_eq!(objects(dir.path()), 0, "{adapter}");
        assert!(host.list(None, 10).await.unwrap().snapshots.is_empty());
        timeout(PATIENCE, round_trip(&host, &noise(MIB, 4))).await.expect("it hangs");
    }
}

#[tokio::test]
async fn a_configuration_that_refers_to_secrets_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let bucket =
        "grants.bucket.objects = { bucket = \"vm-images\", region = \"us-east-1\", credentials = { env = \"X\" } }";
    let config = config(dir.path(), "fs", bucket);
    let error = Host::start(&config, &NoSecrets).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.advice().is_some());
}
