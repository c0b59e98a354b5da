//! Adapters that misbehave: the host names the failure, and the next operation is unaffected.

use std::path::Path;
use std::time::Duration;

use tidelock::{Error, ErrorKind, Host};
use tidelock_tests::data::{MIB, noise};
use tokio::time::timeout;

use crate::support::{host, objects, round_trip, store};

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size at which the guest misbehaves.
const CUE: usize = 13;

async fn hostile(dir: &Path, behaviour: &str, limits: &str) -> Host {
    host(dir, "hostile", &format!("settings = {{ behaviour = \"{behaviour}\" }}\nlimits = {{ {limits} }}")).await
}

/// What the host says of a guest that misbehaves, having made sure that it does so again and that all else is well. With
/// room for one operation at a time, a place that was lost would be missed.
async fn named(behaviour: &str, limits: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let host = hostile(dir.path(), behaviour, &format!("in_flight = 1, {limits}")).await;
    let good = round_trip(&host, &noise(MIB, 1)).await;
    let mut errors = Vec::new();
    for turn in 0..3 {
        let stored = timeout(PATIENCE, store(&host, &noise(CUE, turn))).await.expect("it hangs");
        errors.push(stored.err().unwrap_or_else(|| panic!("{behaviour} was taken for a success")));
        let next = timeout(PATIENCE, round_trip(&host, &noise(MIB, 100 + turn))).await;
        next.expect("the operation after it hangs");
    }
    // Nothing is recorded that is not there.
    let known = host.list(None, 100).await.unwrap().snapshots;
    assert_eq!(known.len(), 4);
    assert!(known.iter().any(|snapshot| snapshot.id == good.id));
    let found = host.verify(None, true, None).await.unwrap();
    assert!(found.bad.is_empty() && found.checked == 4, "{found:?}");
    assert!(objects(dir.path()) >= 4);
    let error = errors.remove(0);
    assert_eq!(error.backend(), Some("mine"), "{error:?}");
    error
}

#[tokio::test]
async fn a_trap() {
    let error = named("trap", "deadline = \"30s\"").await;
    assert_eq!(*error.kind(), ErrorKind::Trapped, "{error:?}");
    assert!(error.to_string().contains("unreachable"), "{error}");
}

#[tokio::test]
async fn an_endless_loop() {
    let error = named("spin", "cpu = \"500ms\"").await;
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(error.to_string().contains("limit: cpu 500ms"), "{error}");
}

/// Without a limit of processor time, the deadline ends it; the guest holds no thread until then.
#[tokio::test]
async fn an_endless_loop_against_the_deadline() {
    let error = named("spin", "cpu = \"10m\", deadline = \"2s\"").await;
    assert!(matches!(error.kind(), ErrorKind::Limit | ErrorKind::TimedOut), "{error:?}");
    assert!(error.to_string().contains("deadline 2s"), "{error}");
}

#[tokio::test]
async fn an_endless_wait() {
    let error = named("wait", "idle = \"500ms\"").await;
    assert!(matches!(error.kind(), ErrorKind::Limit | ErrorKind::TimedOut | ErrorKind::Trapped), "{error:?}");
}

#[tokio::test]
async fn a_hoard_of_memory() {
    let error = named("hoard", "memory = \"8 MiB\"").await;
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(error.to_string().contains("limit: memory 8 MiB"), "{error}");
}

#[tokio::test]
async fn a_receipt_for_bytes_that_were_not_read() {
    let error = named("lie", "deadline = \"30s\"").await;
    assert!(!matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{error:?}");
}

#[tokio::test]
async fn a_receipt_for_another_number_of_bytes() {
    let error = named("miscount", "deadline = \"30s\"").await;
    assert!(error.to_string().contains("12"), "it names the numbers: {error}");
}

/// While one guest spins on one thread, others are served: by the same host, on a runtime with one thread.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_spins_does_not_keep_others_from_being_served() {
    let dir = tempfile::tempdir().unwrap();
    let host = hostile(dir.path(), "spin", "cpu = \"5m\", deadline = \"5m\"").await;
    let spinning = {
        let host = host.clone();
        tokio::spawn(async move { store(&host, &noise(CUE, 1)).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let served = timeout(PATIENCE, round_trip(&host, &noise(MIB, 2))).await;
    served.expect("it waits for the guest that spins");
    assert!(!spinning.is_finished(), "it was to spin all the time");
    spinning.abort();
    let ended = timeout(PATIENCE, spinning).await.expect("it cannot be given up");
    assert!(ended.is_err_and(|error| error.is_cancelled()));
}
