//! A catalogue that is older than the world: put back from a copy, in every way in which that is done. Nothing that was
//! acknowledged since the copy was made is removed for what the copy holds as begun.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use tidelock_tests::daemon::{Daemon, Server};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, tidelock, until};
use xtask::skip::skip;

/// The objects are elsewhere, as in a bucket: they do not go back with the catalogue.
const ELSEWHERE: &str =
    "data_dir = \"data\"\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects\" }\n";

/// How a catalogue, or all of the data directory, is copied and put back.
struct Way {
    what: &'static str,
    /// Copies from `data` to `copy`.
    copy: fn(&Home),
    /// Puts `copy` back into `data`.
    put_back: fn(&Home),
    /// Whether it is noticed only where the file system says when a file was made.
    needs_times: bool,
}

const WAYS: [Way; 7] = [
    Way {
        what: "a file in the place of the other",
        needs_times: false,
        copy: alone,
        put_back: |home| {
            without_catalogue(home, "catalogue.sqlite");
            fs::copy(home.path("copy/catalogue.sqlite"), home.path("data/catalogue.sqlite")).unwrap();
        },
    },
    Way {
        what: "over the other",
        needs_times: false,
        copy: alone,
        put_back: |home| {
            without_catalogue(home, "catalogue.sqlite-");
            fs::copy(home.path("copy/catalogue.sqlite"), home.path("data/catalogue.sqlite")).unwrap();
        },
    },
    Way { what: "its rows in the place of the others", needs_times: false, copy: alone, put_back: rows },
    Way {
        what: "alone in a new folder",
        needs_times: false,
        copy: alone,
        put_back: |home| {
            fs::remove_dir_all(home.path("data")).unwrap();
            fs::rename(home.path("copy"), home.path("data")).unwrap();
        },
    },
    Way {
        what: "the whole folder",
        needs_times: true,
        copy: whole,
        put_back: |home| {
            fs::remove_dir_all(home.path("data")).unwrap();
            fs::rename(home.path("copy"), home.path("data")).unwrap();
        },
    },
    Way {
        what: "the whole folder, file by file over the other",
        needs_times: false,
        copy: whole,
        put_back: |home| {
            without_catalogue(home, "catalogue.sqlite-");
            copy_all(&home.path("copy"), &home.path("data"));
        },
    },
    Way {
        what: "the whole folder, in place, without what is not in the copy",
        needs_times: true,
        copy: whole,
        put_back: |home| {
            without_catalogue(home, "catalogue.sqlite-");
            fs::remove_dir_all(home.path("data/catalogue.mark")).unwrap();
            copy_all(&home.path("copy"), &home.path("data"));
        },
    },
];

fn alone(home: &Home) {
    fs::create_dir(home.path("copy")).unwrap();
    let copy = home.path("copy/catalogue.sqlite");
    catalogue(home).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
}

fn whole(home: &Home) {
    copy_all(&home.path("data"), &home.path("copy"));
}

fn copy_all(from: &Path, to: &Path) {
    let mut all = from.as_os_str().to_owned();
    all.push("/.");
    assert!(Command::new("cp").arg("-a").args([all, to.into()]).status().unwrap().success());
}

fn without_catalogue(home: &Home, beginning: &str) {
    for entry in fs::read_dir(home.path("data")).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with(beginning) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// As SQLite's `.restore` does.
fn rows(home: &Home) {
    let db = catalogue(home);
    db.execute("ATTACH ?1 AS copy", [home.path("copy/catalogue.sqlite").to_str().unwrap()]).unwrap();
    db.execute_batch("PRAGMA foreign_keys = off; BEGIN IMMEDIATE").unwrap();
    let named = "SELECT name FROM copy.sqlite_schema WHERE type = 'table'";
    let mut tables = db.prepare(named).unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for table in tables {
        db.execute_batch(&format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM copy.{table}"))
            .unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
}

fn catalogue(home: &Home) -> Connection {
    Connection::open(home.path("data/catalogue.sqlite")).unwrap()
}

fn count(db: &Connection, what: &str) -> u64 {
    db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// The copy after some time: leases have expired, and the removal of a snapshot had begun when it was made.
fn age(home: &Home, removing: &str) {
    let copy = Connection::open(home.path("copy/catalogue.sqlite")).unwrap();
    assert_eq!(count(&copy, "intents"), 1);
    copy.execute("UPDATE owners SET expires = 0", []).unwrap();
    let begun =
        "UPDATE placements SET state = 'removing' WHERE snapshot = (SELECT snapshot FROM names WHERE name = ?1)";
    assert_eq!(copy.execute(begun, [removing]).unwrap(), 1);
    copy.execute("DELETE FROM names WHERE name = ?1", [removing]).unwrap();
}

fn names(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut paths = paths;
    paths.sort();
    paths
}

/// A store is under way and a removal has begun when the copy is made. By the time it is put back, the store was
/// acknowledged, and the other image was stored again, under the name that the backend gives to its bytes.
#[test]
fn what_a_catalogue_that_is_put_back_holds_as_begun_is_left_alone() {
    for way in &WAYS {
        let home = Home::with(ELSEWHERE);
        if way.needs_times && fs::metadata(home.path("tidelock.toml")).unwrap().created().is_err() {
            skip("what_a_catalogue_that_is_put_back_holds_as_begun_is_left_alone", "nothing says when a file was made");
            continue;
        }
        let (image, other) = (noise(5 * MIB, 1), noise(3000, 2));
        let there = home.line_with(&["store", "-", "--name", "there"], &other);
        let mut store = Running::start(home.command(&["store", "-", "--name", "begun"]));
        store.feed(&image[..3 * MIB]).unwrap();
        until("the store is under way", || count(&catalogue(&home), "intents") == 1);
        (way.copy)(&home);
        store.feed(&image[3 * MIB..]).unwrap();
        let stored = store.finish().success(&["store"]);
        let stored = String::from_utf8(stored.stdout).unwrap().trim().to_owned();
        age(&home, "there");
        let objects = names(home.objects_below("objects"));
        assert_eq!(objects.len(), 2);

        (way.put_back)(&home);
        for round in ["at once", "again"] {
            let collected = home.json(&["gc", "--older-than", "1ms"]);
            assert_eq!((&collected["objects"], &collected["removals"]), (&0.into(), &0.into()), "{}", way.what);
            assert_eq!(names(home.objects_below("objects")), objects, "{}, {round}", way.what);
        }
        let imported = home.run(&["import", "local"]).success(&["import"]);
        assert!(!imported.stderr.contains("put back"), "it is told once: {}", imported.stderr);
        assert_same(&home.bytes(&["retrieve", &stored]), &image, way.what);
        assert_same(&home.bytes(&["retrieve", "begun"]), &image, way.what);
        assert_same(&home.bytes(&["retrieve", &there]), &other, way.what);
        assert_same(&home.bytes(&["retrieve", "there"]), &other, way.what);
        // From here on it is a catalogue as any other.
        let mut killed = Running::start(home.command(&["store", "-"]));
        killed.feed(&image[..2 * MIB]).unwrap();
        until("another store is under way", || count(&catalogue(&home), "intents") == 1);
        killed.kill();
        home.json(&["gc", "--older-than", "1ms"]);
        assert_eq!(count(&catalogue(&home), "intents"), 0, "{}", way.what);
        home.line(&["rm", "begun"]);
        assert_eq!(home.objects_below("objects").len(), 1, "{}", way.what);
    }
}

/// Under a daemon: what it acknowledges is known to everybody, and it goes on by itself.
#[test]
fn a_daemon_under_which_a_catalogue_is_put_back_goes_on() {
    type PutBack = fn(&Home);
    let ways: [(&str, PutBack); 3] = [
        ("its rows", rows),
        ("a file in the place of the other", |home| {
            without_catalogue(home, "catalogue.sqlite");
            fs::rename(home.path("copy/catalogue.sqlite"), home.path("data/catalogue.sqlite")).unwrap();
        }),
        ("none, and another process makes one", |home| {
            without_catalogue(home, "catalogue.sqlite");
            let server = Server { address: format!("unix:{}", home.path("sock").display()), token: None };
            let refused = server.get("/v1/snapshots").problem(503, "unavailable");
            assert!(refused["detail"].as_str().unwrap().contains("was removed"), "{refused}");
            home.run(&["gc"]).success(&["gc"]);
        }),
    ];
    for (what, put_back) in ways {
        let home = Home::with(ELSEWHERE);
        home.line_with(&["store", "-", "--name", "one"], b"one");
        alone(&home);
        let listen = format!("unix:{}", home.path("sock").display());
        let daemon = Daemon::with(&home, &["--listen", &listen], None);
        daemon.server.store(b"two");
        put_back(&home);
        for bytes in [b"three", b"four."] {
            let id = daemon.server.store(bytes);
            assert_eq!(home.bytes(&["retrieve", &id]), bytes, "{what}");
        }
        daemon.stop();
        home.line(&["import", "local"]);
        assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 4, "{what}");
    }
}

/// A program in a namespace of its own, after a script; `None` where nobody may mount.
fn after_mount(home: &Home, script: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{{ {script}; }} >&2 || exit 99; exec \"$@\""), "sh"]);
    command.arg(tidelock()).args(arguments);
    home.settle(&mut command);
    let mut probe = Command::new("unshare");
    probe.args(["-m", "sh", "-c", &format!("{{ {script}; }} >&2"), "sh"]);
    home.settle(&mut probe);
    probe.status().is_ok_and(|status| status.success()).then_some(command)
}

/// Without the mark a copy that is put back later would not be known for one.
#[test]
fn what_the_mark_cannot_tell_is_not_acknowledged() {
    let home = Home::with(ELSEWHERE);
    let before = home.line_with(&["store", "-"], b"before");
    home.file("image", b"after");
    let script = "mount --bind data/catalogue.mark data/catalogue.mark && mount -o remount,ro,bind data/catalogue.mark";
    let Some(store) = after_mount(&home, script, &["store", "image"]) else {
        return skip("what_the_mark_cannot_tell_is_not_acknowledged", "nobody may mount here");
    };
    let said = Running::start(store).finish().refused(1, &["store"]);
    assert!(said.contains("catalogue.mark") && said.contains("is recorded"), "{said}");
    assert_eq!(home.bytes(&["retrieve", &before]), b"before");
    // It is recorded, and can be acknowledged once the mark can be written.
    home.line(&["store", "image"]);
    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(home.json(&["ls"])["snapshots"].as_array().unwrap().len(), 2);

    fs::remove_dir_all(home.path("data/catalogue.mark")).unwrap();
    fs::write(home.path("data/catalogue.mark"), b"").unwrap();
    home.file("other", b"other");
    assert!(home.run(&["store", "other"]).status.code() != Some(0), "there is no mark");
}

/// The lower layer of an overlay is shared, as an image of a container is: what is above is a copy of it.
#[test]
fn in_an_overlay_a_daemon_stores_again_and_again() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "below"], b"below");
    fs::create_dir(home.path("layers")).unwrap();
    let script = "mount -t tmpfs none layers && mkdir layers/upper layers/work && \
                  mount -t overlay none -o lowerdir=tidelock-data,upperdir=layers/upper,workdir=layers/work tidelock-data";
    let listen = format!("unix:{}", home.path("sock").display());
    let serve = ["serve", "--json", "-v", "--listen", &listen];
    let Some(serve) = after_mount(&home, script, &serve) else {
        return skip("in_an_overlay_a_daemon_stores_again_and_again", "nobody may mount an overlay here");
    };
    let mut daemon = Running::start(serve);
    until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
    let server = Server { address: listen, token: None };
    for number in 0..4 {
        server.store(&noise(3000, number));
    }
    assert!(!daemon.said().contains("cannot be recorded"), "{}", daemon.said());
    daemon.kill();
}

/// Whoever puts a catalogue back is told what to do.
#[test]
fn that_a_catalogue_was_put_back_is_told_with_what_to_do() {
    let home = Home::with(ELSEWHERE);
    home.line_with(&["store", "-"], b"before");
    alone(&home);
    let id = home.line_with(&["store", "-"], b"after");
    rows(&home);
    let listed = home.run(&["ls"]).success(&["ls"]);
    assert!(listed.stderr.contains("put back") && listed.stderr.contains("tidelock import"), "{}", listed.stderr);
    home.line(&["import", "local"]);
    assert_eq!(home.bytes(&["retrieve", &id]), b"after");
    assert_eq!(home.run(&["ls"]).success(&["ls"]).stderr, "");
}
