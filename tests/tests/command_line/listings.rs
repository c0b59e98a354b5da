//! Listings that do not end: `gc` and `import` are stopped where the caller said or at a signal, and memory does not grow.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidelock_tests::data::{MIB, noise};
use tidelock_tests::odd::{Odd, Then, on};
use tidelock_tests::program::{Home, ProgramOutput, Running, until};

/// A folder whose one backend lists for ever, always new keys.
fn endless() -> (Odd, Home) {
    let server = Odd::start(vec![on("List", usize::MAX, Then::Endless)]);
    let home = Home::with(&format!(
        "[backends.cloud]\nadapter = \"s3\"\n[backends.cloud.grants.bucket.objects]\nendpoint = \"{}\"\nbucket = \"b\"\n\
         path_style = true\n",
        server.endpoint
    ));
    (server, home)
}

/// The most memory that a program had so far, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Runs the program to its end; gives also the most memory that it had.
fn measured(home: &Home, arguments: &[&str]) -> (ProgramOutput, u64) {
    let mut running = Running::start(home.command(arguments));
    let mut most = 0;
    while running.runs() {
        most = most.max(peak(running.pid()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    (running.finish(), most)
}

/// Leaves what `gc` looks for in a listing.
fn store_cut_short(home: &Home) {
    // There is a catalogue then, which the look below must not make.
    home.json(&["ls"]);
    let mut store = Running::start(home.command(&["store", "-"]));
    store.feed(&noise(6 * MIB, 1)).unwrap();
    let intents = || {
        let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).ok()?;
        catalogue.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, u64>(0)).ok()
    };
    until("the store has begun", || intents() == Some(1) || !store.runs());
    assert!(store.runs(), "{}", store.said());
    store.kill();
}

#[test]
fn a_listing_without_an_end_is_stopped_where_the_caller_said() {
    let (server, home) = endless();
    store_cut_short(&home);
    for arguments in [&["gc", "--older-than", "1ms"][..], &["import", "cloud"]] {
        let run = |most: &str| {
            let before = server.count("List");
            let (ended, peak) = measured(&home, &[arguments, &["--max-objects", most]].concat());
            let says = ended.stderr;
            assert_eq!(ended.status.code(), Some(1), "{says}");
            assert!(says.contains("cloud") && says.contains(&format!("more than {most} objects")), "{says}");
            assert!(says.contains("--max-objects"), "it says what to do: {says}");
            (peak, server.count("List") - before)
        };
        let ((few, pages), (many, more)) = (run("2000"), run("60000"));
        assert!(pages <= 4 && (60..=63).contains(&more), "{pages} and {more} pages");
        assert!(many < few + (24 << 10), "{arguments:?}: {few} KiB for 2,000, {many} KiB for 60,000");
    }
}

#[test]
fn a_signal_ends_a_listing_at_once() {
    let (server, home) = endless();
    store_cut_short(&home);
    for arguments in [&["gc", "--older-than", "1ms"][..], &["import", "cloud"]] {
        let before = server.count("List");
        let running = Running::start(home.command(arguments));
        until("it lists", || server.count("List") >= before + 10);
        kill_process(Pid::from_raw(running.pid() as i32).unwrap(), Signal::INT).unwrap();
        let asked = Instant::now();
        let ended = running.finish();
        assert_eq!(ended.status.code(), Some(130), "{arguments:?}: {ended:?}");
        // After five seconds it would be ended whatever it did.
        assert!(asked.elapsed() < Duration::from_secs(4), "{arguments:?} took {:?}", asked.elapsed());
    }
}
