//! Fuzzing: the targets of the crate `tidelock-fuzz`, built with coverage and run from their kept inputs.
//!
//! The programs are ordinary cargo-fuzz targets, but they are not built by cargo-fuzz: it compiles every dependency once
//! more, with flags that only a nightly compiler takes in full, and that is a quarter of an hour on two cores. Coverage is
//! worth having in our own crates. So Cargo gets `fuzz/rustc-covered` as its workspace wrapper: members are compiled with
//! the same instrumentation and everything else is what other builds have left. No sanitizer is on; the checks of a debug
//! build are, and the host has next to no unsafe code (ADR 9).
//!
//! | path | contents |
//! | --- | --- |
//! | `fuzz/corpus/NAME` | kept inputs, in git: every run begins with them, and only `--keep` changes them |
//! | `fuzz/regressions/NAME` | inputs that broke something once, in git: run too, and replayed by ordinary tests |
//! | `fuzz/dictionaries/NAME.dict` | the words of a format |
//! | `target/fuzz/corpus/NAME` | inputs found on this machine: the next run continues with them |
//! | `target/fuzz/crashes/NAME` | inputs that broke something just now |
//! | `target/fuzz/NAME.log` | output of libFuzzer |

mod engine;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::run::{self, seconds, shown};
use crate::{apt, guests, metadata, say};

pub use engine::Report;

/// The crate that holds the targets.
const PACKAGE: &str = "tidelock-fuzz";

/// How to run fuzz targets.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each target runs.
    pub time: Duration,
    /// Whether inputs that reach something new are added to the kept ones.
    pub keep: bool,
    /// Whether stdout gets a JSON object instead of a table.
    pub json: bool,
}

/// Runs one target, or all of them if none is named. An error if one broke, or searched without seeing where it went.
pub fn task(name: Option<&str>, options: &Options) -> Result<()> {
    let reports = run(&select(names()?, name)?, options.time)?;
    if options.keep {
        keep(&reports)?;
    }
    if options.json {
        #[derive(Serialize)]
        struct Rows<'a> {
            rows: &'a [Report],
        }
        println!("{}", serde_json::to_string_pretty(&Rows { rows: &reports }).context("cannot print JSON")?);
    } else {
        reports.iter().for_each(|report| println!("{report}"));
    }
    verdict(&reports)
}

/// The names of the targets.
pub fn names() -> Result<Vec<String>> {
    let packages = metadata::packages(&run::root().join("Cargo.toml"))?;
    let fuzz = packages.iter().filter(|package| package.name == PACKAGE);
    Ok(fuzz.flat_map(|package| package.targets("bin")).map(String::from).collect())
}

fn select(known: Vec<String>, name: Option<&str>) -> Result<Vec<String>> {
    match name {
        None => Ok(known),
        Some(name) if known.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no fuzz target {name}; there are: {}", known.join(", ")),
    }
}

/// Runs these targets, as many at once as there are processors, each for `time`. One that breaks does not keep the others
/// from running.
pub fn run(names: &[String], time: Duration) -> Result<Vec<Report>> {
    let programs = build(names)?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(programs.len());
    say!("fuzzing {} for {} each, {at_once} at once", names.join(", "), seconds(time));
    let queue: Mutex<VecDeque<(&String, &PathBuf)>> = Mutex::new(programs.iter().collect());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((name, program)) = next() {
                    let report = engine::fuzz(name, program, &Places::of(name), time);
                    if let Ok(report) = &report {
                        say!("{report}");
                    }
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports: Vec<Report> =
        reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().collect::<Result<_>>()?;
    reports.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(reports)
}

/// An error that names the targets that broke or learned nothing.
pub fn verdict(reports: &[Report]) -> Result<()> {
    let wrong: Vec<String> =
        reports.iter().filter_map(|r| r.wrong().map(|why| format!("{}: {why}", r.target))).collect();
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Where the inputs of a target are.
struct Places {
    kept: PathBuf,
    regressions: PathBuf,
    dictionary: PathBuf,
    found: PathBuf,
    crashes: PathBuf,
    log: PathBuf,
}

impl Places {
    fn of(name: &str) -> Self {
        let (fuzz, target) = (run::root().join("fuzz"), run::root().join("target/fuzz"));
        Self {
            kept: fuzz.join("corpus").join(name),
            regressions: fuzz.join("regressions").join(name),
            dictionary: fuzz.join("dictionaries").join(format!("{name}.dict")),
            found: target.join("corpus").join(name),
            crashes: target.join("crashes").join(name),
            log: target.join(format!("{name}.log")),
        }
    }
}

/// The programs of these targets by name, with coverage in our own crates.
fn build(names: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    // One target runs a guest.
    guests::ensure()?;
    apt::program("g++", "g++", "to build libFuzzer")?;
    let mut cargo = run::cargo("build");
    cargo.args(["--package", PACKAGE, "--message-format=json-render-diagnostics"]);
    for name in names {
        cargo.args(["--bin", name]);
    }
    // A wrapper of the user's own would be passed ours as the compiler, which is right; flags of theirs would have all
    // dependencies compiled anew.
    cargo.env("RUSTC_WORKSPACE_WRAPPER", run::root().join("fuzz/rustc-covered"));
    say!("building fuzz targets ({})", shown(&cargo));
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(&cargo), output.status);
    }
    let built = metadata::executables(&String::from_utf8_lossy(&output.stdout));
    let program = |name: &String| {
        let path = built.get(name).with_context(|| format!("cargo does not say where the fuzz target {name} is"))?;
        Ok((name.clone(), path.clone()))
    };
    names.iter().map(program).collect()
}

/// Adds to the kept inputs what reaches something that they do not.
fn keep(reports: &[Report]) -> Result<()> {
    for report in reports {
        let places = Places::of(&report.target);
        let before = count(&places.kept);
        engine::merge(&report.program, &places)?;
        say!("{}: {} inputs were kept, {} are now", report.target, before, count(&places.kept));
    }
    say!("look at what is new in fuzz/corpus, and commit it");
    Ok(())
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_the_programs_of_their_crate() -> Result<()> {
        let names = names()?;
        assert!(names.iter().any(|name| name == "config"), "{names:?}");
        assert_eq!(select(names.clone(), Some("config"))?, ["config"]);
        assert_eq!(select(names.clone(), None)?, names);
        let error = select(names, Some("confg")).unwrap_err().to_string();
        assert!(error.starts_with("there is no fuzz target confg; there are: ") && error.contains("config"), "{error}");
        Ok(())
    }
}
