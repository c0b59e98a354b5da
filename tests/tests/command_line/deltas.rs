//! New versions of a snapshot: whole images, and deltas that the caller has already.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;
use xtask::skip::skip;

#[test]
fn an_update_is_the_new_image_and_records_its_base() {
    let home = Home::new();
    let old = noise(5 * MIB + 9, 1);
    let new = changed(&old, 2);
    let base = home.line_with(&["store", "-"], &old);
    let file = home.file("new", &new);
    let id = home.line(&["update", &base, &file]);
    assert_eq!(id, home.line(&["id", &file]));
    assert_eq!(home.line_with(&["update", &base, "-"], &new), id, "through a pipe");
    assert_same(&home.bytes(&["retrieve", &id]), &new, "the new version");
    assert_same(&home.bytes(&["retrieve", &base]), &old, "the old version");
    assert_same(&home.bytes(&["retrieve", &id, "--range", "777770..777790"]), &new[777_770..777_790], "a range");
    let stat = home.json(&["stat", &id]);
    assert_eq!((&stat["base"], &stat["size"]), (&base.clone().into(), &new.len().into()));
    // A version of a version.
    let newest = changed(&new, 3);
    let third = home.line_with(&["update", &id, "-"], &newest);
    assert_eq!(home.json(&["stat", &third])["base"], id);
    assert_same(&home.bytes(&["retrieve", &third]), &newest, "the newest version");
    home.json(&["verify", "--deep"]);
}

#[test]
fn the_backend_records_the_base() {
    let home = Home::new();
    let base = home.line_with(&["store", "-"], &noise(9000, 1));
    let id = home.line_with(&["update", &base, "-"], &noise(9000, 2));
    let object = |id: &str| home.json(&["stat", id])["placements"][0]["object"].as_str().unwrap().to_owned();
    let side = home.path("tidelock-data/objects").join(format!("{}.base", object(&id)));
    let text = std::fs::read_to_string(&side).unwrap_or_else(|error| panic!("{}: {error}", side.display()));
    assert!(text.contains(&format!("base {}", object(&base))), "{text}");
}

#[test]
fn zstd_deltas_are_applied() {
    if Command::new("zstd").arg("--version").output().is_err() {
        return skip("zstd_deltas_are_applied", "there is no zstd program");
    }
    let home = Home::new();
    let old = noise(4 * MIB + 17, 1);
    let new = changed(&old, 2);
    let (old_file, new_file) = (home.file("old", &old), home.file("new", &new));
    let delta = home.path("delta");
    let status = Command::new("zstd")
        .args(["-q", "-f", "--long=27", &format!("--patch-from={old_file}"), &new_file, "-o"])
        .arg(&delta)
        .status();
    assert!(status.unwrap().success());
    let delta_bytes = std::fs::metadata(&delta).unwrap().len();
    assert!(delta_bytes < MIB as u64, "zstd found the common parts");
    let base = home.line(&["store", &old_file]);
    let applied = home.json(&["apply", &base, "delta"]);
    let id = home.line(&["id", &new_file]);
    assert_eq!((&applied["id"], &applied["base"]), (&id.clone().into(), &base.clone().into()));
    assert_eq!(applied["size"], new.len());
    assert_same(&home.bytes(&["retrieve", &id]), &new, "base and delta");
    assert_eq!(home.line_with(&["apply", &base, "-", "--format", "zstd"], &home.read("delta")), id, "through a pipe");

    // One that belongs to another base, one that is truncated, one that is not a delta.
    let other = home.line_with(&["store", "-"], &noise(4 * MIB + 17, 5));
    home.refused(2, &["apply", &other, "delta"]);
    let delta = home.read("delta");
    home.file("truncated", &delta[..delta.len() / 2]);
    home.refused(2, &["apply", &base, "truncated"]);
    home.refused(2, &["apply", &base, "new"]);
    home.refused(2, &["apply", &base, "absent"]);
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

#[test]
fn sparse_deltas_are_applied() {
    let home = Home::new();
    let old = noise(6 * MIB, 1);
    let base = home.line_with(&["store", "-"], &old);
    let mut new = old.clone();
    let delta = File::create(home.path("delta")).unwrap();
    delta.set_len(old.len() as u64).unwrap();
    for (at, seed) in [(0, 3), (MIB, 4), (6 * MIB - 4096, 5)] {
        let page = noise(4096, seed);
        delta.write_all_at(&page, at as u64).unwrap();
        new[at..at + 4096].copy_from_slice(&page);
    }
    let id = home.line(&["apply", &base, "delta", "--format", "sparse"]);
    assert_eq!(id, home.line_with(&["id", "-"], &new));
    assert_same(&home.bytes(&["retrieve", &id]), &new, "base and differences");
    assert_eq!(home.json(&["stat", &id])["base"], base);
    // Of another length it is of another machine.
    delta.set_len(old.len() as u64 + 4096).unwrap();
    home.refused(2, &["apply", &base, "delta", "--format", "sparse"]);
}

#[test]
fn a_base_has_to_be_there() {
    let home = Home::new();
    let absent = home.line_with(&["id", "-"], b"never stored");
    home.file("image", b"x");
    home.refused(2, &["update", &absent, "image"]);
    home.refused(2, &["apply", &absent, "image"]);
    assert!(home.objects().is_empty());
}

/// A base that was removed and is kept for a version of it: it was damaged, and its bytes are right again.
#[test]
fn what_is_kept_for_others_counts_again_once_its_bytes_are_right() {
    let home = Home::new();
    let old = noise(5 * MIB, 1);
    let base = home.line_with(&["store", "-"], &old);
    let object = home.json(&["stat", &base])["placements"][0]["object"].as_str().unwrap().to_owned();
    let object = home.path("tidelock-data/objects").join(object);
    let new = changed(&old, 2);
    let id = home.line_with(&["update", &base, "-"], &new);
    home.line(&["rm", &base]);
    let bytes = std::fs::read(&object).unwrap();
    let mut damaged = bytes.clone();
    damaged[3 * MIB + 5000] ^= 1;
    std::fs::write(&object, damaged).unwrap();
    let found = home.run(&["verify", "--deep", "--json"]);
    assert_eq!((found.status.code(), found.json()["bad"].as_array().unwrap().len()), (Some(1), 1));
    // It is known to be damaged, and a look at its size does not prove the contrary.
    std::fs::write(&object, bytes).unwrap();
    assert_eq!(home.run(&["verify", "--json"]).status.code(), Some(1));
    let healed = home.json(&["verify", "--deep"]);
    assert_eq!((&healed["checked"], &healed["bytes"]), (&1.into(), &(old.len() + new.len()).into()));
    home.json(&["verify"]);
    assert_same(&home.bytes(&["retrieve", &id]), &new, "the version");
}

#[test]
fn a_bitmap_that_begins_like_a_text_is_a_bitmap() {
    let home = Home::new();
    let old = noise(MIB, 1);
    let base = home.line_with(&["store", "-"], &old);
    // For 256 pages: like a comment, like an empty line, like JSON.
    for (seed, first) in [(2, b'#'), (3, b'\n'), (4, b'[')] {
        let mut bitmap = vec![0; 32];
        bitmap[0] = first;
        let mut new = old.clone();
        for page in (0..8).filter(|page| first >> page & 1 == 1) {
            new[page * 4096..(page + 1) * 4096].copy_from_slice(&noise(4096, seed));
        }
        home.file("new", &new);
        home.file("dirty", &bitmap);
        let id = home.line(&["update", &base, "new", "--dirty", "dirty"]);
        assert_same(&home.bytes(&["retrieve", &id]), &new, "with the changed pages");
    }
    // Blanks alone are a bitmap with a page in eight, and may be a list that has lost its lines.
    let mut new = old.clone();
    (5..256).step_by(8).for_each(|page| new[page * 4096] ^= 1);
    home.file("new", &new);
    home.file("dirty", [b' '; 32]);
    let refused = home.refused(2, &["update", &base, "new", "--dirty", "dirty"]);
    assert!(refused.contains("--dirty-format"), "{refused}");
    home.refused(2, &["update", &base, "new", "--dirty", "dirty", "--dirty-format", "ranges"]);
    let id = home.line(&["update", &base, "new", "--dirty", "dirty", "--dirty-format", "bitmap"]);
    assert_same(&home.bytes(&["retrieve", &id]), &new, "as a bitmap");
}

#[test]
fn every_bit_of_the_header_of_a_pack_is_proven() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let old = noise(2 * MIB, 1);
    // Less than what is fetched with the metadata, and more.
    for (seed, len) in [(2, 4096), (3, MIB)] {
        let base = home.line_with(&["store", "-"], &old);
        let mut new = old.clone();
        new[..len].copy_from_slice(&noise(len, seed));
        let id = home.line_with(&["update", &base, "-"], &new);
        let placement = &home.json(&["stat", &id])["placements"][0];
        assert_eq!(placement["encoding"], "pages");
        let path = home.path("tidelock-data/objects").join(placement["object"].as_str().unwrap());
        home.json(&["verify", "--deep"]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = File::options().write(true).read(true).open(&path).unwrap();
        file.write_all_at(b"t", 0).unwrap();
        let said = home.run(&["verify", "--deep"]);
        assert!(said.status.code() == Some(1) && said.stderr.contains("header"), "{}: {}", said.status, said.stderr);
        // Nothing of what it holds is doubtful.
        file.write_all_at(b"T", 0).unwrap();
        home.json(&["verify", "--deep"]);
        assert_same(&home.bytes(&["retrieve", &id]), &new, "once it is mended");
        home.json(&["rm", &id]);
    }
}
