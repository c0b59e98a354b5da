//! A system that has little to give: address space, threads. The limits are those of a shell's `ulimit`. And what the program
//! takes of the memory.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use tidelock_tests::data::{MIB, noise};
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
    let listed = limited(&home, "ulimit -v 280000", None, &["ls"]).success(&["ls"]).stdout;
    assert!(String::from_utf8_lossy(&listed).contains("kept"));
}

#[test]
fn no_address_space_for_an_adapter_is_an_error_whose_hint_names_keys_that_exist() {
    let home = Home::new();
    home.file("image", b"x");
    let said = limited(&home, "ulimit -v 280000", None, &["store", "image"]).refused(1, &["store"]);
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

/// Runs the program to its end. Returns the most memory that it had and that is not of files, in bytes.
fn anonymous(home: &Home, arguments: &[&str]) -> usize {
    let mut running = Running::start(home.command(arguments));
    let status = format!("/proc/{}/status", running.pid());
    let mut most = 0;
    while running.runs() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB"));
        most = most.max(line.map_or(0, |kib| kib.trim().parse::<usize>().unwrap() << 10));
        std::thread::sleep(Duration::from_millis(2));
    }
    running.finish().success(arguments);
    most
}

/// As [`noise`], in less time.
fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Memory of a machine: zeros, pages that compress, and pages that do not. Then one page of fifty is another.
fn machine(size: usize) -> [Vec<u8>; 2] {
    let mut image = Vec::with_capacity(size);
    for run in 0..size / (128 << 10) {
        match run % 10 {
            0..4 => image.resize(image.len() + (128 << 10), 0),
            4..7 => image.extend(noise(1024, run as u64).repeat(128)),
            _ => image.extend(random(128 << 10)),
        }
    }
    let mut next = image.clone();
    for (number, page) in next.chunks_mut(4096).enumerate().filter(|(number, _)| number % 50 == 7) {
        page[..64].copy_from_slice(&noise(64, number as u64));
    }
    [image, next]
}

/// What one thread has freed serves the others: with a place of its own for each, most of what a command had was unused.
#[test]
fn a_command_has_little_more_memory_than_it_uses() {
    let home = Home::new();
    let [image, next] = machine(192 * MIB);
    home.file("image", &image);
    home.file("next", &next);
    // The first one compiles the adapter.
    home.line(&["store", "image", "--name", "base"]);
    // Some buffers are for each processor.
    let processors = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let allowed = (64 + 32 * processors) * MIB;
    for arguments in [&["update", "base", "next", "--name", "next"][..], &["retrieve", "next", "-o", "back"]] {
        let most = anonymous(&home, arguments);
        assert!(most > 10 * MIB && most < allowed, "{arguments:?}: {} of {} MiB", most / MIB, allowed / MIB);
    }
    assert!(home.read("back") == next);
}
