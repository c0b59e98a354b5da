//! Images that are not regular files with bytes: no input at all, sizes that mean nothing, holes, metadata that changes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, tidelock, until};

/// Neither nothing nor a pipe without bytes takes the name of a good image.
#[test]
fn an_empty_image_is_stored_only_on_request() {
    let home = Home::new();
    let good = home.line_with(&["store", "-", "--name", "vm"], b"good");
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" store - --name vm <&-"]).arg(tidelock());
    home.settle(&mut closed);
    // Not by way of `Running`, which gives it an input.
    let closed = closed.output().unwrap();
    let said = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert_eq!(closed.status.code(), Some(2), "{said}");
    assert!(said.contains("standard input is closed"), "{said}");
    let said = home.run_with(&["store", "-", "--name", "vm"], b"").refused(2, &["store", "-"]);
    assert!(said.contains("no bytes") && said.contains("--allow-empty"), "{said}");
    let said = home.run_with(&["update", "vm", "-", "--name", "vm"], b"").refused(2, &["update"]);
    assert!(said.contains("no bytes"), "{said}");
    home.refused(2, &["store", "/dev/null", "--name", "vm"]);
    assert_eq!(home.json(&["stat", "vm"])["id"], good.as_str());
    assert_eq!(home.objects().len(), 1);

    // Who means it says so, and a file of no bytes is one.
    let empty = home.line_with(&["store", "-", "--allow-empty"], b"");
    home.file("empty", b"");
    assert_eq!(home.line(&["store", "empty"]), empty);
    assert_eq!(home.line_with(&["id", "-"], b""), empty);
    assert!(home.bytes(&["retrieve", &empty]).is_empty());
}

/// The kernel gives the size of its files as 0, or as that of a page.
#[test]
fn a_reported_size_of_zero_is_not_trusted() {
    let home = Home::new();
    for path in ["/proc/version", "/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let Ok(bytes) = fs::read(path) else { continue };
        if path == "/proc/cpuinfo" {
            // Its frequencies change; that it is not empty has to do.
            let id = home.line(&["store", path]);
            assert!(home.bytes(&["retrieve", &id]).len() > 100);
            continue;
        }
        let id = home.line(&["store", path]);
        assert_same(&home.bytes(&["retrieve", &id]), &bytes, path);
        assert_eq!(home.line(&["id", path]), id);
    }
}

#[test]
fn a_sparse_image_takes_the_room_of_its_data() {
    let home = Home::new();
    let image = File::create(home.path("image")).unwrap();
    // It ends in a hole, at an odd offset.
    image.set_len((256 << 20) + 77).unwrap();
    image.write_all_at(b"data", 100_000_001).unwrap();
    let id = home.line(&["store", "image"]);
    let [object] = &home.objects()[..] else { panic!("one object") };
    let metadata = fs::metadata(object).unwrap();
    assert_eq!(metadata.len(), (256 << 20) + 77);
    assert!(metadata.blocks() * 512 < 4 << 20, "{} KiB on disk", metadata.blocks() / 2);
    home.bytes(&["retrieve", &id, "-o", "copy"]);
    let copy = fs::metadata(home.path("copy")).unwrap();
    assert_eq!(copy.len(), (256 << 20) + 77);
    assert!(copy.blocks() * 512 < 4 << 20, "{} KiB on disk", copy.blocks() / 2);
    assert_eq!(home.line(&["id", "copy"]), id);
    home.json(&["verify", "--deep"]);
}

/// A pipe between the program and the file makes the store last as long as the test wants.
#[test]
fn metadata_that_changes_is_no_write() {
    let home = Home::new();
    let bytes = noise(64 * MIB, 1);
    home.file("image", &bytes);
    // While the program reads, in a loop until it ends: modes, links and times.
    let mut store = Running::start(home.command(&["store", "image"]));
    let mut touched = 0;
    while store.runs() {
        fs::set_permissions(home.path("image"), fs::Permissions::from_mode(0o600 + touched % 2 * 0o40)).unwrap();
        let _ = fs::hard_link(home.path("image"), home.path("link"));
        let _ = fs::remove_file(home.path("link"));
        touched += 1;
    }
    let id = String::from_utf8(store.finish().success(&["store", "image"]).stdout).unwrap();
    assert!(touched > 2);
    assert_eq!(home.line(&["id", "image"]), id.trim());
}

/// Opening a named pipe waits for its other end, and a signal ends that.
#[test]
fn a_pipe_without_a_writer_is_left_on_a_signal() {
    let home = Home::new();
    assert!(Command::new("mkfifo").arg(home.path("pipe")).stdin(Stdio::null()).status().unwrap().success());
    let mut store = Running::start(home.command(&["store", "pipe"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(store.runs());
    super::outputs::signal(&store, rustix::process::Signal::TERM);
    until("it ends", || !store.runs());
    assert_eq!(store.finish().status.code(), Some(143));
}
