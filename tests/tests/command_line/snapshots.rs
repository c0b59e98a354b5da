//! Store, retrieve and everything around it, on the default backend.

use std::fs;

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, keys, tidelock};

/// Around the borders of pages, of segments, and of more than one segment.
const SIZES: [usize; 9] = [0, 1, 4095, 4096, 4097, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 9 * MIB + 3];

#[test]
fn a_stored_image_comes_back_and_has_one_id() {
    let home = Home::new();
    for size in SIZES {
        let bytes = noise(size, size as u64);
        let file = home.file("image", &bytes);
        let id = home.line(&["id", &file]);
        assert!(id.len() == 55 && id.starts_with("tl1"), "{id}");
        assert_eq!(home.line_with(&["id", "-"], &bytes), id, "{size} bytes through a pipe");
        assert_eq!(home.line(&["store", &file]), id, "{size} bytes");
        assert_eq!(home.line_with(&["store", "-", "--allow-empty"], &bytes), id, "{size} bytes through a pipe");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "on stdout");
        assert_same(&home.bytes(&["retrieve", &id, "-o", "-"]), &bytes, "on stdout by name");
        assert!(home.bytes(&["retrieve", &id, "-o", "copy"]).is_empty());
        assert_same(&home.read("copy"), &bytes, "in a file");
    }
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

#[test]
fn a_snapshot_keeps_every_name_that_it_was_given() {
    let home = Home::new();
    home.file("image", noise(5000, 1));
    let id = home.line(&["store", "image", "--name", "web-26"]);
    let again = home.run(&["store", "image", "--name", "web-27"]).success(&["store"]);
    assert_eq!(again.stderr, "", "nothing was taken from anybody");
    assert_eq!(home.json(&["stat", "web-26"])["names"], serde_json::json!(["web-27", "web-26"]));
    assert_eq!(home.json(&["ls"])["snapshots"][0]["name"], "web-27");
    assert!(String::from_utf8(home.bytes(&["ls"])).unwrap().contains("web-27, web-26"));
    // A name that moves says from where, and scripts still get the id alone.
    home.file("newer", noise(5000, 2));
    let moved = home.run(&["store", "newer", "--name", "web-26"]).success(&["store"]);
    let newer = String::from_utf8(moved.stdout).unwrap();
    assert!(moved.stderr.contains(&id) && newer.trim_end().len() == 55, "{} {newer}", moved.stderr);
    home.line(&["store", "image", "--name", "web-28"]);
    // The id of two names is refused; the names go one by one, and the bytes with the last.
    let said = home.refused(1, &["rm", &id]);
    assert!(said.contains("web-27") && said.contains("web-28") && said.contains("--all-names"), "{said}");
    assert!(home.line(&["rm", "web-27"]).contains("still stored as web-28"));
    assert_same(&home.bytes(&["retrieve", "web-28"]), &noise(5000, 1), "under the name that is left");
    assert!(home.line(&["rm", "web-28"]).contains("(1 object)"));
    home.refused(2, &["retrieve", &id]);
    // What was stored without a name too stays until it is removed by its id.
    home.line(&["store", "image"]);
    home.line(&["store", "image", "--name", "x"]);
    assert!(home.line(&["rm", "x"]).contains("also stored without a name"));
    assert_same(&home.bytes(&["retrieve", &id]), &noise(5000, 1), "by its id");
    home.line(&["rm", &id]);
    for name in ["a", "b"] {
        home.line(&["store", "image", "--name", name]);
    }
    home.line(&["rm", &id, "--all-names"]);
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 1);
}

/// A disk that is not mounted: nothing is concluded, nothing is stored, and afterwards all is as it was.
#[test]
fn a_folder_that_is_away_and_comes_back_changes_nothing() {
    let home = Home::new();
    let bytes = noise(5000, 1);
    let id = home.line_with(&["store", "-", "--name", "kept"], &bytes);
    let (objects, away) = (home.path("tidelock-data/objects"), home.path("away"));
    for empty in [true, false] {
        fs::rename(&objects, &away).unwrap();
        if empty {
            fs::create_dir(&objects).unwrap();
        }
        let said = home.refused(1, &["retrieve", "kept", "-o", "copy"]);
        assert!(said.contains("not the one that snapshots were stored into"), "{said}");
        let verified = home.run(&["verify", "--json"]);
        assert_eq!(verified.status.code(), Some(1));
        assert!(verified.json()["bad"].as_array().unwrap().is_empty(), "{}", verified.json());
        home.run_with(&["store", "-"], b"other").refused(1, &["store"]);
        home.refused(1, &["rm", "kept"]);
        home.refused(1, &["import", "local"]);
        assert!(home.objects().is_empty(), "{:?}", home.objects());
        fs::remove_dir_all(&objects).unwrap();
        fs::rename(&away, &objects).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "once it is back");
        home.json(&["verify"]);
    }
    fs::remove_dir_all(&objects).unwrap();
    home.line(&["import", "local", "--new-container"]);
    assert_eq!(home.run(&["verify"]).status.code(), Some(1));
    assert_eq!(home.json(&["stat", &id])["placements"][0]["reason"], "the backend has no such object");
    assert_eq!(home.line_with(&["store", "-"], &bytes), id);
    assert_same(&home.bytes(&["retrieve", "kept"]), &bytes, "in the new container");
}

#[test]
fn the_same_file_twice_is_kept_once() {
    let home = Home::new();
    home.file("image", noise(3 * MIB, 1));
    home.file("copy", noise(3 * MIB, 1));
    let first = home.json(&["store", "image"]);
    for file in ["image", "copy"] {
        let again = home.json(&["store", file]);
        assert_eq!((&again["id"], &again["stored_bytes"]), (&first["id"], &0.into()));
        assert_eq!(again["placements"], first["placements"]);
    }
    assert_eq!(home.objects().len(), 1);
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 1);
}

/// A pipe can be read only once, so its bytes are sent before it is known that they are stored already.
#[test]
fn the_same_bytes_twice_through_a_pipe_are_kept_once() {
    let home = Home::new();
    let bytes = noise(3 * MIB, 1);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_eq!(home.line_with(&["store", "-"], &bytes), id);
    assert_eq!(home.objects().len(), 1, "{:?}", home.objects());
    assert_eq!(home.json(&["stat", &id])["placements"].as_array().unwrap().len(), 1);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "what is kept");
}

#[test]
fn the_name_follows_the_bytes() {
    let home = Home::new();
    let bytes = noise(3 * MIB, 1);
    let id = home.line_with(&["id", "-"], &bytes);
    for at in [0, 4096, 2 * MIB, 3 * MIB - 1] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_ne!(home.line_with(&["id", "-"], &other), id, "a bit flipped at {at}");
    }
    assert_ne!(home.line_with(&["id", "-"], &bytes[1..]), id);
    assert_ne!(home.line_with(&["id", "-"], &[&bytes[..], &[0]].concat()), id, "a zero more");
    assert!(!home.path("tidelock-data").exists(), "`id` keeps nothing");
}

#[test]
fn a_sparse_file_is_the_same_as_its_bytes() {
    let home = Home::new();
    let file = fs::File::create(home.path("sparse")).unwrap();
    file.set_len(32 * MIB as u64 + 5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(5000, 3), 17 * MIB as u64 + 100).unwrap();
    let bytes = home.read("sparse");
    let id = home.line(&["store", "sparse"]);
    assert_eq!(home.line_with(&["id", "-"], &bytes), id);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the holes");
}

#[test]
fn ranges_are_the_bytes_between() {
    let home = Home::new();
    let bytes = noise(9 * MIB + 3, 7);
    let id = home.line_with(&["store", "-"], &bytes);
    let end = bytes.len();
    for (range, start, stop) in [
        ("0..1", 0, 1),
        ("..5", 0, 5),
        ("4095..4097", 4095, 4097),
        (&format!("{}..{}", 2 * MIB - 1, 2 * MIB + 1), 2 * MIB - 1, 2 * MIB + 1),
        (&format!("{}..", 3 * MIB + 1), 3 * MIB + 1, end),
        (&format!("{}..", end - 1), end - 1, end),
        (&format!("{}..{}", end - 3, end + 1000), end - 3, end),
        (&format!("{end}.."), end, end),
        ("7..7", 7, 7),
        ("0..", 0, end),
    ] {
        assert_same(&home.bytes(&["retrieve", &id, "--range", range]), &bytes[start..stop], range);
    }
    home.bytes(&["retrieve", &id, "--range", "4095..4097", "-o", "part"]);
    assert_same(&home.read("part"), &bytes[4095..4097], "a range in a file");
}

#[test]
fn a_listed_snapshot_can_be_shown_and_removed() {
    let home = Home::new();
    let listed = |home: &Home| {
        let mut ids: Vec<String> = home.json(&["ls"])["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["id"].as_str().unwrap().into())
            .collect();
        ids.sort();
        ids
    };
    assert!(listed(&home).is_empty());
    let first = home.line_with(&["store", "-", "--name", "first"], &noise(5000, 1));
    let second = home.line_with(&["store", "-"], &noise(6000, 2));
    let mut both = vec![first.clone(), second.clone()];
    both.sort();
    assert_eq!(listed(&home), both);
    let table = String::from_utf8(home.bytes(&["ls"])).unwrap();
    assert!(both.iter().all(|id| table.contains(id.as_str())), "{table}");

    let stat = home.json(&["stat", &first]);
    assert_eq!((&stat["id"], &stat["size"], &stat["name"]), (&first.clone().into(), &5000.into(), &"first".into()));
    assert!(stat["base"].is_null());
    let placement = &stat["placements"][0];
    assert_eq!(placement["backend"], "local");
    let object = home.path("tidelock-data/objects").join(placement["object"].as_str().unwrap());
    assert!(object.is_file(), "the placement says where: {}", object.display());

    home.run(&["rm", &first]).success(&["rm"]);
    assert_eq!(listed(&home), [second.as_str()]);
    assert!(!object.exists() && home.objects().len() == 1);
    home.refused(2, &["stat", &first]);
    home.refused(2, &["retrieve", &first]);
    home.refused(2, &["rm", &first]);
    assert_same(&home.bytes(&["retrieve", &second]), &noise(6000, 2), "the other one");
    // What was removed can be stored again.
    assert_eq!(home.line_with(&["store", "-"], &noise(5000, 1)), first);
    assert_same(&home.bytes(&["retrieve", &first]), &noise(5000, 1), "stored again");
}

#[test]
fn verify_finds_a_missing_object_and_a_flipped_bit() {
    let home = Home::new();
    let good = home.line_with(&["store", "-"], &noise(MIB, 1));
    let bad = home.line_with(&["store", "-"], &noise(5 * MIB, 2));
    for deep in [&["verify"][..], &["verify", "--deep"], &["verify", &bad, "--deep"]] {
        let found = home.json(deep);
        assert_eq!(found["bad"].as_array().map(Vec::len), Some(0), "{found}");
        assert_eq!(found["checked"], if deep.len() == 3 { 1 } else { 2 });
    }
    let object = home.json(&["stat", &bad])["placements"][0]["object"].as_str().unwrap().to_owned();
    let object = home.path("tidelock-data/objects").join(object);
    let mut bytes = fs::read(&object).unwrap();
    bytes[3 * MIB + 77] ^= 4;
    fs::write(&object, &bytes).unwrap();

    let outcome = home.run(&["verify", "--deep", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let found = outcome.json();
    assert_eq!((&found["checked"], found["bad"].as_array().unwrap().len()), (&2.into(), 1), "{found}");
    assert_eq!((&found["bad"][0]["id"], &found["bad"][0]["backend"]), (&bad.clone().into(), &"local".into()));
    home.json(&["verify", &good, "--deep"]);
    // The damage is never handed on as though it were the image.
    let outcome = home.run(&["retrieve", &bad, "-o", "copy"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(!home.path("copy").exists(), "a file that is not the snapshot");
    assert_eq!(home.run(&["retrieve", &bad]).status.code(), Some(1));

    fs::remove_file(&object).unwrap();
    let outcome = home.run(&["verify", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.json()["bad"][0]["id"], bad);
    assert_eq!(home.run(&["retrieve", &bad]).status.code(), Some(1));
}

#[test]
fn a_truncated_object_is_an_error() {
    let home = Home::new();
    let id = home.line_with(&["store", "-"], &noise(5 * MIB, 2));
    let object = home.objects().remove(0);
    fs::File::options().write(true).open(&object).unwrap().set_len(5 * MIB as u64 - 1).unwrap();
    for verify in [&["verify"][..], &["verify", "--deep"]] {
        assert_eq!(home.run(verify).status.code(), Some(1), "{verify:?}");
    }
    let outcome = home.run(&["retrieve", &id, "-o", "copy"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(!home.path("copy").exists());
}

#[test]
fn objects_have_the_keys_of_the_contract() {
    let home = Home::new();
    home.file("image", noise(5000, 1));
    home.file("newer", noise(5001, 2));
    let stored = home.json(&["store", "image"]);
    assert_eq!(keys(&stored), ["id", "placements", "seconds", "size", "stored_bytes"]);
    assert_eq!(keys(&stored["placements"][0]), ["backend", "object"]);
    assert_eq!(stored["size"], 5000);
    assert!(stored["seconds"].is_number() && stored["stored_bytes"].as_u64().is_some());
    let id = stored["id"].as_str().unwrap();
    let updated = home.json(&["update", id, "newer"]);
    assert_eq!(keys(&updated), ["base", "delta_bytes", "id", "placements", "seconds", "size", "stored_bytes"]);
    assert_eq!((&updated["base"], &updated["size"]), (&id.into(), &5001.into()));
    let retrieved = home.json(&["retrieve", id, "-o", "copy"]);
    assert_eq!(keys(&retrieved), ["id", "seconds", "size", "source"]);
    assert_eq!((&retrieved["source"], &retrieved["size"]), (&"local".into(), &5000.into()));
    assert_eq!(home.json(&["id", "image"])["id"], id);
    for command in [&["stat", id][..], &["ls"], &["verify"], &["gc"], &["adapter", "ls"], &["rm", id]] {
        home.json(command);
    }
}

#[test]
fn errors_are_objects_with_json() {
    let home = Home::new();
    let outcome = home.run(&["store", "absent", "--json"]);
    assert_eq!(outcome.status.code(), Some(2));
    let error = outcome.json();
    assert_eq!(keys(&error), ["error"]);
    assert_eq!(error["error"]["kind"], "not-found");
    assert!(error["error"]["message"].as_str().unwrap().contains("absent"));
}

#[test]
fn the_status_tells_done_from_bad_usage() {
    let home = Home::new();
    for usage in [&[][..], &["frobnicate"], &["store"], &["store", "a", "--frobnicate"], &["retrieve"]] {
        home.refused(2, usage);
    }
    assert!(String::from_utf8(home.bytes(&["--help"])).unwrap().contains("retrieve"));
    assert!(home.line(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(!home.path("tidelock-data").exists());
}

#[test]
fn it_works_from_an_empty_folder_with_nothing_beside_it() {
    let home = Home::new();
    let program = home.path("tidelock");
    fs::copy(tidelock(), &program).unwrap();
    let run = |arguments: &[&str], input: &[u8]| {
        let mut command = std::process::Command::new(&program);
        home.settle(&mut command);
        command.args(arguments).env_clear();
        let mut running = Running::start(command);
        running.feed(input).unwrap();
        running.finish().success(arguments).stdout
    };
    let bytes = noise(3 * MIB, 9);
    let id = String::from_utf8(run(&["store", "-"], &bytes)).unwrap();
    assert_same(&run(&["retrieve", id.trim()], &[]), &bytes, "with no environment and no files");
    assert!(home.path("tidelock-data/objects").is_dir(), "where the page says");
}

#[test]
fn snapshots_are_found_by_name_and_by_the_beginning_of_the_id() {
    let home = Home::new();
    let id = home.line_with(&["store", "-", "--name", "golden"], &noise(5000, 1));
    assert_same(&home.bytes(&["retrieve", "golden"]), &noise(5000, 1), "by name");
    assert_same(&home.bytes(&["retrieve", &id[..12]]), &noise(5000, 1), "by the beginning");
}
