//! Invalid input, and a full disk: messages, and what remains.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::{Home, Running, files, tidelock};
use xtask::skip::skip;

#[test]
fn a_file_that_is_not_there() {
    let home = Home::new();
    for command in [&["store", "absent.img"][..], &["id", "absent.img"]] {
        let said = home.refused(2, command);
        assert!(said.contains("absent.img") && said.contains("no such file"), "{said}");
    }
    assert!(home.objects().is_empty());
}

#[test]
fn a_directory_instead_of_a_file() {
    let home = Home::new();
    fs::create_dir(home.path("folder")).unwrap();
    for command in [&["store", "folder"][..], &["id", "folder"]] {
        let said = home.refused(2, command);
        assert!(said.contains("folder is a directory"), "{said}");
    }
    let id = home.line_with(&["store", "-"], b"x");
    let said = home.refused(2, &["retrieve", &id, "-o", "folder"]);
    assert!(said.contains("directory"), "{said}");
}

#[test]
fn a_file_that_may_not_be_read() {
    let root = rustix::process::geteuid().is_root();
    if root && Command::new("setpriv").arg("--version").output().is_err() {
        return skip("a_file_that_may_not_be_read", "root may read everything, and there is no setpriv");
    }
    let home = Home::new();
    let file = home.file("secret.img", b"x");
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let outcome = if root {
        // The built program may be in a folder that other users cannot enter.
        let program = home.path("tidelock");
        fs::copy(tidelock(), &program).unwrap();
        for path in [home.path("."), program.clone()] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(["store", &file]);
        home.settle(&mut command);
        Running::start(command).finish()
    } else {
        home.run(&["store", &file])
    };
    let said = outcome.refused(2, &["store", &file]);
    assert!(said.contains("secret.img") && said.to_lowercase().contains("permission denied"), "{said}");
}

#[test]
fn unknown_and_invalid_ids() {
    let home = Home::new();
    let unknown = home.line_with(&["id", "-"], b"never stored");
    let said = home.refused(2, &["stat", &unknown]);
    assert!(said.contains("nothing is stored here"), "in the wrong folder: {said}");
    home.line_with(&["store", "-"], b"something else");
    let nonsense =
        ["x", "tl1", &unknown[..54], &format!("{unknown}a"), &unknown.to_uppercase(), "tl1/../../etc/passwd", ""];
    for command in ["stat", "rm", "retrieve", "verify"] {
        let said = home.refused(2, &[command, &unknown]);
        assert!(said.contains(&unknown), "{command}: {said}");
        for id in nonsense {
            home.refused(2, &[command, id]);
        }
    }
}

#[test]
fn ranges_that_lie_outside_or_are_none() {
    let home = Home::new();
    let id = home.line_with(&["store", "-"], &noise(5000, 1));
    let said = home.refused(2, &["retrieve", &id, "--range", "5001.."]);
    assert!(said.contains("past the end") && said.contains("5000"), "{said}");
    for range in ["5001..5002", "7..3", "7", "a..b", "..", "-1..2", "1..99999999999999999999999"] {
        home.refused(2, &["retrieve", &id, &format!("--range={range}")]);
    }
    let said = home.refused(2, &["retrieve", &id, "--range", "9000..", "-o", "copy"]);
    assert!(said.contains("past the end") && !home.path("copy").exists(), "{said}");
}

/// A file system of a few megabytes, in a mount namespace whose only process is a shell that waits for us. Its files are
/// reached through `/proc`.
pub(super) struct SmallDisk {
    shell: Running,
    pub(super) root: PathBuf,
}

impl SmallDisk {
    /// `None` where mounting is not allowed.
    pub(super) fn new(home: &Home, size: &str) -> Option<Self> {
        fs::create_dir(home.path("disk")).unwrap();
        let mount = format!("mount -t tmpfs -o size={size},mode=0777 none disk && touch disk/ready && exec cat");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &mount]);
        home.settle(&mut command);
        let mut shell = Running::start(command);
        let root =
            PathBuf::from(format!("/proc/{}/root", shell.pid())).join(home.path("disk").strip_prefix("/").unwrap());
        while shell.runs() && !root.join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if shell.runs() { Some(Self { shell, root }) } else { None }
    }

    /// The program in that namespace.
    pub(super) fn run(&self, home: &Home, arguments: &[&str]) -> tidelock_tests::program::ProgramOutput {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.shell.pid()));
        // Whoever enters stands at the root.
        command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(home.path("."));
        command.arg(tidelock()).args(arguments);
        home.settle(&mut command);
        Running::start(command).finish()
    }
}

#[test]
fn a_disk_that_is_full() {
    let home = Home::new();
    let Some(disk) = SmallDisk::new(&home, "24m") else {
        return skip("a_disk_that_is_full", "nobody may mount a small file system here");
    };
    home.file(
        "tidelock.toml",
        "data_dir = \"disk/data\"\n[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"disk/objects\" }\n",
    );
    let (small, large) = (noise(MIB, 1), noise(40 * MIB, 2));
    home.file("small", &small);
    home.file("large", &large);
    let run = |arguments: &[&str]| disk.run(&home, arguments);
    let line = |arguments: &[&str]| {
        let outcome = run(arguments).success(arguments);
        String::from_utf8(outcome.stdout).unwrap().trim().to_owned()
    };
    let id = line(&["store", "small"]);

    let said = run(&["store", "large"]).refused(1, &["store", "large"]);
    assert!(said.contains("no space left"), "{said}");
    let objects: Vec<PathBuf> =
        files(&disk.root.join("objects")).into_iter().filter(|path| path.metadata().unwrap().len() > 0).collect();
    assert_eq!(objects.len(), 2, "only the small one, and the identity: {objects:?}");
    let listed = String::from_utf8(run(&["ls", "--json"]).success(&["ls"]).stdout).unwrap();
    assert_eq!(listed.matches("tl1").count(), 1, "{listed}");
    assert_same(&run(&["retrieve", &id]).success(&["retrieve"]).stdout, &small, "what was there before");

    // An output that does not fit leaves nothing either.
    let elsewhere = Home::new();
    let big = elsewhere.line_with(&["store", "-"], &large);
    let copy = disk.root.join("copy");
    let said = elsewhere.refused(1, &["retrieve", &big, "-o", copy.to_str().unwrap()]);
    assert!(said.contains("no space left"), "{said}");
    assert!(!copy.exists());

    // The place is there again: what did not fit failed without a trace.
    let fits = noise(10 * MIB, 3);
    home.file("fits", &fits);
    let id = line(&["store", "fits"]);
    assert_same(&run(&["retrieve", &id]).success(&["retrieve"]).stdout, &fits, "after the full disk");
    assert_same(&elsewhere.bytes(&["retrieve", &big]), &large, "stored where there is room");
}
