//! The cost of the sandbox: `cargo xtask bench sandbox`.
//!
//! Three questions, each with a peer in the same run: the throughput of a large object through the adapter `s3` beside
//! aws-sdk-s3 and OpenDAL; the overhead of the sandbox for an operation on a small one; and the program's peak memory
//! for a large image, whatever its size. `docs/benchmarks.md` has the method and the figures.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tidelock_bench::report::Sandbox;
use tidelock_bench::{overhead, peak, transfer};

/// Measures what the sandbox costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure only this; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Rounds of large objects.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Of each operation on small objects.
    #[arg(long, default_value_t = 20_000)]
    operations: usize,
    /// The images' sizes for the peak of memory, in GiB, smallest first.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    gib: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Large objects over S3.
    Transfer,
    /// Small objects.
    Overhead,
    /// Peak memory.
    Peak,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let note = |what: &str| eprintln!("bench: {what}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut found = Sandbox::default();
    if wanted(Part::Overhead) {
        found.overhead = Some(runtime.block_on(overhead::run(arguments.operations, note))?);
    }
    if wanted(Part::Transfer) {
        // On a worker of the runtime, as a host's operations are.
        let run = runtime.spawn(transfer::run(arguments.rounds, note));
        found.transfer = Some(runtime.block_on(run)??);
    }
    drop(runtime);
    if wanted(Part::Peak) {
        found.peak = Some(peak::run(&arguments.gib, note)?);
    }
    if arguments.json {
        println!("{}", found.object());
    } else {
        print!("{}", found.tables());
    }
    Ok(())
}
