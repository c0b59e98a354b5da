//! Cold storage: requesting restores, and waiting for them.

use serde_json::json;
use tidelock_tests::cold;
use tidelock_tests::data::{KIB, MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, keys, until};
use xtask::backends::Restores;

/// A retrieve that ends with status 3, and the error that it gives.
#[track_caller]
fn pending(home: &Home, id: &str) -> serde_json::Value {
    let arguments = ["retrieve", id, "-o", "copy", "--json"];
    let outcome = home.run(&arguments);
    assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
    assert!(!home.path("copy").exists(), "nothing is there before all of it is");
    outcome.json()["error"].clone()
}

#[test]
fn an_image_that_needs_no_restore_comes_back() {
    let home = cold::home(cold::shared(), "instant", "storage-class = \"GLACIER_IR\"");
    for size in [0, 1, 4 * KIB - 1, 4 * KIB, 4 * KIB + 1, MIB - 1, MIB + 1] {
        let bytes = noise(size, size as u64);
        let id = home.line_with(&["store", "-", "--allow-empty"], &bytes);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "on stdout");
    }
    let bytes = noise(64 * MIB + 1, 7);
    let id = home.line(&["store", &home.file("image", &bytes)]);
    home.bytes(&["retrieve", &id, "-o", "copy"]);
    assert_same(&home.read("copy"), &bytes, "of many parts");
    let end = bytes.len();
    for (start, stop) in [(0, 1), (8 * MIB - 1, 8 * MIB + 1), (33_333_333, 44_444_444), (end - 1, end), (end, end)] {
        let range = format!("{start}..{stop}");
        assert_same(&home.bytes(&["retrieve", &id, "--range", &range]), &bytes[start..stop], &range);
    }
    assert!(home.json(&["verify", "--deep"])["checked"].as_u64().unwrap() >= 8);
    home.bytes(&["rm", &id]);
    home.refused(2, &["retrieve", &id]);
}

#[test]
fn a_cold_image_is_restored_and_read() {
    for (class, tier, estimate) in [
        ("GLACIER", "Standard", 5 * 3600),
        ("GLACIER", "Expedited", 300),
        ("DEEP_ARCHIVE", "Standard", 12 * 3600),
        ("DEEP_ARCHIVE", "Bulk", 48 * 3600),
    ] {
        let settings = format!("storage-class = \"{class}\", restore-tier = \"{tier}\"");
        let home = cold::home(cold::shared(), &format!("{class}-{tier}"), &settings);
        let bytes = noise(9 * MIB + 3, 1);
        let id = home.line_with(&["store", "-"], &bytes);
        // Looking at it costs nothing and asks for nothing.
        assert_eq!(home.json(&["verify"])["bad"], json!([]));
        let deep = home.run(&["verify", "--deep", "--json"]).json();
        assert_eq!(deep["bad"], json!([]));
        assert!(deep["unreachable"][0]["why"].as_str().unwrap().contains("cold storage"), "{deep}");

        let error = pending(&home, &id);
        assert_eq!(keys(&error), ["archive", "backend", "hint", "kind", "message"]);
        assert_eq!((&error["kind"], &error["backend"]), (&json!("archived"), &json!("vault")));
        let restoring = json!({ "state": "restoring", "estimate_seconds": estimate, "until": null });
        assert_eq!(error["archive"], restoring, "{class} {tier}: {error}");
        until("the restore", || home.run(&["retrieve", &id, "-o", "copy"]).status.success());
        assert_same(&home.read("copy"), &bytes, "restored");
        let range = home.bytes(&["retrieve", &id, "--range", "4095..8388609"]);
        assert_same(&range, &bytes[4095..8_388_609], "a range of it");
    }
}

#[test]
fn a_retrieve_can_wait() {
    let server = cold::start();
    let home = cold::home(&server, "waits", "");
    let bytes = noise(2 * MIB + 5, 2);
    let id = home.line_with(&["store", "-"], &bytes);
    pending(&home, &id);
    server.restores(Restores::Stand).unwrap();
    assert_eq!(pending(&home, &id)["archive"]["state"], "restoring", "asking again is no error");

    let mut waiting = Running::start(home.command(&["retrieve", &id, "--wait", "-o", "copy"]));
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(waiting.runs(), "it waits");
    server.restores(Restores::Done).unwrap();
    let outcome = waiting.finish().success(&["retrieve", "--wait"]);
    assert!(outcome.stderr.contains("being restored from cold storage, which may take 5 h"), "{}", outcome.stderr);
    assert_same(&home.read("copy"), &bytes, "after the wait");
}

#[test]
fn a_warm_copy_is_read_and_nothing_restored() {
    let server = cold::shared();
    let config = format!(
        "{}\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
         [routes.default]\nbackends = [\"vault\", \"local\"]\ncopies = 2\n",
        cold::config(server, "copies", "")
    );
    let mut home = Home::with(&config);
    cold::credentials(&mut home, &server.keys);
    let bytes = noise(MIB, 3);
    let id = home.line(&["store", &home.file("image", &bytes)]);
    assert_eq!(home.json(&["retrieve", &id, "-o", "copy"])["source"], "local");
    assert_same(&home.read("copy"), &bytes, "from the warm copy");
    std::fs::remove_file(home.path("copy")).unwrap();
    // An unavailable warm copy may come back, so no restore is paid for.
    std::fs::rename(home.path("objects"), home.path("away")).unwrap();
    for _ in 0..2 {
        let said = home.refused(1, &["retrieve", &id, "-o", "copy"]);
        assert!(said.contains("`local`") && said.contains("`vault` is in cold storage"), "{said}");
    }
    // An empty folder may have been made in its place.
    let _ = std::fs::remove_dir_all(home.path("objects"));
    std::fs::rename(home.path("away"), home.path("objects")).unwrap();
    assert_eq!(home.json(&["retrieve", &id, "-o", "copy"])["source"], "local");
    std::fs::remove_file(home.path("copy")).unwrap();
    let object = home.json(&["stat", &id])["placements"].as_array().unwrap().iter().find_map(|placement| {
        (placement["backend"] == "local").then(|| placement["object"].as_str().unwrap().to_owned())
    });
    std::fs::remove_file(home.path("objects").join(object.unwrap())).unwrap();
    // The first request for it is this one: it would be readable if it had been asked for before.
    assert_eq!(pending(&home, &id)["archive"]["state"], "restoring");
}

#[test]
fn an_adapter_without_restores_is_reported() {
    let server = cold::shared();
    let config = cold::config(server, "plain", "storage-class = \"GLACIER\"").replace("\"glacier\"", "\"s3\"");
    let mut home = Home::with(&config);
    cold::credentials(&mut home, &server.keys);
    let id = home.line_with(&["store", "-"], b"cold");
    let said = home.refused(1, &["retrieve", &id]);
    assert!(said.contains("is in cold storage") && said.contains("cannot request restores"), "{said}");
}

#[test]
fn an_unknown_restore_tier_is_refused() {
    let settings = "storage-class = \"DEEP_ARCHIVE\", restore-tier = \"Expedited\"";
    let said = cold::home(cold::shared(), "refused", settings).run_with(&["store", "-"], b"x").refused(2, &["store"]);
    assert!(said.contains("restore-tier"), "{said}");
}

#[test]
fn temporary_credentials_serve_and_wrong_ones_do_not() {
    let server = cold::shared();
    let settings = "storage-class = \"GLACIER_IR\"";
    let mut home = cold::home(server, "credentials", settings);
    let id = home.line_with(&["store", "-"], b"mine");
    cold::credentials(&mut home, &server.temporary_keys);
    assert_eq!(home.bytes(&["retrieve", &id]), b"mine");

    for (name, value) in [("VAULT_SESSION_TOKEN", "hush-hush"), ("VAULT_SECRET_ACCESS_KEY", "hush-hush")] {
        let mut home = cold::home(server, "credentials", settings);
        cold::credentials(&mut home, &server.temporary_keys);
        home.env(name, value);
        let outcome = home.run_with(&["store", "-", "--json"], b"x");
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        let error = &outcome.json()["error"];
        assert_eq!(error["kind"], "denied", "{name}: {}", outcome.stderr);
        // It has come through the adapter, which is told what went wrong and not what to do.
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("credentials of the grant")), "{error}");
        assert!(!outcome.stderr.contains("hush-hush"), "{}", outcome.stderr);
    }
}

/// What `docs/backends.md` says that the keys need.
const PERMISSIONS: [&str; 7] = [
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:RestoreObject",
    "s3:ListBucket",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
];

#[test]
fn the_documented_permissions_suffice_and_fewer_are_denied() {
    let server = cold::start();
    let mut home = Home::with(&cold::config(&server, "least", ""));
    cold::credentials(&mut home, &server.user("clerk", &PERMISSIONS).unwrap());
    let bytes = noise(21 * MIB + 7, 4);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_eq!(home.json(&["verify"])["bad"], json!([]));
    pending(&home, &id);
    until("the restore", || home.run(&["retrieve", &id, "-o", "copy"]).status.success());
    assert_same(&home.read("copy"), &bytes, "restored");
    home.bytes(&["rm", &id]);
    home.json(&["gc"]);
    home.json(&["adapter", "ls"]);

    let others: Vec<_> = PERMISSIONS.into_iter().filter(|name| *name != "s3:RestoreObject").collect();
    cold::credentials(&mut home, &server.user("reader", &others).unwrap());
    let id = home.line_with(&["store", "-"], b"cold");
    let outcome = home.run(&["retrieve", &id, "--wait", "-o", "copy", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.json()["error"]["kind"], "denied", "{}", outcome.stderr);

    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backends.md")).unwrap();
    for name in PERMISSIONS.map(|name| name.trim_start_matches("s3:")) {
        assert!(documented.contains(&format!("{name}`")), "`{name}` is documented");
    }
}

#[test]
fn a_server_that_is_down_is_unavailable() {
    let mut server = cold::start();
    let home = cold::home(&server, "down", "");
    let id = home.line_with(&["store", "-"], b"x");
    server.kill();
    for arguments in [["retrieve", &id, "-o", "copy", "--json"], ["store", "-", "--name", "y", "--json"]] {
        let outcome = home.run_with(&arguments, b"y");
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        assert_eq!(outcome.json()["error"]["kind"], "unavailable", "{}", outcome.stderr);
    }
}
