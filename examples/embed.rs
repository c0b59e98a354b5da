//! Embeds the host in a scheduler: store an image, store it again after it has changed, read both back, swap the adapter.
//!
//! `cargo run -p tidelock-examples --bin embed -- IMAGE ADAPTER.wasm` (build the adapters first: `cargo xtask build`)

use futures::StreamExt as _;
use tidelock::config::Config;
use tidelock::{Host, NoSecrets, Result, SnapshotId, Source, StoreOptions};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(adapter)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: embed IMAGE ADAPTER.wasm");
        std::process::exit(2);
    };
    // Any Tokio runtime will do: the library brings none.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| tidelock::Error::io("a runtime", error))?.block_on(run(&image, &adapter))
}

async fn run(image: &str, adapter: &str) -> Result<()> {
    let host = Host::start(&Config::embedded_default("embed-data"), &NoSecrets).await?;

    let first = host.store(Source::open(image).await?, StoreOptions::default()).await?;
    println!("stored {} ({} bytes) on {:?}", first.id, first.size, first.placements);

    // A scheduler would run the machine here. The image as it is now, stored as a change of what it was:
    let second = host.update(first.id, Source::open(image).await?, StoreOptions::default()).await?;

    // New code for the backend, while operations run.
    let component = std::fs::read(adapter).map_err(|error| tidelock::Error::io(adapter, error))?;
    let report = host.swap("local", component).await?;
    println!("generation {} serves now: {}", report.generation, report.to);

    for id in [first.id, second.id] {
        println!("read {} bytes of {id}", read(&host, id).await?);
    }
    Ok(())
}

async fn read(host: &Host, id: SnapshotId) -> Result<usize> {
    let mut body = host.retrieve(id, None).await?.body;
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        bytes += chunk?.len(); // each chunk has been checked before it comes out
    }
    Ok(bytes)
}
