//! What the world does to a program like this one: odd environments, odd files in the place of good ones, and settings that
//! cannot be meant. Each test is a kind of report that users of storage tools have written.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit};
use tidelock_tests::daemon::Daemon;
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, ProgramOutput, Running, files, tidelock};

/// The program, started by a shell that has made its surroundings odd.
#[track_caller]
fn in_shell(home: &Home, script: &str, arguments: &[&str]) -> ProgramOutput {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{script}\nexec \"$@\""), "sh"]).arg(tidelock()).args(arguments);
    home.settle(&mut shell);
    Running::start(shell).finish()
}

fn only_object(home: &Home) -> PathBuf {
    let objects = home.objects();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects[0].clone()
}

/// Output that goes nowhere is an error, and what was stored is stored.
#[test]
fn output_to_a_full_device() {
    let home = Home::new();
    home.file("image", noise(MIB, 1));
    let full = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.stdin(Stdio::null()).stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
        command.stderr(Stdio::piped()).output().unwrap()
    };
    let stored = full(&["store", "image"]);
    assert_eq!(stored.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stored.stderr).contains("standard output"));
    let listed = home.json(&["ls"]);
    let id = listed["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for arguments in [&["ls"][..], &["stat", &id], &["retrieve", &id], &["ls", "--json"]] {
        assert_eq!(full(arguments).status.code(), Some(1), "{arguments:?}");
    }
    assert_same(&home.bytes(&["retrieve", &id]), &noise(MIB, 1), "all the same");
}

/// `tidelock retrieve … | head`.
#[test]
fn a_reader_that_has_had_enough() {
    let home = Home::new();
    let id = home.line_with(&["store", "-"], &noise(20 * MIB, 2));
    let mut command = home.command(&["retrieve", &id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 10];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut start).unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!said.contains("panicked") && !said.contains("backend"), "{said}");
}

/// Neither a home nor a folder for temporary files.
#[test]
fn without_a_home_and_temporary_files() {
    let mut home = Home::new();
    home.env("HOME", "");
    home.env("TMPDIR", "/nonexistent");
    let bytes = noise(3 * MIB, 3);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "stored");
    home.json(&["verify", "--deep"]);
}

#[test]
fn a_working_directory_that_is_gone() {
    let home = Home::new();
    let said = in_shell(&home, "mkdir gone && cd gone && rmdir ../gone", &["ls"]).refused(2, &["ls"]);
    assert!(said.contains("current directory"), "{said}");
}

/// Few open files: what does not work says which limit it is, wherever it is met. How many are open at what point differs
/// from one machine to another, so every number is tried.
#[test]
fn few_open_files() {
    let home = Home::new();
    let bytes = noise(MIB, 4);
    let id = home.line_with(&["store", "-"], &bytes);
    home.file("image", noise(MIB, 5));
    let (mut refused, mut served) = (0, 0);
    for number in 4..=64 {
        for arguments in [&["retrieve", &id][..], &["store", "image"], &["ls"]] {
            let limit = format!("ulimit -n {number}");
            let few = in_shell(&home, &limit, arguments);
            let (what, said) = (format!("{limit}, {arguments:?}: {few:?}"), &few.stderr);
            match few.status.code() {
                Some(0) if arguments[0] == "retrieve" => assert_same(&few.stdout, &bytes, &what),
                Some(0) => {}
                // The system cannot load the program.
                Some(127) if said.contains("shared librar") => continue,
                status => {
                    assert_eq!(status, Some(1), "{what}");
                    assert!(said.contains("ulimit -n"), "{what}");
                    assert!(!said.contains("panicked") && !said.contains("bug in the adapter"), "{what}");
                    assert_eq!(said.matches("hint:").count(), 1, "{what}");
                    refused += 1;
                    assert!(number < 64, "64 are enough: {what}");
                    continue;
                }
            }
            served += 1;
        }
        // What was compiled is not always there.
        if number % 4 == 0 {
            let _ = fs::remove_dir_all(home.path("tidelock-data/compiled"));
        }
    }
    assert!(refused > 10 && served > 10, "{refused} and {served}");
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "nothing was taken for damaged");
}

#[test]
fn a_configuration_with_a_byte_order_mark_and_windows_lines() {
    let home = Home::new();
    let text = "\u{feff}data_dir = \"data\"\r\n[backends.local]\r\nadapter = \"fs\"\r\n\
                grants.directory.objects = { path = \"objects\" }\r\n";
    home.file("tidelock.toml", text);
    let id = home.line_with(&["store", "-"], b"image");
    assert_same(&home.bytes(&["retrieve", &id]), b"image", "as configured");
    assert!(home.path("data/catalogue.sqlite").exists());
}

/// A disk image in place of the configuration, or a device that never ends.
#[test]
fn a_configuration_without_an_end() {
    let home = Home::new();
    File::create(home.path("tidelock.toml")).unwrap().set_len(8 << 30).unwrap();
    let said = home.refused(2, &["ls"]);
    assert!(said.contains("more than 1 MiB"), "{said}");
    fs::remove_file(home.path("tidelock.toml")).unwrap();
    symlink("/dev/zero", home.path("tidelock.toml")).unwrap();
    let said = home.refused(2, &["ls"]);
    assert!(said.contains("more than 1 MiB"), "{said}");
}

/// A path that SQLite could take for a URI with parameters.
#[test]
fn a_data_directory_with_a_name_like_a_query() {
    let home = Home::with(
        "data_dir = \"d?mode=memory&x=#%20y'\\\"\"\n[backends.local]\nadapter = \"fs\"\n\
         grants.directory.objects = { path = \"objects\" }\n",
    );
    let id = home.line_with(&["store", "-"], b"image");
    assert!(home.path("d?mode=memory&x=#%20y'\"/catalogue.sqlite").exists());
    assert_same(&home.bytes(&["retrieve", &id]), b"image", "in the next process");
}

/// Something else in the place of an object: the other copy is read, and `verify` reports it.
#[test]
fn something_else_in_the_place_of_an_object() {
    let home = Home::with_two_copies();
    let bytes = noise(3 * MIB, 6);
    home.file("image", &bytes);
    let id = home.line(&["store", "image"]);
    let object = home.objects_below("one").remove(0);
    let kept = home.path("kept");
    fs::rename(&object, &kept).unwrap();
    type Put = fn(&Path, &Path);
    let others: [(&str, Put); 4] = [
        ("a folder", |object, _| fs::create_dir(object).unwrap()),
        ("a named pipe", |object, _| {
            rustix::fs::mknodat(rustix::fs::CWD, object, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
        ("a link out of the folder", |object, kept| symlink(kept, object).unwrap()),
        ("a link to itself", |object, _| symlink(object.file_name().unwrap(), object).unwrap()),
    ];
    for (what, put) in others {
        put(&object, &kept);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, what);
        assert_same(&home.bytes(&["retrieve", &id, "--range", "5..2500000"]), &bytes[5..2_500_000], what);
        let verified = home.run(&["verify", "--deep"]);
        assert_eq!(verified.status.code(), Some(1), "{what}: {}", verified.stderr);
        if object.is_dir() && !object.is_symlink() {
            fs::remove_dir(&object).unwrap();
        } else {
            fs::remove_file(&object).unwrap();
        }
    }
    fs::rename(&kept, &object).unwrap();
    home.json(&["verify", "--deep"]);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "once it is back");
}

/// What a disk, a desktop or a backup program leaves in a folder of objects.
#[test]
fn foreign_files_among_the_objects() {
    let home = Home::new();
    let bytes = noise(MIB, 7);
    let id = home.line_with(&["store", "-"], &bytes);
    let objects = home.path("tidelock-data/objects");
    fs::create_dir(objects.join("lost+found")).unwrap();
    fs::set_permissions(objects.join("lost+found"), Permissions::from_mode(0o700)).unwrap();
    for name in [".DS_Store", "Thumbs.db", "snap-short", "a b\nc", "core.1234", "\u{202e}txt"] {
        fs::write(objects.join(name), b"foreign").unwrap();
    }
    fs::write(objects.join(std::ffi::OsStr::new(std::str::from_utf8(b"x").unwrap())), b"").unwrap();
    home.json(&["gc", "--older-than", "1ms"]);
    home.json(&["verify", "--deep"]);
    for file in ["catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm"] {
        let _ = fs::remove_file(home.path("tidelock-data").join(file));
    }
    let imported = home.json(&["import", "local"]);
    assert_eq!(imported["imported"], 1, "{imported}");
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "found among them");
    assert!(objects.join("Thumbs.db").exists() && objects.join("lost+found").exists());
}

/// The folder is carried elsewhere, with all that is in it.
#[test]
fn a_store_that_is_moved() {
    let home = Home::new();
    let bytes = noise(MIB, 8);
    let id = home.line_with(&["store", "-"], &bytes);
    fs::create_dir(home.path("elsewhere")).unwrap();
    fs::rename(home.path("tidelock-data"), home.path("elsewhere/tidelock-data")).unwrap();
    let mut command = home.command(&["retrieve", &id]);
    command.current_dir(home.path("elsewhere"));
    assert_same(&Running::start(command).finish().success(&["retrieve"]).stdout, &bytes, "elsewhere");
}

/// An older copy of the catalogue is put back: what was stored since is neither collected nor lost.
#[test]
fn a_catalogue_from_a_backup() {
    let home = Home::new();
    let (old, new) = (noise(5000, 9), noise(6000, 10));
    let first = home.line_with(&["store", "-"], &old);
    let gone = home.line_with(&["store", "-"], &noise(7000, 11));
    let data = home.path("tidelock-data");
    let catalogue = || files(&data).into_iter().filter(|path| path.to_string_lossy().contains("/catalogue.sqlite"));
    let backup: Vec<(PathBuf, Vec<u8>)> = catalogue().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let second = home.line_with(&["store", "-"], &new);
    home.line(&["rm", &gone]);
    catalogue().for_each(|path| fs::remove_file(path).unwrap());
    backup.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());

    home.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(home.objects().len(), 2, "{:?}", home.objects());
    let imported = home.json(&["import", "local"]);
    assert_eq!((&imported["imported"], &imported["known"]), (&1.into(), &1.into()), "{imported}");
    assert_same(&home.bytes(&["retrieve", &first]), &old, "before the backup");
    assert_same(&home.bytes(&["retrieve", &second]), &new, "after the backup");
    let said = home.refused(1, &["retrieve", &gone]);
    assert!(said.contains("local"), "{said}");
}

/// Compiled code is a cache: damaged, replaced or of another kind, it is made again or done without.
#[test]
fn a_damaged_cache_of_compiled_code() {
    let home = Home::new();
    let bytes = noise(MIB, 12);
    let id = home.line_with(&["store", "-"], &bytes);
    let compiled = home.path("tidelock-data/compiled");
    let cached = files(&compiled);
    assert!(!cached.is_empty());
    for file in &cached {
        let length = file.metadata().unwrap().len();
        let open = OpenOptions::new().write(true).open(file).unwrap();
        (0..length).step_by(997).for_each(|at| open.write_all_at(&[0x55], at).unwrap());
    }
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "with damaged code");
    files(&compiled).iter().for_each(|file| File::create(file).unwrap().set_len(100).unwrap());
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "with short code");
    fs::remove_dir_all(&compiled).unwrap();
    fs::write(&compiled, b"a file").unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "with a file in place of the folder");
}

/// A truncated catalogue is reported as damaged, and is not created anew.
#[test]
fn a_catalogue_that_is_cut_off() {
    let home = Home::new();
    let id = home.line_with(&["store", "-"], &noise(5000, 13));
    let path = home.path("tidelock-data/catalogue.sqlite");
    // All of it, not what a log still has.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(db);
    for name in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{name}", path.display()));
    }
    assert!(path.metadata().unwrap().len() > 5000);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let said = home.refused(1, &["retrieve", &id]);
    assert!(said.contains("catalogue.sqlite") && said.contains("import"), "{said}");
    assert_eq!(path.metadata().unwrap().len(), 5000, "it is left for whoever can save it");
}

/// Names and paths that are not what most programs expect.
#[test]
fn odd_names() {
    let home = Home::new();
    let bytes = noise(4000, 14);
    home.file("-image", &bytes);
    let id = home.line(&["store", "--name", "ü 名 --json", "./-image"]);
    assert_eq!(home.line(&["store", "--", "-image"]), id);
    assert_same(&home.bytes(&["retrieve", "ü 名 --json"]), &bytes, "by its name");
    for name in ["", "a\nb", "\u{1b}[2J", "a\u{202e}b", "tl1yyyyyyyyy", &"x".repeat(256)] {
        let said = home.refused(2, &["store", "./-image", "--name", name]);
        assert!(!said.contains('\u{1b}'), "{said}");
    }
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"copy-\xff");
    let mut command = home.command(&["retrieve", &id, "-o"]);
    command.arg(odd);
    Running::start(command).finish().success(&["retrieve", "-o"]);
    assert_same(&fs::read(home.path(".").join(odd)).unwrap(), &bytes, "a path that is not text");
}

/// The snapshot is removed while it is read: the reader gets it all, or an error, never a short file that looks whole.
#[test]
fn removed_while_it_is_read() {
    let home = Home::new();
    let bytes = noise(48 * MIB, 15);
    let id = home.line_with(&["store", "-"], &bytes);
    let mut command = home.command(&["retrieve", &id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut found = vec![0; MIB];
    std::io::Read::read_exact(&mut out, &mut found).unwrap();
    home.line(&["rm", &id]);
    std::io::Read::read_to_end(&mut out, &mut found).unwrap();
    let ended = child.wait_with_output().unwrap();
    match ended.status.code() {
        Some(0) => assert_same(&found, &bytes, "while it was removed"),
        _ => assert!(!ended.stderr.is_empty() && bytes.starts_with(&found)),
    }
}

/// A socket that a killed daemon left is taken over; one that a living daemon listens on is not.
#[test]
fn the_socket_of_a_daemon_that_was_killed() {
    let home = Home::new();
    Daemon::start(&home).kill();
    assert!(home.path("tidelock.sock").exists());
    let daemon = Daemon::start(&home);
    let said = home.refused(1, &["serve"]);
    assert!(said.contains("listens"), "{said}");
    assert_eq!(daemon.server.send("GET", "/v1/snapshots", &[], b"").status, 200, "the first one still answers");
    daemon.stop();
}

/// Proxies of the environment are for what is elsewhere, not for this machine.
#[test]
fn a_proxy_that_is_away_does_not_matter_here() {
    let mut home = tidelock_tests::server::home(tidelock_tests::server::shared(), "proxied");
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        home.env(name, "http://127.0.0.1:1");
    }
    home.env("NO_PROXY", "127.0.0.1,localhost");
    let bytes = noise(MIB, 16);
    let id = home.line_with(&["store", "-"], &bytes);
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "around the proxy");
}

/// Stores of one image at the same time, from files and from pipes: each is acknowledged, and one object is left.
#[test]
fn the_same_image_many_times_at_once() {
    let home = Home::new();
    let bytes = noise(5 * MIB, 17);
    home.file("image", &bytes);
    let start = |number: usize| {
        let mut running =
            Running::start(home.command(&["store", if number.is_multiple_of(2) { "image" } else { "-" }]));
        if number % 2 == 1 {
            running.feed(&bytes).unwrap();
        }
        running
    };
    let all: Vec<Running> = (0..6).map(start).collect();
    let ids: Vec<Vec<u8>> = all.into_iter().map(|one| one.finish().success(&["store"]).stdout).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    home.json(&["gc", "--older-than", "1ms"]);
    let object = only_object(&home);
    assert_same(&fs::read(object).unwrap(), &bytes, "the one object");
    home.json(&["verify", "--deep"]);
}

/// Limits on what a process may have, tightened until something gives: an error, and never a wrong answer.
#[test]
fn ever_smaller_limits() {
    let home = Home::new();
    let bytes = noise(2 * MIB, 18);
    let id = home.line_with(&["store", "-"], &bytes);
    let unlimited = rustix::process::getrlimit(Resource::As);
    assert_eq!(unlimited, Rlimit { current: None, maximum: None }, "this machine has a limit of its own");
    for kilobytes in [64 << 20, 8 << 20, 2 << 20, 1 << 20, 512 << 10] {
        let ended = in_shell(&home, &format!("ulimit -v {kilobytes}"), &["retrieve", &id]);
        match ended.status.code() {
            Some(0) => assert_same(&ended.stdout, &bytes, "with little address space"),
            Some(_) => assert!(ended.stderr.contains("error: "), "{kilobytes}: {}", ended.stderr),
            None => panic!("{kilobytes}: {:?}: {}", ended.status, ended.stderr),
        }
    }
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "afterwards");
    home.json(&["verify", "--deep"]);
}
