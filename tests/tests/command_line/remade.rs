//! What is lost of a pack and can be had again: the pack that others need from its image, and the label from the object.

use std::fs;
use std::path::PathBuf;

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

/// Folders `first` and `second`, each with a route; images are stored as packs.
fn home(profile: &str) -> Home {
    Home::with(&config(profile))
}

fn config(profile: &str) -> String {
    let backend = |name: &str| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    let backends: String = ["first", "second"].map(backend).concat();
    format!(
        "{backends}[routes.default]\nbackends = [\"first\"]\nencoding = \"pages\"\nprofile = \"{profile}\"\n\
         [routes.two]\nbackends = [\"second\"]\nencoding = \"raw\"\n"
    )
}

fn object(home: &Home, id: &str, backend: &str) -> PathBuf {
    let stat = home.json(&["stat", id]);
    let placements = stat["placements"].as_array().unwrap().clone();
    let found = placements.into_iter().find(|p| p["backend"] == backend && p["state"] != "removing").unwrap();
    home.path(backend).join(found["object"].as_str().unwrap())
}

/// An image in which pages are equal, as those of a disk are.
fn disk(seed: u64) -> Vec<u8> {
    let mut bytes = noise(3 * MIB, seed);
    bytes.extend(noise(4096, seed + 1).repeat(MIB / 4096));
    bytes
}

#[track_caller]
fn heals(home: &Home, lost: &str, last: (&str, &[u8]), what: &str) {
    let _ = home.run(&["scrub"]);
    for _ in 0..2 {
        let _ = home.run(&["jobs", "run", "--all"]);
    }
    assert_same(&home.bytes(&["retrieve", last.0]), last.1, what);
    let found = home.run(&["verify", "--deep", "--json"]);
    assert_eq!(found.status.code(), Some(0), "{what}: {lost} {}", String::from_utf8_lossy(&found.stdout));
    assert_eq!(home.json(&["jobs"])["jobs"].as_array().unwrap().len(), 0, "{what}");
}

/// Versions take pages from this very pack: it is made again whatever it was made from, and whatever is configured by now.
#[test]
fn a_lost_pack_that_others_need_is_made_again() {
    for (what, of_stream, is_change, profile) in [
        ("of a file", false, false, "compact"),
        ("of a stream", true, false, "compact"),
        ("with another profile since", false, false, "random"),
        ("of a change", false, true, "compact"),
        ("of a change, with another profile since", false, true, "random"),
    ] {
        let home = home("compact");
        let mut bytes = disk(1);
        home.file("image", &bytes);
        let mut base = match of_stream {
            true => home.line_with(&["store", "-"], &bytes),
            false => home.line(&["store", "image"]),
        };
        if is_change {
            bytes[5 * 4096..105 * 4096].copy_from_slice(&noise(100 * 4096, 3));
            home.file("image", &bytes);
            base = home.line(&["update", &base, "image"]);
        }
        // The row of what is wanted is of the other route from here on.
        home.line(&["store", "image", "--route", "two"]);
        let mut next = bytes.clone();
        next[3 * MIB + 17] ^= 1;
        home.file("next", &next);
        let version = home.line(&["update", &base, "next"]);
        fs::remove_file(object(&home, &base, "first")).unwrap();
        home.file("tidelock.toml", config(profile));
        heals(&home, &base, (&version, &next), what);
        fs::remove_dir_all(home.path("second")).unwrap();
        assert_same(&home.bytes(&["retrieve", &base]), &bytes, what);
    }
}

/// A pack of which only frames are damaged that nothing else has: what can be read through it is stored whole, and the job ends.
#[test]
fn a_version_that_is_readable_beside_a_damaged_base_is_stored_again() {
    let home = home("compact");
    let bytes = disk(11);
    home.file("image", &bytes);
    let base = home.line(&["store", "image"]);
    home.line(&["store", "image", "--route", "two"]);
    let mut next = bytes.clone();
    next[3 * MIB + 17] ^= 1;
    home.file("next", &next);
    let version = home.line(&["update", &base, "next"]);
    let object = object(&home, &base, "first");
    let mut stored = fs::read(&object).unwrap();
    stored[5000] ^= 1;
    fs::write(&object, stored).unwrap();
    heals(&home, &base, (&version, &next), "a frame");
}

/// Without its label, a catalogue that is rebuilt does not know a pack for one: so it counts as damaged, and is stored again from what it
/// still has.
#[test]
fn a_pack_that_has_lost_its_label_is_found_and_stored_again() {
    for copies in [1, 2] {
        let home = home("compact");
        let bytes = disk(21);
        home.file("image", &bytes);
        let base = home.line(&["store", "image"]);
        let mut next = bytes.clone();
        next[17] ^= 1;
        home.file("next", &next);
        let version = home.line(&["update", &base, "next"]);
        if copies == 2 {
            home.line(&["store", "image", "--route", "two"]);
        }
        for id in [&base, &version] {
            let label = object(&home, id, "first").with_extension("base");
            let label = if label.exists() {
                label
            } else {
                PathBuf::from(format!("{}.base", object(&home, id, "first").display()))
            };
            fs::remove_file(label).unwrap();
        }
        assert_ne!(home.run(&["verify"]).status.code(), Some(0), "{copies}");
        heals(&home, &base, (&version, &next), "a label");
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(home.path(&format!("tidelock-data/catalogue.sqlite{end}")));
        }
        let _ = fs::remove_dir_all(home.path("second"));
        home.run(&["import", "first"]);
        assert_same(&home.bytes(&["retrieve", &version]), &next, "from a catalogue that was rebuilt");
        assert_same(&home.bytes(&["retrieve", &base]), &bytes, "from a catalogue that was rebuilt");
    }
}

/// A version that was rebased has a full pack beside the one that others take pages from: that one is made again all the same.
#[test]
fn a_lost_pack_is_made_again_beside_a_full_one() {
    for lose in ["gone", "cut"] {
        let home = home("compact");
        let bytes = noise(3 * MIB, 1);
        let mut versions = vec![bytes.clone()];
        let mut ids = vec![home.line_with(&["store", "-"], &bytes)];
        for page in [100, 200] {
            let mut next = versions.last().unwrap().clone();
            next[page * 4096..][..4096].copy_from_slice(&noise(4096, page as u64));
            ids.push(home.line_with(&["update", ids.last().unwrap(), "-"], &next));
            versions.push(next);
        }
        let pack = object(&home, &ids[1], "first");
        home.bytes(&["rebase", &ids[1]]);
        match lose {
            "gone" => fs::remove_file(&pack).unwrap(),
            _ => fs::File::options().write(true).open(&pack).unwrap().set_len(1000).unwrap(),
        }
        home.run(&["verify", &ids[2]]);
        heals(&home, &ids[1], (&ids[2], &versions[2]), lose);
    }
}
