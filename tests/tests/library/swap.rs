//! Replacing adapters while they are in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tidelock::{ErrorKind, Host};
use tidelock_tests::data::{MIB, assert_same, noise};

use crate::support::{component, host, read, round_trip, store};

/// So that objects of `fs` and of the test's adapters have the same names.
const FLAT: &str = "settings = { layout = \"flat\" }";

fn serving(host: &Host) -> (String, u64) {
    let adapters = host.adapters();
    (adapters[0].adapter.clone(), adapters[0].generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_while_adapters_change() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "hostile", "").await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..4_u64)
        .map(|worker| {
            let (host, stop, done) = (host.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let bytes = noise(300_000 + round as usize, worker * 1_000_000 + round);
                    let stored = store(&host, &bytes).await.unwrap_or_else(|error| panic!("store: {error:?}"));
                    let found = read(&host, stored.id).await.unwrap_or_else(|error| panic!("retrieve: {error:?}"));
                    assert_same(&found, &bytes, "across a swap");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let components = [component("copying"), component("hostile")];
    let mut generation = serving(&host).1;
    for turn in 0..12 {
        // Operations of every generation: a swap that meets none would show nothing.
        let before = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < before + 4 && !workers.iter().any(|worker| worker.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let report = host.swap("mine", components[turn % 2].clone()).await.unwrap();
        assert_eq!(report.generation, generation + 1);
        generation = report.generation;
        assert_eq!(host.adapters()[0].digest, report.to);
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no operation fails");
    }
    assert!(done.load(Ordering::Relaxed) >= 12 * 4);
}

/// A body that began on the old generation comes to its end on it.
#[tokio::test]
async fn an_operation_in_progress_ends_on_the_old_generation() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = noise(32 * MIB, 1);
    let stored = store(&host, &bytes).await.unwrap();
    let mut body = host.retrieve(stored.id, None).await.unwrap().body;
    let mut found = body.next().await.unwrap().unwrap().to_vec();
    for name in ["hostile", "copying", "hostile", "copying", "hostile", "copying", "hostile"] {
        host.swap("mine", component(name)).await.unwrap();
    }
    while let Some(chunk) = body.next().await {
        found.extend_from_slice(&chunk.unwrap());
    }
    assert_same(&found, &bytes, "a body over seven swaps");
    assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "on the new one");
}

#[tokio::test]
async fn a_failed_swap_keeps_the_old_generation_and_reports_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", FLAT).await;
    let stored = round_trip(&host, &noise(MIB, 1)).await;
    let (name, generation) = serving(&host);
    let fs = component("fs");
    let unfit = [
        ("noise", noise(10_000, 1), "component"),
        ("nothing", Vec::new(), "component"),
        ("half of one", fs[..fs.len() / 2].to_vec(), ""),
        ("a core module", wat::parse_str("(module)").unwrap(), "core WebAssembly module"),
        ("no adapter", wat::parse_str("(component)").unwrap(), "tidelock:storage/adapter"),
        // It needs a bucket, and this backend grants none.
        ("not granted", component("s3"), "bucket"),
        // It does not know the setting `layout`.
        ("another's settings", component("copying"), "layout"),
    ];
    for (what, component, says) in unfit {
        let error = host.swap("mine", component).await.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(error.to_string().contains(says) && error.to_string().contains("mine"), "{what}: {error}");
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied), "{what}: {error:?}");
        assert_eq!(serving(&host), (name.clone(), generation), "{what}");
        assert_same(&read(&host, stored.id).await.unwrap(), &noise(MIB, 1), what);
    }
    let history = host.history("mine").unwrap();
    assert_eq!(history.len(), 1 + 7, "{history:#?}");
    let stages: Vec<_> = history[..7].iter().rev().map(|entry| entry.row.stage.unwrap().name()).collect();
    assert_eq!(stages, ["compile", "compile", "compile", "compile", "check", "check", "check"]);
    assert!(history[..7].iter().all(|entry| entry.state == "refused" && entry.row.why.is_some()));
    assert_eq!(*host.swap("none", fs).await.unwrap_err().kind(), ErrorKind::NotFound);
    round_trip(&host, &noise(MIB, 2)).await;
}

#[tokio::test]
async fn an_adapter_that_is_not_ready_does_not_take_over() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "hostile", "settings = { behaviour = \"unready\" }").await;
    let error = host.swap("mine", component("hostile")).await.expect_err("its probe fails");
    assert!(error.to_string().contains("told not to be ready"), "{error}");
    assert_eq!(error.operation(), Some("probe"), "{error}");
    assert_eq!(serving(&host), ("hostile".to_owned(), 1));
    round_trip(&host, &noise(5000, 1)).await;
}

#[tokio::test]
async fn one_step_back() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "hostile", "").await;
    let error = host.rollback("mine").await.expect_err("there is nothing to go back to");
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    let report = host.swap("mine", component("copying")).await.unwrap();
    assert_eq!(serving(&host).0, "copying");
    let stored = round_trip(&host, &noise(5000, 1)).await;
    let back = host.rollback("mine").await.unwrap();
    assert_eq!((&back.from, &back.to), (&report.to, &report.from));
    assert_eq!(serving(&host), ("hostile".to_owned(), 3));
    assert_same(&read(&host, stored.id).await.unwrap(), &noise(5000, 1), "stored by the one that left");
    let history = host.history("mine").unwrap();
    let events: Vec<_> = history.iter().map(|entry| (entry.row.event.name(), entry.state)).collect();
    assert_eq!(events, [("rollback", "serving"), ("swap", "kept"), ("configured", "past")]);
}
