//! Packs whose label, record or sources are damaged: what the objects prove decides.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tidelock::snapshot::pages::{Image, Options, Profile, encode_full};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::Home;

fn home() -> Home {
    Home::with(
        "[backends.local]\nadapter = \"fs\"\nsettings = { layout = \"flat\" }\n\
         grants.directory.objects = { path = \"objects\" }\n",
    )
}

/// Versions of an image, each an update of the one before.
fn versions(home: &Home, count: u64) -> Vec<(String, Vec<u8>)> {
    let first = noise(5 * MIB + 100, 1);
    let mut all = vec![(home.line_with(&["store", "-"], &first), first)];
    for number in 1..count {
        let (base, bytes) = &all[all.len() - 1];
        let bytes = changed(bytes, 10 + number);
        let id = home.line_with(&["update", base, "-"], &bytes);
        assert_eq!(placements(home, &id)[0]["encoding"], "pages");
        all.push((id, bytes));
    }
    all
}

fn placements(home: &Home, id: &str) -> Vec<Value> {
    home.json(&["stat", id])["placements"].as_array().unwrap().clone()
}

fn object(home: &Home, id: &str) -> String {
    placements(home, id)[0]["object"].as_str().unwrap().to_owned()
}

fn path(home: &Home, object: &str) -> PathBuf {
    home.path("objects").join(object)
}

/// Damages the first frame of a pack, or the bytes there of an image.
fn damage(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    bytes[1000..1010].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(path, bytes).unwrap();
}

fn catalogue(home: &Home) -> rusqlite::Connection {
    rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap()
}

#[test]
fn a_pack_without_its_label_is_never_taken_for_an_image() {
    let home = home();
    let [(_, _), (id, bytes)] = versions(&home, 2).try_into().unwrap();
    let object = object(&home, &id);
    let (pack, side) = (path(&home, &object), path(&home, &format!("{object}.base")));
    let label = fs::read_to_string(&side).unwrap();
    let no_label = label.replace("tidelock-encoding", "tidelock-encodinf");
    for damaged in [Some(no_label.as_str()), Some("tidelock-side 1\nlabel"), Some(""), None] {
        fs::remove_dir_all(home.path("tidelock-data")).unwrap();
        match damaged {
            Some(text) => fs::write(&side, text).unwrap(),
            None => fs::remove_file(&side).unwrap(),
        }
        let outcome = home.run(&["import", "local", "--json"]);
        let report = outcome.json();
        assert_eq!((outcome.status.code(), &report["imported"], &report["damaged"]), (Some(1), &1.into(), &1.into()));
        assert!(report["left"][0]["why"].as_str().unwrap().contains("looks like a pack"), "{report}");
        // What is torn is known by its other end.
        let sound = fs::read(&pack).unwrap();
        fs::write(&pack, &sound[..sound.len() - 9]).unwrap();
        assert_eq!(home.run(&["import", "local", "--json"]).json()["damaged"], 1);
        fs::write(&pack, &sound).unwrap();
        // Asked for by name, it is what the caller says it is, if it is.
        assert_eq!(home.line(&["import", "local", &object, "--encoding", "pages"]), id);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, "as a pack");
    }
    home.refused(2, &["import", "local", "--encoding", "raw"]);

    // The label is back.
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
    home.run(&["import", "local"]);
    fs::write(&side, &label).unwrap();
    home.json(&["import", "local"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "with its label");
    // An image that holds a pack is imported as one on request.
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
    fs::remove_file(&side).unwrap();
    let as_image = home.line(&["id", &pack.display().to_string()]);
    assert_eq!(home.line(&["import", "local", &object, "--encoding", "raw"]), as_image);
}

#[test]
fn a_kept_base_that_is_sound_again_counts_again() {
    let home = home();
    let [(base, _), (id, bytes)] = versions(&home, 2).try_into().unwrap();
    let object = path(&home, &object(&home, &base));
    home.bytes(&["rm", &base]);
    let sound = fs::read(&object).unwrap();
    let mut wrong = sound.clone();
    wrong.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
    fs::write(&object, wrong).unwrap();
    home.refused(1, &["retrieve", &id, "-o", "out"]);
    assert_eq!(home.run(&["verify", "--deep"]).status.code(), Some(1));
    fs::write(&object, sound).unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the version");
    assert_eq!(home.run(&["verify"]).status.code(), Some(1));
    home.json(&["verify", "--deep"]);
    home.json(&["verify"]);
}

#[test]
fn an_update_whose_source_is_suspect_is_stored_whole() {
    let home = home();
    let all = versions(&home, 3);
    let mark = "UPDATE placements SET state = 'suspect', reason = 'it gave wrong bytes once: x', version = 1000
                WHERE snapshot = (SELECT id FROM snapshots ORDER BY seq LIMIT 1 OFFSET 1)";
    assert_eq!(catalogue(&home).execute(mark, []).unwrap(), 1);
    let newest = changed(&all[2].1, 99);
    let id = home.line_with(&["update", &all[2].0, "-"], &newest);
    assert_eq!(placements(&home, &id)[0]["encoding"], "raw");
    assert_same(&home.bytes(&["retrieve", &id]), &newest, "the newest");
}

#[test]
fn what_a_pack_proves_wins_over_the_catalogue() {
    let flip = |column: &str| format!("CAST(x'ff' || substr({column}, 2) AS BLOB)");
    let faults = [
        format!("UPDATE placements SET pack = {} WHERE pack IS NOT NULL", flip("pack")),
        "UPDATE placements SET stored_bytes = stored_bytes + 64 WHERE pack IS NOT NULL".to_owned(),
        format!("UPDATE needs SET pack = {}", flip("pack")),
        format!("UPDATE needs SET needed = {}", flip("needed")),
        "UPDATE needs SET object = object || 'x'".to_owned(),
    ];
    for fault in faults {
        let home = home();
        let [(base, _), (id, bytes)] = versions(&home, 2).try_into().unwrap();
        let catalogue = catalogue(&home);
        catalogue.pragma_update(None, "foreign_keys", false).unwrap();
        assert!(catalogue.execute(&fault, []).unwrap() > 0);
        drop(catalogue);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, &fault);
        // Whatever the fault, what is needed is not removed.
        home.json(&["rm", &base]);
        home.json(&["gc"]);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, &fault);
        home.json(&["verify", "--deep"]);
        home.json(&["verify"]);
        assert_eq!(placements(&home, &id)[0]["state"], "live", "{fault}");
    }
}

#[test]
fn damaged_digests_of_a_kept_base_follow_from_its_bytes() {
    let home = home();
    let [(base, _), (id, bytes)] = versions(&home, 2).try_into().unwrap();
    home.json(&["rm", &base]);
    let fault =
        "UPDATE snapshots SET segments = CAST(x'00' || substr(segments, 2) AS BLOB), removed = 0 WHERE removed = 1;
                 UPDATE snapshots SET removed = 1 WHERE substr(segments, 1, 1) = x'00'";
    catalogue(&home).execute_batch(fault).unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "the version");
    home.json(&["verify", "--deep"]);
    let mended = "SELECT count(*) FROM snapshots WHERE removed = 1 AND substr(segments, 1, 1) <> x'00'";
    assert_eq!(catalogue(&home).query_row(mended, [], |row| row.get::<_, u64>(0)).unwrap(), 1);
}

#[test]
fn pages_of_a_damaged_pack_come_from_another_object_of_its_snapshot() {
    let home = home();
    let all = versions(&home, 3);
    damage(&path(&home, &object(&home, &all[1].0)));
    home.refused(1, &["retrieve", &all[1].0, "-o", "out"]);
    assert_eq!(home.line_with(&["store", "-"], &all[1].1), all[1].0);
    assert_same(&home.bytes(&["retrieve", &all[2].0]), &all[2].1, "the version above it");
}

#[test]
fn what_is_stored_again_is_in_order_again() {
    let home = home();
    let all = versions(&home, 4);
    damage(&path(&home, &object(&home, &all[1].0)));
    assert_eq!(home.run(&["verify", "--deep"]).status.code(), Some(1));
    for (id, bytes) in &all {
        assert_eq!(&home.line_with(&["store", "-"], bytes), id);
    }
    home.json(&["gc"]);
    home.json(&["verify", "--deep"]);
    for (id, bytes) in &all {
        assert_eq!(placements(&home, id).len(), 1, "what gives nothing is gone");
        assert_same(&home.bytes(&["retrieve", id]), bytes, "a version");
    }
}

/// An image without data.
struct Nothing(u64);

impl Image for Nothing {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buffer: &mut [u8], _: u64) -> tidelock::Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn next_data(&self, _: u64, _: u64) -> tidelock::Result<Option<std::ops::Range<u64>>> {
        Ok(None)
    }
}

#[test]
fn an_import_reads_what_packs_changed_and_not_what_they_hold() {
    let home = home();
    let first = noise(16 * MIB, 1);
    let mut all = vec![(home.line_with(&["store", "-"], &first), first)];
    for number in 1..6 {
        let (base, mut bytes) = all[all.len() - 1].clone();
        bytes[number * 3_000_000] ^= 1;
        all.push((home.line_with(&["update", &base, "-"], &bytes), bytes));
    }
    // A pack of 64 GiB of zeros.
    let mut pack = Vec::new();
    let encoded = encode_full(&Nothing(64 << 30), &Options::new(Profile::Compact), None, &mut |piece| {
        pack.extend_from_slice(&piece);
        Ok(())
    });
    let zeros = format!("snap-{}", "0".repeat(26));
    fs::write(path(&home, &zeros), pack).unwrap();
    let side = "tidelock-side 1\nlabel tidelock-encoding pages\nend\n";
    fs::write(path(&home, &format!("{zeros}.base")), side).unwrap();
    fs::remove_dir_all(home.path("tidelock-data")).unwrap();
    let report = home.json(&["import", "local"]);
    assert_eq!((&report["imported"], &report["damaged"]), (&7.into(), &0.into()), "{report}");
    let read = report["bytes"].as_u64().unwrap();
    assert!(read <= (16 + 5 * 2 + 1) * MIB as u64, "{read} bytes were read");
    for (id, bytes) in &all {
        assert_same(&home.bytes(&["retrieve", id]), bytes, "a version");
    }
    assert_eq!(home.json(&["stat", &encoded.unwrap().identity.id().to_string()])["size"], 64u64 << 30);
}
