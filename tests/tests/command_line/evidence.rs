//! Two copies in two folders, and what is known of them: evidence is neither forgotten nor made up, and a second store mends.

use std::fs;
use std::os::unix::fs::FileExt as _;

use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

/// Further copies of a stream are read from the first one, by another guest than the one that takes them.
#[test]
fn an_image_from_a_pipe_gets_two_copies() {
    let home = Home::with_two_copies();
    for (number, len) in [100, 5000, 2 * MIB, 9 * MIB + 1].into_iter().enumerate() {
        let bytes = noise(len, number as u64);
        let id = home.line_with(&["store", "-"], &bytes);
        for folder in ["one", "two"] {
            let found = home.objects_below(folder);
            assert_eq!(found.len(), number + 1, "{folder}");
            assert!(found.iter().any(|path| fs::read(path).unwrap() == bytes), "{folder}");
        }
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from a pipe");
    }
    let daemon = Daemon::start(&home);
    let bytes = noise(3 * MIB, 9);
    let stored = daemon.server.send("PUT", "/v1/snapshots", &[], &bytes);
    assert!([200, 201].contains(&stored.status), "{}: {}", stored.status, String::from_utf8_lossy(&stored.body));
    assert_eq!(home.objects_below("two").len(), 5);
    daemon.stop();
}

#[test]
fn known_damage_is_reported_until_it_is_repaired() {
    let home = Home::with_two_copies();
    let bytes = noise(3 * MIB, 1);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    let damaged = home.objects_below("one").remove(0);
    let file = fs::OpenOptions::new().write(true).open(&damaged).unwrap();
    file.write_all_at(&[bytes[MIB] ^ 1], MIB as u64).unwrap();
    assert_eq!(home.run(&["verify"]).status.code(), Some(0), "nobody has seen it yet");
    assert_eq!(home.run(&["verify", "--deep"]).status.code(), Some(1));
    let said = home.run(&["verify"]);
    assert_eq!(said.status.code(), Some(1), "it is known: {}", String::from_utf8_lossy(&said.stdout));
    assert_eq!(home.json(&["store", "image"])["stored_bytes"], bytes.len());
    home.json(&["verify", "--deep"]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert!(!damaged.exists(), "the new object has taken its place");
    home.json(&["verify", "--deep"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "mended");
    assert_eq!(home.json(&["stat", &id])["placements"].as_array().unwrap().len(), 2);
}

/// The digests of a snapshot are damaged in the catalogue: other snapshots are verified all the same, and a store of the
/// image writes them anew.
#[test]
fn damaged_digests_are_written_anew_by_a_store() {
    let home = Home::with_two_copies();
    let bytes = noise(5 * MIB, 2);
    home.file("image", &bytes);
    home.file("other", noise(5000, 3));
    let id = home.line(&["store", "image"]);
    let other = home.line(&["store", "other"]);
    let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    let change = "UPDATE snapshots SET segments = zeroblob(length(segments)) WHERE size = ?1";
    assert_eq!(catalogue.execute(change, [bytes.len()]).unwrap(), 1);
    drop(catalogue);
    home.refused(1, &["retrieve", &id, "-o", "copy"]);
    let verified = home.run(&["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    assert_eq!(verified.json()["checked"], 4, "the others are looked at all the same");
    assert_eq!(home.line(&["store", "image"]), id);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "after a store");
    assert_same(&home.bytes(&["retrieve", &other]), &noise(5000, 3), "the other");
    home.json(&["verify", "--deep"]);
}

/// An object that cannot be examined does not keep its image from being stored once more.
#[test]
fn an_object_that_cannot_be_examined_is_passed_over() {
    let home = Home::with_two_copies();
    let bytes = noise(MIB, 4);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    let object = home.objects_below("one").remove(0);
    fs::remove_file(&object).unwrap();
    std::os::unix::fs::symlink("/dev/null", &object).unwrap();
    assert_eq!(home.json(&["store", "image"])["stored_bytes"], bytes.len());
    fs::remove_file(home.objects_below("two").remove(0)).unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the new copy");
}
