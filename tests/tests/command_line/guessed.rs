//! A base that a store has found by itself, and that is not what it was: nothing is acknowledged that could not be read.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, files};

/// Two folders; images are stored as packs.
fn home(hot: &str, route: &str) -> Home {
    let backend = |name: &str| {
        format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n")
    };
    let backends: String = ["first", "second"].map(backend).concat();
    Home::with(&format!("{backends}{hot}[routes.default]\nencoding = \"pages\"\n{route}\n"))
}

/// The largest object of a folder.
fn largest(home: &Home, folder: &str) -> PathBuf {
    files(&home.path(folder)).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap()
}

fn lose(object: &Path, how: &str) {
    let file = fs::File::options().write(true).open(object).unwrap();
    match how {
        "bits" => file.write_all_at(b"rot", 3 * MIB as u64).unwrap(),
        "cut" => file.set_len(2 * MIB as u64).unwrap(),
        _ => fs::remove_file(object).unwrap(),
    }
}

/// The next version of an image, and the image in a file.
fn next(home: &Home, bytes: &[u8]) -> Vec<u8> {
    let mut next = bytes.to_vec();
    next[MIB..MIB + 4096].copy_from_slice(&noise(4096, 77));
    home.file("image", &next);
    next
}

#[test]
fn a_found_base_counts_only_where_it_was_read() {
    for how in ["bits", "cut", "gone"] {
        for hot in ["[hot]\ncapacity = \"64 MiB\"\n", ""] {
            let home = home(hot, "backends = [\"first\"]");
            let bytes = noise(5 * MIB, 1);
            home.file("image", &bytes);
            home.line(&["store", "image", "--name", "web"]);
            lose(&largest(&home, "first"), how);
            let bytes = next(&home, &bytes);
            home.line(&["store", "image", "--name", "web"]);
            fs::remove_dir_all(home.path("tidelock-data/hot")).ok();
            assert_same(&home.bytes(&["retrieve", "web"]), &bytes, &format!("{how} {hot}"));
        }
    }
}

#[test]
fn a_found_base_that_has_rotted_on_one_backend_is_not_used_there() {
    let home = home("", "backends = [\"first\", \"second\"]\ncopies = 2");
    let bytes = noise(5 * MIB, 2);
    home.file("image", &bytes);
    home.line(&["store", "image", "--name", "web"]);
    lose(&largest(&home, "second"), "bits");
    let bytes = next(&home, &bytes);
    let id = home.line(&["store", "image", "--name", "web"]);
    let stat = home.json(&["stat", &id]);
    let sizes: Vec<_> = stat["placements"].as_array().unwrap().iter().map(|p| p["stored_bytes"].as_u64()).collect();
    assert!(sizes[0] < Some(MIB as u64) && sizes[1] > Some(4 * MIB as u64), "a change, and the image: {stat}");
    fs::rename(home.path("first"), home.path("gone")).unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the second alone");
}

/// What this machine acknowledges takes pages from nothing that was only found.
#[test]
fn a_found_base_is_nothing_for_what_this_machine_acknowledges() {
    let home = home("[hot]\ncapacity = \"64 MiB\"\nat_risk = \"32 MiB\"\n", "backends = [\"first\"]\nack = \"local\"");
    let bytes = noise(5 * MIB, 3);
    home.file("image", &bytes);
    home.line(&["store", "image", "--name", "web"]);
    home.json(&["jobs", "run"]);
    lose(&largest(&home, "first"), "bits");
    let bytes = next(&home, &bytes);
    home.line(&["store", "image", "--name", "web"]);
    home.json(&["jobs", "run"]);
    fs::remove_dir_all(home.path("tidelock-data/hot")).unwrap();
    assert_same(&home.bytes(&["retrieve", "web"]), &bytes, "pushed");
}

/// What a job sends is read back where it goes: the base may have rotted there.
#[test]
fn a_job_makes_no_copy_of_a_base_that_it_has_not_read() {
    for how in ["store", "update"] {
        let home = home("", "backends = [\"first\", \"second\"]\ncopies = 2\nack = 1");
        let bytes = noise(4 * MIB, 5);
        home.file("image", &bytes);
        let base = home.line(&["store", "image", "--name", "web"]);
        home.bytes(&["jobs", "run", "--all"]);
        lose(&largest(&home, "second"), "bits");
        let bytes = next(&home, &bytes);
        let command = if how == "store" { vec!["store", "image"] } else { vec!["update", &base, "image"] };
        let id = home.line(&command);
        home.run(&["jobs", "run", "--all"]);
        fs::remove_dir_all(home.path("first")).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, how);
    }
}
