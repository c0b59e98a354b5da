//! A server process: started, monitored, killed by its id, and restarted in the same way.
//!
//! It is killed with SIGKILL: test servers hold nothing worth an orderly end, and the tests are about backends that
//! disappear at once. Beside each runs a watchdog, a shell that waits for the end
//! of a pipe from this process: when this process dies, however it dies, the watchdog kills the server and removes its
//! temporary folder. A value in a `static` is never dropped; this ends it all the same. (The kernel's parent-death signal
//! would not do: it follows the thread that started the server, and a test's thread ends before its process.)

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Kills `$1` unless that is no longer the program `$2`; removes the folder `$3` if one is named.
const WATCHDOG: &str =
    r#"read -r _; [ "$(readlink "/proc/$1/exe")" = "$2" ] && kill -9 "$1"; [ -z "$3" ] || rm -rf "$3""#;

/// How often a starting server is checked for readiness.
const POLL: Duration = Duration::from_millis(50);

/// A server's process and how to start it again.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
    temporary: bool,
    leftovers: Vec<PathBuf>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    server: Child,
    watchdog: Child,
}

impl Daemon {
    /// Describes a server; starts nothing. `dir` is its working directory and HOME, and holds its log. If it is
    /// `temporary`, it is removed with this value.
    pub fn new(
        name: &'static str,
        program: &Path,
        arguments: Vec<String>,
        dir: &Path,
        temporary: bool,
    ) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        Ok(Self { name, program, arguments, dir: dir.to_path_buf(), temporary, leftovers: Vec::new(), running: None })
    }

    /// Names files outside its folder that it leaves when it is killed: they are removed then.
    pub fn leaving(mut self, files: Vec<PathBuf>) -> Self {
        self.leftovers = files;
        self
    }

    /// Starts it and waits until `ready` returns true. When it ends before that or takes longer than `patience`, the error
    /// holds the end of its log, and it does not run.
    pub fn start(&mut self, patience: Duration, ready: impl Fn() -> bool) -> Result<()> {
        self.kill();
        let log = self.log();
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot open the log {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir).env("HOME", &self.dir).env("TMPDIR", &self.dir);
        // Its own process group: Ctrl-C is for us, and we end it.
        let command = std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let server = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let watchdog = self.watch(server.id());
        // From here on, whatever fails, `kill` ends it.
        let watchdog = match watchdog {
            Ok(watchdog) => watchdog,
            Err(error) => {
                end(server);
                return Err(error);
            }
        };
        self.running = Some(Running { server, watchdog });
        let began = Instant::now();
        while !ready() {
            let ended = self.running.as_mut().and_then(|running| running.server.try_wait().ok().flatten());
            let late = began.elapsed() > patience;
            if ended.is_some() || late {
                self.kill();
                let how = ended.map_or(format!("is not ready after {patience:?}"), |s| format!("ended at once ({s})"));
                bail!("{} {how}; the end of {}:\n{}", self.name, log.display(), tail(&log));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn watch(&self, pid: u32) -> Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(pid.to_string()).arg(&self.program);
        command.arg(if self.temporary { self.dir.as_os_str() } else { "".as_ref() });
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start `sh` to watch over the server")
    }

    /// Kills it at once, as a crash would; nothing if it does not run. Its folder stays as it is.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // The watchdog first: after the server is reaped, its id may be another's.
            end(running.watchdog);
            end(running.server);
            for file in &self.leftovers {
                let _ = fs::remove_file(file);
            }
        }
    }

    /// Stops it for a while (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.running.as_ref().with_context(|| format!("{} does not run", self.name))?;
        kill_process(Pid::from_child(&running.server), signal)?;
        Ok(())
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.server.id())
    }

    /// The program's file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where it works.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the file with its output.
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Returns the last lines of its output.
    pub fn end_of_log(&self) -> String {
        tail(&self.log())
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The files that it leaves when it is killed.
    pub fn leftovers(&self) -> &[PathBuf] {
        &self.leftovers
    }

    /// Leaves it running when this value and this process are gone; its folder stays.
    pub fn detach(mut self) {
        self.temporary = false;
        if let Some(running) = self.running.take() {
            end(running.watchdog);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if self.temporary {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// `count` ports of 127.0.0.1 without a listener, each with the port 10,000 above it free too: some servers put a
/// second service there. They lie below the range that the kernel gives to outgoing connections, and they stay this
/// process's until it ends: a server that was killed finds its ports again, whatever was started meanwhile.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    const FIRST: u16 = 12_000;
    const NUMBER: u16 = 10_000;
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes that start at the same time shall not try the same ones.
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let start = (seed % u64::from(NUMBER)) as u16;
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut ports = Vec::with_capacity(count);
    for port in (0..NUMBER).map(|step| FIRST + (start + step) % NUMBER) {
        if ports.len() == count {
            return Ok(ports);
        }
        if let Some(reservation) = reserve(port)
            && free(port)
            && free(port + NUMBER)
        {
            reserved.push(reservation);
            ports.push(port);
        }
    }
    bail!("fewer than {count} ports of 127.0.0.1 are free between {FIRST} and {}", FIRST + NUMBER)
}

/// A name that one process at a time can have, and that is free again when the process ends. Nothing if another has it.
fn reserve(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("tidelock-test-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(script: &str, dir: &Path) -> Result<Daemon> {
        Daemon::new("sleeper", Path::new("/bin/sh"), vec!["-c".into(), script.into()], dir, true)
    }

    fn alive(pid: u32) -> bool {
        // A zombie has no program any more.
        fs::read_link(format!("/proc/{pid}/exe")).is_ok()
    }

    #[test]
    fn killed_means_gone_and_dropped_means_removed() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let dir = parent.path().join("d");
        let mut daemon = sleeper("echo up; while :; do sleep 1; done", &dir)?;
        let log = daemon.log();
        daemon.start(Duration::from_secs(20), || fs::read(&log).is_ok_and(|text| !text.is_empty()))?;
        let pid = daemon.pid().unwrap();
        assert!(alive(pid));
        daemon.kill();
        assert!(!alive(pid) && daemon.pid().is_none() && dir.exists());
        drop(daemon);
        assert!(!dir.exists());
        Ok(())
    }

    #[test]
    fn one_that_ends_at_once_is_an_error_with_its_log() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let mut daemon = sleeper("echo the port is taken; exit 7", &parent.path().join("d"))?;
        let error = daemon.start(Duration::from_secs(20), || false).unwrap_err().to_string();
        assert!(error.contains("ended at once (exit status: 7)") && error.contains("the port is taken"), "{error}");
        Ok(())
    }

    #[test]
    fn the_watchdog_ends_it_when_the_process_that_started_it_is_gone() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let dir = parent.path().join("d");
        let mut daemon = sleeper("echo up; while :; do sleep 1; done", &dir)?;
        let log = daemon.log();
        daemon.start(Duration::from_secs(20), || fs::read(&log).is_ok_and(|text| !text.is_empty()))?;
        let running = daemon.running.as_mut().unwrap();
        // What the kernel does when a process ends: its end of the pipe is closed.
        drop(running.watchdog.stdin.take());
        running.watchdog.wait()?;
        let ended = running.server.wait()?;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        assert!(!dir.exists());
        Ok(())
    }

    #[test]
    fn ports_are_distinct_and_free() -> Result<()> {
        let ports = free_ports(8)?;
        // None of them listens yet, and yet nobody gets one again.
        let more = free_ports(8)?;
        let distinct: std::collections::BTreeSet<_> = ports.iter().chain(&more).collect();
        assert_eq!(distinct.len(), 16);
        assert!(ports.iter().all(|port| reserve(*port).is_none()));
        Ok(())
    }
}
