//! The same through `s3`, with a real server.

use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::keys;
use tidelock_tests::server;

#[test]
fn a_stored_image_comes_back() {
    let home = server::home(server::shared(), "comes-back");
    for size in [0, 1, 4097, 2 * MIB, 9 * MIB + 3] {
        let bytes = noise(size, size as u64);
        let file = home.file("image", &bytes);
        let id = home.line(&["store", &file]);
        assert_eq!(home.line(&["id", &file]), id);
        assert_eq!(home.line_with(&["store", "-", "--allow-empty"], &bytes), id, "through a pipe");
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "on stdout");
        home.bytes(&["retrieve", &id, "-o", "copy"]);
        assert_same(&home.read("copy"), &bytes, "in a file");
    }
    let found = home.json(&["verify", "--deep"]);
    assert!(found["checked"].as_u64().unwrap() >= 5 && found["bad"] == serde_json::json!([]), "{found}");
}

#[test]
fn an_object_of_many_parts_and_its_ranges() {
    let home = server::home(server::shared(), "parts");
    let bytes = noise(40 * MIB + 11, 4);
    let stored = home.run_with(&["store", "-", "--json"], &bytes).success(&["store"]).json();
    assert_eq!(keys(&stored), ["id", "placements", "seconds", "size", "stored_bytes"]);
    assert_eq!((&stored["size"], &stored["placements"][0]["backend"]), (&bytes.len().into(), &"cloud".into()));
    let id = stored["id"].as_str().unwrap();
    assert_same(&home.bytes(&["retrieve", id]), &bytes, "all");
    let end = bytes.len();
    for (start, stop) in [(0, 1), (8 * MIB - 1, 8 * MIB + 1), (15_999_999, 33_333_333), (end - 1, end), (end, end)] {
        let range = format!("{start}..{stop}");
        assert_same(&home.bytes(&["retrieve", id, "--range", &range]), &bytes[start..stop], &range);
    }
    home.refused(2, &["retrieve", id, "--range", &format!("{}..", end + 1)]);
    let retrieved = home.json(&["retrieve", id, "-o", "copy"]);
    assert_eq!(retrieved["source"], "cloud");
}

#[test]
fn versions_and_removal() {
    let home = server::home(server::shared(), "versions");
    let old = noise(3 * MIB, 1);
    let new = changed(&old, 2);
    let base = home.line_with(&["store", "-"], &old);
    let id = home.line_with(&["update", &base, "-"], &new);
    assert_eq!(home.json(&["stat", &id])["base"], base);
    assert_same(&home.bytes(&["retrieve", &id]), &new, "the new version");
    home.run(&["rm", &base]).success(&["rm"]);
    assert_same(&home.bytes(&["retrieve", &id]), &new, "without its base");
    home.refused(2, &["retrieve", &base]);
    home.json(&["verify", "--deep"]);
}

#[test]
fn wrong_credentials_are_refused_and_not_shown() {
    let server = server::shared();
    let mut home = server::home(server, "refused");
    home.env("CLOUD_SECRET_ACCESS_KEY", "hush-hush-hush");
    let outcome = home.run_with(&["store", "-"], b"x");
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cloud"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hush-hush"), "{}", outcome.stderr);
}
