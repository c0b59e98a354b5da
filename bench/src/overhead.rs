//! The overhead of the sandbox for an operation on a small object.
//!
//! The adapter `fs` and the same calls on its directory without an adapter alternate, operation by operation, within
//! one task. Each store, read, stat and removal through the adapter has its own instance, which is part of the
//! cost. On a directory in memory nearly all of the rest is the sandbox; on one on a disk, its share of a
//! durable store. Quantiles are subtracted: the p99 of the one less the p99 of the other.
//!
//! Beside them, in the same turns, the same component is called with the engine alone (`bare_call.rs`).

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

use crate::bare_call::BareCall;
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
    /// A call of the same component with the engine alone, in the same turns as the rows in memory.
    pub engine: Quantiles,
    /// The same with an asynchronous export.
    pub engine_async: Quantiles,
    /// The sandbox's addition to storing and reading, whichever is more, to the engine's call.
    pub ratio: Quantiles,
    /// In memory, then on the disk.
    pub rows: Vec<Row>,
}

/// What the runs in one directory gave.
struct Found {
    rows: Vec<Row>,
    engine: Quantiles,
    engine_async: Quantiles,
}

/// Measures so many of each operation in memory, and a tenth as many on the disk.
pub async fn run(operations: usize, note: impl Fn(&str)) -> Result<Overhead> {
    note("4 KiB objects through the sandbox and without it, in memory");
    let memory = side_by_side("memory", Arc::new(InMemory::default()), operations).await?;
    note("4 KiB objects through the sandbox and without it, on the disk");
    let dir = place::on_disk()?;
    let disk = LocalDirectory::open(&DirectoryGrant::below(dir.path().join("objects")))?;
    let disk = side_by_side("disk", Arc::new(disk), operations / 10).await?;
    Ok(Overhead::of(operations, memory, disk))
}

impl Overhead {
    fn of(operations: usize, memory: Found, disk: Found) -> Self {
        let Found { mut rows, engine, engine_async } = memory;
        let most = |of: &[&str], pick: fn(&Quantiles) -> f64| {
            let rows = rows.iter().filter(|row| of.contains(&row.operation));
            rows.map(|row| pick(&row.added)).fold(0.0, f64::max)
        };
        let both = |of: &[&str]| Quantiles { p50: most(of, |q| q.p50), p99: most(of, |q| q.p99) };
        let (added, put_and_get) = (both(&OPERATIONS), both(&["store", "retrieve"]));
        let ratio =
            Quantiles { p50: rounded(put_and_get.p50 / engine.p50, 2), p99: rounded(put_and_get.p99 / engine.p99, 2) };
        rows.extend(disk.rows);
        Self { operations, added, engine, engine_async, ratio, rows }
    }
}

async fn side_by_side(name: &'static str, directory: Arc<dyn Directory>, operations: usize) -> Result<Found> {
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
    let sandbox = Sandbox::new(EngineOptions::default())?;
    let component = transfer::component("fs")?;
    let bare = BareCall::new(sandbox.engine(), &component)?;
    let adapter = Arc::new(Adapter::load(&sandbox, &spec, component).await?);
    // On a worker of the runtime, as a host's operations are; the thread that blocks on the runtime is none.
    let times = tokio::spawn(measure(adapter, directory, bare, operations)).await??;
    let rows = OPERATIONS.into_iter().zip(&times.operations).map(|(operation, times)| row(name, operation, times));
    Ok(Found {
        rows: rows.collect(),
        engine: Quantiles::of(&times.engine).shown(),
        engine_async: Quantiles::of(&times.engine_async).shown(),
    })
}

impl Quantiles {
    fn of(values: &[f64]) -> Self {
        Self { p50: quantile(values, 0.5), p99: quantile(values, 0.99) }
    }

    fn shown(self) -> Self {
        Self { p50: rounded(self.p50, 1), p99: rounded(self.p99, 1) }
    }
}

fn row(directory: &'static str, operation: &'static str, times: &Times) -> Row {
    let (adapter, direct) = (Quantiles::of(&times.adapter), Quantiles::of(&times.direct));
    let added = Quantiles { p50: adapter.p50 - direct.p50, p99: adapter.p99 - direct.p99 };
    Row { directory, operation, adapter: adapter.shown(), direct: direct.shown(), added: added.shown() }
}

/// Microseconds of one operation.
#[derive(Default)]
struct Times {
    adapter: Vec<f64>,
    direct: Vec<f64>,
}

/// Microseconds of all that takes turns.
#[derive(Default)]
struct AllTimes {
    operations: [Times; 4],
    engine: Vec<f64>,
    engine_async: Vec<f64>,
}

/// Each contestant is as often the first, the second and so on.
async fn measure(
    adapter: Arc<Adapter>,
    directory: Arc<dyn Directory>,
    bare: BareCall,
    operations: usize,
) -> Result<AllTimes> {
    let bytes = data::random_bytes(SIZE)?;
    let mut times = AllTimes::default();
    // What is done for the first time is slower: code and caches are cold.
    let warm_up = operations / 10;
    for number in 0..operations + warm_up {
        let key = format!("object-{number:08}");
        let counts = number >= warm_up;
        for turn in 0..4 {
            match (turn + number) % 4 {
                0 => {
                    let taken = through_adapter(&adapter, key.clone(), &bytes).await?;
                    times.operations.iter_mut().zip(taken).filter(|_| counts).for_each(|(t, us)| t.adapter.push(us));
                }
                1 => {
                    let taken = directly(&*directory, &format!("direct-{key}"), &bytes).await?;
                    times.operations.iter_mut().zip(taken).filter(|_| counts).for_each(|(t, us)| t.direct.push(us));
                }
                2 => times.engine.extend(Some(bare.describe().await?).filter(|_| counts)),
                _ => times.engine_async.extend(Some(bare.refused().await?).filter(|_| counts)),
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
