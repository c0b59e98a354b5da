//! The cost of swaps under load: `cargo xtask bench swap`.
//!
//! Clients store, read back and remove small images through one host, on `fs` and on `s3`, while the adapters of both are
//! swapped a thousand times. `docs/benchmarks.md` has the method and the figures.

use anyhow::Result;
use clap::Parser;
use tidelock_bench::swap::{self, Plan};

/// Measures what swapping adapters under load costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Clients at once, half of them on each backend.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Swaps, half of them on each backend.
    #[arg(long, default_value_t = 1000)]
    swaps: u64,
    /// Milliseconds from one swap to the next.
    #[arg(long, default_value_t = 60)]
    every: u64,
    /// The images' size in KiB.
    #[arg(long, default_value_t = 256)]
    kib: u64,
    /// Leave out the restarts of the program.
    #[arg(long)]
    no_restart: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        clients: arguments.clients,
        swaps: arguments.swaps,
        every: std::time::Duration::from_millis(arguments.every),
        size: arguments.kib << 10,
        restart: !arguments.no_restart,
    };
    let note = |what: &str| eprintln!("bench: {what}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On a worker of the runtime, as a host's operations are.
    let (found, unfinished) = runtime.block_on(async { tokio::spawn(swap::run(plan, note)).await })??;
    if arguments.json {
        println!("{}", found.object());
    } else {
        print!("{}", found.table());
    }
    unfinished.map_or(Ok(()), Err)
}
