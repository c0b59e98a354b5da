//! A catalogue that does not know all that is on a backend: put back from a copy, lost and begun anew, or imported in part. What
//! it does not know takes pages from what it knows, and nothing of that is deleted.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::odd::{Odd, Request, Then, when};
use tidelock_tests::program::{Home, is_identity};

/// The objects are elsewhere, as in a bucket: they do not go back with the catalogue.
const ELSEWHERE: &str =
    "data_dir = \"data\"\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n";

/// A base, a version that is a change of it, and where a copy of the catalogue was made between the two.
struct Versions {
    home: Home,
    base: Vec<u8>,
    version: Vec<u8>,
    ids: [String; 2],
}

fn versions() -> Versions {
    versions_in(Home::with(ELSEWHERE))
}

fn versions_in(home: Home) -> Versions {
    let base = noise(5 * MIB, 1);
    let version = changed(&base, 2);
    let first = home.line_with(&["store", "-", "--name", "base"], &base);
    home.line_with(&["store", "-", "--name", "other"], b"other");
    let copy = home.path("copy.sqlite");
    let db = Connection::open(home.path("data/catalogue.sqlite")).unwrap();
    db.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let second = home.line_with(&["update", &first, "-"], &version);
    assert_eq!(home.json(&["stat", &second])["placements"][0]["encoding"], "pages");
    Versions { home, base, version, ids: [first, second] }
}

fn put_back(home: &Home, catalogue: Option<&str>) {
    fs::remove_dir_all(home.path("data")).unwrap();
    if let Some(copy) = catalogue {
        fs::create_dir(home.path("data")).unwrap();
        fs::copy(home.path(copy), home.path("data/catalogue.sqlite")).unwrap();
    }
}

/// `rm` says in words and in JSON that the objects stay, and every command that the catalogue may not know all.
fn removed_and_kept(home: &Home, name: &str, objects: usize) {
    let said = home.run(&["ls"]).success(&["ls"]).stderr;
    assert_eq!(said.matches("tidelock import local").count(), 1, "{said}");
    let removed = home.json(&["rm", name]);
    assert_eq!((&removed["placements"], &removed["kept"]), (&0.into(), &false.into()), "{removed}");
    assert_eq!(removed["kept_on"], serde_json::json!(["local"]));
    home.refused(2, &["retrieve", name]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(home.objects_below("objects").len(), objects, "{name}");
}

#[test]
fn nothing_that_unknown_packs_need_is_removed_after_a_catalogue_was_put_back() {
    let Versions { home, base, version, ids } = versions();
    put_back(&home, Some("copy.sqlite"));
    home.run(&["ls"]).success(&["ls"]);
    removed_and_kept(&home, "base", 3);
    let said = home.line(&["rm", "other"]);
    assert!(said.contains("(0 objects)") && said.contains("tidelock import local"), "{said}");
    let imported = home.json(&["import", "local"]);
    assert_eq!(
        (&imported["imported"], &imported["removed"], &imported["complete"]),
        (&1.into(), &1.into(), &true.into())
    );
    assert_same(&home.bytes(&["retrieve", &ids[1]]), &version, "the version that the copy did not know");
    assert_eq!(home.objects_below("objects").len(), 2, "the base is needed, and nothing else that was removed");
    home.refused(2, &["retrieve", &ids[0]]);
    // From here on it is a catalogue as any other.
    assert_eq!(home.run(&["ls"]).success(&["ls"]).stderr, "");
    home.line_with(&["store", "-", "--name", "base"], &base);
    home.line(&["rm", "base"]);
    home.line(&["rm", &ids[1]]);
    assert_eq!(home.objects_below("objects").len(), 0);
}

/// The same kind of loss: what is left of the knowledge is a part, whichever way that came about.
#[test]
fn nothing_that_unknown_packs_need_is_removed_by_a_catalogue_that_was_begun_anew() {
    type Way = fn(&Home, &str, &[u8]);
    let ways: [(&str, Way); 2] = [
        ("the base is imported alone", |home, object, _| drop(home.line(&["import", "local", object]))),
        ("the base is stored again, and is imported later", |home, object, base| {
            home.line_with(&["store", "-", "--name", "base"], base);
            home.line(&["import", "local", object]);
        }),
    ];
    for (what, way) in ways {
        let Versions { home, base, version, ids } = versions();
        let object = home.json(&["stat", "base"])["placements"][0]["object"].as_str().unwrap().to_owned();
        put_back(&home, None);
        way(&home, &object, &base);
        let objects = home.objects_below("objects").len();
        removed_and_kept(&home, &ids[0], objects);
        let imported = home.json(&["import", "local"]);
        assert_eq!(imported["complete"], true, "{what}: {imported}");
        assert_same(&home.bytes(&["retrieve", &ids[1]]), &version, what);
        home.line(&["rm", &ids[1]]);
        home.line(&["rm", "other"]);
        assert_eq!(home.objects_below("objects").len(), 0, "{what}");
    }
}

/// An import that has not read everything does not count.
#[test]
fn an_import_that_could_not_read_all_keeps_what_may_be_needed() {
    let Versions { home, version, ids, .. } = versions();
    let object = home.json(&["stat", "base"])["placements"][0]["object"].as_str().unwrap().to_owned();
    let base = home.path("objects").join(&object);
    put_back(&home, None);
    fs::rename(&base, home.path("aside")).unwrap();
    let imported = home.run(&["import", "local", "--json"]);
    assert_eq!(
        (imported.status.code(), &imported.json()["complete"]),
        (Some(1), &false.into()),
        "the pack has no base"
    );
    fs::rename(home.path("aside"), &base).unwrap();
    home.line(&["import", "local", &object]);
    removed_and_kept(&home, &ids[0], 3);
    home.json(&["import", "local"]);
    assert_same(&home.bytes(&["retrieve", &ids[1]]), &version, "the version");
}

/// A container that was empty needs no import, however often hosts come and go.
#[test]
fn a_fresh_start_needs_no_import() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "one"], b"one");
    assert_eq!(home.run(&["ls"]).success(&["ls"]).stderr, "");
    assert_eq!(home.json(&["rm", "one"])["placements"], 1);
    assert_eq!(home.objects().len(), 0);
}

/// What could not be read may be a pack, and need what the catalogue knows.
#[test]
fn an_import_that_met_damage_keeps_what_may_be_needed() {
    let kinds: [(&str, &str); 2] = [("a label that is lost", ".base"), ("a bit", "")];
    for (what, suffix) in kinds {
        let Versions { home, version, ids, .. } = versions();
        let object = home.json(&["stat", &ids[1]])["placements"][0]["object"].as_str().unwrap().to_owned();
        let path = home.path("objects").join(format!("{object}{suffix}"));
        let kept = fs::read(&path).unwrap();
        put_back(&home, None);
        match suffix {
            "" => {
                let mut damaged = kept.clone();
                damaged[kept.len() / 2] ^= 1;
                fs::remove_file(&path).unwrap();
                fs::write(&path, damaged).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
        let imported = home.run(&["import", "local", "--json"]).json();
        assert_eq!(imported["complete"], false, "{what}: {imported}");
        home.json(&["rm", "base"]);
        home.json(&["gc", "--older-than", "1ms"]);
        let _ = fs::remove_file(&path);
        fs::write(&path, &kept).unwrap();
        home.json(&["import", "local"]);
        assert_same(&home.bytes(&["retrieve", &ids[1]]), &version, what);
    }
}

/// A backend that does not answer says nothing of what it has, whoever asks; one that answers later is looked at then.
#[test]
fn a_new_backend_that_does_not_answer_is_no_reason_for_an_import() {
    let config = |endpoint: &str| {
        format!(
            "[backends.cloud]\nadapter = \"s3\"\n\
             grants.bucket.objects = {{ endpoint = \"{endpoint}\", bucket = \"x\", path_style = true }}\n\
             [backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"objects\" }}\n\
             [routes.default]\nbackends = [\"cloud\", \"local\"]\n"
        )
    };
    let home = Home::with(&config("http://127.0.0.1:9"));
    // A stream is sent once, and would end with the first backend.
    let id = home.line(&["store", &home.file("image", b"one"), "--name", "one"]);
    let silent = |what: &str| {
        for arguments in [&["ls"][..], &["stat", &id], &["jobs"]] {
            assert_eq!(home.run(arguments).success(arguments).stderr, "", "{what}: {arguments:?}");
        }
    };
    silent("after a store");
    home.refused(1, &["import", "cloud"]);
    silent("after an import");
    assert_eq!(home.json(&["rm", "one"])["placements"], 1);
    // The same where it answers in the end and has something that nobody knows.
    let home = Home::with(ELSEWHERE);
    home.line_with(&["store", "-", "--name", "one"], b"one");
    put_back(&home, None);
    fs::rename(home.path("objects"), home.path("kept")).unwrap();
    fs::write(home.path("objects"), b"in its place").unwrap();
    assert!(!home.run_with(&["store", "-"], b"two").status.success());
    assert_eq!(home.run(&["ls"]).success(&["ls"]).stderr, "", "it is not known yet");
    fs::remove_file(home.path("objects")).unwrap();
    fs::rename(home.path("kept"), home.path("objects")).unwrap();
    home.line_with(&["store", "-", "--name", "two"], b"two");
    removed_and_kept(&home, "two", 2);
}

/// A bucket whose listing leaves out what is named here, while that is so.
fn short_of(server: &Odd, left_out: &[&str]) -> Arc<AtomicBool> {
    let short = Arc::new(AtomicBool::new(true));
    let keys = server.objects().into_iter().filter(|(key, _)| !left_out.contains(&key.as_str()));
    let entry = |(key, bytes): (String, Vec<u8>)| {
        let (modified, size) = ("2024-05-06T07:08:09.000Z", bytes.len());
        format!("<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><Size>{size}</Size></Contents>")
    };
    let all: String = keys.map(entry).collect();
    let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{all}</ListBucketResult>");
    let switch = short.clone();
    let is_short = move |request: &Request| request.operation() == "List" && switch.load(Ordering::SeqCst);
    server.rule(when(is_short, usize::MAX, Then::Answer { status: 200, headers: String::new(), body }));
    short
}

/// What is recorded and there, and not listed, shows that the list does not have everything. What is not there is not relied on.
#[test]
fn a_listing_that_leaves_out_what_is_known_is_not_complete() {
    let server = Odd::start(vec![]);
    let mut home = Home::with(&format!(
        "data_dir = \"data\"\n[backends.local]\nadapter = \"s3\"\n[backends.local.grants.bucket.objects]\n\
         endpoint = \"{}\"\nbucket = \"b\"\npath_style = true\ncredentials = {{ env = \"CLOUD\" }}\n",
        server.endpoint
    ));
    home.env("CLOUD_ACCESS_KEY_ID", "k");
    home.env("CLOUD_SECRET_ACCESS_KEY", "s");
    let Versions { home, version, ids: [_, second], .. } = versions_in(home);
    let object = |id: &str| home.json(&["stat", id])["placements"][0]["object"].as_str().unwrap().to_owned();
    let (other, pack) = (object("other"), object(&second));
    put_back(&home, Some("copy.sqlite"));
    let short = short_of(&server, &[&other, &pack]);
    // What is stored in the second in which an import begins need not be listed.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let imported = home.json(&["import", "local"]);
    let counts = serde_json::json!([imported["unlisted"], imported["missing"], imported["complete"]]);
    assert_eq!(counts, serde_json::json!([1, 0, false]), "{imported}");
    home.line(&["rm", "base"]);
    home.json(&["gc", "--older-than", "1ms"]);
    short.store(false, Ordering::SeqCst);
    let imported = home.json(&["import", "local"]);
    assert_eq!((&imported["imported"], &imported["complete"]), (&1.into(), &true.into()), "{imported}");
    assert_same(&home.bytes(&["retrieve", &second]), &version, "what it takes pages from was kept");
    // It is lost, and the list says so.
    let gone = object("other");
    server.remove(&gone);
    let imported = home.json(&["import", "local"]);
    let counts = serde_json::json!([imported["unlisted"], imported["missing"], imported["complete"]]);
    assert_eq!(counts, serde_json::json!([0, 1, true]), "{imported}");
    assert_eq!(home.json(&["stat", "other"])["placements"][0]["state"], "bad");
    assert_eq!(server.objects().keys().filter(|key| !is_identity(key)).count(), 2);
}
