//! A bad version is rolled back quickly; a good one is not, and neither is one that is not worse.

use tidelock::{Host, NoSecrets, SnapshotId};
use tidelock_tests::data::{assert_same, noise};

use crate::support::{component, config, host, read, round_trip, store, until, variant};

/// The size of objects that `flawed` cannot read.
const UNREADABLE: usize = 15;

async fn some(host: &Host, count: u64) -> Vec<(SnapshotId, Vec<u8>)> {
    let mut stored = Vec::new();
    for number in 0..count {
        let bytes = noise(UNREADABLE, number);
        stored.push((store(host, &bytes).await.unwrap().id, bytes));
    }
    stored
}

fn events(host: &Host) -> Vec<&'static str> {
    host.history("mine").unwrap().iter().map(|entry| entry.row.event.name()).collect()
}

#[tokio::test]
async fn a_version_that_fails_more_is_rolled_back_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let stored = some(&host, 12).await;
    let swapped = host.swap("mine", component("flawed")).await.unwrap();
    for (id, bytes) in &stored {
        assert_same(&read(&host, *id).await.expect("the one before reads it"), bytes, "on trial");
    }
    until("the rollback", || host.adapters()[0].adapter == "copying").await;
    let history = host.history("mine").unwrap();
    assert_eq!(events(&host), ["automatic-rollback", "swap", "configured"]);
    let row = &history[0].row;
    assert_eq!((row.by.as_str(), row.from.as_deref()), ("tidelock", Some(swapped.to.as_str())));
    assert!(row.why.as_deref().unwrap().contains(" of "), "it gives the figures: {row:?}");
    // It does not swing back: neither by itself nor by a rollback.
    let error = host.rollback("mine").await.expect_err("there is nothing else that was good");
    assert!(error.to_string().contains("no earlier generation"), "{error}");
    for (id, bytes) in &stored {
        assert_same(&read(&host, *id).await.unwrap(), bytes, "after the rollback");
    }
    assert_eq!(host.adapters()[0].generation, 3);
}

/// The rollback meets operations that fail on the bad version at that very moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_during_the_rollback_do_not_notice_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let stored = some(&host, 8).await;
    for _ in 0..10 {
        host.swap("mine", component("flawed")).await.unwrap();
        let reader = |(id, bytes): (SnapshotId, Vec<u8>)| {
            let host = host.clone();
            tokio::spawn(async move {
                while host.adapters()[0].adapter == "flawed" {
                    assert_same(&read(&host, id).await.expect("the one before reads it"), &bytes, "with the others");
                }
            })
        };
        let readers: Vec<_> = stored.iter().cloned().map(reader).collect();
        for reader in readers {
            reader.await.unwrap();
        }
    }
}

/// What the predecessor cannot do either says nothing about the new one: the callers see the failures, as before.
#[tokio::test]
async fn a_failure_of_both_rolls_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "flawed", "").await;
    let stored = some(&host, 12).await;
    host.swap("mine", variant("flawed", 1)).await.unwrap();
    for _ in 0..3 {
        for (id, _) in &stored {
            let error = read(&host, *id).await.expect_err("neither can read it");
            assert!(error.to_string().contains("told to be"), "{error}");
        }
    }
    round_trip(&host, &noise(5000, 1)).await;
    assert_eq!(events(&host), ["swap", "configured"]);
}

#[tokio::test]
async fn traps_count_even_where_nothing_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    for number in 0..20 {
        round_trip(&host, &noise(1000, number)).await;
    }
    host.swap("mine", component("flawed")).await.unwrap();
    for number in 0..6 {
        // `flawed` traps at 14 bytes. From a file, the one before takes them.
        store(&host, &noise(14, number)).await.expect("stored by the one before");
    }
    until("the rollback", || events(&host)[0] == "automatic-rollback").await;
}

/// Wrong bytes are found after the adapter has returned them, so there is no control.
#[tokio::test]
async fn wrong_bytes_count_once_for_each_object() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let stored = some(&host, 12).await;
    for (id, bytes) in stored.iter().cycle().take(60) {
        assert_same(&read(&host, *id).await.unwrap(), bytes, "before");
    }
    host.swap("mine", variant("copying", 1)).await.unwrap();
    for path in tidelock_tests::program::files(&dir.path().join("objects")) {
        if path.metadata().unwrap().len() == UNREADABLE as u64 {
            std::fs::write(path, [7; UNREADABLE]).unwrap();
        }
    }
    for _ in 0..20 {
        let error = read(&host, stored[0].0).await.expect_err("it is damaged");
        assert_eq!(*error.kind(), tidelock::ErrorKind::Corrupt, "{error:?}");
    }
    assert_eq!(events(&host), ["swap", "configured"], "one object says nothing about a version");
    for (id, _) in &stored {
        read(&host, *id).await.expect_err("all are damaged");
    }
    until("the rollback", || events(&host)[0] == "automatic-rollback").await;
}

#[tokio::test]
async fn without_a_trial_nothing_is_rolled_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "swap = { automatic_rollback = false }").await;
    let stored = some(&host, 8).await;
    host.swap("mine", component("flawed")).await.unwrap();
    for (id, _) in &stored {
        read(&host, *id).await.expect_err("nobody else reads it");
    }
    assert_eq!(events(&host), ["swap", "configured"]);
}

/// With a canary, a bad version never takes over, and the share of operations that it got does not fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_dies_saves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "swap = { canary = { share = 0.5, duration = \"10m\" } }";
    let host = Host::start(&config(dir.path(), "copying", lines), &NoSecrets).await.unwrap();
    let stored = some(&host, 20).await;
    let swapping = {
        let host = host.clone();
        tokio::spawn(async move { host.swap("mine", component("flawed")).await })
    };
    while !swapping.is_finished() {
        for (id, bytes) in &stored {
            assert_same(&read(&host, *id).await.unwrap(), bytes, "beside a canary");
        }
    }
    let error = swapping.await.unwrap().expect_err("it must not take over");
    assert_eq!(error.operation(), Some("canary"), "{error:?}");
    assert!(error.to_string().contains("fails more"), "{error}");
    assert_eq!(events(&host), ["refused", "configured"]);
    assert_eq!(host.adapters()[0].adapter, "copying");
    // The next one has no harder time for it.
    let mut good = Box::pin(host.swap("mine", component("hostile")));
    tokio::select! {
        done = &mut good => panic!("its canary takes ten minutes: {done:?}"),
        () = async { for (id, bytes) in &stored { assert_same(&read(&host, *id).await.unwrap(), bytes, "again") } } => {}
    }
}
