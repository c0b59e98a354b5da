//! Where retrieved images go: what stays of a target, what is refused beforehand, and what is left when it ends early.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, files, tidelock, until};
use xtask::skip::skip;

pub(super) fn signal(running: &Running, signal: Signal) {
    kill_process(Pid::from_raw(running.pid() as i32).unwrap(), signal).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The memory of a machine is readable only by the user who stored it, in both directions.
#[test]
fn private_data_stays_private() {
    let home = Home::new();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; \"$0\" store - --name vm && exec \"$0\" retrieve vm -o copy"]).arg(tidelock());
    home.settle(&mut command);
    let mut running = Running::start(command);
    running.feed(b"secret").unwrap();
    running.finish().success(&["store", "retrieve"]);
    assert_eq!(mode(&home.path("copy")), 0o600);
    let data = home.path("tidelock-data");
    assert_eq!(mode(&data), 0o700);
    for path in files(&data) {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    for name in ["objects", "objects/.tmp", "run", "adapters", "compiled"] {
        let path = data.join(name);
        assert!(!path.exists() || mode(&path) == 0o700, "{name}");
    }
    // What an earlier version made is narrowed.
    for path in [data.clone(), data.join("objects"), data.join("catalogue.sqlite")] {
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    home.json(&["ls"]);
    assert_eq!([mode(&data), mode(&data.join("objects"))], [0o700, 0o700]);
    assert_eq!(mode(&data.join("catalogue.sqlite")), 0o600);
}

#[test]
fn owner_and_mode_of_a_target_stay() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "vm"], b"new");
    home.file("image", b"old");
    fs::set_permissions(home.path("image"), Permissions::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(home.path("image"), Some(65534), Some(65534)).unwrap();
    } else {
        skip("owner_and_mode_of_a_target_stay: the owner", "only root can give files away");
    }
    home.bytes(&["retrieve", "vm", "-o", "image"]);
    assert_eq!(home.read("image"), b"new");
    let found = fs::metadata(home.path("image")).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o640);
    if root {
        assert_eq!((found.uid(), found.gid()), (65534, 65534));
    }
}

#[test]
fn a_link_to_nothing_is_not_replaced() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "vm"], b"new");
    symlink("absent", home.path("link")).unwrap();
    let said = home.refused(2, &["retrieve", "vm", "-o", "link"]);
    assert!(said.contains("link to a file that is not there"), "{said}");
    assert_eq!(fs::read_link(home.path("link")).unwrap(), Path::new("absent"));
    assert!(!home.path("absent").exists());
}

#[test]
fn a_pipe_without_a_reader_is_left_on_a_signal() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "vm"], b"x");
    assert!(Command::new("mkfifo").arg(home.path("pipe")).status().unwrap().success());
    for (number, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut running = Running::start(home.command(&["retrieve", "vm", "-o", "pipe"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(running.runs());
        signal(&running, number);
        until("it ends", || !running.runs());
        assert_eq!(running.finish().status.code(), Some(status));
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_leaves_nothing() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "vm"], &noise(3 * MIB, 1));
    home.file("old", b"old");
    for name in ["new", "old"] {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -c 0; ulimit -f 1000; exec \"$0\" retrieve vm -o \"$1\""])
            .arg(tidelock())
            .arg(name);
        home.settle(&mut command);
        let said = Running::start(command).finish().refused(1, &["retrieve"]);
        assert!(said.contains(name) && said.to_lowercase().contains("too large"), "{said}");
    }
    assert!(!home.path("new").exists());
    assert_eq!(home.read("old"), b"old");
    assert_eq!(temporary(&home), Vec::<String>::new());
}

/// Also SIGKILL, which cannot be handled: the bytes have no name before all are there.
#[test]
fn a_retrieve_that_is_killed_leaves_nothing() {
    let home = Home::new();
    home.line_with(&["store", "-", "--name", "vm"], &noise(48 * MIB, 1));
    for number in [Signal::KILL, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut running = Running::start(home.command(&["retrieve", "vm", "-o", "copy"]));
        until("it writes", || !running.runs() || writes(&running));
        signal(&running, number);
        until("it ends", || !running.runs());
        assert_eq!(temporary(&home), Vec::<String>::new(), "{number:?}");
        let _ = fs::remove_file(home.path("copy"));
    }
}

/// Returns whether it has a file open that has no name.
pub(super) fn writes(running: &Running) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", running.pid())) else { return false };
    open.flatten().any(|entry| {
        let path = fs::read_link(entry.path()).unwrap_or_default();
        path.to_string_lossy().contains("tidelock-test-") && path.to_string_lossy().ends_with("(deleted)")
    })
}

fn temporary(home: &Home) -> Vec<String> {
    let names = fs::read_dir(home.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with(".tidelock-")).collect()
}

/// A block device of 1 MiB, made of a file.
struct LoopDevice(String);

impl LoopDevice {
    fn over(path: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(path).output().ok()?;
        let name = String::from_utf8(made.stdout).ok()?.trim().to_owned();
        (made.status.success() && File::open(&name).is_ok()).then_some(Self(name))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_device_that_is_too_small_is_not_touched() {
    let home = Home::new();
    let old = noise(MIB, 7);
    home.file("disk", &old);
    let Some(device) = LoopDevice::over(&home.path("disk")) else {
        return skip("a_device_that_is_too_small_is_not_touched", "no loop device can be made here");
    };
    home.line_with(&["store", "-", "--name", "large"], &noise(MIB + 1, 1));
    let said = home.refused(2, &["retrieve", "large", "-o", &device.0]);
    assert!(said.contains("1 MiB") && said.contains("unchanged"), "{said}");
    assert_same(&fs::read(&device.0).unwrap(), &old, "the device");
    // A part of it fits, and so does an image of its size.
    home.bytes(&["retrieve", "large", "--range", "1..", "-o", &device.0]);
    assert_same(&fs::read(&device.0).unwrap(), &noise(MIB + 1, 1)[1..], "the device");
    // And a device is an image.
    let id = home.line(&["store", &device.0]);
    assert_same(&home.bytes(&["retrieve", &id]), &noise(MIB + 1, 1)[1..], "an image from a device");
}
