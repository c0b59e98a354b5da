//! Whether the layout of the adapters `fs` and `nfs` stays fast with many objects: `cargo xtask bench layout`.
//!
//! The same operations with 1,000, 100,000 and 1,000,000 objects in one folder, in one run, through the adapter as a host
//! uses it; then the whole inventory, page by page, and a catalogue rebuilt from it (`tidelock import`), with the memory
//! of each.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tidelock_bench::{layout, place};

/// Measures the layout of folders.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// How many objects there are, fewest first.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    objects: Vec<u64>,
    /// Of each operation.
    #[arg(long, default_value_t = 2_000)]
    operations: usize,
    /// Where the folder is.
    #[arg(long, value_enum, default_value = "memory")]
    place: Place,
    /// How objects are spread: `fan-out` or `flat`.
    #[arg(long, default_value = "fan-out")]
    layout: String,
    /// Also rebuild a catalogue from the last and largest folder.
    #[arg(long)]
    import: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// A file system in memory, if there is room.
    Memory,
    /// The disk that holds the target directory.
    Disk,
}

/// What a file of four bytes takes in memory, with its name and its share of a directory.
const BYTES_OF_A_FILE: u64 = 6 << 10;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let most = arguments.objects.iter().max().copied().unwrap_or_default();
    let dir = match arguments.place {
        Place::Memory => place::fast(most * BYTES_OF_A_FILE)?,
        Place::Disk => place::on_disk()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let note = |what: &str| eprintln!("bench: {what}");
    let plan = layout::Plan {
        dir: dir.path().to_owned(),
        objects: arguments.objects,
        operations: arguments.operations,
        layout: arguments.layout,
        import: arguments.import,
    };
    // On a worker of the runtime, as a host's operations are.
    let found = runtime.block_on(async { tokio::spawn(layout::run(plan, note)).await? })?;
    if arguments.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", found.table());
    }
    Ok(())
}
