//! One libFuzzer program: its command line, and parsing its output.
//!
//! The parsed lines are `#N INITED cov: C …`, `#N DONE cov: C …` and `stat::NAME: N`, which have been stable for
//! years. A run without any of them counts as one that searched nothing, which is a failure.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{Places, count};
use crate::run::{self, seconds};

/// How long one input may take before libFuzzer calls it a hang.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The most memory that a target may take, in MiB; the sandbox's pool is address space and does not count.
const MEMORY: u64 = 2048;
/// How long a program may overstay: the time to load the corpus and one hang.
const GRACE: Duration = Duration::from_secs(120);

/// The result of a run of a target.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Its name.
    pub target: String,
    /// Inputs that were run.
    pub executions: u64,
    /// Seconds, from start to end.
    pub seconds: f64,
    /// Edges of our code that the kept inputs reach.
    pub coverage_before: u64,
    /// Edges that were reached in the end.
    pub coverage: u64,
    /// Kept inputs, those of regressions among them.
    pub kept: usize,
    /// Inputs that were found on this machine and are not kept, those of earlier runs among them.
    pub found: usize,
    /// The message of the target when it failed, and how to reproduce it.
    pub broke: Option<String>,
    #[serde(skip)]
    pub(super) program: PathBuf,
}

impl Report {
    /// Why the run is a failure, if it is one.
    pub fn wrong(&self) -> Option<String> {
        if let Some(broke) = &self.broke {
            return Some(broke.clone());
        }
        if self.executions <= self.kept as u64 {
            return Some(format!("only {} inputs were run, and {} are kept", self.executions, self.kept));
        }
        (self.coverage == 0).then(|| "it saw no coverage, so it searched blindly: is fuzz/rustc-covered used?".into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, executions, seconds, coverage_before, coverage, kept, found, broke, .. } = self;
        write!(f, "{target}: {executions} inputs in {seconds:.0} s, {kept} kept and {found} found reach ")?;
        write!(f, "{coverage_before} to {coverage} edges{}", if broke.is_some() { ", and one BROKE it" } else { "" })
    }
}

/// Runs a target from its kept inputs for `time`. What it finds goes below `target/`; the kept inputs stay as they are.
pub(super) fn fuzz(name: &str, program: &Path, places: &Places, time: Duration) -> Result<Report> {
    let mut command = libfuzzer(program, places)?;
    command.arg(format!("-max_total_time={}", time.as_secs()));
    command.arg(format!("-artifact_prefix={}/", places.crashes.display())).arg("-print_final_stats=1");
    if places.dictionary.is_file() {
        command.arg(format!("-dict={}", places.dictionary.display()));
    }
    command.arg(&places.found).arg(&places.kept);
    if places.regressions.is_dir() {
        command.arg(&places.regressions);
    }
    let scratch = scratch()?;
    command.env("TMPDIR", scratch.path());
    let began = Instant::now();
    let status = to_the_end(&mut command, &places.log, time + GRACE)?;
    let log = fs::read(&places.log).with_context(|| format!("cannot read {}", places.log.display()))?;
    let log = String::from_utf8_lossy(&log);
    let mut report = read(&log);
    report.target = name.to_owned();
    report.program = program.to_owned();
    report.seconds = began.elapsed().as_secs_f64();
    report.kept = count(&places.kept) + count(&places.regressions);
    report.found = count(&places.found);
    if !status.is_some_and(|status| status.success()) {
        report.broke = Some(how_it_broke(name, &log, status, places));
    }
    Ok(report)
}

/// Adds to the kept inputs the fewest of the found ones that reach all that those reach.
pub(super) fn merge(program: &Path, places: &Places) -> Result<()> {
    let mut command = libfuzzer(program, places)?;
    command.args(["-set_cover_merge=1", "-max_len=4096"]).arg(&places.kept).arg(&places.found);
    let scratch = scratch()?;
    command.env("TMPDIR", scratch.path());
    match to_the_end(&mut command, &places.log.with_extension("merge.log"), Duration::from_secs(1800))? {
        Some(status) if status.success() => Ok(()),
        other => bail!("cannot merge inputs ({other:?}); see {}", places.log.with_extension("merge.log").display()),
    }
}

/// A folder for what a target writes, gone with the run: libFuzzer ends its process without cleaning up. In memory where
/// that can be, since a target that makes files durable would wait for a disk most of the time.
fn scratch() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.context("no temporary folder")
}

fn libfuzzer(program: &Path, places: &Places) -> Result<Command> {
    for folder in [&places.found, &places.crashes, &places.kept] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command.current_dir(run::root()).stdin(Stdio::null());
    command.arg(format!("-timeout={}", TIMEOUT.as_secs())).arg(format!("-rss_limit_mb={MEMORY}"));
    // A panic says where it was; the frames between add nothing for a reader who can replay it.
    command.env("RUST_BACKTRACE", "0");
    Ok(command)
}

/// Runs with the output in `log`; nothing if it did not end in time and was killed.
fn to_the_end(command: &mut Command, log: &Path, limit: Duration) -> Result<Option<ExitStatus>> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", run::shown(command)))?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read(log: &str) -> Report {
    let mut report = Report::default();
    for line in log.lines() {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            report.executions = count.trim().parse().unwrap_or(0);
        }
        let Some((event, coverage)) = line.split_once(" cov: ") else { continue };
        let coverage = coverage.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        if event.ends_with("INITED") {
            report.coverage_before = coverage;
        }
        report.coverage = coverage;
    }
    report
}

/// Returns the last message of the target before it failed, and the command that reproduces it.
fn how_it_broke(name: &str, log: &str, status: Option<ExitStatus>, places: &Places) -> String {
    let telling = |line: &&str| !line.starts_with('#') && !line.starts_with("INFO:") && !line.trim().is_empty();
    let said = log.lines().skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"));
    let said: Vec<&str> = said.filter(telling).take(4).collect();
    let how = status.map_or_else(|| format!("it did not end within {}", seconds(GRACE)), |status| status.to_string());
    let written = log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
    let Some(file) = written else {
        return format!("{how}: {}; see {}", said.join(" | "), places.log.display());
    };
    let place = places.regressions.display();
    // On a build server the log is all that is left; libFuzzer writes what is small into it.
    let bytes = log.lines().find_map(|line| line.strip_prefix("Base64: ")).map(|bytes| format!("; in base64: {bytes}"));
    let bytes = bytes.unwrap_or_default();
    format!(
        "{how}: {}\n  the input is {file}{bytes}\n  see it again with: cargo run --package tidelock-fuzz --bin {name} -- {file}\n  \
         once it is mended, keep the input: mkdir -p {place} && cp {file} {place}/",
        said.join(" | ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 30Mb\n\
        #9\tNEW    cov: 13 ft: 15 corp: 2/5b lim: 4 exec/s: 0 rss: 30Mb L: 4/4 MS: 1 CopyPart-\n";

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    fn places(dir: &Path) -> Places {
        let place = |name: &str| dir.join(name);
        Places {
            kept: place("kept"),
            regressions: place("regressions"),
            dictionary: place("dictionary"),
            found: place("found"),
            crashes: place("crashes"),
            log: place("log"),
        }
    }

    fn outcome(text: &str) -> Report {
        let dir = tempfile::tempdir().unwrap();
        fuzz("config", &script(dir.path(), text), &places(dir.path()), Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn counts_and_coverage_are_read() {
        let report = outcome(&format!("cat >&2 <<'E'\n{LOG}stat::number_of_executed_units: 4321\nE"));
        assert_eq!((report.executions, report.coverage_before, report.coverage), (4321, 11, 13));
        assert_eq!(report.wrong(), None);
    }

    #[test]
    fn a_crash_is_a_failure_with_the_command_that_reproduces_it() {
        let report = outcome(&format!(
            "cat >&2 <<'E'\n{LOG}thread '<unnamed>' panicked at fuzz/src/config.rs:1:2:\nno such thing\n\
             ==1== ERROR: libFuzzer: deadly signal\nartifact_prefix='x'; Test unit written to /x/crash-1\n\
             Base64: eh4=\nstat::number_of_executed_units: 4321\nE\nexit 77"
        ));
        let wrong = report.wrong().unwrap();
        for part in [
            "no such thing",
            "exit status: 77",
            "/x/crash-1; in base64: eh4=",
            "cargo run --package tidelock-fuzz --bin config",
        ] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn to_search_nothing_or_blindly_is_a_failure() {
        assert!(outcome("exit 0").wrong().unwrap().contains("only 0 inputs"));
        let blind = outcome("echo stat::number_of_executed_units: 99");
        assert!(blind.wrong().unwrap().contains("no coverage"), "{blind:?}");
    }
}
