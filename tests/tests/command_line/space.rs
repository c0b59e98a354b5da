//! Where nothing can be written: a full disk, read-only media. And paths that are not UTF-8 or too long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::refusals::SmallDisk;
use tidelock_tests::daemon::{Daemon, Server};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, ProgramOutput, Running, tidelock, until};
use xtask::skip::skip;

#[test]
fn with_a_full_disk_snapshots_are_listed_read_and_removed() {
    let home = Home::new();
    let Some(disk) = SmallDisk::new(&home, "24m") else {
        return skip("with_a_full_disk_snapshots_are_listed_read_and_removed", "nobody may mount a file system here");
    };
    home.file(
        "tidelock.toml",
        "data_dir = \"disk/data\"\n[backends.local]\nadapter = \"fs\"\n\
         grants.directory.objects = { path = \"disk/data/objects\" }\n",
    );
    let (image, other) = (noise(2 * MIB, 1), noise(100_000, 2));
    home.file("image", &image);
    home.file("other", &other);
    let run = |arguments: &[&str]| disk.run(&home, arguments);
    run(&["store", "image", "--name", "vm"]).success(&["store"]);
    run(&["store", "other", "--name", "other"]).success(&["store"]);
    let fill = || {
        let full = fs::File::options().create(true).append(true).open(disk.root.join("fill"));
        let mut full = full.unwrap();
        while std::io::Write::write_all(&mut full, &[1; 512]).is_ok() {}
    };
    fill();
    // A second time, when another program has filled what the first had to free.
    for _ in 0..2 {
        let listed = String::from_utf8(run(&["ls"]).success(&["ls"]).stdout).unwrap();
        assert!(listed.contains("vm") && listed.contains("other"), "{listed}");
        assert_same(&run(&["retrieve", "vm"]).success(&["retrieve"]).stdout, &image, "with a full disk");
        run(&["verify"]).success(&["verify"]);
        fill();
    }
    home.file("new", noise(MIB, 3));
    let said = run(&["store", "new", "--name", "new"]).refused(1, &["store", "new"]);
    assert!(said.contains("free some space"), "{said}");
    fill();
    run(&["rm", "vm"]).success(&["rm"]);
    let listed = String::from_utf8(run(&["ls"]).success(&["ls"]).stdout).unwrap();
    assert!(!listed.contains("vm"), "{listed}");
    // There is room again, for images and for the reserve.
    fs::remove_file(disk.root.join("fill")).unwrap();
    run(&["store", "image", "--name", "vm"]).success(&["store"]);
    assert!(disk.root.join("data/catalogue.sqlite.reserve").exists());
}

/// A file system that has room, and nothing left to make files of.
#[test]
fn where_no_file_can_be_made_snapshots_are_listed_read_and_removed() {
    let home = Home::new();
    let Some(disk) = SmallDisk::new(&home, "24m,nr_inodes=60") else {
        return skip("where_no_file_can_be_made_snapshots_are_listed_read_and_removed", "nobody may mount here");
    };
    home.file(
        "tidelock.toml",
        "data_dir = \"disk/data\"\n[backends.local]\nadapter = \"fs\"\n\
         grants.directory.objects = { path = \"disk/data/objects\" }\n",
    );
    let image = noise(100_000, 1);
    home.file("image", &image);
    let run = |arguments: &[&str]| disk.run(&home, arguments);
    run(&["store", "image", "--name", "vm"]).success(&["store"]);
    let fill = |part: &str| {
        for number in 0.. {
            if fs::File::create_new(disk.root.join(format!("{part}{number}"))).is_err() {
                break;
            }
        }
    };
    // The second time, another program has taken what the first gave back: then nothing at all can be written.
    for round in ["a", "b"] {
        fill(round);
        let listed = String::from_utf8(run(&["ls"]).success(&["ls"]).stdout).unwrap();
        assert!(listed.contains("vm"), "{listed}");
        fill(round);
        assert_same(&run(&["retrieve", "vm"]).success(&["retrieve"]).stdout, &image, "without files");
    }
    let said = run(&["rm", "vm"]).refused(1, &["rm"]);
    assert!(said.contains("space"), "{said}");
    eprintln!("FIRST {said}");
    (0..6).for_each(|number| fs::remove_file(disk.root.join(format!("a{number}"))).unwrap());
    run(&["rm", "vm"]).success(&["rm"]);
}

/// The program with the data directory on a mount that is read-only for it and for nobody else; `None` where nobody may make
/// one.
fn on_read_only_mount(home: &Home, arguments: &[&str]) -> Option<Command> {
    let script =
        "mount --bind tidelock-data tidelock-data && mount -o remount,ro,bind tidelock-data || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(tidelock()).args(arguments);
    home.settle(&mut command);
    Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()).then_some(command)
}

fn read_only(home: &Home, arguments: &[&str]) -> Option<ProgramOutput> {
    let outcome = Running::start(on_read_only_mount(home, arguments)?).finish();
    (outcome.status.code() != Some(99)).then_some(outcome)
}

#[test]
fn on_read_only_media_snapshots_are_listed_verified_and_read() {
    let home = Home::new();
    let image = noise(3 * MIB, 1);
    let id = home.line_with(&["store", "-", "--name", "vm"], &image);
    if read_only(&home, &["ls"]).is_none() {
        return skip("on_read_only_media_snapshots_are_listed_verified_and_read", "nobody may mount here");
    }
    let run = |arguments: &[&str]| read_only(&home, arguments).unwrap();
    let before = tidelock_tests::program::files(&home.path("tidelock-data"));
    for arguments in
        [&["ls"][..], &["stat", "vm"], &["verify"], &["verify", "--deep"], &["retrieve", "vm", "-o", "copy"]]
    {
        run(arguments).success(arguments);
    }
    assert_same(&home.read("copy"), &image, "from read-only media");
    home.file("new", b"new");
    for arguments in [&["store", "new"][..], &["rm", "vm"]] {
        let said = run(arguments).refused(1, arguments);
        assert!(said.contains("hint: use a data directory on writable media"), "{said}");
    }
    assert_eq!(tidelock_tests::program::files(&home.path("tidelock-data")), before);

    // What was killed has left a log, which has the last snapshot. It is read too.
    let mut daemon = Running::start(home.command(&["serve"]));
    until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
    let later = home.line_with(&["store", "-", "--name", "later"], b"later");
    daemon.kill();
    assert!(fs::metadata(home.path("tidelock-data/catalogue.sqlite-wal")).is_ok_and(|log| log.len() > 0));
    let listed = String::from_utf8(run(&["ls"]).success(&["ls"]).stdout).unwrap();
    assert!(listed.contains(&later) && listed.contains(&id), "{listed}");
    assert_eq!(run(&["retrieve", "later"]).success(&["retrieve"]).stdout, b"later");
}

/// A sidecar, or a container: the folder is read-only for it, and others write to it.
#[test]
fn a_catalogue_that_others_write_to_is_read_from_a_read_only_mount() {
    let home = Home::new();
    let image = noise(MIB, 2);
    home.line_with(&["store", "-", "--name", "first"], &image);
    if read_only(&home, &["ls"]).is_none() {
        return skip("a_catalogue_that_others_write_to_is_read_from_a_read_only_mount", "nobody may mount here");
    }
    let listen = format!("unix:{}", home.path("sock").display());
    let arguments = ["serve", "--json", "-v", "--listen", &listen];
    let mut daemon = Running::start(on_read_only_mount(&home, &arguments).unwrap());
    until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
    let server = Server { address: listen.clone(), token: None };
    let names = |server: &Server| -> Vec<String> {
        let answer = server.get("/v1/snapshots");
        assert_eq!(answer.status, 200, "{}\n{}", String::from_utf8_lossy(&answer.body), daemon.said());
        let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let snapshots = page["snapshots"].as_array().unwrap();
        snapshots.iter().map(|one| one["name"].as_str().unwrap().chars().take(8).collect()).collect()
    };
    assert_eq!(names(&server), ["first"]);
    // Pages of long names, some of them put where others were.
    let long = "y".repeat(200);
    let store = |number: u64| {
        let name = format!("n{number:03}-{long}");
        home.line_with(&["store", "-", "--name", &name], &noise(2000, number));
        name
    };
    for number in 10..22 {
        let name = store(number);
        assert!(names(&server).contains(&name[..8].to_owned()), "{number}");
        if number % 3 == 0 {
            home.line(&["rm", &name]);
            assert!(!names(&server).contains(&name[..8].to_owned()), "{number}");
        }
    }
    // While somebody has it open for long.
    let writer = Daemon::start(&home);
    for number in 30..33 {
        let id = writer.server.store(&noise(3000, number));
        assert_eq!(server.get(&format!("/v1/snapshots/{id}/stat")).status, 200);
    }
    let listed = read_only(&home, &["ls"]).unwrap().success(&["ls"]);
    assert!(String::from_utf8(listed.stdout).unwrap().contains("first"));
    writer.stop();
    let first = server.get("/v1/snapshots/first");
    assert_same(&first.body, &image, "beside others");
    assert!(!daemon.said().contains("malformed"), "{}", daemon.said());
    daemon.kill();
}

/// What an older version wrote is read from a copy that is brought up to date; if there is no room for one, that is said.
#[test]
fn a_catalogue_of_an_older_version_is_read_on_read_only_media() {
    let home = Home::new();
    let image = noise(MIB, 3);
    let id = home.line_with(&["store", "-", "--name", "vm"], &image);
    if read_only(&home, &["ls"]).is_none() {
        return skip("a_catalogue_of_an_older_version_is_read_on_read_only_media", "nobody may mount here");
    }
    // As the version before names had a table of their own wrote it.
    let db = rusqlite::Connection::open(home.path("tidelock-data/catalogue.sqlite")).unwrap();
    db.execute_batch(
        "PRAGMA foreign_keys = off;
         DROP TRIGGER names_of_earlier_versions; DROP TRIGGER renames_of_earlier_versions;
         DROP TRIGGER removals_of_earlier_versions; DROP TRIGGER stores_of_earlier_versions; DROP TRIGGER imports_of_earlier_versions;
         DROP TRIGGER unknown_needs_of_earlier_versions;
         DROP TRIGGER placement_came; DROP TRIGGER placement_changed; DROP TRIGGER placement_went;
         DROP TRIGGER snapshot_went; DROP TRIGGER wanted_changed; DROP TRIGGER copy_begun; DROP TRIGGER copy_ended;
         DROP TRIGGER push_begun; DROP TRIGGER push_ended;
         DROP TRIGGER owner_went; DROP TABLE reserved;
         DROP TABLE jobs; DROP TABLE wanted; DROP TABLE events; DROP TABLE looked_through;
         DROP TABLE needs; ALTER TABLE snapshots DROP COLUMN removed;
         UPDATE snapshots SET name = 'vm';
         DROP TABLE names; DROP TABLE claims; DROP TABLE containers; DROP TABLE counters;
         ALTER TABLE snapshots DROP COLUMN unnamed; ALTER TABLE snapshots DROP COLUMN base_from;
         CREATE INDEX snapshots_by_name ON snapshots (name) WHERE name IS NOT NULL;
         CREATE TABLE before (snapshot, backend, object, encoding, state, stored_bytes, created);
         INSERT INTO before SELECT snapshot, backend, object, encoding, state, stored_bytes, created FROM placements;
         DROP TABLE placements; ALTER TABLE before RENAME TO placements;
         PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    drop(db);
    let before = tidelock_tests::program::files(&home.path("tidelock-data"));
    let run = |arguments: &[&str]| read_only(&home, arguments).unwrap();
    for arguments in [&["ls"][..], &["stat", "vm"], &["verify", "--deep"], &["retrieve", &id, "-o", "copy"]] {
        run(arguments).success(arguments);
    }
    assert_same(&home.read("copy"), &image, "of an older version");
    home.file("new", b"new");
    let said = run(&["store", "new"]).refused(1, &["store", "new"]);
    assert!(said.contains("writable media"), "{said}");
    let mut nowhere = on_read_only_mount(&home, &["ls"]).unwrap();
    nowhere.env("TMPDIR", "/nonexistent");
    let said = Running::start(nowhere).finish().refused(1, &["ls"]);
    assert!(said.contains("older version") && said.contains("TMPDIR") && !said.contains("malformed"), "{said}");
    assert_eq!(tidelock_tests::program::files(&home.path("tidelock-data")), before, "nothing was changed");
    // Where it can be written to, it is brought up to date in place.
    assert_same(&home.bytes(&["retrieve", "vm"]), &image, "brought up to date");
}

#[test]
fn a_data_directory_with_a_long_path_is_reported() {
    let home = Home::new();
    let deep = ["x".repeat(200), "y".repeat(200), "z".repeat(200)].join("/");
    let objects = "grants.directory.objects = { path = \"objects\" }";
    home.file("tidelock.toml", format!("data_dir = \"{deep}\"\n[backends.local]\nadapter = \"fs\"\n{objects}\n"));
    home.file("image", b"x");
    let said = home.refused(2, &["store", "image"]);
    assert!(said.contains("bytes") && said.contains("data_dir"), "{said}");
}

/// Only a shell knows what `~` is.
#[test]
fn a_path_that_begins_with_a_tilde_is_refused() {
    let mut home = Home::new();
    home.env("HOME", home.path("home").to_str().unwrap().to_owned().as_str());
    let local = |grant: &str| {
        format!("[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{grant}\" }}\n")
    };
    let texts = [
        format!("data_dir = \"~/tl\"\n{}", local("objects")),
        format!("data_dir = \"~\"\n{}", local("objects")),
        local("~/objects"),
        local("~somebody/objects"),
        format!("{}[service]\nlisten = \"unix:~/tl.sock\"\n", local("objects")),
        format!("{}[service]\ntoken_file = \"~/token\"\n", local("objects")),
        "[backends.local]\nadapter = \"~/mine.wasm\"\n".to_owned(),
        format!("adapters_dir = \"~/adapters\"\n{}", local("objects")),
    ];
    home.file("image", b"x");
    for text in texts {
        home.file("tidelock.toml", &text);
        let said = home.refused(2, &["store", "image"]);
        assert!(said.contains("begins with `~") && said.contains("whole path"), "{text}: {said}");
    }
    assert!(!home.path("~").exists() && !home.path("~somebody").exists());
    home.file("tidelock.toml", format!("data_dir = \"./~\"\n{}", local("objects")));
    home.line(&["store", "image"]);
    assert!(home.path("~").is_dir());
}

/// As Kubernetes mounts a secret for a user who does not own it: group-readable, behind two links.
#[test]
fn secrets_of_kubernetes_are_read() {
    let home = Home::new();
    fs::create_dir(home.path("..2026_01_01")).unwrap();
    let file = home.file("..2026_01_01/token", b"0123456789abcdef-token\n");
    std::os::unix::fs::symlink("..2026_01_01", home.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", home.path("token")).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--token-file", "token"];
    for (mode, works) in [(0o440, true), (0o640, true), (0o400, true), (0o444, false), (0o660, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        if works {
            let mut daemon = Running::start(home.command(&serve));
            until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
            assert!(daemon.runs(), "{mode:o}: {}", daemon.said());
            daemon.kill();
        } else {
            let said = home.refused(2, &serve);
            assert!(said.contains("chmod 600") && said.contains("0440"), "{mode:o}: {said}");
        }
    }
}
