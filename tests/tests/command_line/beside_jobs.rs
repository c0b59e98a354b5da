//! What a backend that is slow, silent or endless takes from the jobs of others: nothing, however they have fared before.
//!
//! What is slow here never ends by itself while a test waits, so that the others cannot be served after it.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, changed, noise};
use tidelock_tests::odd::{Odd, Request, Then, when};
use tidelock_tests::program::{Home, until};

use crate::beside::{ROUTES, home, is_read, jobs, placements, running};

/// Longer than any of these tests.
const EVER: Duration = Duration::from_secs(600);

fn is_on(home: &Home, id: &str, backend: &str) -> bool {
    placements(home, id).iter().any(|placement| placement["backend"] == backend && placement["state"] == "live")
}

fn catalogue(home: &Home) -> rusqlite::Connection {
    let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    catalogue.busy_timeout(Duration::from_secs(30)).unwrap();
    catalogue
}

/// Ends the pauses of all jobs.
fn pass_pauses(home: &Home) {
    catalogue(home).execute("UPDATE jobs SET not_before = 0 WHERE state = 'waiting'", []).unwrap();
}

/// Makes the server answer no more, once it is asked for something.
fn hang(server: &Odd, at: impl Fn(&Request) -> bool + Send + Sync + 'static) {
    let asked = move |request: &Request| {
        if at(request) {
            sleep(EVER);
        }
        false
    };
    server.rule(when(asked, usize::MAX, Then::Trickle));
}

#[test]
fn jobs_that_failed_beside_a_slow_one_go_on_once_their_backend_is_well() {
    let server = Odd::start(vec![]);
    let home = home(&server, ROUTES);
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    home.line_with(&["store", "-"], &noise(MIB, 1));
    fs::create_dir_all(home.path("third")).unwrap();
    fs::rename(home.path("third"), home.path("away")).unwrap();
    fs::write(home.path("third"), b"no folder").unwrap();
    let id = home.line_with(&["store", "-", "--route", "fine"], &noise(MIB, 2));
    let _daemon = Daemon::start(&home);
    until("the slow job runs", || running(&home) >= 1);
    let tried = || {
        pass_pauses(&home);
        let attempts =
            jobs(&home).iter().filter(|job| job["snapshot"] == *id).map(|job| job["attempts"].as_u64()).max();
        attempts.flatten().unwrap_or(0)
    };
    until("it has failed", || tried() >= 2);
    // It is begun so often while its backend is left out that a run which counted that would begin it no more.
    for _ in 0..8 {
        tried();
        sleep(Duration::from_secs(1));
    }
    fs::remove_file(home.path("third")).unwrap();
    fs::rename(home.path("away"), home.path("third")).unwrap();
    until("it has its copy", || {
        pass_pauses(&home);
        sleep(Duration::from_millis(500));
        is_on(&home, &id, "third")
    });
    assert!(running(&home) >= 1, "the slow one still runs, in the same run");
}

#[test]
fn a_version_does_not_wait_for_a_base_that_goes_to_another_backend() {
    let server = Odd::start(vec![]);
    let home = home(
        &server,
        "[hot]\npath = \"hot\"\ncapacity = \"1 GiB\"\n[routes.default]\nbackends = [\"cloud\"]\nack = \"local\"\n\
         [routes.fine]\nbackends = [\"good\"]\nack = \"local\"\n",
    );
    hang(&server, |request| request.method == "PUT" && request.key.contains("snap-"));
    let daemon = Daemon::start(&home);
    let image = noise(3 * MIB, 1);
    let send = |method, path: &str, image: &[u8]| {
        let stored = daemon.server.send(method, path, &[], image).json(201);
        stored["id"].as_str().unwrap().to_owned()
    };
    let base = send("PUT", "/v1/snapshots?name=base", &image);
    until("its push runs", || running(&home) == 1);
    let began = Instant::now();
    let version = send("POST", "/v1/snapshots/base/update?route=fine", &changed(&image, 2));
    until("the version is pushed", || is_on(&home, &version, "good"));
    // It would wait for its base for a minute.
    assert!(began.elapsed() < Duration::from_secs(45), "it took {:?}", began.elapsed());
    assert!(!is_on(&home, &base, "cloud") && running(&home) == 1, "{:?}", jobs(&home));
}

#[test]
fn a_copy_that_cannot_be_looked_at_holds_up_none_between_other_backends() {
    let server = Odd::start(vec![]);
    let home = home(
        &server,
        "[routes.default]\nbackends = [\"good\", \"cloud\", \"third\"]\ncopies = 3\nack = 2\n\
         [routes.fine]\nbackends = [\"good\", \"third\"]\ncopies = 2\nack = 1\n",
    );
    for seed in 0..6 {
        home.line_with(&["store", "-"], &noise(10_000, seed));
    }
    hang(&server, |request| request.operation() == "Head" && request.key.contains("snap-"));
    let daemon = Daemon::start(&home);
    until("the slow jobs run", || running(&home) >= 2);
    let began = Instant::now();
    let stored = daemon.server.send("PUT", "/v1/snapshots?route=fine", &[], &noise(MIB, 9)).json(201);
    let id = stored["id"].as_str().unwrap();
    until("it has its copy", || is_on(&home, id, "third"));
    // The first look takes half a minute, if its server is waited for.
    assert!(began.elapsed() < Duration::from_secs(28), "it took {:?}", began.elapsed());
}

#[test]
fn rebases_of_a_backend_that_is_slow_hold_up_none_of_others() {
    let server = Odd::start(vec![]);
    let home = home(
        &server,
        "[routes.default]\nbackends = [\"cloud\"]\nencoding = \"pages\"\n\
         [routes.fine]\nbackends = [\"good\"]\nencoding = \"pages\"\n\
         [rebase]\nbytes_per_day = \"100 GiB\"\nchain = 1\n",
    );
    let chain = |route: &str, seed| {
        let mut image = noise(3 * MIB, seed);
        let mut id = home.line_with(&["store", "-", "--route", route], &image);
        for step in 1..4 {
            image = changed(&image, seed + step);
            id = home.line_with(&["update", &id, "-", "--route", route], &image);
        }
        id
    };
    let (slow, good) = (chain("default", 10), chain("fine", 20));
    let depth = |id: &str| placements(&home, id)[0]["depth"].as_u64();
    assert!(depth(&slow) >= Some(2) && depth(&good) >= Some(2), "{:?}", placements(&home, &good));
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    let _daemon = Daemon::start(&home);
    until("it is rebased", || depth(&good) == Some(0));
    assert!(depth(&slow) >= Some(2), "the other one trickles");
}
