//! Jobs of a backend that refuses some of what it is asked, or is away.

use serde_json::Value;

use super::beside::{home, placements};
use tidelock_tests::data::{MIB, noise};
use tidelock_tests::odd::{Odd, Request, Then, refuse, when};
use tidelock_tests::program::Home;

const ROUTES: &str = "[routes.default]\nbackends = [\"good\", \"cloud\"]\ncopies = 2\nack = 1\n";

fn jobs(home: &Home) -> Vec<Value> {
    home.json(&["jobs"])["jobs"].as_array().unwrap().clone()
}

fn attempts(home: &Home) -> Vec<u64> {
    jobs(home).iter().map(|job| job["attempts"].as_u64().unwrap()).collect()
}

#[test]
fn copies_that_a_backend_refuses_keep_no_others_waiting() {
    let is_large = |request: &Request| {
        let large = request.headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0) > MIB;
        large && matches!(request.operation(), "Put" | "Part")
    };
    let server = Odd::start(vec![when(is_large, usize::MAX, refuse(403, "AccessDenied", "it is too large"))]);
    let home = home(&server, ROUTES);
    let store = |len: usize, seed| home.line_with(&["store", "-"], &noise(len, seed));
    let large: Vec<String> = (0..6).map(|seed| store(2 * MIB, seed)).collect();
    let small: Vec<String> = (10..13).map(|seed| store(20_000, seed)).collect();
    home.run(&["jobs", "run"]);
    for id in small {
        assert_eq!(placements(&home, &id).len(), 2);
    }
    assert!(large.iter().all(|id| placements(&home, id).len() == 1));
    assert_eq!(attempts(&home), [1; 6]);
}

#[test]
fn jobs_that_were_not_tried_count_no_attempt_and_come_first() {
    let server = Odd::start(vec![]);
    let home = home(&server, ROUTES);
    // Its container is known.
    let first = home.line_with(&["store", "-"], &noise(1000, 0));
    home.json(&["jobs", "run"]);
    assert_eq!(placements(&home, &first).len(), 2);
    for seed in 1..6 {
        home.line_with(&["store", "-"], &noise(1000, seed));
    }
    server.rule(when(|_| true, usize::MAX, Then::Vanish));
    let mut tried: Vec<u64> = vec![0; 5];
    for run in 1..=3 {
        let one = ["jobs", "run", "--all", "--parallel", "1"];
        home.run(if run == 1 { &["jobs", "run", "--parallel", "1"] } else { &one });
        let now = attempts(&home);
        let new: Vec<usize> = (0..5).filter(|job| now[*job] > tried[*job]).collect();
        assert_eq!(new.len(), 2, "run {run}: {now:?}");
        tried = now;
        assert!(tried.iter().max().unwrap() - tried.iter().min().unwrap() <= 1, "run {run}: {tried:?}");
        assert!(jobs(&home).iter().all(|job| job["state"] == "waiting"));
    }
    assert_eq!(tried.iter().sum::<u64>(), 6);
    // The one that was tried twice waits longer than the others.
    let left = jobs(&home);
    let until = |times: u64| {
        left.iter().filter(move |job| job["attempts"] == times).map(|job| job["not_before"].as_u64().unwrap())
    };
    assert!(until(2).min() > until(1).max(), "{left:?}");
}
