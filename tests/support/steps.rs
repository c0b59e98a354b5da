//! A program followed step by step: a step is a system call, by any of its threads, that changes a file or sends bytes to
//! somebody. All its threads share one processor with this process, so that nothing else happens during a step.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

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

/// A call that a thread is about to make.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The thread.
    pub thread: Pid,
    /// The call's name.
    pub call: &'static str,
    /// Its first three arguments.
    pub arguments: [u64; 3],
}

/// What becomes of the program before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It takes the step.
    Go,
    /// It is killed (SIGKILL), and the step is not taken.
    Kill,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// Killed before a step.
    Killed(&'static str),
}

/// Runs a program with its arguments, without standard input, and asks before each of its steps. This process must have no
/// other children.
///
/// # Panics
/// If the program cannot be started or traced, or is ended by a signal that this process has not sent.
pub fn follow(command: impl Iterator<Item = OsString>, mut before: impl FnMut(Step) -> Next) -> End {
    // On one processor, threads take turns in much the same way in each run: steps keep their numbers.
    let mut one = CpuSet::new();
    let mine = sched_getaffinity(Pid::from_raw(0)).expect("its processors");
    let processor = (0..CpuSet::count()).find(|number| mine.is_set(*number).unwrap_or(false)).expect("a processor");
    one.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &one)).expect("it may choose");
    // The shell waits for a line before it becomes the program: by then it is traced.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read go && exec \"$@\" </dev/null", "sh"]).args(command).stdin(Stdio::piped());
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
    run(first, &mut before)
}

/// Follows all threads until the program ends.
fn run(first: Pid, before: &mut dyn FnMut(Step) -> Next) -> End {
    let (mut executed, mut killed) = (false, None);
    // Whether a thread is within a call: such stops come in pairs.
    let mut within: HashMap<Pid, bool> = HashMap::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there is a child");
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, code) if pid == first => return End::Exited(code),
            // The first thread is reported last, once all the others are.
            WaitStatus::Signaled(pid, signal, _) if pid == first => {
                return End::Killed(killed.unwrap_or_else(|| panic!("it was ended by {signal}")));
            }
            WaitStatus::PtraceSyscall(pid) => {
                let inside = within.entry(pid).or_default();
                *inside = !*inside;
                if *inside
                    && executed
                    && killed.is_none()
                    && let Some(step) = step_of(pid)
                    && before(step) == Next::Kill
                {
                    kill(first, Signal::SIGKILL).expect("it can be killed");
                    killed = Some(step.call);
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

/// The call that a thread is about to make, if it counts.
fn step_of(thread: Pid) -> Option<Step> {
    let registers = ptrace::getregs(thread).ok()?;
    #[cfg(target_arch = "x86_64")]
    let (call, arguments) = (registers.orig_rax as libc::c_long, [registers.rdi, registers.rsi, registers.rdx]);
    #[cfg(target_arch = "aarch64")]
    let (call, arguments) =
        (registers.regs[8] as libc::c_long, [registers.regs[0], registers.regs[1], registers.regs[2]]);
    let (_, call) = STEPS.iter().chain(&OLDER_STEPS).find(|(number, _)| *number == call)?;
    Some(Step { thread, call, arguments })
}
