//! Two copies of which one is damaged or away, as a user of the program and of the daemon sees them; and settings that would
//! promise more copies than there are.

use std::fs;

use serde_json::json;
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;

/// Two folders, `first` and `second`.
fn two(copies: u32, more: &str) -> String {
    let backend = |name: &str| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    let route = format!("[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = {copies}\n{more}\n");
    format!("{}{}{route}", backend("first"), backend("second"))
}

/// The object of a snapshot on a backend, as a path in the folder.
fn object(home: &Home, id: &str, backend: &str) -> std::path::PathBuf {
    let stat = home.json(&["stat", id]);
    let placements = stat["placements"].as_array().unwrap();
    let placement = placements.iter().find(|placement| placement["backend"] == backend).unwrap();
    home.path(backend).join(placement["object"].as_str().unwrap())
}

fn state(home: &Home, id: &str, backend: &str) -> serde_json::Value {
    let stat = home.json(&["stat", id]);
    let placements = stat["placements"].as_array().unwrap();
    placements.iter().find(|placement| placement["backend"] == backend).unwrap()["state"].clone()
}

#[test]
fn a_damaged_primary_is_not_noticed_and_is_stored_again() {
    let bytes = noise(5 * MIB + 7, 1);
    type Harm<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Harm<'_>); 3] = [
        ("one bit", &|bytes| bytes[0] ^= 1),
        ("truncated", &|bytes| bytes.truncate(3 * MIB)),
        ("empty", &|bytes| bytes.clear()),
    ];
    for (what, harm) in cases {
        let home = Home::with(&two(2, ""));
        let image = home.file("image", &bytes);
        let id = home.line(&["store", &image]);
        let path = object(&home, &id, "first");
        let mut damaged = bytes.clone();
        harm(&mut damaged);
        fs::write(&path, damaged).unwrap();
        // A range past the truncated end is not a mistake of the caller.
        assert_same(&home.bytes(&["retrieve", &id, "--range", "5242880.."]), &bytes[5 * MIB..], what);
        assert_same(&home.bytes(&["retrieve", &id, "--range", "..9"]), &bytes[..9], what);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, what);
        let copy = home.json(&["retrieve", &id, "-o", "copy"]);
        assert_eq!(copy["source"], "second", "{what}: it is known by now");
        assert_eq!(state(&home, &id, "first"), "bad", "{what}");
        let again = home.json(&["store", &image]);
        assert_eq!((&again["id"], &again["stored_bytes"]), (&json!(id), &json!(bytes.len())), "{what}");
        fs::remove_file(object(&home, &id, "second")).unwrap();
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "from what was stored again");
    }
}

#[test]
fn a_download_does_not_notice_a_damaged_primary_either() {
    let home = Home::with(&two(2, ""));
    let bytes = noise(5 * MIB + 7, 2);
    let id = home.line(&["store", &home.file("image", &bytes)]);
    let path = object(&home, &id, "first");
    let daemon = Daemon::start(&home);
    let url = format!("/v1/snapshots/{id}");
    let mut damaged = bytes.clone();
    // Behind the segments that the primary gives before it is found out.
    damaged[4 * MIB + 1] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let whole = daemon.server.get(&url);
    assert_eq!((whole.status, whole.whole, whole.header("tidelock-source")), (200, true, Some("first")));
    assert_same(&whole.body, &bytes, "the whole");
    fs::write(&path, &bytes[..MIB]).unwrap();
    for (range, expected) in [("bytes=0-9", &bytes[..10]), ("bytes=5242880-", &bytes[5 * MIB..])] {
        let part = daemon.server.send("GET", &url, &[("range", range)], &[]);
        assert_eq!((part.status, part.whole), (206, true), "{range}");
        assert_same(&part.body, expected, range);
    }
    // With both gone it is the backend's fault, not that of the request.
    fs::write(object(&home, &id, "second"), &bytes[..MIB]).unwrap();
    let part = daemon.server.send("GET", &url, &[("range", "bytes=5242880-")], &[]);
    part.problem(502, "corrupt");
    daemon.stop();
    home.refused(1, &["retrieve", &id, "--range", "5242880.."]);
}

#[test]
fn a_store_that_lacks_a_copy_moves_no_name_and_reports_the_others() {
    let home = Home::with(&two(2, ""));
    let old = home.line(&["store", &home.file("old", noise(5000, 1)), "--name", "web"]);
    // The disk is not mounted: an empty folder is in its place.
    fs::rename(home.path("second"), home.path("aside")).unwrap();
    fs::create_dir(home.path("second")).unwrap();
    let image = home.file("image", noise(6000, 2));
    let outcome = home.run(&["store", &image, "--name", "web", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let error = outcome.json()["error"].clone();
    let left = error["left"].clone();
    let id = left["id"].as_str().unwrap();
    assert_eq!(left["placements"].as_array().unwrap().len(), 1, "{error}");
    assert_eq!(left["placements"][0]["backend"], "first", "{error}");
    assert!(error["message"].as_str().unwrap().contains("is kept on `first`, without a name"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("tidelock rm"), "{error}");
    assert_eq!(home.json(&["stat", "web"])["id"], old);
    assert_same(&home.bytes(&["retrieve", id]), &noise(6000, 2), "what is left");
    fs::remove_dir_all(home.path("second")).unwrap();
    fs::rename(home.path("aside"), home.path("second")).unwrap();
    let done = home.json(&["store", &image, "--name", "web"]);
    assert_eq!((&done["id"], &done["stored_bytes"]), (&json!(id), &json!(6000)));
    assert_eq!(home.json(&["stat", "web"])["id"], id);
}

#[test]
fn a_setting_that_would_have_no_effect_is_refused() {
    for (copies, more, expected) in [
        (2, "ack = \"local\"", "there is no local tier"),
        (2, "ack = 3", "must be from 1 to 2"),
        (1, "ack = \"local\"", "there is no local tier"),
    ] {
        let said = Home::with(&two(copies, more)).refused(2, &["ls"]);
        assert!(said.contains("routes.default.ack") && said.contains(expected), "{said}");
    }
    for (copies, more) in [(2, "ack = 2"), (2, "ack = \"remote\""), (1, "ack = 1"), (2, "ack = 1")] {
        Home::with(&two(copies, more)).json(&["ls"]);
    }
    let cost = "cost = { storage_gb_month = 0.023, egress_gb = 0.09 }";
    let home = Home::with(&two(1, "").replace("[backends.second]", &format!("{cost}\n[backends.second]")));
    home.line(&["store", &home.file("image", "x")]);
    let adapters = home.json(&["adapter", "ls"]);
    let first =
        adapters["adapters"].as_array().unwrap().iter().find(|info| info["backend"] == "first").unwrap().clone();
    assert_eq!(first["cost"], json!({ "storage_gb_month": 0.023, "egress_gb": 0.09 }));
}
