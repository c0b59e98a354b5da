//! The overhead of the sandbox for an operation on a small object.
//!
//! The adapter `fs` and the same calls on its directory without an adapter alternate, operation by operation, within
//! one task. Each store, read, stat and removal through the adapter has its own instance, which is part of the
//! cost. On a directory in memory nearly all of the rest is the sandbox; on one on a disk, its share of a
//! durable store. Quantiles are subtracted: the p99 of the one less the p99 of the other.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::Serialize;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::directory::{Directory, LocalDirectory, WriteOptions};
use tidelock::capabilities::grant::DirectoryGrant;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{Body, SettingValue, StoreHint};

use crate::in_memory::InMemory;
use crate::stats::{quantile, rounded};
use crate::{data, place, transfer};

/// The object's bytes.
pub const SIZE: u64 = 4096;
/// What is done with each object, in this order.
const OPERATIONS: [&str; 4] = ["store", "retrieve", "stat", "remove"];

/// One operation.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `memory` or `disk`.
    pub directory: &'static str,
    /// Which operation.
    pub operation: &'static str,
    /// Through the adapter.
    pub adapter: Quantiles,
    /// The same calls without it.
    pub direct: Quantiles,
    /// The difference.
    pub added: Quantiles,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Half take less.
    pub p50: f64,
    /// One in a hundred takes more.
    pub p99: f64,
}

/// Every operation, and the one that the sandbox makes costliest.
#[derive(Debug, Serialize)]
pub struct Overhead {
    /// Of each operation in memory; on the disk there were fewer.
    pub operations: usize,
    /// What the sandbox adds at most: the largest p50 and the largest p99 of the rows in memory.
    pub added: Quantiles,
    /// In memory, then on the disk.
    pub rows: Vec<Row>,
}

/// Measures so many of each operation in memory, and a tenth as many on the disk.
pub async fn run(operations: usize, note: impl Fn(&str)) -> Result<Overhead> {
    note("4 KiB objects through the sandbox and without it, in memory");
    let memory = Arc::new(InMemory::default());
    let mut rows = side_by_side("memory", memory, operations).await?;
    let largest = |pick: fn(&Quantiles) -> f64| rows.iter().map(|row| pick(&row.added)).fold(0.0, f64::max);
    let added = Quantiles { p50: largest(|q| q.p50), p99: largest(|q| q.p99) };
    note("4 KiB objects through the sandbox and without it, on the disk");
    let dir = place::on_disk()?;
    let disk = LocalDirectory::open(&DirectoryGrant::below(dir.path().join("objects")))?;
    rows.extend(side_by_side("disk", Arc::new(disk), operations / 10).await?);
    Ok(Overhead { operations, added, rows })
}

async fn side_by_side(name: &'static str, directory: Arc<dyn Directory>, operations: usize) -> Result<Vec<Row>> {
    let mut capabilities = Capabilities::none();
    capabilities.provide_directory("objects", directory.clone());
    // No directories of its own making, which would be work that the direct calls do not have.
    let flat = [("layout".to_owned(), SettingValue::Text("flat".to_owned()))];
    let spec = BackendSpec {
        name: name.into(),
        capabilities,
        settings: flat.into(),
        limits: Limits::default(),
        trust: Default::default(),
    };
    let engine = Sandbox::new(EngineOptions::default())?;
    let adapter = Arc::new(Adapter::load(&engine, &spec, transfer::component("fs")?).await?);
    // On a worker of the runtime, as a host's operations are; the thread that blocks on the runtime is none.
    let times = tokio::spawn(measure(adapter, directory, operations)).await??;
    Ok(OPERATIONS.into_iter().zip(&times).map(|(operation, times)| row(name, operation, times)).collect())
}

fn row(directory: &'static str, operation: &'static str, times: &Times) -> Row {
    let of = |values: &[f64]| Quantiles { p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
    let shown = |q: Quantiles| Quantiles { p50: rounded(q.p50, 1), p99: rounded(q.p99, 1) };
    let (adapter, direct) = (of(&times.adapter), of(&times.direct));
    let added = Quantiles { p50: adapter.p50 - direct.p50, p99: adapter.p99 - direct.p99 };
    Row { directory, operation, adapter: shown(adapter), direct: shown(direct), added: shown(added) }
}

/// Microseconds of one operation.
#[derive(Default)]
struct Times {
    adapter: Vec<f64>,
    direct: Vec<f64>,
}

/// Half of the time the one is first, half of the time the other.
async fn measure(adapter: Arc<Adapter>, directory: Arc<dyn Directory>, operations: usize) -> Result<[Times; 4]> {
    let bytes = data::random_bytes(SIZE)?;
    let mut times: [Times; 4] = Default::default();
    // What is done for the first time is slower: code and caches are cold.
    let warm_up = operations / 10;
    for number in 0..operations + warm_up {
        let key = format!("object-{number:08}");
        for turn in 0..2 {
            let sandboxed = (turn + number) % 2 == 0;
            let taken = match sandboxed {
                true => through_adapter(&adapter, key.clone(), &bytes).await?,
                false => directly(&*directory, &format!("direct-{key}"), &bytes).await?,
            };
            if number >= warm_up {
                for (times, taken) in times.iter_mut().zip(taken) {
                    if sandboxed { times.adapter.push(taken) } else { times.direct.push(taken) }
                }
            }
        }
    }
    Ok(times)
}

async fn through_adapter(adapter: &Arc<Adapter>, key: String, bytes: &Bytes) -> Result<[f64; 4]> {
    let mut clock = Laps::start();
    let hint = StoreHint { key, size: Some(SIZE), labels: Vec::new() };
    let id = adapter.store(Body::from_bytes(bytes.clone()), hint).await?.id;
    let store = clock.lap();
    let read = adapter.retrieve(&id, None).await?.collect(SIZE as usize).await?;
    let retrieve = clock.lap();
    let stat = adapter.stat(&id).await?;
    let stat = (clock.lap(), stat.size).0;
    adapter.remove(&id).await?;
    let remove = clock.lap();
    ensure!(read == *bytes, "what was read is not what was stored");
    Ok([store, retrieve, stat, remove])
}

/// The calls that the adapter `fs` makes for the same operations: it keeps what is known of an object in a file beside
/// it, which these objects do not have.
async fn directly(directory: &dyn Directory, path: &str, bytes: &Bytes) -> Result<[f64; 4]> {
    let side = format!("{path}.base");
    let mut clock = Laps::start();
    let options = WriteOptions { size: Some(SIZE), if_absent: true };
    directory.write(path, Body::from_bytes(bytes.clone()), options).await?;
    let store = clock.lap();
    let read = directory.read(path, None).await?.body.collect(SIZE as usize).await?;
    let retrieve = clock.lap();
    directory.stat(path).await?;
    let beside = directory.read(&side, None).await.is_ok();
    let stat = clock.lap();
    directory.remove(path).await?;
    directory.remove(&side).await?;
    let remove = clock.lap();
    ensure!(read == *bytes && !beside, "what was read is not what was stored");
    Ok([store, retrieve, stat, remove])
}

/// Microseconds from one lap to the next.
struct Laps(Instant);

impl Laps {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let taken = now.duration_since(self.0).as_secs_f64() * 1e6;
        self.0 = now;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_subtracted() {
        let times = Times { adapter: vec![30.0, 40.0, 50.0], direct: vec![1.0, 2.0, 4.0] };
        let row = row("memory", "stat", &times);
        assert_eq!((row.added.p50, row.added.p99), (38.0, 46.0));
    }
}
