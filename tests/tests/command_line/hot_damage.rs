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

/// That the page digests of an image are kept says nothing about a file: one that is hot already is read before it is counted on.
#[test]
fn an_image_that_is_hot_already_is_proven_before_it_is_acknowledged() {
    let home = local_home();
    let bytes = noise(4 * MIB, 5);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    rot(&hot_files(&home)[0], 3 * MIB);
    assert_eq!(home.line(&["store", "image", "--name", "again"]), id);
    assert_eq!(state(&home, &id, "local").as_deref(), Some("live"), "the backend took it");
    assert_same(&home.bytes(&["retrieve", "again"]), &bytes, "the image");
}

/// The same for a version that is hot already, and for what it takes from a base that is nowhere else.
#[test]
fn a_version_that_is_hot_already_is_proven_with_its_base() {
    for of_base in [false, true] {
        let home = local_home();
        let mut bytes = noise(4 * MIB, 6);
        home.file("image", &bytes);
        let base = home.line(&["store", "image"]);
        let hot_base = hot_files(&home).remove(0);
        run_on(&mut bytes, 5, 1);
        home.file("image", &bytes);
        let version = home.line(&["update", &base, "image"]);
        let pack = hot_files(&home).into_iter().find(|path| *path != hot_base).unwrap();
        if of_base {
            rot(&hot_base, 3 * MIB)
        } else {
            rot(&pack, 2 * 4096)
        }
        assert_eq!(home.line(&["update", &base, "image", "--name", "again"]), version);
        assert_eq!(state(&home, &version, "local").as_deref(), Some("live"), "of the base: {of_base}");
        assert_same(&home.bytes(&["retrieve", "again"]), &bytes, "the version");
    }
}

/// The hot copy is proven before the name is recorded.
#[test]
fn a_local_store_that_fails_moves_no_name() {
    let home = local_home();
    let (first, second) = (noise(3 * MIB, 7), noise(3 * MIB, 8));
    home.file("image", &first);
    home.line(&["store", "image", "--name", "web"]);
    home.json(&["jobs", "run"]);
    let before = hot_files(&home);
    home.file("image", &second);
    home.line(&["store", "image"]);
    let hot = hot_files(&home).into_iter().find(|path| !before.contains(path)).unwrap();
    rot(&hot, MIB);
    fs::remove_dir_all(home.path("tidelock-data/page-digests")).unwrap();
    fs::rename(home.path("objects"), home.path("away")).unwrap();
    let failed = home.run(&["store", "image", "--name", "web"]);
    assert_ne!(failed.status.code(), Some(0), "nothing has taken it");
    fs::rename(home.path("away"), home.path("objects")).unwrap_or_else(|_| {
        fs::remove_dir_all(home.path("objects")).unwrap();
        fs::rename(home.path("away"), home.path("objects")).unwrap();
    });
    assert_same(&home.bytes(&["retrieve", "web"]), &first, "the name is where it was");
}

/// A hot pack that is not pushed yet can be read with the other copy of its base, which a removal of that leaves, and which goes
/// with the pack.
#[test]
fn what_a_hot_pack_takes_pages_from_stays_on_its_backend_until_the_pack_is_pushed() {
    for pushed in [true, false] {
        let home = local_home();
        let mut bytes = noise(4 * MIB, 9);
        home.file("image", &bytes);
        let base = home.line(&["store", "image"]);
        home.json(&["jobs", "run"]);
        rot(&hot_files(&home)[0], 3 * MIB);
        bytes[MIB..MIB + 10].fill(7);
        home.file("image", &bytes);
        home.file("dirty", format!("{MIB} 4096\n"));
        let version = home.line(&["update", &base, "image", "--dirty", "dirty"]);
        home.line(&["rm", &base]);
        if pushed {
            home.run(&["jobs", "run", "--all"]);
            home.run(&["jobs", "run", "--all"]);
            assert_eq!(state(&home, &version, "local").as_deref(), Some("live"), "it is pushed");
            let (hot, away) = (home.path("tidelock-data/hot"), home.path("away"));
            fs::rename(&hot, &away).unwrap();
            assert_same(&home.bytes(&["retrieve", &version]), &bytes, "from the folder alone");
            fs::remove_dir_all(&hot).unwrap_or_default();
            fs::rename(&away, &hot).unwrap();
        }
        home.line(&["rm", &version]);
        home.json(&["gc", "--older-than", "1ms"]);
        assert_eq!(home.objects_below("objects"), [""; 0].map(std::path::PathBuf::from), "pushed: {pushed}");
    }
}

/// A damaged hot object that hot packs take pages from goes after these, each of which is whole on the backend.
#[test]
fn a_damaged_hot_base_goes_with_its_hot_packs() {
    for at in 0..2 {
        let home = home(64);
        let mut bytes = noise(4 * MIB, 9);
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        for page in 0..3 {
            run_on(&mut bytes, page, 1);
            home.file("image", &bytes);
            let id = match all.last() {
                None => home.line(&["store", "image"]),
                Some((base, _)) => home.line(&["update", base, "image"]),
            };
            all.push((id, bytes.clone()));
        }
        let object = home.json(&["stat", &all[at].0])["placements"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|one| (one["backend"] == "hot").then(|| one["object"].as_str().unwrap().to_owned()));
        let damaged = hot_files(&home).into_iter().find(|file| file.ends_with(object.as_deref().unwrap())).unwrap();
        rot(&damaged, 10);
        home.run(&["verify", "--deep"]);
        home.json(&["jobs", "run", "--all"]);
        assert_eq!(state(&home, &all[at].0, "hot"), None, "{at}");
        assert_eq!(state(&home, &all[2].0, "hot"), None, "{at}");
        home.json(&["verify", "--deep"]);
        assert_eq!(home.json(&["jobs", "ls"])["jobs"].as_array().unwrap().len(), 0, "{at}");
        for (id, bytes) in &all {
            home.json(&["repair", id]);
            assert_same(&home.bytes(&["retrieve", id]), bytes, "an image");
        }
    }
}
