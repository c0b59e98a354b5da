//! Scrubs and verifications of several backends: what one of them does takes nothing from the others, and none reads more than
//! it may.
//!
//! What is slow here never ends by itself while a test waits, so that the others cannot be looked at after it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::beside::{home, is_read, placements};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, noise};
use tidelock_tests::odd::{Odd, Request, Then, refuse, when};
use tidelock_tests::program::{Home, Running, until};

const ROUTES: &str =
    "[routes.default]\nbackends = [\"cloud\"]\n[routes.fine]\nbackends = [\"good\", \"third\"]\ncopies = 2\n";

/// Times of a scrub are whole seconds.
fn a_second_later() {
    std::thread::sleep(Duration::from_millis(1100));
}

/// Something on `cloud`, which waits the longest, and then an image whose object in `folder` is damaged; the id of that.
fn with_damage_in(folder: &str, server: &Odd, settings: &str) -> (Home, String) {
    let home = home(server, &format!("{ROUTES}{settings}"));
    home.line_with(&["store", "-"], &noise(4 * MIB, 1));
    a_second_later();
    let id = home.line_with(&["store", "-", "--route", "fine"], &noise(MIB, 2));
    harm(&home, folder);
    (home, id)
}

/// Turns over a byte of the only object in a folder.
fn harm(home: &Home, folder: &str) {
    let is_image = |path: &std::path::PathBuf| fs::metadata(path).is_ok_and(|about| about.len() > 1000);
    let object = home.objects_below(folder).into_iter().find(is_image).unwrap();
    let mut bytes = fs::read(&object).unwrap();
    bytes[777] ^= 1;
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();
}

fn is_found(home: &Home, id: &str, backend: &str) -> bool {
    let of_it = home.json(&["stat", id]);
    let bad = |event: &serde_json::Value| event["backend"] == backend && event["what"] == "bad";
    of_it["history"].as_array().is_some_and(|events| events.iter().any(bad))
}

/// Returns whether a request is about the object of a snapshot.
fn is_of_snapshot(request: &Request) -> bool {
    request.key.contains("snap-")
}

#[test]
fn an_object_that_trickles_holds_up_the_scrub_of_its_backend_alone() {
    let server = Odd::start(vec![]);
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    let (home, id) = with_damage_in("third", &server, "");
    let mut scrub = Running::start(home.command(&["scrub"]));
    until("the damage is found", || is_found(&home, &id, "third"));
    until("the slow one is read", || server.requests().iter().any(is_read));
    assert!(scrub.runs(), "{}", scrub.said());
    scrub.kill();
    // The same of a daemon, which begins with what is slow.
    let (home, id) = with_damage_in("good", &server, "[scrub]\nbytes_per_day = \"100 GiB\"\nevery = \"1s\"\n");
    let before = server.count("Get");
    let _daemon = Daemon::start(&home);
    until("the slow one is read", || server.count("Get") > before);
    until("the damage is found", || is_found(&home, &id, "good"));
}

#[test]
fn what_says_nothing_or_trickles_holds_up_the_verification_of_its_backend_alone() {
    let server = Odd::start(vec![]);
    let (home, id) = with_damage_in("third", &server, "");
    server.rule(when(is_read, usize::MAX, Then::Trickle));
    let asked = |server: &Odd| server.requests().iter().filter(|request| is_of_snapshot(request)).count();
    let before = asked(&server);
    fs::remove_dir_all(home.path("good")).unwrap();
    fs::create_dir(home.path("good")).unwrap();
    fs::write(home.path("good").join("x"), "another container").unwrap();
    let mut verify = Running::start(home.command(&["verify", "--deep"]));
    until("the damage is found", || is_found(&home, &id, "third"));
    until("the slow one is read", || asked(&server) > before);
    assert!(verify.runs(), "{}", verify.said());
    verify.kill();
    // Without reading, and with an object that is gone. Nobody waits for ever: there are several.
    let server = Odd::start(vec![]);
    let (home, id) = with_damage_in("third", &server, "");
    for seed in 10..16 {
        home.line_with(&["store", "-"], &noise(1000, seed));
    }
    server.rule(when(is_of_snapshot, usize::MAX, Then::Silence));
    home.objects_below("third").iter().for_each(|path| {
        if fs::metadata(path).is_ok_and(|about| about.len() > 1000) {
            fs::remove_file(path).unwrap();
        }
    });
    let mut verify = Running::start(home.command(&["verify"]));
    until("what is missing is found", || is_found(&home, &id, "third"));
    assert!(verify.runs(), "{}", verify.said());
    verify.kill();
}

#[test]
fn a_verification_of_several_backends_gives_one_report() {
    let server = Odd::start(vec![]);
    let (home, id) = with_damage_in("third", &server, "");
    server.rule(when(is_of_snapshot, usize::MAX, refuse(403, "AccessDenied", "no")));
    let found = home.run(&["verify", "--deep", "--json"]).json();
    assert_eq!((&found["checked"], &found["bytes"]), (&3.into(), &MIB.into()), "{found}");
    let one = |name: &str| {
        let all = found[name].as_array().unwrap();
        assert_eq!(all.len(), 1, "{found}");
        (all[0]["backend"].clone(), all[0]["id"].clone())
    };
    assert_eq!(one("bad"), ("third".into(), id.into()));
    assert_eq!((one("unreachable").0, one("failed").0), ("cloud".into(), "cloud".into()));
}

#[test]
fn what_is_read_in_vain_counts_for_the_budget_of_a_scrub() {
    let server = Odd::start(vec![]);
    let settings = "[scrub]\nbytes_per_day = \"50 MiB\"\nevery = \"1s\"\n";
    let home = home(&server, &format!("{ROUTES}{settings}"));
    for seed in 0..3 {
        home.line_with(&["store", "-"], &noise(4 * MIB, seed));
    }
    a_second_later();
    server.rule(when(is_read, usize::MAX, Then::Short(100)));
    let _daemon = Daemon::start(&home);
    let keys =
        || -> BTreeSet<String> { server.requests().into_iter().filter(is_read).map(|request| request.key).collect() };
    until("one is read", || !keys().is_empty());
    // Longer than until the budget grows the next time.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(keys().len(), 1, "{:?}", keys());
}

#[test]
fn objects_that_fail_keep_nothing_of_their_backend_from_being_scrubbed() {
    let server = Odd::start(vec![]);
    let home = home(&server, ROUTES);
    let sick: Vec<String> = (0..4).map(|seed| home.line_with(&["store", "-"], &noise(20_000, seed))).collect();
    let key = |id: &String| placements(&home, id)[0]["object"].as_str().unwrap().to_owned();
    let sick: BTreeSet<String> = sick.iter().map(key).collect();
    a_second_later();
    let id = home.line_with(&["store", "-"], &noise(20_000, 9));
    let good = key(&id);
    let is_sick = move |request: &Request| sick.iter().any(|key| request.key.ends_with(key.as_str()));
    let bytes = server.objects().into_iter().find(|(key, _)| key.ends_with(&good)).unwrap();
    server.put(&bytes.0, bytes.1.iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
    a_second_later();
    // Those that are read in vain use up the budget, and have had their turns then.
    server.rule(when(
        {
            let sick = is_sick.clone();
            move |request| is_read(request) && sick(request)
        },
        usize::MAX,
        Then::Short(10),
    ));
    for run in 0..5 {
        assert!(!is_found(&home, &id, "cloud"), "run {run}");
        home.run(&["scrub", "--bytes", "1"]);
    }
    assert!(is_found(&home, &id, "cloud"));
    // What is refused costs nothing but its own turn.
    server.put(&bytes.0, bytes.1);
    home.run(&["verify", "--deep"]);
    assert_eq!(placements(&home, &id)[0]["state"], "live");
    server.rule(when(is_sick, usize::MAX, refuse(403, "AccessDenied", "no")));
    // What had its turn within this second is not due again.
    a_second_later();
    let scrub = home.run(&["scrub", "--json"]).json();
    assert_eq!((&scrub["checked"], scrub["unreachable"].as_array().map(Vec::len)), (&1.into(), Some(4)), "{scrub}");
}

#[test]
fn a_backend_that_is_away_ends_its_own_turn_and_keeps_it() {
    let server = Odd::start(vec![]);
    let (home, id) = with_damage_in("good", &server, "");
    home.line_with(&["store", "-"], &noise(20_000, 5));
    server.rule(when(|_| true, usize::MAX, refuse(403, "AccessDenied", "no")));
    let scrub = home.run(&["scrub", "--json"]).json();
    assert_eq!((&scrub["checked"], scrub["unreachable"].as_array().map(Vec::len)), (&2.into(), Some(1)), "{scrub}");
    assert!(is_found(&home, &id, "good"));
    server.rule(when(|_| true, usize::MAX, Then::Vanish));
    // It is read first once it is back: the same one as before.
    let first = scrub["unreachable"][0]["object"].clone();
    let scrub = home.run(&["scrub", "--json"]).json();
    assert_eq!(scrub["unreachable"][0]["object"], first, "{scrub}");
}
