//! Chains of packs, as a user of the program sees them: what `stat` says of them, their end by a rebase, and
//! the base that a store finds by itself.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, until};

fn home() -> Home {
    Home::with(&config(""))
}

fn config(more: &str) -> String {
    format!(
        "[backends.local]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
         grants.directory.objects = {{ path = \"objects\" }}\n\
         [routes.default]\nbackends = [\"local\"]\nencoding = \"pages\"\n{more}\n"
    )
}

/// Versions of an image, each an update of the one before.
fn versions(home: &Home, count: u64) -> Vec<(String, Vec<u8>)> {
    let first = noise(3 * MIB + 100, 1);
    let mut all = vec![(home.line_with(&["store", "-"], &first), first)];
    for number in 1..count {
        let (base, bytes) = &all[all.len() - 1];
        let bytes = changed(bytes, 10 + number);
        all.push((home.line_with(&["update", base, "-"], &bytes), bytes));
    }
    all
}

fn stat(home: &Home, id: &str) -> Value {
    home.json(&["stat", id])
}

/// The bytes of all objects in the folder.
fn stored(home: &Home) -> u64 {
    let objects = fs::read_dir(home.path("objects")).unwrap().map(|entry| entry.unwrap());
    let snapshots = objects.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("snap-") && !name.contains('.')
    });
    snapshots.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn stat_shows_the_chain_what_is_shared_and_what_a_removal_frees() {
    let home = home();
    let all = versions(&home, 3);
    let [first, second, third] = [0, 1, 2].map(|number: usize| stat(&home, &all[number].0));
    let bytes = |stat: &Value| stat["placements"][0]["stored_bytes"].as_u64().unwrap();
    let place = |stat: &Value, key: &str| stat["placements"][0][key].clone();
    let link = |of: &Value, depth: u64, shared: bool| json!({ "id": of["id"], "object": place(of, "object"), "stored_bytes": bytes(of), "depth": depth, "shared": shared });
    assert_eq!((place(&first, "depth"), place(&first, "chain")), (json!(0), json!([])));
    assert_eq!((place(&second, "depth"), place(&second, "chain")), (json!(1), json!([link(&first, 0, true)])));
    assert_eq!(place(&third, "depth"), json!(2));
    assert_eq!(place(&third, "chain"), json!([link(&second, 1, true), link(&first, 0, true)]));
    let mut needing = place(&first, "needed_by").as_array().unwrap().clone();
    needing.sort_by_key(Value::to_string);
    let mut both = vec![second["id"].clone(), third["id"].clone()];
    both.sort_by_key(Value::to_string);
    assert_eq!((needing, place(&third, "needed_by")), (both, json!([])));
    assert_eq!((&first["shared_bytes"], &third["shared_bytes"]), (&json!(0), &json!(bytes(&first) + bytes(&second))));
    // What others need frees nothing.
    assert_eq!((&first["frees_bytes"], &third["frees_bytes"]), (&json!(0), &json!(bytes(&third))));
    let text = String::from_utf8(home.bytes(&["stat", &all[2].0])).unwrap();
    assert!(text.contains("depth 2") && text.contains("others too") && text.contains(&all[0].0), "{text}");

    // What is kept for one alone goes with it.
    home.json(&["rm", &all[1].0]);
    let alone = stat(&home, &all[2].0);
    assert_eq!(place(&alone, "chain"), json!([link(&second, 1, false), link(&first, 0, true)]));
    let frees = alone["frees_bytes"].as_u64().unwrap();
    assert_eq!(frees, bytes(&second) + bytes(&third));
    let before = stored(&home);
    home.json(&["rm", &all[2].0]);
    assert_eq!(before - stored(&home), frees, "it frees what it said");
    let last = stat(&home, &all[0].0);
    assert_eq!(last["frees_bytes"].as_u64().unwrap(), stored(&home));
}

fn object(home: &Home, id: &str) -> PathBuf {
    home.path("objects").join(stat(home, id)["placements"][0]["object"].as_str().unwrap())
}

/// The profile of a pack, from its header.
fn profile(path: &PathBuf) -> &'static str {
    match fs::read(path).unwrap()[10] {
        1 => "compact",
        2 => "random",
        other => panic!("profile {other}"),
    }
}

/// All versions are there and right, and every object is sound.
fn sound(home: &Home, all: &[(String, Vec<u8>)]) {
    for (id, bytes) in all {
        assert_same(&home.bytes(&["retrieve", id]), bytes, id);
    }
    let verified = home.json(&["verify", "--deep"]);
    assert_eq!((&verified["bad"], &verified["unreachable"]), (&json!([]), &json!([])));
}

#[test]
fn a_rebase_ends_a_chain_and_gives_back_what_nothing_else_needs() {
    let home = home();
    let all = versions(&home, 4);
    let last = &all[3].0;
    let old = object(&home, last);
    for (id, _) in &all[1..3] {
        home.json(&["rm", id]);
    }
    let report = home.json(&["rebase", last, "--profile", "random"]);
    let new = object(&home, last);
    assert_eq!((&report["id"], &report["profile"]), (&json!(last), &json!("random")));
    assert_eq!(report["rebased"][0]["object"], json!(new.file_name().unwrap().to_str().unwrap()));
    assert_eq!((&report["kept"], &report["failed"], &report["unchanged"]), (&json!([]), &json!([]), &json!([])));
    assert_eq!((profile(&new), old.exists()), ("random", false));
    let said = stat(&home, last);
    assert_eq!((said["placements"].as_array().unwrap().len(), &said["placements"][0]["chain"]), (1, &json!([])));
    assert_eq!(said["history"][0]["what"], "rebased");
    // The two between went with the old one; the first is a snapshot of its own.
    let both = stat(&home, &all[0].0)["stored_bytes"].as_u64().unwrap() + said["stored_bytes"].as_u64().unwrap();
    assert_eq!(stored(&home), both);
    sound(&home, &[all[0].clone(), all[3].clone()]);
    assert_eq!(home.json(&["jobs"])["jobs"], json!([]));

    // The other profile, and nothing to do a second time.
    home.json(&["rebase", last, "--profile", "compact"]);
    assert_eq!((profile(&object(&home, last)), new.exists()), ("compact", false));
    let again = home.json(&["rebase", last]);
    assert_eq!((&again["rebased"], again["unchanged"].as_array().unwrap().len()), (&json!([]), 1));
    sound(&home, &[all[0].clone(), all[3].clone()]);
    // The catalogue can be rebuilt.
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
    home.json(&["import", "local"]);
    sound(&home, &[all[0].clone(), all[3].clone()]);
}

#[test]
fn a_rebase_keeps_what_others_need() {
    let home = home();
    let all = versions(&home, 3);
    let middle = &all[1].0;
    let old = object(&home, middle);
    let report = home.json(&["rebase", middle]);
    assert_eq!(report["kept"], json!([{ "backend": "local", "object": old.file_name().unwrap().to_str().unwrap() }]));
    assert!(old.exists() && stat(&home, middle)["placements"].as_array().unwrap().len() == 2);
    sound(&home, &all);
    // Again, there is nothing to be made.
    assert_eq!(home.json(&["rebase", middle])["rebased"], json!([]));
    // What is stored as its change takes pages from the new one.
    let next = changed(&all[1].1, 77);
    let id = home.line_with(&["update", middle, "-"], &next);
    let chain = stat(&home, &id)["placements"][0]["chain"].clone();
    let new = report["rebased"][0]["object"].clone();
    assert_eq!((chain.as_array().unwrap().len(), &chain[0]["object"]), (1, &new));
    home.json(&["rm", &id]);
    // Removed, it keeps the old one alone; with the last that needs that, it goes too.
    let frees = stat(&home, middle)["frees_bytes"].clone();
    let before = stored(&home);
    home.json(&["rm", middle]);
    assert_eq!(json!(before - stored(&home)), frees);
    assert!(old.exists() && !home.path("objects").join(new.as_str().unwrap()).exists());
    sound(&home, &[all[0].clone(), all[2].clone()]);
    home.json(&["rm", &all[2].0]);
    assert!(!old.exists());
    home.json(&["rm", &all[0].0]);
    assert_eq!(stored(&home), 0);
}

#[test]
fn what_a_rebase_has_kept_goes_with_the_last_that_needs_it() {
    let home = home();
    let all = versions(&home, 3);
    let [middle, last] = [&all[1].0, &all[2].0];
    let old = object(&home, middle);
    home.json(&["rebase", middle]);
    let frees = stat(&home, last)["frees_bytes"].clone();
    let before = stored(&home);
    home.json(&["rm", last]);
    assert_eq!((json!(before - stored(&home)), old.exists()), (frees, false));
    assert_eq!(stat(&home, middle)["placements"].as_array().unwrap().len(), 1);
    sound(&home, &all[..2]);
}

#[test]
fn what_is_stored_as_it_is_is_not_rebased() {
    let home = home();
    let id = home.line_with(&["store", "-", "--raw"], &noise(MIB, 5));
    let why = home.refused(1, &["rebase", &id]);
    assert!(why.contains("raw"), "{why}");
    home.refused(2, &["rebase", &id, "--profile", "small"]);
    home.refused(2, &["rebase", "tl1nothing"]);
}

#[test]
fn a_damaged_pack_is_not_rebased_before_it_is_repaired() {
    let home = home();
    let all = versions(&home, 2);
    let path = object(&home, &all[1].0);
    let sound_bytes = fs::read(&path).unwrap();
    let mut bytes = sound_bytes.clone();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let failed = home.run(&["rebase", &all[1].0, "--json"]);
    assert_eq!((failed.status.code(), failed.json()["failed"].as_array().unwrap().len()), (Some(1), 1));
    assert!(path.exists(), "the only copy stays");
    fs::write(&path, sound_bytes).unwrap();
    home.json(&["verify", "--deep"]);
    home.json(&["rebase", &all[1].0]);
    sound(&home, &all);
}

#[test]
fn a_daemon_rebases_long_chains_within_its_budget() {
    let home = Home::with(&config("[rebase]\nbytes_per_day = \"100 GiB\"\nchain = 2"));
    let all = versions(&home, 5);
    let depths = |home: &Home| -> Vec<u64> {
        all.iter()
            .map(|(id, _)| stat(home, id)["placements"].as_array().unwrap().last().unwrap()["depth"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(depths(&home), [0, 1, 2, 3, 4]);
    let daemon = Daemon::start(&home);
    until("a rebase", || depths(&home) == [0, 1, 2, 0, 0]);
    sound(&home, &all);
    let metrics = String::from_utf8(daemon.server.get("/metrics").body).unwrap();
    assert!(!metrics.contains("tidelock_job_bytes_total{what=\"rebased\"} 0\n"), "{metrics}");
    daemon.stop();
    let wrong = Home::with(&config("[rebase]\nbytes_per_day = 0"));
    wrong.refused(2, &["ls"]);
}

/// A home with an image under a name, and the image.
fn home_with_an_image() -> (Home, String, Vec<u8>) {
    let home = home();
    let bytes = noise(3 * MIB + 100, 1);
    let id = home.line(&["store", &home.file("image", &bytes), "--name", "web"]);
    (home, id, bytes)
}

fn chain(home: &Home, id: &str) -> Vec<Value> {
    stat(home, id)["placements"][0]["chain"].as_array().unwrap().clone()
}

#[test]
fn a_store_finds_the_version_before_by_its_name() {
    let (home, first, bytes) = home_with_an_image();
    let bytes = changed(&bytes, 2);
    let path = home.file("image", &bytes);
    let stored = home.json(&["store", &path, "--name", "web"]);
    assert_eq!((&stored["base"], &stored["name_taken_from"]), (&json!(first), &json!(first)));
    assert_eq!(
        (&stored["delta_bytes"], chain(&home, stored["id"].as_str().unwrap()).len()),
        (&stored["stored_bytes"], 1)
    );
    assert!(stored["delta_bytes"].as_u64().unwrap() < bytes.len() as u64 / 4, "{stored}");
    assert_same(&home.bytes(&["retrieve", "web"]), &bytes, "the version");
    // The same again is stored already, and not a change of itself.
    let again = home.json(&["store", &path, "--name", "web"]);
    assert_eq!((&again["stored_bytes"], again.get("base")), (&json!(0), None));
    assert_eq!(stat(&home, "web")["base"], json!(first));
    // What the caller says counts.
    let next = changed(&bytes, 3);
    let alone = home.json(&["store", &home.file("image", &next), "--name", "web", "--base", "none"]);
    assert_eq!((alone.get("base"), chain(&home, "web").len()), (None, 0));
    let next = changed(&bytes, 4);
    let named = home.json(&["store", &home.file("image", &next), "--base", &first]);
    assert_eq!((&named["base"], chain(&home, named["id"].as_str().unwrap()).len()), (&json!(first), 1));
    home.refused(2, &["store", &path, "--base", "nothing"]);
}

#[test]
fn a_store_finds_a_similar_image_by_its_pages() {
    let (home, first, bytes) = home_with_an_image();
    // Another one was stored since, with which it has nothing in common.
    let other = home.file("other", noise(3 * MIB, 900));
    let other = home.json(&["store", &other]);
    assert_eq!((other.get("base"), chain(&home, other["id"].as_str().unwrap()).len()), (None, 0));
    let fork = changed(&bytes, 5);
    let stored = home.json(&["store", &home.file("fork", &fork), "--name", "fork"]);
    assert_eq!((&stored["base"], chain(&home, "fork").len()), (&json!(first), 1));
    assert_same(&home.bytes(&["retrieve", "fork"]), &fork, "the fork");
    // A stream is stored as it comes, unless it is to be looked at.
    let piped = changed(&bytes, 6);
    let id = home.line_with(&["store", "-"], &piped);
    assert_eq!(chain(&home, &id).len(), 0);
    let piped = changed(&bytes, 7);
    let id = home.line_with(&["store", "-", "--base", "auto"], &piped);
    assert!(!chain(&home, &id).is_empty());
    assert_same(&home.bytes(&["retrieve", &id]), &piped, "what was piped");
    // Where nothing is known of recent images, an image has no base.
    fs::write(home.path("tidelock-data/sketches"), "damaged").unwrap();
    let alone = home.json(&["store", &home.file("fork", changed(&bytes, 8))]);
    assert_eq!(alone.get("base"), None);
}

#[test]
fn images_that_are_stored_as_they_are_have_no_base_by_themselves() {
    let home = Home::with(&config("").replace("encoding = \"pages\"", "encoding = \"raw\""));
    let bytes = noise(2 * MIB, 1);
    home.line(&["store", &home.file("image", &bytes), "--name", "web"]);
    let next = home.file("image", changed(&bytes, 2));
    let stored = home.json(&["store", &next, "--name", "web", "--base", "auto"]);
    assert_eq!((stored.get("base"), &stat(&home, "web")["placements"][0]["encoding"]), (None, &json!("raw")));
    let (home, _, bytes) = home_with_an_image();
    let raw = home.json(&["store", &home.file("image", changed(&bytes, 2)), "--name", "web", "--raw"]);
    assert_eq!((raw.get("base"), &stat(&home, "web")["placements"][0]["encoding"]), (None, &json!("raw")));
}

#[test]
fn a_store_over_http_takes_the_base_that_it_is_told() {
    let (home, first, bytes) = home_with_an_image();
    let daemon = Daemon::start(&home);
    let put = |query: &str, seed: u64| {
        daemon.server.send("PUT", &format!("/v1/snapshots{query}"), &[], &changed(&bytes, seed)).json(201)
    };
    assert_eq!(put("?name=web", 2).get("base"), None);
    assert_eq!(put(&format!("?base={first}"), 3)["base"], json!(first));
    assert!(put("?base=auto", 4)["base"].is_string());
    assert_eq!(put("?base=none", 5).get("base"), None);
    daemon.server.send("PUT", "/v1/snapshots?base=nothing", &[], &bytes).problem(404, "not-found");
    daemon.server.send("POST", &format!("/v1/snapshots/{first}/update?base=auto"), &[], &bytes).problem(400, "invalid");
    daemon.stop();
}
