//! Objects whose key is not configured any more, in a container that began with another key: nothing counts on them, nothing marks
//! them, and all is in order once the key is back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tidelock_tests::data::{KIB, MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, files};

const OLD: &str = "5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de0003";
const NEW: &str = "5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de0004";

/// Two backends, of which the first is encrypted with the first of these keys. Copies on both, with `both`.
fn configure(home: &Home, encoding: &str, keys: &[&str]) {
    let old: String = keys[1..].iter().map(|key| format!("old_keys = [{{ file = \"{key}\" }}]\n")).collect();
    let backend = |name: &str, more: &str| {
        format!("[backends.{name}]\nadapter = \"fs\"\n{more}grants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    let text = format!(
        "{}{}[encryption]\nkey = {{ file = \"{}\" }}\n{old}\
         [routes.default]\nbackends = [\"first\"]\nencoding = \"{encoding}\"\n\
         [routes.both]\nbackends = [\"first\", \"second\"]\nencoding = \"{encoding}\"\ncopies = 2\n",
        backend("first", ""),
        backend("second", "encrypted = false\n"),
        keys[0]
    );
    home.file("tidelock.toml", text);
}

fn key(home: &Home, name: &str, text: &str) {
    home.file(name, format!("{text}\n"));
    fs::set_permissions(home.path(name), Permissions::from_mode(0o600)).unwrap();
}

/// A home whose containers began with the old key. New objects are encrypted with the new one.
fn rotated(encoding: &str) -> Home {
    let home = Home::with("");
    key(&home, "old", OLD);
    key(&home, "new", NEW);
    fs::create_dir(home.path("first")).unwrap();
    fs::create_dir(home.path("second")).unwrap();
    configure(&home, encoding, &["old"]);
    home.line_with(&["store", "-", "--route", "both"], b"began with the old key");
    configure(&home, encoding, &["new", "old"]);
    home
}

/// The states of the placements of a snapshot on a backend, those that were stored first first.
fn on(home: &Home, backend: &str, id: &str) -> Vec<Value> {
    let stat = home.json(&["stat", id]);
    let there = stat["placements"].as_array().unwrap().iter().filter(|one| one["backend"] == backend);
    there.map(|one| one["state"].clone()).collect()
}

fn verified(home: &Home, more: &[&str]) -> Value {
    home.run(&[&["verify", "--json"], more].concat()).json()
}

#[test]
fn what_lacks_its_key_counts_for_nothing_and_is_never_marked() {
    for encoding in ["raw", "pages"] {
        let home = rotated(encoding);
        let first = noise(600 * KIB, 1);
        let second = changed(&first, 2);
        let id = home.line_with(&["store", "-", "--name", "vm"], &first);
        let version = home.line_with(&["update", &id, "-", "--name", "vm-2"], &second);
        configure(&home, encoding, &["old"]);
        for more in [&[][..], &["--deep"]] {
            let found = verified(&home, more);
            assert_eq!((&found["bad"], found["unreachable"].as_array().unwrap().len()), (&json!([]), 2), "{found}");
            assert!(found["unreachable"][0]["why"].as_str().unwrap().contains("encrypted with the key"), "{found}");
        }
        home.run(&["jobs", "run", "--all"]);
        assert_eq!((on(&home, "first", &id), on(&home, "first", &version)), (vec![json!("live")], vec![json!("live")]));
        // Back, all is in order at once.
        configure(&home, encoding, &["new", "old"]);
        let found = home.json(&["verify"]);
        assert_eq!((&found["checked"], &found["unreachable"]), (&json!(4), &json!([])), "{encoding}: {found}");
        // A store of the image does not count on what cannot be read.
        configure(&home, encoding, &["old"]);
        home.line_with(&["store", "-", "--name", "vm"], &first);
        assert_same(&home.bytes(&["retrieve", "vm"]), &first, "stored again");
        home.line_with(&["update", &id, "-", "--name", "vm-2"], &second);
        assert_same(&home.bytes(&["retrieve", "vm-2"]), &second, "updated again");
        configure(&home, encoding, &["new", "old"]);
        home.json(&["verify", "--deep"]);
    }
}

#[test]
fn a_copy_that_lacks_its_key_is_none_and_another_one_is_made() {
    for encoding in ["raw", "pages"] {
        let home = rotated(encoding);
        let bytes = noise(MIB, 3);
        let id = home.line_with(&["store", "-", "--route", "both"], &bytes);
        configure(&home, encoding, &["old"]);
        home.run(&["verify"]);
        home.json(&["jobs", "run", "--all"]);
        assert_eq!(on(&home, "first", &id), ["live", "live"], "{encoding}: beside the one that cannot be read");
        home.run(&["verify"]);
        assert_eq!(home.json(&["jobs", "ls"])["jobs"], json!([]), "there are enough now");
        assert_eq!(on(&home, "first", &id).len(), 2, "{encoding}");
        fs::rename(home.path("second"), home.path("gone")).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the new one");
    }
}

/// The key is lost for good, and the container is begun again with another one.
#[test]
fn a_new_container_makes_nothing_readable() {
    for encoding in ["raw", "pages"] {
        let home = rotated(encoding);
        let first = noise(MIB, 4);
        let second = changed(&first, 5);
        let base = home.line_with(&["store", "-", "--route", "both"], &first);
        let id = home.line_with(&["update", &base, "-", "--route", "both"], &second);
        let lost = "5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de0005";
        key(&home, "other", lost);
        configure(&home, encoding, &["other"]);
        home.run(&["import", "first", "--new-container"]);
        assert_eq!(on(&home, "first", &id), ["bad"], "the import has not seen it");
        home.run(&["jobs", "run", "--all"]);
        fs::rename(home.path("second"), home.path("gone")).unwrap();
        assert_same(&home.bytes(&["retrieve", &base]), &first, "the base");
        assert_same(&home.bytes(&["retrieve", &id]), &second, "the version");
    }
}

#[test]
fn an_import_leaves_what_lacks_its_key_and_what_was_cut_off() {
    let home = rotated("raw");
    let bytes = noise(MIB, 6);
    let ids: Vec<_> = (0..40).map(|seed| home.line_with(&["store", "-"], &noise(KIB, 100 + seed))).collect();
    let id = home.line_with(&["store", "-"], &bytes);
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
    configure(&home, "raw", &["old"]);
    let report = home.run(&["import", "first", "--json"]).json();
    assert_eq!((&report["unreachable"], &report["damaged"]), (&json!(41), &json!(0)), "{report}");
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 1);
    configure(&home, "raw", &["new", "old"]);
    // Of two that were cut off, one to nothing.
    let all = files(&home.path("first"));
    let large = all.iter().find(|file| fs::metadata(file).unwrap().len() > MIB as u64).unwrap();
    let small = all.iter().filter(|file| (KIB as u64..2000).contains(&fs::metadata(file).unwrap().len()));
    let small = small.filter(|file| file.to_string_lossy().ends_with("-sealed")).collect::<Vec<_>>().pop().unwrap();
    fs::File::options().write(true).open(large).unwrap().set_len(0).unwrap();
    fs::File::options().write(true).open(small).unwrap().set_len(70).unwrap();
    let report = home.run(&["import", "first", "--json"]).json();
    assert_eq!((&report["imported"], &report["damaged"]), (&json!(39), &json!(2)), "{report}");
    home.refused(2, &["stat", &id]);
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), ids.len());
}
