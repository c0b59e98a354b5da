//! `cargo xtask`: see `cargo xtask help`, and the library for each task.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use xtask::backends::{self, Kind, Record};
use xtask::progress::Progress;
use xtask::{bench, conformance, demo, fuzz, guests, host, languages, run, say, suite, wit, wit_sync};

/// The tasks of this repository. Each sets up what it needs, once, and says on stderr what it installs and where.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Stores, updates and retrieves a real ext4 image through a sandboxed adapter, and compares.
    Demo {
        /// The backend of the image.
        #[arg(long, value_enum, default_value = "fs")]
        backend: demo::DemoBackend,
    },
    /// Checks format, lints, documentation, licences and frozen interfaces, then runs all tests and counts them.
    Test {
        /// Only the tests, without the checks.
        #[arg(long)]
        fast: bool,
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Builds the guests, then the command line with the default adapters in it.
    Build {
        /// The Cargo profile of the program.
        #[arg(long, value_enum, default_value = "release")]
        profile: BuildProfile,
    },
    /// Builds the guests alone and prints where they are.
    Guests {
        /// Only these.
        names: Vec<String>,
    },
    /// Builds the adapters that are not in Rust and prints where they are.
    Languages,
    /// Starts, stops or shows real servers on loopback, for trying things out.
    Backends {
        #[command(subcommand)]
        action: Action,
        /// Prints a JSON object on stdout.
        #[arg(long, global = true)]
        json: bool,
    },
    /// Runs the conformance suite on every adapter, against real servers, and prints a row for each adapter and case.
    Conformance {
        /// Only this adapter.
        #[arg(long)]
        adapter: Option<String>,
        /// Only this component, on a folder, in place of the built-in adapters.
        #[arg(long, conflicts_with = "adapter")]
        component: Option<PathBuf>,
        /// Prints a JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Runs a benchmark; `--json` and other arguments go to it.
    Bench {
        /// Its name; a wrong one lists them.
        name: String,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzzes a target, or all of them with `--all`.
    Fuzz {
        /// Its name; a wrong one lists them.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// All targets.
        #[arg(long)]
        all: bool,
        /// How long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Adds inputs that reach new code to `fuzz/corpus`.
        #[arg(long)]
        keep: bool,
        /// Prints a JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Writes `wit/sync`, the part of the WIT package for tools that cannot read asynchronous functions and streams.
    SyncWit,
    /// Copies the WIT package to `wit/frozen/VERSION`, where it never changes again.
    FreezeWit,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BuildProfile {
    Release,
    Dev,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Starts the servers that do not run yet, and shows how to reach them.
    Up,
    /// Kills the servers that `up` started, and removes their data.
    Down,
    /// Shows the servers that `up` started and that still run.
    Status,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Demo { backend } => demo::run(backend),
        Task::Test { fast, filter } => suite::test(&suite::Options { fast, filter }),
        Task::Build { profile } => build(profile),
        Task::Guests { names } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            guests::build_guests(&names)?.values().for_each(|path| println!("{}", path.display()));
            Ok(())
        }
        Task::Languages => {
            for language in languages::Language::ALL {
                println!("{}", language.build()?.display());
            }
            Ok(())
        }
        Task::Backends { action, json } => act(action, json),
        Task::Conformance { adapter, component, json } => {
            conformance::run(&conformance::Options { adapter, component, json })
        }
        Task::Bench { name, arguments } => bench::run(&name, &arguments),
        Task::Fuzz { name, all: _, seconds, keep, json } => {
            fuzz::task(name.as_deref(), &fuzz::Options { time: Duration::from_secs(seconds), keep, json })
        }
        Task::SyncWit => {
            println!("{}", wit_sync::write(&run::root())?.display());
            Ok(())
        }
        Task::FreezeWit => {
            let dir = wit::freeze(&run::root())?;
            say!("froze {}; commit it", dir.display());
            Ok(())
        }
    }
}

fn build(profile: BuildProfile) -> Result<()> {
    let profile = match profile {
        BuildProfile::Release => host::Profile::Release,
        BuildProfile::Dev => host::Profile::Dev,
    };
    let mut progress = Progress::new(host::steps(profile).to_vec());
    println!("{}", host::binary_in_steps(profile, &mut progress)?.display());
    Ok(())
}

fn act(action: Action, json: bool) -> Result<()> {
    let (records, none) = match action {
        Action::Up => (backends::up(&Kind::ALL)?, "nothing was started"),
        Action::Down => (backends::down(&Kind::ALL)?, "nothing ran that `backends up` started"),
        Action::Status => (backends::status()?, "nothing runs that `backends up` started"),
    };
    if json {
        let key = if matches!(action, Action::Down) { "killed" } else { "running" };
        let object = serde_json::to_string_pretty(&serde_json::json!({ key: records }));
        println!("{}", object.context("cannot print JSON")?);
        return Ok(());
    }
    if records.is_empty() {
        println!("{none}");
    }
    records.iter().for_each(|record| show(record, matches!(action, Action::Down)));
    Ok(())
}

fn show(record: &Record, killed: bool) {
    let Record { name, version, pid, dir, .. } = record;
    if killed {
        println!("killed {name} {version} (process {pid})");
        return;
    }
    println!("{name} {version} runs as process {pid}; data and log in {}", dir.display());
    record.settings.iter().for_each(|(key, value)| println!("  {key} = {value:?}"));
}
