//! Objects that are encrypted before an adapter sees a byte of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tidelock_tests::data::{KIB, MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, files, is_identity};
use tidelock_tests::server;

const KEY: &str = "5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de0001";
const NEXT: &str = "5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de5f0aa1c0de0002";

fn config(encryption: &str, encoding: &str) -> String {
    format!(
        "[backends.disk]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
         [routes.default]\nbackends = [\"disk\"]\nencoding = \"{encoding}\"\n{encryption}\n"
    )
}

const WITH_KEY: &str = "[encryption]\nkey = { file = \"key\" }";

fn key(home: &Home, name: &str, text: &str) {
    let path = home.file(name, format!("{text}\n"));
    fs::set_permissions(home.path(&path), Permissions::from_mode(0o600)).unwrap();
}

fn home(encoding: &str) -> Home {
    let home = Home::with(&config(WITH_KEY, encoding));
    fs::create_dir(home.path("objects")).unwrap();
    key(&home, "key", KEY);
    home
}

/// An image of text, which shows wherever it is not encrypted.
fn telling(size: usize) -> Vec<u8> {
    b"the salaries of everybody are in here. ".iter().copied().cycle().take(size).collect()
}

fn lose_the_catalogue(home: &Home) {
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
}

/// Nothing below a folder shows any of these.
fn hidden(folder: &Path, texts: &[&str]) {
    let held = files(folder);
    assert!(held.len() > 2, "{held:?}");
    for file in held {
        let bytes = fs::read(&file).unwrap();
        for text in texts {
            let found = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!found && !file.to_string_lossy().contains(text), "`{text}` shows in {}", file.display());
        }
    }
}

/// What a backend holds shows neither bytes nor names nor what belongs to what, and everything works as without.
#[test]
fn a_backend_learns_nothing_but_sizes() {
    for encoding in ["raw", "pages"] {
        let home = home(encoding);
        let first = telling(5 * MIB + 17);
        let mut second = first.clone();
        second[MIB..MIB + 64 * KIB].copy_from_slice(&noise(64 * KIB, 1));
        let base = home.line_with(&["store", "-", "--name", "payroll"], &first);
        let id = home.line_with(&["update", &base, "-", "--name", "payroll-2"], &second);
        hidden(&home.path("objects"), &["salaries", "payroll", &base, &id, "tidelock container", "pages"]);
        assert_same(&home.bytes(&["retrieve", &base]), &first, "the base");
        assert_same(&home.bytes(&["retrieve", &id]), &second, "the version");
        let range = format!("{}..{}", MIB - 5, 3 * MIB + 1);
        assert_same(&home.bytes(&["retrieve", &id, "--range", &range]), &second[MIB - 5..3 * MIB + 1], "a range");
        let verified = home.json(&["verify", "--deep"]);
        assert_eq!((&verified["checked"], &verified["bad"]), (&json!(2), &json!([])), "{verified}");
        home.bytes(&["rm", &base]);
        home.bytes(&["gc"]);
        assert_same(&home.bytes(&["retrieve", &id]), &second, "without its base");
        home.bytes(&["rm", &id]);
        // The identity of the container is left.
        assert_eq!(home.objects_below("objects").len(), 0, "{encoding}");
    }
}

/// With the key, a lost catalogue is rebuilt from the backend; without it, the objects are encrypted, and not damaged.
#[test]
fn an_import_needs_the_key_and_says_so() {
    let home = home("pages");
    let first = telling(3 * MIB);
    let second = changed(&first, 4);
    let base = home.line_with(&["store", "-", "--name", "payroll"], &first);
    let id = home.line_with(&["update", &base, "-", "--name", "later"], &second);
    lose_the_catalogue(&home);
    home.file("tidelock.toml", config("", "pages"));
    let blind = home.run(&["import", "disk", "--json"]);
    let told = String::from_utf8_lossy(&blind.stdout).into_owned();
    assert!(told.contains("encrypted with the key") && told.contains("not configured"), "{told}");
    assert_eq!(home.json(&["ls"])["snapshots"], json!([]), "nothing encrypted is taken for an image");
    home.file("tidelock.toml", config(WITH_KEY, "pages"));
    home.bytes(&["import", "disk"]);
    let stat = home.json(&["stat", &id]);
    assert_eq!((&stat["name"], &stat["base"]), (&json!("later"), &json!(base)), "{stat}");
    assert_same(&home.bytes(&["retrieve", "later"]), &second, "the version");
    assert_same(&home.bytes(&["retrieve", "payroll"]), &first, "the base");
}

#[test]
fn without_its_key_nothing_is_called_damaged() {
    let home = home("raw");
    let bytes = telling(MIB);
    let id = home.line_with(&["store", "-"], &bytes);
    home.file("tidelock.toml", config("", "raw"));
    let said = home.refused(1, &["retrieve", &id]);
    assert!(said.contains("is encrypted with the key") && said.contains("[encryption]"), "{said}");
    home.run(&["verify", "--deep"]);
    assert_eq!(home.json(&["stat", &id])["placements"][0]["state"], "live");
    // Another key is as good as none, and does not keep new images from being stored.
    key(&home, "next", NEXT);
    home.file("tidelock.toml", config("[encryption]\nkey = { file = \"next\" }", "raw"));
    home.refused(1, &["retrieve", &id]);
    // With both, both are read.
    home.file(
        "tidelock.toml",
        config("[encryption]\nkey = { file = \"next\" }\nold_keys = [{ file = \"key\" }]", "raw"),
    );
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "with its old key");
    let new = home.line_with(&["store", "-"], &noise(100, 1));
    home.file("tidelock.toml", config("[encryption]\nkey = { file = \"next\" }", "raw"));
    assert_same(&home.bytes(&["retrieve", &new]), &noise(100, 1), "with the new key alone");
}

/// Objects from before are read beside those that are encrypted, and a backend can be left out.
#[test]
fn encryption_can_begin_at_any_time() {
    let home = home("pages");
    home.file("tidelock.toml", config("", "pages"));
    let first = telling(2 * MIB);
    let plain = home.line_with(&["store", "-"], &first);
    home.file("tidelock.toml", config(WITH_KEY, "pages"));
    let second = changed(&first, 9);
    let sealed = home.line_with(&["update", &plain, "-"], &second);
    let left = "[encryption]\nkey = { file = \"key\" }\n[backends.disk]\n";
    let open = config("", "pages").replace("[backends.disk]\n", left).replace("[routes", "encrypted = false\n[routes");
    home.file("tidelock.toml", open);
    let third = changed(&second, 10);
    let again = home.line_with(&["update", &sealed, "-"], &third);
    for (id, bytes) in [(&plain, &first), (&sealed, &second), (&again, &third)] {
        assert_same(&home.bytes(&["retrieve", id]), bytes, id);
    }
    let object =
        |id: &str| home.json(&["stat", id])["placements"][0]["object"].as_str().unwrap().starts_with("sealed:");
    assert_eq!((object(&plain), object(&sealed), object(&again)), (false, true, false));
    home.json(&["verify", "--deep"]);
    lose_the_catalogue(&home);
    home.bytes(&["import", "disk"]);
    assert_same(&home.bytes(&["retrieve", &again]), &third, "after an import");
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_repaired() {
    let home = Home::with_two_copies();
    let text = String::from_utf8(home.read("tidelock.toml")).unwrap();
    home.file("tidelock.toml", format!("{text}\n{WITH_KEY}\n"));
    key(&home, "key", KEY);
    let bytes = telling(300 * KIB);
    let id = home.line_with(&["store", "-"], &bytes);
    let placement = home.json(&["stat", &id])["placements"][0].clone();
    let name = placement["object"].as_str().unwrap().trim_start_matches("sealed:").to_owned();
    let all = files(&home.path(""));
    let file = all.iter().find(|file| file.to_string_lossy().ends_with(&name)).unwrap();
    let len = fs::read(file).unwrap().len();
    // The header: what it is, the key, the salt, the checksum; chunks, their tags, and the end.
    for at in [0, 9, 20, 60, 64, 64 + 70_000, 64 + (64 << 10) + 3, len - 1] {
        let mut damaged = fs::read(file).unwrap();
        damaged[at] ^= 4;
        fs::write(file, &damaged).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from the other copy");
        home.run(&["verify", "--deep", &id]);
        assert_eq!(home.json(&["stat", &id])["placements"][0]["state"], "bad", "byte {at}");
        fs::write(file, {
            damaged[at] ^= 4;
            damaged
        })
        .unwrap();
        home.json(&["verify", "--deep", &id]);
        assert_eq!(home.json(&["stat", &id])["placements"][0]["state"], "live", "byte {at}");
    }
}

#[test]
fn a_key_that_is_missing_short_or_open_to_others_is_refused() {
    let home = home("raw");
    let image = home.file("image", noise(10, 1));
    for (text, mode, says) in
        [("", 0o600, "64 hexadecimal digits"), ("abcdef", 0o600, "64 hexadecimal digits"), (KEY, 0o644, "chmod 600")]
    {
        key(&home, "key", text);
        fs::set_permissions(home.path("key"), Permissions::from_mode(mode)).unwrap();
        let said = home.refused(2, &["store", &image]);
        assert!(said.contains(says) && (text.is_empty() || !said.contains(text)), "{said}");
    }
    fs::remove_file(home.path("key")).unwrap();
    assert!(home.refused(2, &["store", &image]).contains("openssl rand -hex 32"));
    home.file("tidelock.toml", config("", "raw").replace("[routes", "encrypted = true\n[routes"));
    let said = home.refused(2, &["store", &image]);
    assert!(said.contains("`disk`") && said.contains("no table `encryption`"), "{said}");
}

#[test]
fn a_server_learns_nothing_but_sizes_either() {
    let home = server::home(server::shared(), "encrypted");
    let text = String::from_utf8(home.read("tidelock.toml")).unwrap();
    home.file("tidelock.toml", format!("{text}\n{WITH_KEY}\n"));
    key(&home, "key", KEY);
    let bytes = telling(9 * MIB + 3);
    let id = home.line_with(&["store", "-", "--name", "payroll"], &bytes);
    assert_same(&home.bytes(&["retrieve", "payroll"]), &bytes, "all");
    let range = format!("{}..{}", 5 * MIB, 5 * MIB + 10);
    assert_same(&home.bytes(&["retrieve", &id, "--range", &range]), &bytes[5 * MIB..5 * MIB + 10], "a part");
    lose_the_catalogue(&home);
    home.bytes(&["import", "cloud"]);
    assert_same(&home.bytes(&["retrieve", "payroll"]), &bytes, "after an import");
}

/// A backend that puts an image in plain beside those that are encrypted gives none of their names to it, and does not learn
/// whether a store has the same bytes.
#[test]
fn what_a_backend_adds_in_plain_takes_no_name_and_saves_no_store() {
    let home = home("raw");
    let (good, evil) = (telling(2 * MIB), noise(2 * MIB, 9));
    let id = home.line_with(&["store", "-", "--name", "payroll"], &good);
    // Put there later, and so the last one of that name.
    let plain = Home::with(&config("", "raw"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let planted = plain.line_with(&["store", "-", "--name", "payroll"], &evil);
    for file in files(&plain.path("objects")) {
        let path = file.strip_prefix(plain.path("objects")).unwrap().to_owned();
        if !is_identity(&path.to_string_lossy()) {
            let to = home.path("objects").join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
    lose_the_catalogue(&home);
    home.bytes(&["import", "disk"]);
    assert_same(&home.bytes(&["retrieve", "payroll"]), &good, "the name");
    assert_same(&home.bytes(&["retrieve", &planted]), &evil, "what was put there");
    let before = files(&home.path("objects")).len();
    home.file("image", &evil);
    let stored = home.json(&["store", "image", "--base", "none"]);
    assert_eq!(stored["stored_bytes"], evil.len(), "{stored}");
    assert!(files(&home.path("objects")).len() > before);
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
    assert_same(&home.bytes(&["retrieve", &id]), &good, "the other one");
}
