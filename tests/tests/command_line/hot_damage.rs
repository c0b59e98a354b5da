//! Damage of the hot tier where it is the only place of a part: versions of a base that has rotted, and two damaged copies.

use std::fs;
use std::os::unix::fs::FileExt as _;

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

use super::hot::{home, hot_files, run_on, state};

/// A home whose stores are acknowledged on this machine, and then pushed to a folder.
fn local_home() -> Home {
    let home = home(64);
    let text = fs::read_to_string(home.path("tidelock.toml")).unwrap();
    home.file("tidelock.toml", format!("{text}[routes.default]\nbackends = [\"local\"]\nack = \"local\"\n"));
    home
}

fn rot(path: &std::path::Path, at: usize) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"rot", at as u64).unwrap();
}

/// What a version takes from a hot base that has rotted comes from the base's other copy, for readers and for jobs.
#[test]
fn a_version_outlives_the_rot_of_its_hot_base() {
    let home = local_home();
    let mut bytes = noise(4 * MIB, 1);
    home.file("image", &bytes);
    let base = home.line(&["store", "image"]);
    home.json(&["jobs", "run"]);
    let hot_base = hot_files(&home).remove(0);
    run_on(&mut bytes, 2, 2);
    home.file("image", &bytes);
    let version = home.line(&["update", &base, "image"]);
    rot(&hot_base, 3 * MIB);
    home.run(&["retrieve", &version, "-o", "out"]).success(&["retrieve"]);
    assert_same(&home.read("out"), &bytes, "into a file");
    assert_same(&home.bytes(&["retrieve", &version]), &bytes, "as a stream");
    assert_eq!(state(&home, &version, "hot").as_deref(), Some("live"), "it is not at fault");
    home.run(&["jobs", "run"]);
    assert_eq!(state(&home, &version, "local").as_deref(), Some("live"), "it is pushed");
    home.run(&["jobs", "run", "--all"]);
    fs::remove_dir_all(home.path("tidelock-data/hot")).unwrap();
    assert_same(&home.bytes(&["retrieve", &version]), &bytes, "from the folder alone");
}

/// Two copies that are damaged in different places are whole together, and a repair takes neither away.
#[test]
fn two_damaged_copies_are_read_together_and_none_is_given_up_unread() {
    let home = home(64);
    let bytes = noise(6 * MIB, 3);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    rot(&hot_files(&home)[0], 100);
    let object = home.objects_below("objects").into_iter().find(|path| !path.to_string_lossy().ends_with(".base"));
    rot(&object.unwrap(), 5 * MIB);
    assert_same(&home.bytes(&["retrieve", &id, "--range", "0..4096"]), &bytes[..4096], "where the hot one has rotted");
    home.run(&["jobs", "run"]);
    for _ in 0..2 {
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "both are known to be bad");
        home.run(&["jobs", "run", "--all"]);
    }
    assert_eq!(hot_files(&home).len(), 1);
}

/// A store that finds out that its hot copy is not the image is acknowledged by the backends alone.
#[test]
fn a_hot_copy_that_is_not_the_image_is_no_acknowledgement() {
    let home = local_home();
    let mut bytes = noise(4 * MIB, 4);
    home.file("image", &bytes);
    let base = home.line(&["store", "image"]);
    rot(&hot_files(&home)[0], 3 * MIB);
    fs::remove_dir_all(home.path("tidelock-data/page-digests")).unwrap();
    bytes[MIB..MIB + 10].fill(7);
    home.file("image", &bytes);
    home.file("dirty", format!("{MIB} 4096\n"));
    let version = home.line(&["update", &base, "image", "--dirty", "dirty"]);
    assert_eq!(state(&home, &version, "local").as_deref(), Some("live"));
    assert_same(&home.bytes(&["retrieve", &version]), &bytes, "the version");
}
