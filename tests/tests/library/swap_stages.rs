//! The stages of a swap, and operations during it.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::join_all;
use tidelock::runtime::{Stage, SwapOptions};
use tidelock::{ErrorKind, Host, NoSecrets, Source, StoreOptions, config::Config};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::guest;

use crate::support::{component, host, read, round_trip, store, until, variant};

fn state(host: &Host) -> (String, u64) {
    let adapters = host.adapters();
    (adapters[0].adapter.clone(), adapters[0].generation)
}

#[tokio::test]
async fn every_stage_is_reported_and_timed() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "swap = { canary = { share = 0.5, duration = \"10ms\" } }").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = told.clone();
    let options = SwapOptions {
        by: "a test".into(),
        why: Some("to see".into()),
        on_stage: Some(Arc::new(move |stage| hear.lock().unwrap().push(stage))),
    };
    let report = host.swap_with("mine", component("hostile"), options).await.unwrap();
    assert_eq!(report.stages.iter().map(|time| time.stage).collect::<Vec<_>>(), Stage::ALL);
    assert_eq!(*told.lock().unwrap(), Stage::ALL);
    assert_eq!((report.draining, report.preempted), (0, 0));
    let row = &host.history("mine").unwrap()[0].row;
    assert_eq!((row.by.as_str(), row.why.as_deref()), ("a test", Some("to see")));
    assert_eq!((row.digest.as_str(), row.from.as_deref()), (report.to.as_str(), Some(report.from.as_str())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_of_one_backend_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    // `join_all` asks for them in this order.
    let reports = join_all((0..8).map(|number| host.swap("mine", variant("copying", number)))).await;
    let generations: Vec<u64> = reports.iter().map(|report| report.as_ref().unwrap().generation).collect();
    assert_eq!(generations, (2..10).collect::<Vec<u64>>());
    let reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
    assert!(reports.windows(2).all(|pair| pair[0].to == pair[1].from), "one after the other");
    assert_eq!(host.adapters()[0].digest, reports[7].to);
}

#[tokio::test]
async fn swaps_of_two_backends_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = guest("copying");
    let backend = |name: &str, rest: &str| {
        format!(
            "[backends.{name}]\nadapter = {adapter:?}\ngrants.directory.objects = {{ path = \"{name}\" }}\n{rest}\n"
        )
    };
    let slow = backend("slow", "swap = { canary = { share = 1, duration = \"10m\" } }");
    let text = format!("{slow}{}[routes.default]\nbackends = [\"slow\", \"quick\"]\n", backend("quick", ""));
    let host = Host::start(&Config::parse(&text, dir.path()).unwrap(), &NoSecrets).await.unwrap();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let on_stage = Arc::new(move |stage| {
        let _ = begun.send(stage);
    });
    let options = SwapOptions { on_stage: Some(on_stage), ..SwapOptions::default() };
    let mut slow = Box::pin(host.swap_with("slow", component("hostile"), options));
    let in_canary = async {
        while let Some(stage) = begins.recv().await {
            if stage == Stage::Canary {
                return;
            }
        }
    };
    tokio::select! {
        done = &mut slow => panic!("its canary takes ten minutes: {done:?}"),
        () = in_canary => {}
    }
    host.swap("quick", component("hostile")).await.unwrap();
    // Given up, it leaves no trace.
    drop(slow);
    let adapters: Vec<_> = host.adapters().into_iter().map(|it| (it.backend, it.adapter)).collect();
    assert_eq!(adapters, [("quick".into(), "hostile".into()), ("slow".into(), "copying".into())]);
    assert_eq!(host.history("slow").unwrap().len(), 1);
}

/// `copying` carries the bytes through the guest, so that preemption takes them away.
#[tokio::test]
async fn a_body_that_is_cut_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "swap = { drain = \"50ms\" }").await;
    let bytes = noise(32 * MIB + 77, 1);
    let stored = store(&host, &bytes).await.unwrap();
    let range = tidelock::ByteRange { start: 5 << 20, end: Some((32 << 20) + 5) };
    let mut whole = host.retrieve(stored.id, None).await.unwrap().body;
    let mut part = host.retrieve(stored.id, Some(range)).await.unwrap().body;
    let mut found = whole.next().await.unwrap().unwrap().to_vec();
    let mut found_part = part.next().await.unwrap().unwrap().to_vec();
    let report = host.swap("mine", component("hostile")).await.unwrap();
    assert_eq!((report.preempted, report.draining), (2, 0), "both were taken away: {report:?}");
    for (body, found) in [(&mut whole, &mut found), (&mut part, &mut found_part)] {
        while let Some(chunk) = body.next().await {
            found.extend_from_slice(&chunk.unwrap());
        }
    }
    assert_same(&found, &bytes, "preempted in the middle");
    assert_same(&found_part, &bytes[5 << 20..(32 << 20) + 5], "a part, preempted in the middle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_cut_is_done_again_if_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "flawed", "swap = { drain = \"50ms\" }").await;
    let endless = noise(13, 1);
    let (again, bytes) = (host.clone(), endless.clone());
    let from_file = tokio::spawn(async move { store(&again, &bytes).await });
    // Its bytes cannot be had twice.
    let (stuck, pipe) = (host.clone(), tokio::io::duplex(64));
    let (mut writer, reader) = pipe;
    let from_stream = tokio::spawn(async move {
        let source = Source::Stream(tidelock::snapshot::StreamSource::new(reader, "a pipe".to_owned()));
        stuck.store(source, StoreOptions::default()).await
    });
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"the beginning").await.unwrap();
    let under_way = dir.path().join("data");
    until("both stores", || intents(&under_way) == 2).await;
    let report = host.swap("mine", component("copying")).await.unwrap();
    assert_eq!(report.preempted, 2, "{report:?}");
    let stored = from_file.await.unwrap().expect("it is done again on the new one");
    assert_same(&read(&host, stored.id).await.unwrap(), &endless, "stored at the second attempt");
    let error = from_stream.await.unwrap().expect_err("its bytes are gone");
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("the adapter was replaced") && error.advice().is_some(), "{error:?}");
    round_trip(&host, &noise(5000, 2)).await;
}

/// Stores under way, as another reader of the catalogue sees them.
fn intents(data_dir: &std::path::Path) -> u64 {
    let db = rusqlite::Connection::open(data_dir.join("catalogue.sqlite")).unwrap();
    db.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

#[tokio::test]
async fn a_swap_does_not_wait_for_a_reader_that_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = noise(32 * MIB, 1);
    let stored = store(&host, &bytes).await.unwrap();
    let mut body = host.retrieve(stored.id, None).await.unwrap().body;
    let first = body.next().await.unwrap().unwrap();
    let report = host.swap("mine", component("hostile")).await.unwrap();
    assert_eq!((report.draining, report.preempted), (1, 0), "{report:?}");
    assert!(report.stages.iter().all(|time| time.stage < Stage::Drain));
    assert_eq!(host.history("mine").unwrap()[1].state, "draining");
    let mut found = first.to_vec();
    while let Some(chunk) = body.next().await {
        found.extend_from_slice(&chunk.unwrap());
    }
    assert_same(&found, &bytes, "on the old one to its end");
    until("the end of the old one", || host.history("mine").unwrap()[1].state == "kept").await;
    assert_eq!(state(&host), ("hostile".to_owned(), 2));
}
