//! Where nothing can be written: a full disk, read-only media. And paths that are not UTF-8 or too long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::refusals::SmallDisk;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, ProgramOutput, Running, tidelock};
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

/// The program with the data directory on a mount that is read-only; `None` where mounting is not allowed.
fn read_only(home: &Home, arguments: &[&str]) -> Option<ProgramOutput> {
    let script =
        "mount --bind tidelock-data tidelock-data && mount -o remount,ro,bind tidelock-data || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(tidelock()).args(arguments);
    home.settle(&mut command);
    if Command::new("unshare").args(["-m", "true"]).status().map_or(true, |status| !status.success()) {
        return None;
    }
    let outcome = Running::start(command).finish();
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
    tidelock_tests::program::until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
    let later = home.line_with(&["store", "-", "--name", "later"], b"later");
    daemon.kill();
    assert!(fs::metadata(home.path("tidelock-data/catalogue.sqlite-wal")).is_ok_and(|log| log.len() > 0));
    let listed = String::from_utf8(run(&["ls"]).success(&["ls"]).stdout).unwrap();
    assert!(listed.contains(&later) && listed.contains(&id), "{listed}");
    assert_eq!(run(&["retrieve", "later"]).success(&["retrieve"]).stdout, b"later");
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
            tidelock_tests::program::until("it listens", || daemon.printed().contains('\n') || !daemon.runs());
            assert!(daemon.runs(), "{mode:o}: {}", daemon.said());
            daemon.kill();
        } else {
            let said = home.refused(2, &serve);
            assert!(said.contains("chmod 600") && said.contains("0440"), "{mode:o}: {said}");
        }
    }
}
