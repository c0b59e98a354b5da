//! `cargo xtask test`: sets everything up, checks, tests, fuzzes for a minute each, and counts.
//!
//! A failing check does not stop the others; a failing set-up does. The last line on stdout is
//! `N passed, N failed, N skipped`, where a failed check counts as one failure. In CI (`CI=true`)
//! all dependencies are available, so nothing may be skipped there.

use std::fs;
use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::backends::Kind;
use crate::checks::Check;
use crate::progress::{self, Progress};
use crate::run::{self, cargo, seconds, shown};
use crate::tally::Tally;
use crate::wasm::Toolchain;
use crate::{checks, fuzz, guests, languages, say, skip};

/// The part of the suite to run.
#[derive(Debug, Default)]
pub struct Options {
    /// Only `cargo test`, without the checks and the fuzzing.
    pub fast: bool,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
}

/// The set-up before any check.
const SET_UP: [Check; 4] =
    [("wasm toolchain", wasm), (GUESTS, build_guests), (LANGUAGES, build_languages), ("servers", servers)];
const GUESTS: &str = "guests";
const LANGUAGES: &str = "guests in other languages";
const TESTS: &str = "tests";
const FUZZING: &str = "fuzzing";

/// How long each fuzz target runs.
const FUZZING_TIME: Duration = Duration::from_secs(60);

/// How one step of the suite ended.
struct Step {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// The result of the tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct SuiteResult {
    passed: u64,
    failed: u64,
    /// As `name: why`.
    skipped: Vec<String>,
    /// The programs that ended without a result, as `name: why`. Each is one failure.
    aborted: Vec<String>,
    /// The tests that failed, as `name: why`.
    failures: Vec<String>,
    /// As `name version`, with how many were started.
    servers: Vec<(String, usize)>,
    /// The result of each fuzz target.
    fuzzed: Vec<String>,
}

/// Runs the suite. An error if anything failed, if no test ran, or on a build server if one was skipped.
pub fn test(options: &Options) -> Result<()> {
    let on_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let checks: &[Check] = if options.fast { &[] } else { &checks::ALL };
    // Of a part of the suite, it would be the longest part.
    let fuzzed = !options.fast && options.filter.is_none();
    let (mut steps, mut progress) = (Vec::new(), Progress::new(plan(checks, fuzzed)));
    for (name, set_up) in SET_UP {
        step(&mut progress, &mut steps, name, set_up);
    }
    let ready = steps.iter().all(|step| step.failure.is_none());
    let mut outcome = SuiteResult::default();
    if ready {
        checks.iter().for_each(|(name, check)| step(&mut progress, &mut steps, name, check));
        step(&mut progress, &mut steps, TESTS, || {
            outcome = tests(options, on_ci)?;
            if outcome.failed > 0 { bail!("{} failed", outcome.failed) } else { Ok(()) }
        });
        if fuzzed {
            step(&mut progress, &mut steps, FUZZING, || {
                let reports = fuzz::run(&fuzz::names()?, FUZZING_TIME)?;
                outcome.fuzzed = reports.iter().map(ToString::to_string).collect();
                fuzz::verdict(&reports)
            });
        } else {
            say!("fuzzing is left out of a part of the suite: `cargo xtask fuzz --all` does it");
        }
    }
    let checks_failed = steps.iter().filter(|step| step.failure.is_some() && step.name != TESTS).count() as u64;
    let tests_broke = steps.iter().any(|step| step.failure.is_some() && step.name == TESTS) && outcome.failed == 0;
    outcome.failed += checks_failed + u64::from(tests_broke);
    summary(&steps, &outcome);
    verdict(&outcome, on_ci)
}

/// The steps with estimates, the longer ones from nothing where what they build is not there.
fn plan(checks: &[Check], fuzzed: bool) -> Vec<progress::Step> {
    let target = run::root().join("target");
    let names = SET_UP.iter().map(|(name, _)| *name).chain(checks.iter().map(|(name, _)| *name));
    let names = names.chain([TESTS]).chain(fuzzed.then_some(FUZZING));
    names
        .map(|name| match name {
            GUESTS => progress::Step::once(name, 150, &guests::adapters_dir().join("hostile.wasm")),
            LANGUAGES => progress::Step::once(name, 60, &guests::adapters_dir().join("python-fs.wasm")),
            "lints" => progress::Step::once(name, 240, &target.join("debug/tidelock")),
            "documentation" => progress::Step::once(name, 60, &target.join("doc/tidelock")),
            TESTS => progress::Step::once(name, 1500, &target.join("debug/tidelock")).at_least(900),
            FUZZING => progress::Step::new(name, 420),
            _ => progress::Step::new(name, 5),
        })
        .collect()
}

fn wasm() -> Result<()> {
    Toolchain::ensure().map(drop)
}

fn build_guests() -> Result<()> {
    guests::ensure().map(drop)
}

/// Builds the components of other languages. The tests report those that cannot be built here.
fn build_languages() -> Result<()> {
    languages::ensure().map(drop)
}

fn servers() -> Result<()> {
    Kind::ALL.into_iter().try_for_each(Kind::install)
}

fn step(progress: &mut Progress, steps: &mut Vec<Step>, name: &'static str, work: impl FnOnce() -> Result<()>) {
    progress.next();
    let began = Instant::now();
    let failure = work().err().map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        say!("{name} failed: {failure}");
    }
    steps.push(Step { name, took: began.elapsed(), failure });
}

/// All tests: those of the guests that need no host, on the machine's own target, then the workspace's.
fn tests(options: &Options, on_ci: bool) -> Result<SuiteResult> {
    let notes = tempfile::tempdir().context("no temporary folder")?;
    let (skips, servers) = (notes.path().join("skips"), notes.path().join("servers"));
    let mut tally = Tally::default();
    for mut cargo in [guests_test(), cargo("test")] {
        cargo.args(["--workspace", "--no-fail-fast"]).args(&options.filter);
        cargo.env(skip::SKIPS, &skips).env(skip::SERVERS, &servers);
        if on_ci {
            cargo.env(skip::NO_SKIPS, "1");
        }
        tally.add(cargo_test(&mut cargo)?);
    }
    Ok(collect(tally, &lines(&skips), &lines(&servers)))
}

fn guests_test() -> Command {
    let mut command = cargo("test");
    checks::on_guests(&mut command);
    command
}

/// One `cargo test`, its output passed on as it comes.
fn cargo_test(cargo: &mut Command) -> Result<Tally> {
    say!("{}", shown(cargo));
    // One pipe for both, so that what Cargo says of a program stands where it ran.
    let (output, input) = std::io::pipe().context("no pipe")?;
    if std::io::stderr().is_terminal() {
        cargo.args(["--color", "always"]);
    }
    cargo.stdin(Stdio::null()).stdout(input.try_clone().context("no pipe")?).stderr(input);
    let child = cargo.spawn();
    // The ends that the command keeps would keep the pipe open.
    cargo.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.context("cannot start cargo")?;
    let mut tally = Tally::stream(output, std::io::stderr()).context("cannot read what the tests print")?;
    let status = child.wait().context("cargo did not end")?;
    if !status.success() && tally.failed == 0 {
        say!("`cargo test` failed ({status}) without a failed test: one did not compile");
        tally.failed = 1;
    }
    Ok(tally)
}

/// A test that was skipped is one that libtest counts as passed.
fn collect(tally: Tally, skips: &[String], servers: &[String]) -> SuiteResult {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for server in servers {
        match counted.iter_mut().find(|(name, _)| name == server) {
            Some((_, count)) => *count += 1,
            None => counted.push((server.clone(), 1)),
        }
    }
    let skipped = skips.iter().cloned().chain(tally.ignored).collect();
    let passed = tally.passed.saturating_sub(skips.len() as u64);
    SuiteResult {
        passed,
        failed: tally.failed,
        skipped,
        aborted: tally.aborted,
        failures: tally.failures,
        servers: counted,
        fuzzed: Vec::new(),
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(String::from).collect()
}

fn summary(steps: &[Step], outcome: &SuiteResult) {
    eprintln!("\n== summary");
    for step in steps {
        let end = if step.failure.is_some() { "FAILED" } else { "ok" };
        eprintln!("{:>12}  {end:<6}  {}", seconds(step.took), step.name);
    }
    for failure in steps.iter().filter_map(|step| step.failure.as_ref().map(|why| format!("{}: {why}", step.name))) {
        eprintln!("failed: {failure}");
    }
    for failure in outcome.failures.iter().chain(&outcome.aborted) {
        eprintln!("failed: {failure}");
    }
    eprintln!("real servers: {}", if outcome.servers.is_empty() { "none" } else { "" });
    for (name, count) in &outcome.servers {
        eprintln!("  {name} (started {count} times)");
    }
    for fuzzed in &outcome.fuzzed {
        eprintln!("fuzzed: {fuzzed}");
    }
    for skipped in &outcome.skipped {
        eprintln!("skipped: {skipped}");
    }
    let SuiteResult { passed, failed, skipped, .. } = outcome;
    // Where stdout is closed, the exit status still tells.
    let _ = writeln!(std::io::stdout(), "{passed} passed, {failed} failed, {} skipped", skipped.len());
}

fn verdict(outcome: &SuiteResult, on_ci: bool) -> Result<()> {
    if outcome.failed > 0 {
        bail!("something failed; see the summary");
    }
    if outcome.passed == 0 {
        bail!("no test ran");
    }
    if on_ci && !outcome.skipped.is_empty() {
        bail!("tests were skipped, and with CI=true none may be");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, skipped: &[&str]) -> SuiteResult {
        SuiteResult {
            passed,
            failed,
            skipped: skipped.iter().map(|s| s.to_string()).collect(),
            ..SuiteResult::default()
        }
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let mut tally = Tally::default();
        (tally.passed, tally.failed) = (10, 1);
        tally.ignored.push("a: why".into());
        tally.aborted.push("c: signal 6".into());
        let servers = ["SeaweedFS 4.48", "SeaweedFS 4.48", "Kubo 0.43"].map(String::from);
        let outcome = collect(tally, &["b: no NFS".to_string()], &servers);
        assert_eq!((outcome.passed, outcome.failed), (9, 1));
        assert_eq!(outcome.skipped, ["b: no NFS", "a: why"]);
        assert_eq!(outcome.aborted, ["c: signal 6"]);
        assert_eq!(outcome.servers, [("SeaweedFS 4.48".to_string(), 2), ("Kubo 0.43".to_string(), 1)]);
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_a_success() {
        assert!(verdict(&outcome(1, 0, &[]), true).is_ok());
        assert!(verdict(&outcome(1, 1, &[]), false).is_err());
        assert!(verdict(&outcome(0, 0, &[]), false).is_err());
        assert!(verdict(&outcome(1, 0, &["a: b"]), false).is_ok());
        assert!(verdict(&outcome(1, 0, &["a: b"]), true).is_err());
    }
}
