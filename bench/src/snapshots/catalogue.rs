//! What a snapshot costs in a catalogue of many: store, stat and remove of tiny images, through the library. The many are rows alone,
//! written straight into the catalogue's file: to store a million images would take an hour, and what is measured never looks at
//! their objects.

use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rusqlite::Connection;
use serde::Serialize;
use tidelock::config::Config;
use tidelock::snapshot::StreamSource;
use tidelock::{Host, NoSecrets, SnapshotId, Source, StoreOptions};

use super::{Plan, connector};
use crate::stats::Quantiles;

/// Operations that do not count, before the others: they open connections and fill caches.
const WARM_UP: u64 = 50;
/// What the rows of a snapshot take in memory, with their indexes and the log of the change that makes them.
const BYTES_EACH: u64 = 2 << 10;

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
}

/// Measures catalogues of the plan's sizes, all of them the same one.
pub async fn run(plan: &Plan, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let most = plan.snapshots.iter().max().copied().unwrap_or_default();
    let dir = plan.folder(most * BYTES_EACH)?;
    let host = Host::start(&Config::parse(&connector::config(dir.path()), dir.path())?, &NoSecrets).await?;
    store(host.clone(), 0).await?;
    let file = dir.path().join("data/catalogue.sqlite");
    let mut rows = Vec::new();
    for &count in &plan.snapshots {
        note(&format!("a catalogue of {count} snapshots"));
        fill(&file, count)?;
        rows.push(row(&host, &file, plan.operations).await?);
    }
    Ok(rows)
}

/// Copies the rows of the first snapshot until there are so many, each with an id and an object of its own.
fn fill(file: &Path, count: u64) -> Result<()> {
    let db = Connection::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    db.execute_batch("PRAGMA synchronous = off; BEGIN IMMEDIATE")?;
    let there: u64 = db.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0))?;
    db.execute(
        "CREATE TEMP TABLE fresh AS
         WITH RECURSIVE number (n) AS (SELECT 1 WHERE ?1 > 0 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
         SELECT randomblob(32) AS id FROM number",
        [count.saturating_sub(there)],
    )?;
    for table in ["snapshots", "placements", "wanted"] {
        let names: Vec<String> = db
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE name <> 'seq'")?
            .query_map([table], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let values = names.iter().map(|name| match (table, name.as_str()) {
            ("snapshots", "id") | (_, "snapshot") => "fresh.id",
            ("placements", "object") => "'snap-' || hex(fresh.id)",
            (_, other) => other,
        });
        let (columns, values) = (names.join(", "), values.collect::<Vec<_>>().join(", "));
        let own = if table == "snapshots" { "id" } else { "snapshot" };
        db.execute_batch(&format!(
            "INSERT INTO {table} ({columns}) SELECT {values} FROM temp.fresh AS fresh,
             (SELECT * FROM {table} WHERE {own} = (SELECT id FROM snapshots ORDER BY seq LIMIT 1))"
        ))?;
    }
    db.execute_batch("COMMIT; DROP TABLE temp.fresh").map_err(Into::into)
}

/// Some ids from all over a catalogue.
fn some(file: &Path, most: usize) -> Result<Vec<SnapshotId>> {
    let db = Connection::open(file)?;
    let mut ids = db.prepare("SELECT id FROM snapshots ORDER BY random() LIMIT ?1")?;
    let ids = ids.query_map([most as u64], |row| row.get::<_, [u8; 32]>(0))?;
    ids.map(|id| Ok(SnapshotId::from_bytes(id?))).collect()
}

async fn row(host: &Host, file: &Path, operations: usize) -> Result<Row> {
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
    for id in some(file, operations)? {
        let start = Instant::now();
        host.stat(id).await?;
        times[1].push(start.elapsed().as_secs_f64() * 1e6);
    }
    for id in more {
        let start = Instant::now();
        host.remove(id).await?;
        times[2].push(start.elapsed().as_secs_f64() * 1e6);
    }
    let [store, stat, rm] = times.map(|times| Quantiles::of(&times, 1));
    let p99_us = [store.p99, stat.p99, rm.p99];
    let snapshots = Connection::open(file)?.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0))?;
    Ok(Row { snapshots, store_us: store.p50, stat_us: stat.p50, rm_us: rm.p50, p99_us })
}

/// Stores an image of 64 bytes that no other number has.
async fn store(host: Host, number: u64) -> Result<SnapshotId> {
    let bytes = format!("{number:064}").into_bytes();
    let source = StreamSource::new(Cursor::new(bytes), "a tiny image").of_size(64);
    Ok(host.store(Source::Stream(source), StoreOptions::default()).await?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_is_filled_with_snapshots_that_can_be_looked_up() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("c.sqlite");
        let db = Connection::open(&file)?;
        db.execute_batch(
            "CREATE TABLE snapshots (seq INTEGER PRIMARY KEY, id BLOB UNIQUE, size INTEGER);
             CREATE TABLE placements (seq INTEGER PRIMARY KEY, snapshot BLOB, object TEXT UNIQUE);
             CREATE TABLE wanted (snapshot BLOB, copies INTEGER);
             INSERT INTO snapshots (id, size) VALUES (zeroblob(32), 64);
             INSERT INTO placements (snapshot, object) VALUES (zeroblob(32), 'a');
             INSERT INTO wanted VALUES (zeroblob(32), 1)",
        )?;
        for count in [10, 5, 100] {
            fill(&file, count)?;
        }
        let of = |what: &str| db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, u64>(0));
        assert_eq!((of("snapshots WHERE size = 64")?, of("placements")?, of("wanted")?), (100, 100, 100));
        assert_eq!(of("snapshots JOIN placements ON placements.snapshot = snapshots.id")?, 100);
        assert_eq!(some(&file, 1000)?.len(), 100);
        Ok(())
    }
}
