//! A system that has little to give: address space, threads. The limits are those of a shell's `ulimit`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use tidelock_tests::data::noise;
use tidelock_tests::program::{Home, ProgramOutput, Running, tidelock};

/// Runs the program in a shell that has set limits.
fn limited(home: &Home, limits: &str, user: Option<u32>, arguments: &[&str]) -> ProgramOutput {
    let mut command = Command::new("bash");
    home.settle(&mut command);
    command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(tidelock()).args(arguments);
    if let Some(user) = user {
        command.uid(user);
    }
    Running::start(command).finish()
}

/// The default pool would take 50 GiB of address space.
#[test]
fn little_address_space_makes_the_sandbox_smaller_and_not_fail() {
    let home = Home::new();
    let image = noise(300_000, 1);
    home.file("image", &image);
    for kib in [16 << 20, 2 << 20] {
        let limits = format!("ulimit -v {kib}");
        limited(&home, &limits, None, &["store", "image", "--name", "kept"]).success(&["store"]);
        let read = limited(&home, &limits, None, &["retrieve", "kept"]).success(&["retrieve"]).stdout;
        assert!(read == image, "{kib}");
    }
}

#[test]
fn commands_on_the_catalogue_need_no_sandbox() {
    let home = Home::new();
    home.file("image", b"x");
    home.line(&["store", "image", "--name", "kept"]);
    // Less than one instance of an adapter takes.
    let listed = limited(&home, "ulimit -v 400000", None, &["ls"]).success(&["ls"]).stdout;
    assert!(String::from_utf8_lossy(&listed).contains("kept"));
}

#[test]
fn no_address_space_for_an_adapter_is_an_error_whose_hint_names_keys_that_exist() {
    let home = Home::new();
    home.file("image", b"x");
    let said = limited(&home, "ulimit -v 700000", None, &["store", "image"]).refused(1, &["store"]);
    for expected in ["address space", "ulimit -v", "`in_flight`", "`memory`", "`limits`"] {
        assert!(said.contains(expected), "{said}");
    }
    for key in ["in_flight", "memory"] {
        assert!(tidelock::types::limits::LIMITS.contains(&key));
    }
}

/// Neither a panic nor a command that waits for ever. The superuser has no such limit, so it becomes another user.
#[test]
fn no_threads_are_an_error() {
    let home = Home::new();
    let root = rustix::process::geteuid().is_root();
    let user = root.then_some(54_321);
    for threads in [1, 3, 6] {
        let began = Instant::now();
        let ended = limited(&home, &format!("ulimit -u {threads}"), user, &["--config", "/dev/null", "ls"]);
        assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
        let said = ended.stderr;
        assert!(!said.contains("panicked"), "{said}");
        if root {
            assert!(said.contains("cannot start threads") && said.contains("ulimit -u"), "{threads}: {said}");
        }
    }
}
