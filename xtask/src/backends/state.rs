//! The servers that `cargo xtask backends up` left running, in one file of the cache directory.
//!
//! A process id may be reused. So a record has the program and the kernel's start time of the
//! process; `down` kills only a process that still matches both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::daemon::Daemon;
use crate::{cache, say};

/// A server that runs, or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its kind, as on the command line.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The program that this process runs.
    pub program: PathBuf,
    /// When it began, in clock ticks since the machine started (field 22 of `/proc/PID/stat`).
    pub began: u64,
    /// Its data and its log.
    pub dir: PathBuf,
    /// Files elsewhere that it leaves when it is killed.
    pub leftovers: Vec<PathBuf>,
    /// How to reach it: endpoint, credentials.
    pub settings: BTreeMap<String, String>,
}

impl Record {
    /// The record of a server that shall outlive this process.
    pub(super) fn of(version: &str, daemon: Daemon, settings: BTreeMap<String, String>) -> Result<Self> {
        let (name, program, dir) = (daemon.name().to_string(), daemon.program().into(), daemon.dir().to_path_buf());
        let leftovers = daemon.leftovers().to_vec();
        let pid = daemon.pid().with_context(|| format!("{name} does not run"))?;
        let began =
            began(pid).with_context(|| format!("{name} ended as soon as it had started; see {}", dir.display()))?;
        daemon.detach();
        Ok(Self { name, version: version.into(), pid, program, began, dir, leftovers, settings })
    }

    /// Returns whether the process still runs, and is that one.
    pub fn runs(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid));
        program.is_ok_and(|program| program == self.program) && began(self.pid) == Some(self.began)
    }

    fn kill(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("not a process id")?;
        kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill {} (process {})", self.name, self.pid))?;
        // It is not our child: wait until the kernel says that it is gone, so that its ports are free after `down`.
        for _ in 0..200 {
            if !self.runs() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }
}

fn began(pid: u32) -> Option<u64> {
    start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22; the second one is a name in parentheses that may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Starts the servers of each kind that does not run yet. Returns all that run.
pub fn up(kinds: &[Kind]) -> Result<Vec<Record>> {
    let home = home()?;
    let _lock = cache::lock(&home.join("lock"), "starting or stopping servers")?;
    let mut records: Vec<Record> = read(&home)?.into_iter().filter(Record::runs).collect();
    for kind in kinds {
        if let Some(running) = records.iter().find(|record| record.name == kind.name()) {
            say!("{} runs already (process {})", running.name, running.pid);
            continue;
        }
        if let Some(why) = kind.why_not() {
            say!("leaving {} out: {why}", kind.name());
            continue;
        }
        let dir = home.join(kind.name());
        cache::empty_dir(&dir)?;
        say!("starting {}; its data and log are in {}", kind.name(), dir.display());
        records.extend(kind.start_detached(&dir)?);
        // At once: if the next one fails, this one is known all the same.
        write(&home, &records)?;
    }
    Ok(records)
}

/// Kills what `up` started and removes its data. Returns what it killed; a process that is another's by now is left alone.
pub fn down(kinds: &[Kind]) -> Result<Vec<Record>> {
    let home = home()?;
    let _lock = cache::lock(&home.join("lock"), "starting or stopping servers")?;
    let (ours, others) = read(&home)?.into_iter().partition(|r: &Record| kinds.iter().any(|k| k.name() == r.name));
    let ours: Vec<Record> = ours;
    let mut killed = Vec::new();
    for record in ours {
        if record.runs() {
            record.kill()?;
            killed.push(record.clone());
        }
        record.leftovers.iter().for_each(|file| drop(fs::remove_file(file)));
        let _ = fs::remove_dir_all(&record.dir);
    }
    write(&home, &others)?;
    Ok(killed)
}

/// Returns the servers that `up` started and that still run.
pub fn status() -> Result<Vec<Record>> {
    Ok(read(&home()?)?.into_iter().filter(Record::runs).collect())
}

fn home() -> Result<PathBuf> {
    Ok(cache::dir()?.join("backends"))
}

fn read(home: &Path) -> Result<Vec<Record>> {
    let file = home.join("running.json");
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; end its servers by hand and remove it", file.display()))
}

fn write(home: &Path, records: &[Record]) -> Result<()> {
    cache::write_if_changed(&home.join("running.json"), serde_json::to_string_pretty(records)?.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_read_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(start_time(&format!("42 (a) b (c) {rest}")), Some(4711));
        assert_eq!(start_time(&format!("42 (weed) {rest}")), Some(4711));
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn a_record_matches_only_its_own_process() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let sleep = vec!["-c".into(), "while :; do sleep 1; done".into()];
        let mut daemon = Daemon::new("sleeper", Path::new("/bin/sh"), sleep, dir.path(), false)?;
        daemon.start(std::time::Duration::from_secs(20), || true)?;
        let record = Record::of("1", daemon, BTreeMap::new())?;
        assert!(record.runs(), "detached, it goes on");
        assert!(!Record { began: record.began + 1, ..record.clone() }.runs());
        assert!(!Record { program: "/bin/other".into(), ..record.clone() }.runs());
        assert!(!Record { pid: u32::MAX, ..record.clone() }.runs());
        record.kill()?;
        assert!(!record.runs());
        Ok(())
    }
}
