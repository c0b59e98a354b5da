//! The cost of operations in a folder with many objects, and of listing all of them.
//!
//! A folder is filled with small files in the layout of the adapter `fs` (which is checked against the adapter), and
//! measured at each number of objects, so that all rows come from one run on one folder. An operation goes
//! through the adapter, in its own instance, as a host's does. Objects are picked at random; names and directories
//! are in the kernel's caches, as they are on a machine that has just stored them.
//!
//! Memory is the high-water mark of this process (`VmHWM`), set back before each part.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::DirectoryGrant;
use tidelock::config::Config;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{Body, ObjectId, SettingValue, StoreHint};
use tidelock::{Host, ImportOptions, NoSecrets};

use crate::place::field;
use crate::stats::{Quantiles, rounded};
use crate::{MIB, data, report, transfer};

/// The bytes of an object that is stored and read.
const SIZE: u64 = 4096;
/// Objects that are listed at once, as `import` and `gc` do.
const PAGE: u32 = 1000;

/// What is to be measured.
#[derive(Debug)]
pub struct Plan {
    /// An empty folder.
    pub dir: PathBuf,
    /// How many objects there are, fewest first.
    pub objects: Vec<u64>,
    /// Of each operation.
    pub operations: usize,
    /// The adapter's setting `layout`.
    pub layout: String,
    /// Whether a catalogue is rebuilt in the end.
    pub import: bool,
}

/// A folder of so many objects.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How many there are.
    pub objects: u64,
    /// Storing one more, of 4 KiB.
    pub store_us: Quantiles,
    /// What the backend says of one.
    pub stat_us: Quantiles,
    /// Reading one of 4 bytes.
    pub retrieve_us: Quantiles,
    /// A page of the inventory.
    pub page_us: Quantiles,
    /// How many pages there were.
    pub pages: usize,
    /// The whole inventory.
    pub list_seconds: f64,
    /// The same for each object.
    pub list_us_per_object: f64,
    /// The most memory that this process had meanwhile.
    pub list_peak_mib: f64,
}

/// A catalogue rebuilt.
#[derive(Debug, Serialize)]
pub struct Rebuilt {
    /// Objects.
    pub objects: u64,
    /// The duration.
    pub seconds: f64,
    /// How long it took once more, when all of them were known.
    pub again_seconds: f64,
    /// The most memory that this process had in either.
    pub peak_mib: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The setting.
    pub layout: String,
    /// The file system: where the folder was.
    pub place: String,
    /// For each number of objects.
    pub rows: Vec<Row>,
    /// If that was wanted.
    pub import: Option<Rebuilt>,
    /// `release`, or `dev`: then it says how costs grow and not what they are.
    pub profile: &'static str,
    /// Cores and memory.
    pub machine: serde_json::Value,
}

/// Measures.
pub async fn run(plan: Plan, note: impl Fn(&str)) -> Result<Found> {
    let objects = plan.dir.join("objects");
    let adapter = adapter(&objects, &plan.layout).await?;
    let folder = Folder { root: objects.clone(), flat: plan.layout == "flat" };
    let (mut rows, mut there) = (Vec::new(), 0);
    for &count in &plan.objects {
        note(&format!("{count} objects"));
        folder.fill(there, count)?;
        there = count;
        rows.push(row(&adapter, &folder, count, plan.operations).await?);
    }
    drop(adapter);
    let import = if plan.import { Some(rebuild(&plan, there, note).await?) } else { None };
    let place = plan.dir.parent().unwrap_or(&plan.dir).display().to_string();
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    Ok(Found { layout: plan.layout, place, rows, import, profile, machine: report::machine() })
}

async fn adapter(objects: &Path, layout: &str) -> Result<Arc<Adapter>> {
    let mut capabilities = Capabilities::none();
    capabilities.grant_directory("objects", &DirectoryGrant::below(objects.to_owned()))?;
    let spec = BackendSpec {
        name: "local".into(),
        capabilities,
        settings: [("layout".to_owned(), SettingValue::Text(layout.to_owned()))].into(),
        limits: Limits::default(),
        trust: Default::default(),
    };
    let engine = Sandbox::new(EngineOptions::default())?;
    Ok(Arc::new(Adapter::load(&engine, &spec, transfer::component("fs")?).await?))
}

/// A folder that the adapter could have filled.
struct Folder {
    root: PathBuf,
    flat: bool,
}

impl Folder {
    /// The name of an object. Digits alone: they are in the alphabet of a host's keys.
    fn key(number: u64) -> String {
        format!("snap-{number:026}")
    }

    /// Where the adapter puts it: guest-adapters/fs/src/layout.rs.
    fn path(&self, key: &str) -> String {
        if self.flat {
            return key.to_owned();
        }
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        let folded = hash ^ (hash >> 32);
        let folded = folded ^ (folded >> 16);
        format!("{:02x}/{:02x}/{key}", folded & 255, (folded >> 8) & 255)
    }

    /// Makes the objects of these numbers, directory by directory. Each holds its number, so that no two are alike.
    fn fill(&self, from: u64, to: u64) -> Result<()> {
        let mut paths: Vec<(String, u64)> = (from..to).map(|number| (self.path(&Self::key(number)), number)).collect();
        paths.sort_unstable();
        let mut made = PathBuf::new();
        for (path, number) in paths {
            let path = self.root.join(path);
            let parent = path.parent().unwrap_or(&self.root);
            if parent != made {
                fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
                made = parent.to_owned();
            }
            // Below 2^32: there is no room for more.
            fs::write(&path, (number as u32).to_le_bytes())
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }
}

async fn row(adapter: &Arc<Adapter>, folder: &Folder, count: u64, operations: usize) -> Result<Row> {
    let bytes = data::random_bytes(SIZE)?;
    let mut stored = Vec::with_capacity(operations);
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..operations {
        // Beyond those that the folder is filled with.
        let key = Folder::key((1 << 40) + number as u64);
        let hint = StoreHint { key: key.clone(), size: Some(SIZE), labels: Vec::new() };
        let (receipt, taken) = timed(adapter.store(Body::from_bytes(bytes.clone()), hint)).await;
        let receipt = receipt?;
        ensure!(receipt.id.as_str() == folder.path(&key), "the adapter lays out its folder in another way");
        times[0].push(taken);
        stored.push(receipt.id);
    }
    for number in 0..operations as u64 {
        // A multiplier that has nothing in common with any count here, so that the picks are spread and do not repeat.
        let picked = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
        let id = ObjectId::new(folder.path(&Folder::key(picked)))?;
        let (stat, taken) = timed(adapter.stat(&id)).await;
        ensure!(stat?.size == 4, "another object");
        times[1].push(taken);
        let (read, taken) = timed(async { adapter.retrieve(&id, None).await?.collect(4).await }).await;
        ensure!(read?[..] == (picked as u32).to_le_bytes(), "another object");
        times[2].push(taken);
    }
    for id in &stored {
        adapter.remove(id).await?;
    }
    let listing = list(adapter, count).await?;
    let of = |times: &[f64]| Quantiles::of(times, 1);
    Ok(Row {
        objects: count,
        store_us: of(&times[0]),
        stat_us: of(&times[1]),
        retrieve_us: of(&times[2]),
        page_us: of(&listing.pages),
        pages: listing.pages.len(),
        list_seconds: rounded(listing.seconds, 2),
        list_us_per_object: rounded(listing.seconds * 1e6 / count as f64, 2),
        list_peak_mib: listing.peak_mib,
    })
}

/// Microseconds.
async fn timed<T>(work: impl Future<Output = T>) -> (T, f64) {
    let began = Instant::now();
    let done = work.await;
    (done, began.elapsed().as_secs_f64() * 1e6)
}

struct Listing {
    pages: Vec<f64>,
    seconds: f64,
    peak_mib: f64,
}

async fn list(adapter: &Arc<Adapter>, count: u64) -> Result<Listing> {
    reset_peak();
    let (mut cursor, mut found, mut pages) = (None, 0, Vec::new());
    let began = Instant::now();
    loop {
        let (page, taken) = timed(adapter.list_objects(cursor, PAGE)).await;
        let page = page?;
        pages.push(taken);
        found += page.entries.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    ensure!(found == count, "{found} of {count} objects were listed");
    Ok(Listing { pages, seconds, peak_mib: peak_mib() })
}

async fn rebuild(plan: &Plan, count: u64, note: impl Fn(&str)) -> Result<Rebuilt> {
    note("a catalogue rebuilt from them");
    let text = format!(
        "data_dir = \"data\"\n[backends.local]\nadapter = \"fs\"\nsettings = {{ layout = {:?} }}\n\
         grants.directory.objects = {{ path = \"objects\" }}\n",
        plan.layout
    );
    let host = Host::start(&Config::parse(&text, &plan.dir)?, &NoSecrets).await?;
    reset_peak();
    let first = host.import("local", ImportOptions::default()).await?;
    ensure!(first.imported == count, "{} of {count} objects were imported", first.imported);
    let again = host.import("local", ImportOptions::default()).await?;
    ensure!(again.known == count && again.bytes == 0, "what is known is read again");
    Ok(Rebuilt {
        objects: count,
        seconds: rounded(first.seconds, 1),
        again_seconds: rounded(again.seconds, 1),
        peak_mib: peak_mib(),
    })
}

/// Sets the high-water mark of memory back. Where the kernel does not let us, it is that since the start.
fn reset_peak() {
    // `man 5 proc`: 5 resets the peak resident set size.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    rounded(field(&status, "VmHWM:").unwrap_or(0) as f64 / MIB as f64, 1)
}

impl Found {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "layout {}, objects in {}, profile {}; µs: p50 / p99\n\n{:>10}{:>20}{:>20}{:>20}{:>20}{:>12}{:>12}{:>12}\n",
            self.layout,
            self.place,
            self.profile,
            "objects",
            "store",
            "stat",
            "retrieve",
            "page of 1000",
            "list, s",
            "µs each",
            "peak, MiB"
        );
        for row in &self.rows {
            let cells = [row.store_us, row.stat_us, row.retrieve_us, row.page_us];
            let _ = write!(text, "{:>10}", row.objects);
            for Quantiles { p50, p99 } in cells {
                let _ = write!(text, "{:>20}", format!("{p50:.0} / {p99:.0}"));
            }
            let Row { list_seconds, list_us_per_object, list_peak_mib, .. } = row;
            let _ = writeln!(text, "{list_seconds:>12}{list_us_per_object:>12}{list_peak_mib:>12}");
        }
        if let Some(Rebuilt { objects, seconds, again_seconds, peak_mib }) = &self.import {
            let _ = writeln!(
                text,
                "\nimport of {objects} objects: {seconds} s; again, all known: {again_seconds} s; peak {peak_mib} MiB"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented example of the adapter's own tests.
    #[test]
    fn objects_lie_where_the_adapter_puts_them() {
        let folder = Folder { root: PathBuf::new(), flat: false };
        assert_eq!(folder.path("k1"), "1a/96/k1");
        assert_eq!(Folder { root: PathBuf::new(), flat: true }.path("k1"), "k1");
        assert_eq!(Folder::key(7).len(), "snap-".len() + 26);
    }
}
