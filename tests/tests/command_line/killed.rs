//! The program killed in the middle of a store: nothing half-visible, a clean next start, nothing left for ever.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, files, until};
use tidelock_tests::server;

/// Begins a store, gives it half of the bytes and kills it.
fn kill_half_way(home: &Home, bytes: &[u8]) {
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&bytes[..bytes.len() / 2]).unwrap();
    assert!(store.runs(), "it waits for the rest");
    store.kill();
}

#[track_caller]
fn nothing_is_listed(home: &Home) {
    let listed = home.json(&["ls"]).to_string();
    assert!(!listed.contains("tl1"), "{listed}");
}

#[test]
fn a_store_that_is_killed_leaves_nothing_visible_on_fs() {
    let home = Home::new();
    let bytes = noise(32 * MIB, 1);
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&bytes[..16 * MIB]).unwrap();
    // So that the collection has something to do: the test would show nothing otherwise.
    until("bytes in a temporary file", || {
        home.leftovers().iter().any(|f| f.metadata().is_ok_and(|m| m.len() >= MIB as u64))
    });
    store.kill();
    assert!(home.objects().is_empty(), "{:?}", home.objects());
    assert!(!home.leftovers().is_empty());

    nothing_is_listed(&home);
    home.json(&["verify", "--deep"]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the next start");
    assert_eq!(home.objects().len(), 1);
}

#[test]
fn a_store_that_goes_on_is_not_collected() {
    let home = Home::new();
    let bytes = noise(8 * MIB, 1);
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&bytes[..4 * MIB]).unwrap();
    until("a temporary file", || !home.leftovers().is_empty());
    home.json(&["gc", "--older-than", "1ms"]);
    home.json(&["ls"]);
    store.feed(&bytes[4 * MIB..]).unwrap();
    let id = String::from_utf8(store.finish().success(&["store", "-"]).stdout).unwrap();
    assert_same(&home.bytes(&["retrieve", id.trim()]), &bytes, "beside a collection");
}

/// A process that stood still until its lease had expired, and others had cleared away behind its back, does no harm when it
/// wakes up: its store fails, and leaves nothing.
#[test]
fn a_store_that_was_stopped_for_too_long_is_refused() {
    let home = Home::new();
    let bytes = noise(8 * MIB, 6);
    let kept = home.line_with(&["store", "-"], &noise(5000, 3));
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&bytes[..4 * MIB]).unwrap();
    until("a temporary file", || !home.leftovers().is_empty());
    let pid = Pid::from_raw(store.pid() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();

    let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    let intents = || catalogue.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, u64>(0)).unwrap();
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(intents(), 1, "its lease has not expired, and its lock file is locked");
    // More than a minute passes.
    assert_eq!(catalogue.execute("UPDATE owners SET expires = 1", []).unwrap(), 1);
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(intents(), 1, "its object may come yet, as long as it can wake");
    assert_eq!(catalogue.query_row("SELECT count(*) FROM owners", [], |row| row.get::<_, u64>(0)).unwrap(), 0);

    kill_process(pid, Signal::CONT).unwrap();
    store.feed(&bytes[4 * MIB..]).unwrap();
    let said = store.finish().refused(1, &["store", "-"]);
    assert!(said.contains("was ended") && said.contains("store the image again"), "{said}");
    assert_eq!(home.objects().len(), 1, "{:?}", home.objects());
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 1);
    home.json(&["verify", "--deep"]);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "stored again");
    assert_same(&home.bytes(&["retrieve", &kept]), &noise(5000, 3), "what was there before");
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!((intents(), home.objects().len()), (0, 2), "nothing of it is left, and nothing else is gone");
}

/// A clock that jumped, a machine that slept: the lease has expired and its owner has only to renew it.
#[test]
fn a_store_whose_lease_expired_while_it_lives_is_recorded() {
    let home = Home::new();
    let bytes = noise(8 * MIB, 7);
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&bytes[..4 * MIB]).unwrap();
    until("a temporary file", || !home.leftovers().is_empty());
    let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    assert_eq!(catalogue.execute("UPDATE owners SET expires = 1", []).unwrap(), 1);
    home.json(&["gc", "--older-than", "1h"]);
    store.feed(&bytes[4 * MIB..]).unwrap();
    let stored = store.finish().success(&["store", "-"]);
    let id = String::from_utf8(stored.stdout).unwrap().trim().to_owned();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "stored beside a collection");
}

#[test]
fn killed_again_and_again_nothing_piles_up() {
    let home = Home::new();
    let bytes = noise(8 * MIB, 2);
    let id = home.line_with(&["store", "-"], &noise(5000, 3));
    for _ in 0..4 {
        kill_half_way(&home, &bytes);
    }
    home.json(&["gc", "--older-than", "1ms"]);
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
    let runs = files(&home.path("tidelock-data/run"));
    assert!(runs.len() <= 2, "marks of dead processes: {runs:?}");
    assert_same(&home.bytes(&["retrieve", &id]), &noise(5000, 3), "what was there before");
    assert_eq!(home.objects().len(), 1);
}

#[test]
fn a_store_that_is_killed_leaves_nothing_visible_on_s3() {
    let home = server::home(server::shared(), "killed");
    let bytes = noise(64 * MIB, 4);
    kill_half_way(&home, &bytes);
    nothing_is_listed(&home);
    home.json(&["verify", "--deep"]);
    let collected = home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(collected["leftovers"], 1, "the upload that was begun: {collected}");
    assert_eq!(home.json(&["gc", "--older-than", "1ms"])["leftovers"], 0, "and it is gone");
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the next start");
}

#[test]
fn a_retrieve_that_is_killed_leaves_the_old_file() {
    let home = server::home(server::shared(), "killed-retrieve");
    let bytes = noise(48 * MIB, 5);
    let id = home.line_with(&["store", "-"], &bytes);
    home.file("copy", b"old");
    let before = fs::read_dir(home.path(".")).unwrap().count();
    let mut retrieve = Running::start(home.command(&["retrieve", &id, "-o", "copy"]));
    until("the beginning of a copy", || !retrieve.runs() || super::outputs::writes(&retrieve));
    retrieve.kill();
    assert_eq!(fs::read_dir(home.path(".")).unwrap().count(), before, "nothing is left");
    let now = home.read("copy");
    assert!(now == b"old" || now == bytes, "{} bytes of {}", now.len(), bytes.len());
}
