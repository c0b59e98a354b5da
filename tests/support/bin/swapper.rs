//! A program that embeds the host, swaps an adapter under load, and is killed at a stage of the swap: the child of the
//! tests of crashes.
//!
//! `swapper FOLDER COMPONENT STAGE`: the folder has a `tidelock.toml` with a backend `mine`. Acknowledged stores are
//! printed on stdout, one line each: `stored ID LENGTH SEED`. At the start of the stage it kills itself (SIGKILL); with
//! `never` it keeps swapping until it is killed.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tidelock::config::Config;
use tidelock::runtime::{Stage, SwapOptions};
use tidelock::{Host, NoSecrets, Source, StoreOptions};
use tidelock_tests::data::noise;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("FOLDER COMPONENT STAGE");
    let (dir, component, stage) = (PathBuf::from(next()), PathBuf::from(next()), Stage::from_name(&next()));
    let text = std::fs::read_to_string(dir.join("tidelock.toml")).expect("a configuration");
    let config = Config::parse(&text, &dir).expect("a configuration");
    let host = Host::start(&config, &NoSecrets).await.expect("a host");
    let done = Arc::new(AtomicU64::new(0));
    for worker in 0..3 {
        tokio::spawn(load(host.clone(), worker, done.clone()));
    }
    let component = std::fs::read(component).expect("a component");
    loop {
        let before = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < before + 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        say("swapping");
        let on_stage = Arc::new(move |now| {
            if Some(now) == stage {
                kill_process(getpid(), Signal::KILL).expect("it can kill itself");
            }
        });
        let options = SwapOptions { on_stage: Some(on_stage), ..SwapOptions::default() };
        host.swap_with("mine", component.clone(), options).await.expect("the component is good");
        say("swapped");
    }
}

async fn load(host: Host, worker: u64, done: Arc<AtomicU64>) {
    let seed = u64::from(std::process::id()) << 32 | worker << 24;
    for round in 0.. {
        let bytes = noise(60_000 + round as usize, seed + round);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("a file");
        let source = Source::open(file.path()).await.expect("a source");
        let stored = host.store(source, StoreOptions::default()).await.expect("no store fails");
        say(&format!("stored {} {} {}", stored.id, bytes.len(), seed + round));
        let body = host.retrieve(stored.id, None).await.expect("no retrieve fails").body;
        assert!(body.collect(1 << 20).await.expect("no body breaks off") == bytes, "wrong bytes");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// One write, so that a line is there whole or not at all.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("stdout");
}
