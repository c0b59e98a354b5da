//! What a snapshot costs in a catalogue of many: store, stat and remove of tiny images, through the library.

use std::io::Cursor;
use std::time::Instant;

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tidelock::config::Config;
use tidelock::snapshot::StreamSource;
use tidelock::{Host, NoSecrets, SnapshotId, Source, StoreOptions};

use super::{Plan, connector};
use crate::stats::Quantiles;

/// Operations that do not count, before the others: they open connections and fill caches.
const WARM_UP: u64 = 50;
/// Snapshots that are stored at once while a catalogue is filled.
const AT_ONCE: usize = 16;
/// What a tiny snapshot takes in memory: its file and directory, its rows and their indexes.
const BYTES_EACH: u64 = 12 << 10;

/// A catalogue of so many snapshots. The figures are medians.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How many there are.
    pub snapshots: u64,
    /// Storing one more.
    pub store_us: f64,
    /// What is known of one.
    pub stat_us: f64,
    /// Removing one.
    pub rm_us: f64,
    /// One in a hundred takes more: store, stat, rm.
    pub p99_us: [f64; 3],
    /// The time that filling took since the row before, for each snapshot, with 16 at once.
    pub fill_us: f64,
}

/// Measures catalogues of the plan's sizes, all of them the same one.
pub async fn run(plan: &Plan, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let most = plan.snapshots.iter().max().copied().unwrap_or_default();
    let dir = plan.folder(most * BYTES_EACH)?;
    let host = Host::start(&Config::parse(&connector::config(dir.path()), dir.path())?, &NoSecrets).await?;
    let mut there: Vec<SnapshotId> = Vec::new();
    let mut rows = Vec::new();
    for &count in &plan.snapshots {
        note(&format!("a catalogue of {count} snapshots"));
        let first = there.len() as u64;
        let began = Instant::now();
        let stores = stream::iter(first..count).map(|number| {
            let host = host.clone();
            async move { tokio::spawn(store(host, number)).await? }
        });
        there.extend(stores.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        let filled = began.elapsed().as_secs_f64() * 1e6 / (count.saturating_sub(first)).max(1) as f64;
        rows.push(row(&host, &there, plan.operations, crate::stats::rounded(filled, 1)).await?);
    }
    Ok(rows)
}

async fn row(host: &Host, there: &[SnapshotId], operations: usize, fill_us: f64) -> Result<Row> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..WARM_UP {
        let id = store(host.clone(), (1 << 50) + number).await?;
        host.stat(id).await?;
        host.remove(id).await?;
    }
    let mut more = Vec::new();
    for number in 0..operations as u64 {
        let start = Instant::now();
        // Beyond those that the catalogue is filled with.
        more.push(store(host.clone(), (1 << 40) + number).await?);
        times[0].push(start.elapsed().as_secs_f64() * 1e6);
    }
    for number in 0..operations as u64 {
        let picked = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (there.len() as u64).max(1);
        let Some(id) = there.get(picked as usize) else { break };
        let start = Instant::now();
        host.stat(*id).await?;
        times[1].push(start.elapsed().as_secs_f64() * 1e6);
    }
    for id in more {
        let start = Instant::now();
        host.remove(id).await?;
        times[2].push(start.elapsed().as_secs_f64() * 1e6);
    }
    let [store, stat, rm] = times.map(|times| Quantiles::of(&times, 1));
    let p99_us = [store.p99, stat.p99, rm.p99];
    Ok(Row { snapshots: there.len() as u64, store_us: store.p50, stat_us: stat.p50, rm_us: rm.p50, p99_us, fill_us })
}

/// Stores an image of 64 bytes that no other number has.
async fn store(host: Host, number: u64) -> Result<SnapshotId> {
    let bytes = format!("{number:064}").into_bytes();
    let source = StreamSource::new(Cursor::new(bytes), "a tiny image").of_size(64);
    Ok(host.store(Source::Stream(source), StoreOptions::default()).await?.id)
}
