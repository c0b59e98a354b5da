//! Runs a program and kills it at a step: the child of the tests of sudden ends.
//!
//! `stepper WHICH PROGRAM ARGUMENT…`: a step is a system call, by any of the program's threads, that changes a file or
//! sends bytes to somebody; several writes of one thread, one directly after the other, are one. The program is killed (SIGKILL) just before its step of this number, from one, or, where
//! WHICH is no number, before the first of its steps whose call has a name that begins so; what it did before has happened,
//! and the step itself has not. Its output is this program's.
//!
//! Exit status 9 if it was killed, with the name of the step in the last line on stderr; otherwise the program's own:
//! it had fewer steps.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What counts.
const STEPS: [(libc::c_long, &str); 20] = [
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_flock, "flock"),
];

/// Those that the kernel has on this processor for the sake of old programs.
#[cfg(target_arch = "x86_64")]
const OLDER_STEPS: [(libc::c_long, &str); 5] = [
    (libc::SYS_rename, "rename"),
    (libc::SYS_link, "link"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_mkdir, "mkdir"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_STEPS: [(libc::c_long, &str); 0] = [];

const KILLED: u8 = 9;

/// The step before which the program is killed.
enum Which {
    Number(u64),
    Called(String),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let which = arguments.next().and_then(|which| which.into_string().ok()).expect("WHICH");
    let which = which.parse().map_or_else(|_| Which::Called(which), Which::Number);
    // On one processor, threads take turns in much the same way in each run: steps keep their numbers.
    let mut one = CpuSet::new();
    let mine = sched_getaffinity(Pid::from_raw(0)).expect("its processors");
    let processor = (0..CpuSet::count()).find(|number| mine.is_set(*number).unwrap_or(false)).expect("a processor");
    one.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &one)).expect("it may choose");
    // The shell waits for a line before it becomes the program: by then it is traced.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read go && exec \"$@\" </dev/null", "sh"]).args(arguments).stdin(Stdio::piped());
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it, and for all of its threads")]
    let mut child = shell.spawn().expect("a shell");
    let first = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).expect("a child of one's own may be traced");
    ptrace::interrupt(first).expect("it can be stopped");
    child.stdin.take().expect("its input").write_all(b"\n").expect("it waits");
    run(first, &which)
}

/// Follows all threads until the program ends or reaches the step.
fn run(first: Pid, which: &Which) -> ExitCode {
    let (mut steps, mut executed, mut last) = (0, false, None);
    let mut killed_before = None;
    // Whether a thread is within a call: such stops come in pairs.
    let mut within: HashMap<Pid, bool> = HashMap::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there is a child");
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, code) if pid == first => return ExitCode::from(code as u8),
            // The first thread is reported last, once all the others are.
            WaitStatus::Signaled(pid, signal, _) if pid == first => {
                let step = killed_before.unwrap_or_else(|| panic!("it was ended by {signal}"));
                eprintln!("killed before step {steps}: {step}");
                return ExitCode::from(KILLED);
            }
            WaitStatus::PtraceSyscall(pid) => {
                let inside = within.entry(pid).or_default();
                *inside = !*inside;
                if *inside
                    && executed
                    && let Some(step) = step_of(pid)
                {
                    let again = step == "pwrite" && last == Some((pid, step));
                    last = Some((pid, step));
                    steps += u64::from(!again);
                    let reached = match which {
                        Which::Number(number) => steps == *number && !again,
                        Which::Called(name) => step.starts_with(name.as_str()),
                    };
                    if reached {
                        kill(first, Signal::SIGKILL).expect("it can be killed");
                        killed_before = Some(step);
                    }
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, signal, event) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    executed = true;
                    within.clear();
                    // The call that it was within goes on to its end.
                    within.insert(pid, true);
                }
                let stopped = matches!(signal, Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU);
                (pid, (stopped && event == 0).then_some(signal))
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                within.remove(&pid);
                continue;
            }
            _ => continue,
        };
        // A thread that has ended meanwhile is reported by the next wait.
        let _ = ptrace::syscall(pid, signal);
    }
}

/// The name of the call that a thread is about to make, if it counts.
fn step_of(pid: Pid) -> Option<&'static str> {
    let registers = ptrace::getregs(pid).ok()?;
    #[cfg(target_arch = "x86_64")]
    let call = registers.orig_rax as libc::c_long;
    #[cfg(target_arch = "aarch64")]
    let call = registers.regs[8] as libc::c_long;
    STEPS.iter().chain(&OLDER_STEPS).find(|(number, _)| *number == call).map(|(_, name)| *name)
}
