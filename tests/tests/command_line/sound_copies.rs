//! Which copies count: those that were looked at, whole with all that they take pages from, on each route that an image was
//! stored on; and what is made of those that do not.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;

/// Folders `first` and `second`, and these routes.
fn folders(routes: &str) -> Home {
    let backend = |name: &str| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    Home::with(&format!("{}{}{routes}\n", backend("first"), backend("second")))
}

const HOT: &str = "[hot]\ncapacity = \"64 MiB\"\n";
const BOTH: &str = "[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\nencoding = \"raw\"\n";
const ALONE: &str = "[routes.alone]\nbackends = [\"first\"]\nencoding = \"raw\"\n";

fn placements(home: &Home, id: &str) -> Vec<Value> {
    home.json(&["stat", id])["placements"].as_array().unwrap().clone()
}

fn state(home: &Home, id: &str, backend: &str) -> Value {
    let found = placements(home, id).into_iter().find(|one| one["backend"] == backend);
    found.map_or(Value::Null, |one| one["state"].clone())
}

/// The object of a snapshot on a backend, as a path in its folder.
#[track_caller]
fn object(home: &Home, id: &str, backend: &str) -> PathBuf {
    let placements = placements(home, id);
    let placement = placements.iter().find(|one| one["backend"] == backend && one["state"] == "live").unwrap();
    home.path(backend).join(placement["object"].as_str().unwrap())
}

fn jobs(home: &Home) -> Vec<Value> {
    home.json(&["jobs"])["jobs"].as_array().unwrap().clone()
}

fn rot(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn lose_hot(home: &Home) {
    for entry in fs::read_dir(home.path("tidelock-data/hot")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap-") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_push_counts_no_copy_without_a_look() {
    for harm in ["deleted", "truncated"] {
        let local =
            "[routes.default]\nbackends = [\"first\"]\n[routes.local]\nbackends = [\"first\"]\nack = \"local\"\n";
        let home = folders(&format!("{HOT}{local}"));
        let bytes = noise(2 * MIB, 1);
        let id = home.line(&["store", &home.file("image", &bytes)]);
        let path = object(&home, &id, "first");
        match harm {
            "deleted" => fs::remove_file(&path).unwrap(),
            _ => fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap(),
        }
        home.line(&["store", "image", "--route", "local"]);
        home.run(&["jobs", "run"]);
        lose_hot(&home);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, harm);
        assert_ne!(object(&home, &id, "first"), path, "{harm}: another object was made");
    }
}

#[test]
fn a_push_counts_no_pack_without_its_base() {
    let home =
        folders(&format!("{HOT}[routes.default]\nbackends = [\"first\"]\nack = \"local\"\nencoding = \"raw\"\n"));
    let bytes = noise(2 * MIB, 2);
    let base = home.line(&["store", &home.file("image", &bytes)]);
    home.json(&["jobs", "run"]);
    let newer = changed(&bytes, 3);
    let version = home.line(&["update", &base, &home.file("newer", &newer)]);
    home.json(&["jobs", "run"]);
    fs::remove_file(object(&home, &base, "first")).unwrap();
    lose_hot(&home);
    let found = home.run(&["verify", "--json"]).json();
    assert_eq!(found["bad"].as_array().unwrap().len(), 4, "the base, its version, and both hot files: {found}");
    assert_eq!(state(&home, &version, "first"), "bad", "it is no copy without its base");
    home.line(&["store", "newer"]);
    home.run(&["jobs", "run"]);
    lose_hot(&home);
    assert_same(&home.bytes(&["retrieve", &version]), &newer, "from the folder alone");
}

#[test]
fn a_new_container_gets_its_copies_at_once() {
    let home = folders(BOTH);
    let bytes = noise(2 * MIB, 4);
    let base = home.line(&["store", &home.file("image", &bytes)]);
    let newer = changed(&bytes, 5);
    let version = home.line_with(&["update", &base, "-"], &newer);
    fs::remove_dir_all(home.path("second")).unwrap();
    fs::create_dir(home.path("second")).unwrap();
    home.json(&["import", "second", "--new-container"]);
    assert_eq!(home.json(&["jobs"])["jobs"].as_array().unwrap().len(), 2, "both are to be made anew");
    home.json(&["jobs", "run"]);
    assert_eq!(jobs(&home), Vec::<Value>::new());
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
    fs::remove_dir_all(home.path("first")).unwrap();
    assert_same(&home.bytes(&["retrieve", &base]), &bytes, "the base");
    assert_same(&home.bytes(&["retrieve", &version]), &newer, "its version");
}

/// A container that is new by its identity alone, such as a copy of the old one, has what it has.
#[test]
fn what_a_new_container_has_counts_once_it_is_listed() {
    let home = folders(BOTH);
    let bytes = noise(2 * MIB, 6);
    let base = home.line(&["store", &home.file("image", &bytes)]);
    let newer = changed(&bytes, 7);
    let version = home.line_with(&["update", &base, "-"], &newer);
    for entry in fs::read_dir(home.path("second")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("tidelock-") {
            fs::remove_file(path).unwrap();
        }
    }
    home.refused(1, &["import", "second"]);
    home.json(&["import", "second", "--new-container"]);
    for id in [&base, &version] {
        assert_eq!(state(&home, id, "second"), "live", "{id}");
    }
    assert_eq!(jobs(&home), Vec::<Value>::new());
}

/// What is unsound only because its base is lost is made anew from its other copy, in the hot tier or on another backend, also if
/// the base cannot be had again.
#[test]
fn what_is_lost_with_its_base_is_repaired() {
    for other in ["hot", "second"] {
        let routes = match other {
            "hot" => format!("{HOT}[routes.default]\nbackends = [\"first\"]\nencoding = \"raw\"\n{ALONE}"),
            _ => format!("{BOTH}{ALONE}"),
        };
        let home = folders(&routes);
        let bytes = noise(2 * MIB, 8);
        let base = home.line(&["store", &home.file("image", &bytes), "--route", "alone"]);
        if other == "hot" {
            lose_hot(&home);
            home.run(&["verify"]);
        }
        let newer = changed(&bytes, 9);
        let version = home.line(&["update", &base, &home.file("newer", &newer)]);
        assert!(fs::metadata(object(&home, &version, "first")).unwrap().len() < MIB as u64, "{other}: it is a pack");
        rot(&object(&home, &base, "first"));
        home.run(&["scrub"]);
        assert_eq!(state(&home, &version, "first"), "bad", "{other}");
        home.run(&["jobs", "run"]);
        assert_eq!(state(&home, &version, "first"), "live", "{other}");
        fs::remove_dir_all(home.path(if other == "hot" { "tidelock-data/hot" } else { "second" })).unwrap();
        assert_same(&home.bytes(&["retrieve", &version]), &newer, other);
        let told = jobs(&home);
        let of_base = told.iter().all(|job| job["snapshot"] == base.as_str());
        assert!(!told.is_empty() && of_base, "{other}: {told:?}");
    }
}

/// A base that comes back, or is made anew, brings its versions back as they are.
#[test]
fn what_lacked_its_base_is_live_again_with_it() {
    let home = folders(&format!("{BOTH}{ALONE}"));
    let bytes = noise(2 * MIB, 10);
    let base = home.line(&["store", &home.file("image", &bytes)]);
    let newer = changed(&bytes, 11);
    let version = home.line_with(&["update", &base, "-"], &newer);
    let (lost, pack) = (object(&home, &base, "first"), object(&home, &version, "first"));
    let away = home.path("away");
    fs::rename(&lost, &away).unwrap();
    home.run(&["verify"]);
    assert_eq!(state(&home, &version, "first"), "bad");
    assert_eq!(jobs(&home).len(), 2);
    fs::rename(&away, &lost).unwrap();
    assert_eq!(home.json(&["verify"])["bad"], json!([]));
    assert_eq!((object(&home, &version, "first"), jobs(&home).len()), (pack.clone(), 0), "it came back");
    rot(&lost);
    home.run(&["verify", "--deep"]);
    assert_eq!(state(&home, &version, "first"), "bad");
    home.run(&["jobs", "run"]);
    assert_eq!((object(&home, &version, "first"), jobs(&home).len()), (pack, 0), "it was made anew");
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
}

#[test]
fn what_was_stored_on_two_routes_is_pushed_to_both() {
    for ack in ["\"local\"", "1"] {
        let copies = if ack == "1" { "copies = 2\n" } else { "" };
        let route =
            |name: &str, backends: &str| format!("[routes.{name}]\nbackends = [{backends}]\n{copies}ack = {ack}\n");
        let (own, offsite) = match ack {
            "1" => ("\"first\", \"third\"", "\"second\", \"third\""),
            _ => ("\"first\"", "\"second\""),
        };
        let third = "[backends.third]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"third\" }\n";
        let home = folders(&format!("{third}{HOT}{}{}", route("default", own), route("offsite", offsite)));
        let bytes = noise(MIB, 12);
        let id = home.line(&["store", &home.file("image", &bytes)]);
        home.line(&["store", "image", "--route", "offsite"]);
        home.json(&["jobs", "run"]);
        assert_eq!(jobs(&home), Vec::<Value>::new(), "{ack}");
        for backend in ["first", "second"] {
            assert_eq!(state(&home, &id, backend), "live", "{ack}: {backend}");
        }
        let third = if ack == "1" { json!("live") } else { Value::Null };
        assert_eq!(state(&home, &id, "third"), third, "{ack}");
        // And so are those that one of the routes had already.
        let other = home.line(&["store", &home.file("other", noise(MIB, 13)), "--route", "offsite"]);
        home.json(&["jobs", "run"]);
        home.line(&["store", "other"]);
        home.json(&["jobs", "run"]);
        assert_eq!(state(&home, &other, "first"), "live", "{ack}");
    }
}
