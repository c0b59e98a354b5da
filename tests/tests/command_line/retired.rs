//! Backends that were taken out of the configuration, or whose container is another one: what is recorded there counts as no
//! copy. Nothing else goes for it, others are made, and what is recorded can be forgotten.

use std::fs;

use serde_json::{Value, json};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

use super::hot::state;

/// A configuration with these backends, each a folder of its name, and what else it has.
fn config(backends: &[&str], more: &str) -> String {
    let backend = |name: &&str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    let first = format!("[routes.default]\nbackends = [\"{}\"]\n", backends[0]);
    let route = if more.contains("[routes.default]") { String::new() } else { first };
    backends.iter().map(backend).collect::<String>() + &route + more
}

fn two_copies(backends: [&str; 2]) -> String {
    let route = format!("[routes.default]\nbackends = [\"{}\", \"{}\"]\ncopies = 2\n", backends[0], backends[1]);
    config(&backends, &route)
}

/// Stores other images until a hot tier of 8 MiB has no room for what was there before.
fn crowd_out(home: &Home, options: &[&str]) {
    for seed in 100..104 {
        home.line_with(&[&["store", "-"], options].concat(), &noise(3 * MIB, seed));
    }
}

const HOT: &str = "[hot]\ncapacity = \"8 MiB\"\n";

#[test]
fn no_hot_copy_goes_for_one_on_a_backend_that_is_not_configured() {
    let home = Home::with(&config(&["one"], HOT));
    let bytes = noise(3 * MIB, 1);
    let id = home.line_with(&["store", "-", "--name", "a"], &bytes);
    home.file("tidelock.toml", config(&["other"], HOT));
    crowd_out(&home, &[]);
    assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"));
    assert_same(&home.bytes(&["retrieve", "a"]), &bytes, "from the hot tier");
    // Once it is back, it is a copy again, and the hot one may go.
    home.file("tidelock.toml", config(&["one", "other"], HOT));
    crowd_out(&home, &[]);
    home.line_with(&["store", "-"], &noise(6 * MIB, 2));
    assert_eq!(state(&home, &id, "hot"), None);
    assert_same(&home.bytes(&["retrieve", "a"]), &bytes, "from the backend");
}

#[test]
fn no_hot_copy_goes_for_one_in_a_container_that_is_not_there() {
    let routes = "[routes.default]\nbackends = [\"one\"]\n[routes.b]\nbackends = [\"two\"]\n";
    let home = Home::with(&config(&["one", "two"], &format!("{routes}{HOT}")));
    let bytes = noise(3 * MIB, 3);
    let id = home.line_with(&["store", "-"], &bytes);
    for another in [false, true] {
        fs::rename(home.path("one"), home.path("kept")).unwrap();
        if another {
            fs::create_dir(home.path("one")).unwrap();
        }
        crowd_out(&home, &["--route", "b"]);
        assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"), "another: {another}");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the hot tier");
        let _ = fs::remove_dir_all(home.path("one"));
        fs::rename(home.path("kept"), home.path("one")).unwrap();
        home.json(&["verify"]);
    }
    crowd_out(&home, &["--route", "b"]);
    home.line_with(&["store", "-", "--route", "b"], &noise(6 * MIB, 4));
    assert_eq!(state(&home, &id, "hot"), None, "its other copy is there");
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the backend");
}

fn counted(home: &Home, id: &str) -> (Value, Value) {
    let stat = home.json(&["stat", id]);
    (stat["counted"].clone(), stat["copies"].clone())
}

#[test]
fn a_copy_on_a_backend_that_is_not_configured_does_not_count() {
    let home = Home::with(&two_copies(["one", "two"]));
    let bytes = noise(MIB, 5);
    let id = home.line_with(&["store", "-", "--name", "a"], &bytes);
    assert_eq!(counted(&home, &id), (json!(2), json!(2)));
    fs::remove_dir_all(home.path("one")).unwrap();
    home.file("tidelock.toml", two_copies(["two", "three"]));
    assert_eq!(counted(&home, &id), (json!(1), json!(2)));
    // There are too few, and what is there says so.
    let verified = home.run(&["verify"]);
    let (status, said) = (verified.status.code(), verified.stderr);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("on `one`, which is not configured") && said.contains("tidelock forget one"), "{said}");
    let ran = home.json(&["jobs", "run"]);
    assert_eq!((&ran["done"], &ran["failed"]), (&json!(1), &json!(0)), "{ran}");
    assert_eq!((home.objects_below("three").len(), counted(&home, &id)), (1, (json!(2), json!(2))));
    let ran = home.json(&["jobs", "run"]);
    assert_eq!((&ran["done"], home.objects_below("three").len()), (&json!(0), 1), "there are enough");
    for arguments in [&["verify"][..], &["verify", "--deep"]] {
        let verified = home.json(arguments);
        assert_eq!((&verified["checked"], verified["elsewhere"].as_array().unwrap().len()), (&json!(2), 1));
        assert_eq!(verified["elsewhere"][0]["backend"], "one");
    }
    assert_eq!(home.json(&["scrub"])["unreachable"], json!([]));
    assert_eq!(home.json(&["repair", "a"])["unrepaired"], json!([]));
    let said = String::from_utf8(home.bytes(&["stat", "a"])).unwrap();
    assert!(said.contains("2 wanted, 2 there") && said.contains("on one, which is not configured"), "{said}");
    // It cannot be removed from there, until that is forgotten.
    let said = home.refused(1, &["rm", "a"]);
    assert!(said.contains("tidelock forget one"), "{said}");
    assert_eq!(home.line(&["forget", "one"]), "forgot `one` (1 object)");
    assert_eq!(home.json(&["verify"])["elsewhere"], json!([]));
    assert_same(&home.bytes(&["retrieve", "a"]), &bytes, "from the others");
    home.line(&["rm", "a"]);
    assert_eq!((home.objects_below("two").len(), home.objects_below("three").len()), (0, 0));
    home.refused(2, &["forget", "one"]);
}

#[test]
fn a_backend_with_the_last_copy_is_not_forgotten_by_mistake() {
    let home = Home::with(&two_copies(["one", "two"]));
    let (bytes, both) = (noise(MIB, 6), noise(2 * MIB, 7));
    home.line_with(&["store", "-", "--name", "both"], &both);
    home.file("tidelock.toml", config(&["one"], ""));
    let id = home.line_with(&["store", "-", "--name", "only"], &bytes);
    home.line_with(&["store", "-", "--name", "only as well"], &bytes);
    let said = home.refused(2, &["forget", "one"]);
    assert!(said.contains("is configured"), "{said}");
    home.file("tidelock.toml", config(&["two"], ""));
    for (away, names) in [(false, 1), (true, 2)] {
        // What is on a backend that is away is no copy that others could go for.
        if away {
            fs::rename(home.path("two"), home.path("kept")).unwrap();
        }
        let said = home.refused(1, &["forget", "one"]);
        assert!(said.contains("`only as well`") && said.contains("--lose-snapshots"), "{said}");
        assert_eq!((said.contains("`both`"), said.contains(&format!("of {names} snapshot"))), (away, true), "{said}");
        assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 2, "nothing is forgotten");
        if away {
            let _ = fs::remove_dir_all(home.path("two"));
            fs::rename(home.path("kept"), home.path("two")).unwrap();
        }
    }
    let forgot = home.json(&["forget", "one", "--lose-snapshots"]);
    assert_eq!(
        (&forgot["placements"], &forgot["lost"], &forgot["snapshots"][0]["id"]),
        (&json!(2), &json!(1), &json!(id))
    );
    let listed = home.json(&["ls"])["snapshots"].clone();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("both")));
    assert_same(&home.bytes(&["retrieve", "both"]), &both, "from the other");
    // Nothing was deleted: what is there comes back with an import.
    home.file("tidelock.toml", config(&["one", "two"], ""));
    assert_eq!(home.json(&["import", "one"])["imported"], 2);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "imported again");
}
