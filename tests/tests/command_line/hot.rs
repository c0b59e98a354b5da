//! The hot tier: images that lie ready on this machine beside their other copies. What it costs, what it survives, and what it
//! never touches.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, files};

const PAGE: usize = 4096;

/// A home with one folder of objects, and a hot tier of so many MiB.
pub(super) fn home(capacity: usize) -> Home {
    home_in(&std::env::temp_dir(), capacity)
}

fn home_in(parent: &std::path::Path, capacity: usize) -> Home {
    let home = Home::within(parent);
    home.file(
        "tidelock.toml",
        format!(
            "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
             [hot]\ncapacity = \"{capacity} MiB\"\n"
        ),
    );
    home
}

/// The hot files of images, in the order in which they were stored.
pub(super) fn hot_files(home: &Home) -> Vec<PathBuf> {
    let all = files(&home.path("tidelock-data/hot")).into_iter();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<_> =
        all.filter(|path| name(path).starts_with("snap-") && !name(path).ends_with(".side")).collect();
    found.sort();
    found
}

/// The bytes that the hot tier takes of the file system.
fn taken(home: &Home) -> u64 {
    let all = files(&home.path("tidelock-data/hot"));
    all.iter().map(|path| fs::symlink_metadata(path).unwrap().blocks() * 512).sum()
}

/// The state of the placement of a snapshot on a backend; `None` if there is none.
pub(super) fn state(home: &Home, id: &str, backend: &str) -> Option<String> {
    let stat = home.json(&["stat", id]);
    let placements = stat["placements"].as_array().unwrap().clone();
    let found = placements.into_iter().find(|placement| placement["backend"] == backend);
    found.map(|placement| placement["state"].as_str().unwrap().to_owned())
}

/// Pages that do not compress, and some of zeros.
fn machine(pages: usize, seed: u64) -> Vec<u8> {
    let mut bytes = noise(pages * PAGE, seed);
    bytes[pages / 4 * PAGE..pages / 2 * PAGE].fill(0);
    bytes
}

/// The next version: so many of its pages are others.
pub(super) fn run_on(bytes: &mut [u8], pages: usize, seed: u64) {
    let count = bytes.len() / PAGE;
    for number in 0..pages {
        let at = (number * 7919 + seed as usize * 31) % count * PAGE;
        bytes[at..at + PAGE].copy_from_slice(&noise(PAGE, seed * 100_000 + number as u64));
    }
}

#[track_caller]
fn all_in_order(home: &Home) -> Value {
    home.json(&["verify", "--deep"])
}

#[test]
fn ten_hot_versions_cost_one_image_and_what_changed() {
    let home = home(1024);
    let mut bytes = machine(8 * MIB / PAGE, 1);
    home.file("image", &bytes);
    let mut versions = vec![(home.line(&["store", "image"]), bytes.clone())];
    let (image, changed) = (taken(&home), 20);
    assert!(image < 7 * MIB as u64, "zeros are holes: {image}");
    for number in 1..=10 {
        run_on(&mut bytes, changed, number);
        home.file("image", &bytes);
        let base = versions.last().unwrap().0.clone();
        versions.push((home.line(&["update", &base, "image"]), bytes.clone()));
    }
    let deltas = (10 * changed * (PAGE + 32)) as u64;
    assert_eq!(hot_files(&home).len(), 11);
    assert!(taken(&home) <= image * 13 / 10 + deltas, "{} where the image takes {image}", taken(&home));
    for (id, bytes) in &versions {
        let from = home.json(&["retrieve", id, "-o", "out"]);
        assert_eq!(from["source"], "hot", "{from}");
        assert_same(&home.read("out"), bytes, "into a file");
        assert_same(&home.bytes(&["retrieve", id]), bytes, "as a stream");
        assert_same(&home.bytes(&["retrieve", id, "--range", "4095..1000000"]), &bytes[4095..1_000_000], "a part");
    }
    assert_eq!(all_in_order(&home)["checked"], 22);
    // The oldest is removed; what the others take from it stays, and goes with the last of them.
    home.line(&["rm", &versions[0].0]);
    for (id, bytes) in &versions[1..] {
        assert_same(&home.bytes(&["retrieve", id]), bytes, "without the oldest");
    }
    versions[1..].iter().for_each(|(id, _)| drop(home.run(&["rm", id]).success(&["rm"])));
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!((hot_files(&home), home.objects_below("objects")), (vec![], vec![]));
}

/// Hot images are as they are, whatever the backends get, so that the next version costs what has changed.
#[test]
fn a_hot_version_costs_what_has_changed_whatever_the_route_says() {
    for lines in ["encoding = \"pages\"", "ack = \"local\"", "encoding = \"pages\"\nack = \"local\""] {
        let home = home(1024);
        let text = fs::read_to_string(home.path("tidelock.toml")).unwrap();
        home.file("tidelock.toml", format!("{text}[routes.default]\nbackends = [\"local\"]\n{lines}\n"));
        let mut bytes = machine(4 * MIB / PAGE, 1);
        home.file("image", &bytes);
        let mut base = home.line(&["store", "image"]);
        let (image, changed) = (taken(&home), 20);
        for number in 1..=3 {
            run_on(&mut bytes, changed, number);
            home.file("image", &bytes);
            base = home.line(&["update", &base, "image"]);
            // Before or after it is pushed.
            if number == 2 {
                home.json(&["jobs", "run"]);
            }
        }
        let deltas = (3 * changed * (PAGE + 32)) as u64;
        assert!(taken(&home) <= image * 13 / 10 + deltas, "{lines}: {} of {image}", taken(&home));
        assert_same(&home.bytes(&["retrieve", &base]), &bytes, lines);
    }
}

#[test]
fn a_damaged_hot_file_is_read_past_and_known_for_bad() {
    type Damage = fn(&PathBuf);
    let kinds: [(&str, Damage); 4] = [
        ("a bit", |path| {
            let file = fs::File::options().read(true).write(true).open(path).unwrap();
            let (mut byte, at) = ([0], file.metadata().unwrap().len() / 8);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }),
        ("cut short", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("emptied", |path| fs::write(path, b"").unwrap()),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    for (what, damage) in kinds {
        let ways: [&[&str]; 3] = [&["-o", "out"], &[], &["--range", "0..3145728"]];
        for way in ways {
            let home = home(1024);
            let bytes = machine(3 * MIB / PAGE, 2);
            home.file("image", &bytes);
            let id = home.line(&["store", "image"]);
            damage(&hot_files(&home)[0]);
            let found = home.bytes(&[&["retrieve", &id], way].concat());
            let found = if way.contains(&"out") { home.read("out") } else { found };
            assert_same(&found, &bytes, &format!("{what}, {way:?}"));
            assert_eq!(state(&home, &id, "local").as_deref(), Some("live"), "{what}, {way:?}");
            assert_eq!(state(&home, &id, "hot").as_deref(), Some("bad"), "{what}, {way:?}");
        }
    }
}

/// A base that has rotted where the new image has not changed, and where it has: neither becomes part of what is stored.
#[test]
fn an_update_against_a_damaged_hot_base_is_right() {
    for is_changed in [true, false] {
        let home = home(1024);
        let mut bytes = machine(4 * MIB / PAGE, 3);
        home.file("image", &bytes);
        let base = home.line(&["store", "image"]);
        run_on(&mut bytes, 30, 1);
        let unchanged = bytes.len() / PAGE - 1;
        let at = if is_changed { 31 * PAGE + 5 } else { unchanged * PAGE + 5 };
        let file = fs::File::options().write(true).open(&hot_files(&home)[0]).unwrap();
        let mut before = [0];
        fs::File::open(&hot_files(&home)[0]).unwrap().read_exact_at(&mut before, at as u64).unwrap();
        file.write_all_at(&[before[0] ^ 1], at as u64).unwrap();
        drop(file);
        home.file("image", &bytes);
        let next = home.line(&["update", &base, "image"]);
        assert_eq!(next, home.line(&["id", "image"]));
        assert_same(&home.bytes(&["retrieve", &next]), &bytes, "the update");
        fs::remove_dir_all(home.path("tidelock-data/hot")).unwrap();
        assert_same(&home.bytes(&["retrieve", &next]), &bytes, "what the backend has of it");
    }
}

#[test]
fn what_was_used_longest_ago_makes_room_and_the_only_copy_stays() {
    let home = home(10);
    let image = |seed| {
        let bytes = noise(3 * MIB, seed);
        home.file("image", &bytes);
        (home.line(&["store", "image"]), bytes)
    };
    let images: Vec<_> = (10..13).map(image).collect();
    assert_eq!(hot_files(&home).len(), 3);
    // The first one is used, and its other copy rots.
    assert_same(&home.bytes(&["retrieve", &images[0].0]), &images[0].1, "used");
    let only = image(13);
    assert_eq!(state(&home, &images[1].0, "hot"), None, "it was not used for longest");
    assert!(state(&home, &images[0].0, "hot").is_some() && taken(&home) <= 10 * MIB as u64, "{}", taken(&home));
    let object = home.json(&["stat", &only.0])["placements"][0]["object"].as_str().unwrap().to_owned();
    fs::write(home.path("objects").join(object), b"rotten").unwrap();
    home.run(&["verify"]);
    assert_eq!(state(&home, &only.0, "local").as_deref(), Some("bad"));
    for seed in 14..18 {
        let (id, bytes) = image(seed);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "stored");
        assert!(taken(&home) <= 10 * MIB as u64, "{}", taken(&home));
    }
    assert_eq!(state(&home, &only.0, "hot").as_deref(), Some("live"), "there is no other copy");
    assert_same(&home.bytes(&["retrieve", &only.0]), &only.1, "the only copy");
}

#[test]
fn a_base_outlasts_the_packs_that_need_it() {
    let home = home(6);
    let mut bytes = noise(4 * MIB, 20);
    home.file("image", &bytes);
    let base = home.line(&["store", "image"]);
    let mut last = base.clone();
    for number in 1..=6 {
        run_on(&mut bytes, 100, number);
        home.file("image", &bytes);
        last = home.line(&["update", &last, "image"]);
        assert!(taken(&home) <= 6 * MIB as u64, "{}", taken(&home));
    }
    assert!(hot_files(&home).len() < 7, "nothing was evicted");
    all_in_order(&home);
    assert_same(&home.bytes(&["retrieve", &last]), &bytes, "the last one");
    // What has no room is stored all the same.
    let large = noise(7 * MIB, 21);
    home.file("image", &large);
    let id = home.line(&["store", "image"]);
    assert_eq!((state(&home, &id, "hot"), state(&home, &id, "local").as_deref()), (None, Some("live")));
}

#[test]
fn a_hot_tier_that_is_gone_or_broken_keeps_nothing_from_being_stored_and_read() {
    let home = home(1024);
    let bytes = noise(3 * MIB, 30);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    let hot = home.path("tidelock-data/hot");
    fs::rename(&hot, home.path("away")).unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "without it");
    // It was made anew.
    fs::remove_dir_all(&hot).unwrap();
    fs::write(&hot, b"a file").unwrap();
    let other = noise(3 * MIB, 31);
    home.file("image", &other);
    let second = home.line(&["store", "image"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "a file in its place");
    assert_same(&home.bytes(&["retrieve", &second]), &other, "a file in its place");
    fs::remove_file(&hot).unwrap();
    fs::rename(home.path("away"), &hot).unwrap();
    assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"), "that it was away says nothing about it");
    let from = home.json(&["retrieve", &id, "-o", "out"]);
    assert_eq!(from["source"], "hot");
    all_in_order(&home);
}

#[test]
fn a_stream_and_an_import_of_the_hot_tier() {
    let home = home(1024);
    let bytes = machine(4 * MIB / PAGE, 40);
    let id = home.line_with(&["store", "-", "--name", "vm 1"], &bytes);
    assert_eq!(state(&home, &id, "hot").as_deref(), Some("live"));
    let mut next = bytes.clone();
    run_on(&mut next, 5, 1);
    let second = home.line_with(&["update", &id, "-", "--name", "vm 2"], &next);
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(home.path(&format!("tidelock-data/catalogue.sqlite{end}")));
    }
    fs::remove_dir_all(home.path("objects")).unwrap();
    let imported = home.json(&["import", "hot"]);
    assert_eq!(imported["imported"], 2, "{imported}");
    assert_same(&home.bytes(&["retrieve", "vm 1"]), &bytes, "from the hot tier alone");
    assert_same(&home.bytes(&["retrieve", "vm 2"]), &next, "from the hot tier alone");
    assert_eq!(home.json(&["stat", "vm 2"])["base"], id.as_str());
    assert_eq!(home.json(&["stat", "vm 2"])["id"], second.as_str());
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_their_place() {
    let backend = "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n";
    let refused = |hot: &str| Home::with(&format!("{backend}{hot}")).refused(2, &["ls"]);
    for (hot, says) in [
        ("[hot]\n", "`hot` lacks `capacity`"),
        ("[hot]\ncapacity = 0\n", "line 5, column 12: `hot.capacity` must be more than zero"),
        ("[hot]\ncapacity = \"much\"\n", "line 5, column 12: `hot.capacity`"),
        ("[hot]\ncapacity = 1\nsize = 2\n", "line 6, column 1: unknown key `hot.size`"),
        (
            "[hot]\ncapacity = 1\npath = \"objects\"\n",
            "line 6, column 8: `hot.path` is the folder of the backend `local`",
        ),
        (
            "[backends.hot]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"o\" }\n[routes.default]\nbackends = [\"local\"]\n[hot]\ncapacity = 1\n",
            "`hot` is the hot tier, and there is a backend of that name",
        ),
        (
            "[routes.default]\nbackends = [\"local\", \"hot\"]\n[hot]\ncapacity = 1\n",
            "names `hot`, which is not a backend",
        ),
    ] {
        let said = refused(hot);
        assert!(said.contains(says), "{hot}: {said}");
    }
}

/// Where the file system can share bytes, a retrieved file shares those of the hot tier, and is proven all the same.
#[test]
fn a_retrieved_file_shares_its_bytes_where_the_file_system_can() {
    let world = tempfile::tempdir().unwrap();
    let (disk, mounted) = (world.path().join("disk"), world.path().join("mounted"));
    fs::File::create(&disk).unwrap().set_len(512 * MIB as u64).unwrap();
    fs::create_dir(&mounted).unwrap();
    xtask::apt::program("mkfs.btrfs", "btrfs-progs", "to test cloned files").unwrap();
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("mkfs.btrfs", &["-q".as_ref(), disk.as_ref()]);
    run("mount", &["-o".as_ref(), "loop".as_ref(), disk.as_ref(), mounted.as_ref()]);
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(mounted.clone());
    let home = home_in(&mounted, 256);
    let bytes = machine(64 * MIB / PAGE, 50);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    let free = || {
        assert!(Command::new("sync").arg("-f").arg(&mounted).status().unwrap().success());
        let found = rustix::fs::statvfs(&mounted).unwrap();
        found.f_bavail * found.f_frsize
    };
    let before = free();
    home.run(&["retrieve", &id, "-o", "out"]).success(&["retrieve"]);
    assert_same(&home.read("out"), &bytes, "cloned");
    let more = before.saturating_sub(free());
    assert!(more < 16 * MIB as u64, "it takes {more} bytes more");
    // A clone of what has rotted is mended from the other copy.
    let file = fs::File::options().write(true).open(&hot_files(&home)[0]).unwrap();
    file.write_all_at(b"rot", 12_345).unwrap();
    drop(file);
    home.run(&["retrieve", &id, "-o", "out"]).success(&["retrieve"]);
    assert_same(&home.read("out"), &bytes, "mended");
    assert_eq!(state(&home, &id, "hot").as_deref(), Some("bad"));
    drop(home);
}
