//! Snapshots beside restic, borg, casync, zstd, xdelta3 and cp: `cargo xtask bench snapshots`.
//!
//! What is stored of an image and of its changes, how fast, and how fast it comes back; what a page and a snapshot cost; and
//! how much memory that takes. `docs/benchmarks.md` has the method and the figures.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use tidelock_bench::peak;
use tidelock_bench::snapshots::{self, Part, Plan};

/// Measures snapshots.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure only this; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The size of an image like memory, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(4..))]
    mib: u64,
    /// How often each command of tidelock is repeated; the median counts. Those of its peers, which take longer, run once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The sizes of large images, in GiB, smallest first: 1,16 for both that have an aim.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    gib: Vec<u64>,
    /// How many snapshots a catalogue has, fewest first; 1000000 at the end takes long.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    snapshots: Vec<u64>,
    /// Operations on a catalogue of each size.
    #[arg(long, default_value_t = 500)]
    operations: usize,
    /// Keep files on the disk even if there is room in memory.
    #[arg(long)]
    on_disk: bool,
    /// The program to measure [default: this version, built in release mode].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let program = match arguments.program {
        Some(program) => program.canonicalize().with_context(|| format!("cannot find {}", program.display()))?,
        None => peak::program()?,
    };
    let plan = Plan {
        only: arguments.only,
        program,
        mib: arguments.mib,
        rounds: arguments.rounds,
        gib: arguments.gib,
        snapshots: arguments.snapshots,
        operations: arguments.operations,
        on_disk: arguments.on_disk,
    };
    let began = std::time::Instant::now();
    let note = move |what: &str| eprintln!("bench: {:>4} s  {what}", began.elapsed().as_secs());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(snapshots::run(plan, &note))?;
    if arguments.json {
        println!("{}", found.object());
    } else {
        print!("{}", found.tables());
    }
    Ok(())
}
