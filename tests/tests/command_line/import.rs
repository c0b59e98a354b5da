//! Rebuilding a lost catalogue from a backend.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{KIB, MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, PATIENCE, Running, guest, keys, until};
use tidelock_tests::{cold, server};
use xtask::backends::{Ganesha, Restores, ganesha};

/// The catalogue's records of a backend's snapshots, without times: names, bases, order, objects.
fn listing(home: &Home) -> Vec<Value> {
    let listed = home.json(&["ls"])["snapshots"].as_array().unwrap().clone();
    let entry = |snapshot: &Value| {
        let stat = home.json(&["stat", snapshot["id"].as_str().unwrap()]);
        let of = |key: &str| stat[key].clone();
        let places = of("placements").as_array().unwrap().iter().map(place).collect::<Vec<_>>();
        json!({ "id": of("id"), "size": of("size"), "base": of("base"), "name": of("name"), "places": places })
    };
    listed.iter().map(entry).collect()
}

fn place(placement: &Value) -> Value {
    json!([placement["backend"], placement["object"], placement["stored_bytes"], placement["state"]])
}

/// A first version, five updates of it, a removal in the middle, and another image. Gives each that is left with its bytes.
fn a_life(home: &Home) -> Vec<(String, Vec<u8>)> {
    let first = noise(3 * MIB + 17, 1);
    let mut versions = vec![(home.line_with(&["store", "-", "--name", "vm ü"], &first), first)];
    for number in 2..7 {
        let (base, bytes) = versions.last().unwrap();
        let bytes = changed(&bytes[..bytes.len() - 5], number);
        let name: &[&str] = if number == 4 { &["--name", "fourth"] } else { &[] };
        // The one that will be removed, and the next, so that nothing needs it: what is kept for others comes back.
        let whole: &[&str] = if matches!(number, 3 | 4) { &["--raw"] } else { &[] };
        let id = home.line_with(&[&["update", base, "-"], name, whole].concat(), &bytes);
        versions.push((id, bytes));
    }
    let (gone, _) = versions.remove(2);
    home.bytes(&["rm", &gone]);
    let small = noise(5, 9);
    versions.push((home.line_with(&["store", "-", "--name", "vm ü"], &small), small));
    versions
}

/// The catalogue with all that SQLite has beside it.
fn lose_the_catalogue(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("catalogue.sqlite") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn data_dir(home: &Home) -> PathBuf {
    home.path("tidelock-data")
}

#[track_caller]
fn counts(report: &Value) -> [u64; 4] {
    ["objects", "imported", "known", "pending"]
        .map(|key| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}")))
}

/// Loses the catalogue and insists on the same one again, for a backend whose objects can be read at once.
fn is_rebuilt(home: &Home, backend: &str) {
    let versions = a_life(home);
    let before = listing(home);
    assert_eq!(before.len(), 6);
    lose_the_catalogue(&data_dir(home));
    assert_eq!(home.json(&["ls"])["snapshots"], json!([]));

    let report = home.json(&["import", backend]);
    assert_eq!(counts(&report), [6, 6, 0, 0], "{report}");
    assert_eq!(report["left"], json!([]));
    assert_eq!(listing(home), before);
    for (id, bytes) in &versions {
        assert_same(&home.bytes(&["retrieve", id]), bytes, id);
    }
    assert_eq!(home.json(&["stat", "vm ü"])["id"], versions.last().unwrap().0.as_str(), "the last one has the name");
    // Once more, there is nothing to do and nothing is read.
    let report = home.json(&["import", backend]);
    assert_eq!(counts(&report), [6, 0, 6, 0], "{report}");
    assert_eq!(report["bytes"], 0);
    assert_eq!(listing(home), before);
    assert_eq!(home.json(&["verify", "--deep"])["checked"], 6);
    let said = String::from_utf8(home.bytes(&["import", backend])).unwrap();
    assert_eq!(said, format!("0 of 6 objects on `{backend}` imported (0 B read), 6 already known\n"));
    // What is known goes on as ever.
    let next = home.line_with(&["update", &versions[0].0, "-"], b"next");
    assert_eq!(home.json(&["stat", &next])["base"], versions[0].0.as_str());
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(home.json(&["verify"])["checked"], 7);
}

#[test]
fn from_a_folder() {
    is_rebuilt(&Home::new(), "local");
}

#[test]
fn from_a_folder_without_levels() {
    let table = "[backends.local]\nadapter = \"fs\"\nsettings = { layout = \"flat\", prefix = \"vm\" }\n\
                 grants.directory.objects = { path = \"tidelock-data/objects\" }\n";
    is_rebuilt(&Home::with(table), "local");
}

#[test]
fn from_a_bucket() {
    is_rebuilt(&server::home(server::shared(), "import"), "cloud");
}

#[test]
fn from_an_archive_that_is_read_at_once() {
    is_rebuilt(&cold::home(cold::shared(), "import-instant", "storage-class = \"GLACIER_IR\""), "vault");
}

#[test]
fn from_an_export() {
    if let Some(why) = ganesha::why_not() {
        return xtask::skip::skip("import: from_an_export", &why);
    }
    let server = Ganesha::start().expect("NFS-Ganesha starts");
    let grant =
        format!("grants.directory.objects = {{ nfs = \"{}\", mount_port = {} }}", server.url(), server.mount_port);
    is_rebuilt(&Home::with(&format!("[backends.share]\nadapter = \"nfs\"\n{grant}\n")), "share");
}

#[test]
fn a_cold_object_is_pending_until_it_is_restored() {
    let server = cold::start();
    let home = cold::home(&server, "import-cold", "");
    let versions = a_life(&home);
    let before = listing(&home);
    lose_the_catalogue(&data_dir(&home));

    let import = |restore: &[&str]| {
        let outcome = home.run(&[&["import", "vault", "--json"], restore].concat());
        (outcome.status.code().unwrap(), outcome.json())
    };
    // No restore was requested, so nothing is restored however often this is called.
    for _ in 0..2 {
        let (status, report) = import(&[]);
        assert_eq!((status, counts(&report)), (3, [6, 0, 0, 6]), "{report}");
        let error = &report["error"];
        assert_eq!(keys(error), ["archive", "backend", "hint", "kind", "message"]);
        assert_eq!((&error["kind"], &error["archive"]["state"]), (&json!("archived"), &json!("archived")));
        assert!(error["hint"].as_str().unwrap().contains("--restore"), "{error}");
        assert_eq!(report["left"][0]["state"], "pending");
    }
    let said = home.run(&["import", "vault", "--restore"]);
    assert_eq!(said.status.code(), Some(3), "{}", said.stderr);
    assert!(String::from_utf8_lossy(&said.stdout).contains("a restore was requested"), "{said:?}");
    assert!(said.stderr.contains("6 of 6 objects in cold storage"), "{}", said.stderr);
    server.restores(Restores::Stand).unwrap();
    let (status, report) = import(&[]);
    assert_eq!((status, counts(&report)), (3, [6, 0, 0, 6]), "{report}");
    assert!(report["left"][0]["why"].as_str().unwrap().contains("being restored"), "{report}");
    server.restores(Restores::Done).unwrap();
    let (status, report) = import(&[]);
    assert_eq!((status, counts(&report)), (0, [6, 6, 0, 0]), "{report}");
    assert_eq!(listing(&home), before);
    let (id, bytes) = &versions[0];
    home.bytes(&["retrieve", id, "-o", "copy"]);
    assert_same(&home.read("copy"), bytes, "restored for the import");
}

/// Killed while it reads: what was recorded stays, and the next import goes on with the rest.
#[test]
fn killed_half_way_it_goes_on() {
    let home = Home::new();
    let versions = a_life(&home);
    // It comes last, and takes so long that the others are recorded while it is read.
    let giant = home.path("tidelock-data/objects/00/00/snap-vvvvvvvvvvvvvvvvvvvvvvvvvv");
    fs::create_dir_all(giant.parent().unwrap()).unwrap();
    fs::File::create(&giant).unwrap().set_len(1 << 40).unwrap();
    lose_the_catalogue(&data_dir(&home));
    for round in 0..3 {
        let mut import = Running::start(home.command(&["import", "local"]));
        until("six snapshots", || home.json(&["ls"])["snapshots"].as_array().unwrap().len() == 6);
        assert!(import.runs(), "it reads the giant, round {round}");
        import.kill();
        if round == 0 {
            // Cut short earlier: some of them are not known yet.
            let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
            let gone = "DELETE FROM placements WHERE seq > 3;
                        DELETE FROM needs WHERE object NOT IN (SELECT object FROM placements);
                        DELETE FROM names WHERE snapshot NOT IN (SELECT snapshot FROM placements);
                        DELETE FROM snapshots WHERE id NOT IN (SELECT snapshot FROM placements)";
            catalogue.execute_batch(gone).unwrap();
        }
    }
    fs::remove_file(giant).unwrap();
    let report = home.json(&["import", "local"]);
    assert_eq!(counts(&report), [6, 0, 6, 0], "{report}");
    for (id, bytes) in &versions {
        assert_same(&home.bytes(&["retrieve", id]), bytes, id);
    }
    assert_eq!(home.json(&["verify", "--deep"])["checked"], 6);
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

/// Beside a daemon that stores and removes on the same catalogue: nothing is taken for what it is not.
#[test]
fn beside_a_host_that_stores() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let kept: Vec<(String, Vec<u8>)> =
        (0..8).map(|seed| noise(100 * KIB, seed)).map(|bytes| (daemon.server.store(&bytes), bytes)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let stored = std::thread::scope(|scope| {
        let storing = scope.spawn(|| {
            let mut stored = Vec::new();
            for seed in 100.. {
                let bytes = noise(20 * KIB, seed);
                let id = daemon.server.store(&bytes);
                if seed % 3 == 0 {
                    assert_eq!(daemon.server.send("DELETE", &format!("/v1/snapshots/{id}"), &[], &[]).status, 200);
                } else {
                    stored.push((id, bytes));
                    count.store(stored.len(), std::sync::atomic::Ordering::Relaxed);
                }
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
            stored
        });
        // As often as it takes for the two to meet, however busy the machine is.
        let began = std::time::Instant::now();
        let mut imports = 0;
        while imports < 10 || (count.load(std::sync::atomic::Ordering::Relaxed) < 4 && began.elapsed() < PATIENCE) {
            imports += 1;
            let report = home.json(&["import", "local"]);
            assert_eq!((&report["imported"], &report["damaged"]), (&json!(0), &json!(0)), "{report}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        storing.join().unwrap()
    });
    assert!(stored.len() >= 4, "it stored meanwhile");
    let found = home.json(&["verify", "--deep"]);
    assert_eq!(found["checked"], kept.len() + stored.len(), "{found}");
    for (id, bytes) in kept.iter().chain(&stored) {
        assert_same(&home.bytes(&["retrieve", id]), bytes, id);
    }
    daemon.stop();
}

/// A store that is under way on this catalogue, an interrupted one, and objects of others.
#[test]
fn an_object_that_is_not_a_snapshot_is_reported_and_left_alone() {
    let table = "[backends.local]\nadapter = \"fs\"\nsettings = { layout = \"flat\" }\n\
                 grants.directory.objects = { path = \"tidelock-data/objects\" }\n";
    let home = Home::with(table);
    let id = home.line_with(&["store", "-"], b"a snapshot");
    let interrupted = home.line_with(&["store", "-"], b"cut short");
    let other = home.line_with(&["store", "-"], b"known, and longer by now");
    let object = |id: &str| home.json(&["stat", id])["placements"][0]["object"].as_str().unwrap().to_owned();
    let (interrupted_object, other_object) = (object(&interrupted), object(&other));
    // As a crash leaves it that comes between the backend's receipt and the catalogue's entry.
    let catalogue = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    let half = format!(
        "DELETE FROM placements WHERE object = '{interrupted_object}';
         DELETE FROM snapshots WHERE id NOT IN (SELECT snapshot FROM placements);
         INSERT INTO intents (key, backend, owner, started) VALUES ('{interrupted_object}', 'local', 'nobody', 1);"
    );
    catalogue.execute_batch(&half).unwrap();
    drop(catalogue);
    let folder = home.path("tidelock-data/objects");
    fs::write(folder.join("notes"), "a shopping list").unwrap();
    fs::write(folder.join("vm.img"), "no key at all").unwrap();
    fs::write(folder.join(&other_object), "known, and longer by now: so it was written to").unwrap();
    let damaged = format!("snap-{}", "0".repeat(26));
    fs::write(folder.join(&damaged), "its side file is torn").unwrap();
    fs::write(folder.join(format!("{damaged}.base")), "tidelock-side 1\nbase x").unwrap();

    let outcome = home.run(&["import", "local", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let report = outcome.json();
    // A torn side file costs the object beside it its name, not its bytes.
    assert_eq!(counts(&report), [5, 1, 1, 0], "{report}");
    assert_eq!((&report["error"]["kind"], &report["error"]["backend"]), (&json!("corrupt"), &json!("local")));
    let left: std::collections::BTreeMap<&str, &str> = report["left"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| (left["object"].as_str().unwrap(), left["state"].as_str().unwrap()))
        .collect();
    let expected = [(interrupted_object.as_str(), "under-way"), ("notes", "foreign"), (&other_object, "damaged")];
    assert_eq!(left, expected.into());
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(home.bytes(&["retrieve", &id]), b"a snapshot");

    // The leftover is for `gc`; what is foreign has to be asked for.
    assert_eq!(home.json(&["gc"])["objects"], 1);
    let notes = home.line_with(&["id", "-"], b"a shopping list");
    assert_eq!(home.run(&["import", "local", "--foreign", "--json"]).json()["imported"], 1);
    assert_eq!(home.bytes(&["retrieve", &notes]), b"a shopping list");
    // By name, whatever the adapter would list; and nothing else is looked at.
    let image = home.line_with(&["id", "-"], b"no key at all");
    assert_eq!(home.line(&["import", "local", "vm.img"]), image);
    let both = String::from_utf8(home.bytes(&["import", "local", "vm.img", "notes"])).unwrap();
    assert_eq!(both, format!("{image}\n{notes}\n"), "known ones too, in this order");
    let absent = home.run(&["import", "local", "absent", "vm.img"]);
    assert_eq!(absent.status.code(), Some(1));
    assert_eq!(String::from_utf8(absent.stdout).unwrap(), format!("{image}\n"));
    assert!(absent.stderr.contains("1 of 2 objects not there"), "{}", absent.stderr);
    home.refused(2, &["import", "local", ""]);
    home.refused(2, &["import", "nowhere"]);
}

#[test]
fn an_adapter_without_a_listing_needs_names() {
    let component = guest("copying").display().to_string();
    let table = format!(
        "[backends.mine]\nadapter = \"{component}\"\ngrants.directory.objects = {{ path = \"tidelock-data/objects\" }}\n"
    );
    let home = Home::with(&table);
    let bytes = noise(5 * MIB, 1);
    let id = home.line_with(&["store", "-"], &bytes);
    let object = home.json(&["stat", &id])["placements"][0]["object"].as_str().unwrap().to_owned();
    lose_the_catalogue(&data_dir(&home));
    let outcome = home.run(&["import", "mine", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let error = outcome.json()["error"].clone();
    assert_eq!(error["kind"], "unsupported", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("tidelock import mine OBJECT"), "{error}");
    assert_eq!(home.line(&["import", "mine", &object]), id);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "brought in by its name");
}

/// A backend that is gone ends it; what was recorded stays.
#[test]
fn a_server_that_is_down_is_unavailable() {
    let mut server = cold::start();
    let home = cold::home(&server, "down", "storage-class = \"GLACIER_IR\"");
    home.line_with(&["store", "-"], b"x");
    lose_the_catalogue(&data_dir(&home));
    server.kill();
    let outcome = home.run(&["import", "vault", "--json"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let error = outcome.json()["error"].clone();
    assert_eq!((&error["kind"], &error["backend"]), (&json!("unavailable"), &json!("vault")), "{error}");
}
