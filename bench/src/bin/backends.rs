//! Every backend, live, beside its native client: `cargo xtask bench backends`.
//!
//! Latency of small objects and throughput of large ones through each adapter, against a real server, beside the usual
//! native client. `docs/benchmarks.md` has the method and the figures.

use anyhow::{Result, bail};
use clap::Parser;
use tidelock_bench::MIB;
use tidelock_bench::backends::{self, Plan};

/// Measures every backend next to its native client.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure only this backend; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Rounds of large objects.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The large objects' size in MiB.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Small objects; slow backends get fewer.
    #[arg(long, default_value_t = 300)]
    small: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.only.iter().find(|only| !backends::names().any(|name| name == *only)) {
        bail!("there is no backend {unknown}; there are: {}", backends::names().collect::<Vec<_>>().join(", "));
    }
    let plan = Plan {
        rounds: arguments.rounds.max(1),
        size: arguments.mib.max(1) * MIB,
        small: arguments.small.max(1),
        only: arguments.only,
    };
    let note = |what: &str| eprintln!("bench: {what}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On a worker of the runtime, as a host's operations are.
    let found = runtime.block_on(async { tokio::spawn(async move { backends::run(&plan, note).await }).await })??;
    if arguments.json {
        println!("{}", found.object());
    } else {
        print!("{}", found.table());
    }
    match found.failed.as_slice() {
        [] => Ok(()),
        failed => {
            bail!("{} could not be measured", failed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
        }
    }
}
