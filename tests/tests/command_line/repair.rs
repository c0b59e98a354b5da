//! Damaged copies that are made good again, copies that a store does not wait for, and scrubs that find what nobody reads, as a
//! user of the program and of the daemon sees them.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, until};

/// Folders `first`, `second` and `third`, with a route over all of them.
fn folders(copies: u32, more: &str) -> Home {
    Home::with(&config(copies, more))
}

fn config(copies: u32, more: &str) -> String {
    let backend = |name: &str| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    let backends: String = ["first", "second", "third"].map(backend).concat();
    format!(
        "{backends}[routes.default]\nbackends = [\"first\", \"second\", \"third\"]\ncopies = {copies}\n\
         encoding = \"raw\"\n{more}\n"
    )
}

fn placements(home: &Home, id: &str) -> Vec<Value> {
    home.json(&["stat", id])["placements"].as_array().unwrap().clone()
}

/// The object of a snapshot on a backend, as a path in the folder.
#[track_caller]
fn object(home: &Home, id: &str, backend: &str) -> PathBuf {
    let placements = placements(home, id);
    let placement = placements.iter().find(|placement| placement["backend"] == backend).unwrap();
    home.path(backend).join(placement["object"].as_str().unwrap())
}

fn live(home: &Home, id: &str) -> Vec<String> {
    let live = placements(home, id).into_iter().filter(|placement| placement["state"] == "live");
    live.map(|placement| placement["backend"].as_str().unwrap().to_owned()).collect()
}

fn jobs(home: &Home) -> Vec<Value> {
    home.json(&["jobs"])["jobs"].as_array().unwrap().clone()
}

/// Something that happens to a file.
type Harm = fn(&std::path::Path);

const HARMS: [(&str, Harm); 4] = [
    ("one bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }),
    ("truncated", |path| {
        let half = fs::metadata(path).unwrap().len() / 2;
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(half).unwrap();
    }),
    ("emptied", |path| fs::write(path, []).unwrap()),
    ("deleted", |path| fs::remove_file(path).unwrap()),
];

/// Of three copies one cannot be read and one is damaged: the third one is enough.
#[test]
fn a_source_that_is_away_does_not_keep_another_from_serving() {
    let bytes = noise(3 * MIB, 14);
    let home = folders(3, "");
    let id = home.line(&["store", &home.file("image", &bytes)]);
    let damaged = object(&home, &id, "third");
    HARMS[0].1(&damaged);
    home.run(&["verify", "--deep"]);
    fs::rename(home.path("first"), home.path("away")).unwrap();
    let ran = home.run(&["jobs", "run", "--all", "--json"]);
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    fs::remove_dir_all(home.path("first")).ok();
    fs::rename(home.path("away"), home.path("first")).unwrap();
    assert_eq!(live(&home, &id), ["first", "second", "third"], "{told}");
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
}

#[test]
fn what_a_read_finds_damaged_is_repaired_by_a_job() {
    let bytes = noise(5 * MIB + 7, 1);
    for (what, harm) in HARMS {
        let home = folders(2, "");
        let id = home.line(&["store", &home.file("image", &bytes), "--name", "web"]);
        assert_eq!(jobs(&home), Vec::<Value>::new(), "{what}");
        harm(&object(&home, &id, "first"));
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, what);
        let queued = jobs(&home);
        assert_eq!((queued.len(), &queued[0]["kind"], &queued[0]["backend"]), (1, &json!("repair"), &json!("first")));
        let ran = home.json(&["jobs", "run"]);
        assert_eq!((&ran["done"], &ran["failed"]), (&json!(1), &json!(0)), "{what}: {ran}");
        assert_eq!(ran["outcomes"][0]["made"][0]["from"], "second", "{what}: {ran}");
        let found = home.json(&["verify", "--deep"]);
        assert_eq!((&found["checked"], &found["bad"]), (&json!(2), &json!([])), "{what}");
        for backend in ["first", "second"] {
            assert_same(&fs::read(object(&home, &id, backend)).unwrap(), &bytes, what);
            assert_eq!(home.objects_below(backend).len(), 1, "{what}: nothing else is left on {backend}");
        }
        assert_eq!(jobs(&home), Vec::<Value>::new(), "{what}");
        let history = home.json(&["stat", "web"])["history"].as_array().unwrap().clone();
        let told: Vec<&str> = history.iter().map(|event| event["what"].as_str().unwrap()).collect();
        assert_eq!(told, ["repaired", "bad"], "{what}: {history:?}");
        // A catalogue that is made anew from the backend finds it, under its name.
        fs::remove_dir_all(home.path("tidelock-data")).unwrap();
        home.json(&["import", "first"]);
        assert_same(&home.bytes(&["retrieve", "web"]), &bytes, what);
    }
}

#[test]
fn a_repair_in_the_foreground_reads_everything_and_says_what_it_did() {
    let bytes = noise(3 * MIB, 2);
    for (what, harm) in HARMS {
        let home = folders(2, "");
        let id = home.line(&["store", &home.file("image", &bytes)]);
        assert_eq!(home.json(&["repair", &id])["damaged"], json!([]), "{what}");
        harm(&object(&home, &id, "second"));
        // Nobody has read it so far.
        let repair = home.json(&["repair", &id]);
        assert_eq!((&repair["checked"], &repair["unrepaired"]), (&json!(2), &json!([])), "{what}: {repair}");
        assert_eq!(repair["damaged"][0]["backend"], "second", "{what}: {repair}");
        assert_eq!(
            (&repair["repaired"][0]["backend"], &repair["repaired"][0]["from"]),
            (&json!("second"), &json!("first"))
        );
        assert_same(&fs::read(object(&home, &id, "second")).unwrap(), &bytes, what);
        assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]), "{what}");
    }
}

#[test]
fn what_has_no_other_copy_waits_and_says_so() {
    let home = folders(1, "");
    let bytes = noise(MIB, 3);
    let id = home.line(&["store", &home.file("image", &bytes)]);
    let path = object(&home, &id, "first");
    let whole = fs::read(&path).unwrap();
    HARMS[0].1(&path);
    let repair = home.run(&["repair", &id, "--json"]);
    let why = repair.json()["unrepaired"][0]["why"].as_str().unwrap().to_owned();
    assert!(repair.status.code() == Some(1) && why.contains("no other live copy"), "{why}");
    let waiting = jobs(&home);
    assert_eq!(waiting[0]["state"], "waiting", "{waiting:?}");
    assert!(waiting[0]["reason"].as_str().unwrap().contains("no other live copy"), "{waiting:?}");
    assert_eq!(home.json(&["jobs", "run"])["done"], 0, "its time has not come");
    // What is stored again elsewhere wakes it.
    home.line(&["store", &home.file("image", &bytes)]);
    fs::write(&path, &whole).unwrap_or_default();
    home.json(&["jobs", "run"]);
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
    assert_eq!(jobs(&home), Vec::<Value>::new());
}

#[test]
fn a_backend_that_is_away_is_not_repaired_and_loses_nothing() {
    let home = folders(2, "");
    let bytes = noise(MIB, 4);
    let id = home.line(&["store", &home.file("image", &bytes)]);
    HARMS[0].1(&object(&home, &id, "first"));
    home.bytes(&["retrieve", &id]);
    // The disk is not mounted: an empty folder is in its place.
    fs::rename(home.path("first"), home.path("aside")).unwrap();
    fs::create_dir(home.path("first")).unwrap();
    let ran = home.run(&["jobs", "run", "--json"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert_eq!(home.objects_below("first").len(), 0, "nothing is stored into what is in its place");
    fs::remove_dir_all(home.path("first")).unwrap();
    fs::rename(home.path("aside"), home.path("first")).unwrap();
    assert_eq!(home.json(&["jobs", "run", "--all"])["failed"], 0);
    assert_same(&fs::read(object(&home, &id, "first")).unwrap(), &bytes, "repaired");
}

/// A version that is stored as what has changed is repaired as that, since others may need this very pack.
#[test]
fn a_damaged_pack_is_replaced_by_the_same_pack() {
    let home = folders(2, "");
    let mut versions = vec![noise(4 * MIB, 5)];
    let mut ids = vec![home.line_with(&["store", "-"], &versions[0])];
    for number in 0..2 {
        versions.push(changed(versions.last().unwrap(), 60 + number));
        ids.push(home.line_with(&["update", ids.last().unwrap(), "-"], versions.last().unwrap()));
    }
    let before = fs::read(object(&home, &ids[1], "first")).unwrap();
    assert!(before.len() < 3 * MIB, "it is a pack");
    home.run(&["rm", &ids[1]]).success(&["rm"]);
    for (what, harm) in HARMS {
        let packs = home.objects_below("first");
        let needed = packs.iter().find(|path| fs::read(path).unwrap() == before).unwrap_or_else(|| panic!("{what}"));
        harm(needed);
        let repair = home.json(&["repair", &ids[2]]);
        assert_eq!(repair["unrepaired"], json!([]), "{what}: {repair}");
        assert_eq!(repair["repaired"].as_array().unwrap().len(), 1, "{what}: {repair}");
        let there = home.objects_below("first");
        assert_eq!(there.len(), 3, "{what}: {there:?}");
        assert!(there.iter().any(|path| fs::read(path).unwrap() == before), "{what}");
        assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]), "{what}");
        home.refused(2, &["stat", &ids[1]]);
    }
    assert_same(&home.bytes(&["retrieve", &ids[2]]), &versions[2], "at the end");
    // With its last user it goes, on both.
    home.run(&["rm", &ids[2]]).success(&["rm"]);
    home.run(&["rm", &ids[0]]).success(&["rm"]);
    assert_eq!((home.objects_below("first").len(), home.objects_below("second").len()), (0, 0));
}

#[test]
fn a_store_that_waits_for_one_copy_leaves_the_others_to_jobs() {
    let home = folders(3, "ack = 1");
    let bytes = noise(2 * MIB, 7);
    let stored = home.json(&["store", &home.file("image", &bytes)]);
    let id = stored["id"].as_str().unwrap();
    assert_eq!(stored["placements"].as_array().unwrap().len(), 1, "{stored}");
    assert_eq!(home.json(&["stat", id])["copies"], 3);
    let queued = jobs(&home);
    assert_eq!((queued.len(), &queued[0]["kind"], &queued[0]["copies"]), (1, &json!("copy"), &json!(1)), "{queued:?}");
    home.json(&["jobs", "run"]);
    assert_eq!(live(&home, id), ["first", "second", "third"]);
    for backend in ["first", "second", "third"] {
        assert_same(&fs::read(object(&home, id, backend)).unwrap(), &bytes, backend);
    }
    // As what has changed, where the base is.
    let newer = changed(&bytes, 8);
    let update = home.line_with(&["update", id, "-"], &newer);
    home.json(&["jobs", "run"]);
    let sizes: Vec<u64> = placements(&home, &update).iter().map(|one| one["stored_bytes"].as_u64().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < MIB as u64), "{sizes:?}");
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
}

/// What is durable on this machine is acknowledged, and pushed to the backends afterwards; what is not pushed yet is bounded.
#[test]
fn a_store_that_waits_for_this_machine_alone_is_pushed_by_a_job() {
    let local = config(2, "ack = \"local\"");
    let home = Home::with(&format!("{local}[hot]\ncapacity = \"64 MiB\"\nat_risk = \"3 MiB\"\n"));
    let images: Vec<Vec<u8>> = (0..3).map(|seed| noise(MIB, 70 + seed)).collect();
    let mut ids = Vec::new();
    for bytes in &images {
        let stored = home.json(&["store", &home.file("image", bytes)]);
        assert_eq!(stored["placements"].as_array().unwrap().len(), 1, "{stored}");
        assert_eq!(stored["placements"][0]["backend"], "hot", "{stored}");
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(jobs(&home).iter().filter(|job| job["kind"] == "push").count(), 3);
    assert_same(&home.bytes(&["retrieve", &ids[0]]), &images[0], "from this machine");
    // One more would be too much at risk: it waits, and pushes what others have left.
    let newer = changed(&images[2], 80);
    ids.push(home.line_with(&["update", &ids[2], "-"], &newer));
    assert!(jobs(&home).len() < 4, "{:?}", jobs(&home));
    home.json(&["jobs", "run"]);
    assert_eq!(jobs(&home), Vec::<Value>::new());
    for (id, bytes) in ids.iter().zip(images.iter().chain([&newer])) {
        let there = live(&home, id);
        assert!(["hot", "first", "second"].iter().all(|name| there.contains(&(*name).to_owned())), "{there:?}");
        assert_same(&home.bytes(&["retrieve", id]), bytes, "pushed");
    }
    assert_eq!(home.json(&["verify", "--deep"])["bad"], json!([]));
    // Without this machine's copy, all of it is there.
    fs::remove_dir_all(home.path("tidelock-data/hot")).unwrap();
    for (id, bytes) in ids.iter().zip(images.iter().chain([&newer])) {
        assert_same(&home.bytes(&["retrieve", id]), bytes, "from the backends");
    }
}

/// A backend is gone for good: what was on it is brought back to its number on the others.
#[test]
fn what_has_too_few_copies_gets_further_ones_on_other_backends() {
    let home = folders(2, "");
    let images: Vec<(String, Vec<u8>)> = (0..3)
        .map(|seed| {
            let bytes = noise(100_000 + seed as usize, 20 + seed);
            (home.line_with(&["store", "-"], &bytes), bytes)
        })
        .collect();
    for (id, _) in &images {
        fs::remove_file(object(&home, id, "second")).unwrap();
    }
    // The folder takes nothing any more, so no copy can be made good there.
    let said = home.run(&["scrub", "--json"]);
    assert_eq!((said.status.code(), said.json()["bad"].as_array().unwrap().len()), (Some(1), 3));
    fs::remove_dir_all(home.path("second")).unwrap();
    fs::write(home.path("second"), "no folder").unwrap();
    home.run(&["jobs", "run"]);
    home.run(&["jobs", "run"]);
    for (id, bytes) in &images {
        assert_eq!(live(&home, id), ["first", "third"]);
        assert_same(&fs::read(object(&home, id, "third")).unwrap(), bytes, "brought back");
    }
}

#[test]
fn a_scrub_goes_on_where_the_last_one_ended() {
    let home = folders(2, "");
    let ids: Vec<String> = (0..3).map(|seed| home.line_with(&["store", "-"], &noise(MIB, 30 + seed))).collect();
    HARMS[0].1(&object(&home, &ids[2], "second"));
    // Of each backend.
    let budget = MIB.to_string();
    let mut checked = 0;
    for round in 0..3 {
        let scrub = home.run(&["scrub", "--bytes", &budget, "--json"]);
        let report = scrub.json();
        checked += report["checked"].as_u64().unwrap();
        let bad = report["bad"].as_array().unwrap().len();
        assert_eq!(
            (scrub.status.code(), bad),
            if round == 2 { (Some(1), 1) } else { (Some(0), 0) },
            "{round}: {report}"
        );
    }
    assert_eq!(checked, 6, "each once, over three runs of the program");
    home.json(&["jobs", "run"]);
    assert_eq!(home.json(&["scrub"])["bad"], json!([]));
}

#[test]
fn a_job_that_is_cancelled_is_gone() {
    let home = folders(2, "ack = 1");
    let id = home.line_with(&["store", "-"], &noise(5000, 40));
    let number = jobs(&home)[0]["id"].to_string();
    assert_eq!(home.json(&["jobs", "cancel", &number])["snapshot"], json!(id));
    home.refused(2, &["jobs", "cancel", &number]);
    home.json(&["jobs", "run"]);
    assert_eq!((jobs(&home).len(), live(&home, &id)), (0, vec!["first".to_owned()]));
}

#[test]
fn a_daemon_repairs_and_copies_by_itself_and_shows_it() {
    let home = folders(2, "ack = 1\n[scrub]\nbytes_per_day = \"100 GiB\"\nevery = \"1ms\"");
    let bytes = noise(MIB, 60);
    let id = home.line_with(&["store", "-"], &bytes);
    let daemon = Daemon::start(&home);
    until("a second copy", || live(&home, &id).len() == 2);
    // Nobody reads it but the scrub.
    HARMS[0].1(&object(&home, &id, "second"));
    until("a repair", || {
        let history = home.json(&["stat", &id])["history"].as_array().unwrap().clone();
        history.iter().any(|event| event["what"] == "repaired")
    });
    assert_same(&fs::read(object(&home, &id, "second")).unwrap(), &bytes, "repaired");
    let listed = daemon.server.get("/v1/jobs").json(200);
    assert_eq!(listed["jobs"], home.json(&["jobs"])["jobs"]);
    daemon.server.send("DELETE", "/v1/jobs/999999", &[], &[]).problem(404, "not-found");
    daemon.server.send("DELETE", "/v1/jobs/x", &[], &[]).problem(400, "invalid");
    let metrics = String::from_utf8(daemon.server.get("/metrics").body).unwrap();
    for line in [
        "tidelock_jobs{kind=\"repair\",state=\"queued\"} 0",
        "tidelock_snapshots_under_number 0",
        "tidelock_at_risk_bytes 0",
        &format!("tidelock_job_bytes_total{{what=\"repaired\"}} {MIB}"),
        &format!("tidelock_job_bytes_total{{what=\"copied\"}} {MIB}"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    daemon.stop();
}

/// A run that leaves a job to its time says so, and when that is.
#[test]
fn a_job_that_waits_is_not_passed_over_in_silence() {
    let home = folders(2, "ack = 1");
    for folder in ["second", "third"] {
        home.file(folder, b"in its place");
    }
    let id = home.line_with(&["store", "-"], &noise(5000, 50));
    assert_eq!(home.run(&["jobs", "run"]).status.code(), Some(1));
    for folder in ["second", "third"] {
        fs::remove_file(home.path(folder)).unwrap();
    }
    let said = String::from_utf8(home.bytes(&["jobs", "run"])).unwrap();
    let left = home.json(&["jobs", "run"]);
    let due = jobs(&home)[0]["not_before"].clone();
    assert_eq!((&left["done"], &left["waiting"], &left["next"]), (&json!(0), &json!(1), &due), "{left}");
    let until =
        said.lines().find_map(|line| line.strip_prefix("1 job waits until ")).unwrap_or_else(|| panic!("{said}"));
    let until = until.strip_suffix("; `--all` runs it now").unwrap_or_else(|| panic!("{said}"));
    let listed = String::from_utf8(home.bytes(&["jobs"])).unwrap();
    assert!(listed.contains("NOT BEFORE") && listed.contains(until), "{listed}");
    let ran = String::from_utf8(home.bytes(&["jobs", "run", "--all"])).unwrap();
    assert!(ran.starts_with("done: 1 job") && !ran.contains("waits"), "{ran}");
    assert_eq!(live(&home, &id).len(), 2);
}
