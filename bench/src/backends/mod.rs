//! Every backend, live: its adapter in the sandbox beside the usual native client.
//!
//! A [`Contest`] is a real server with the adapter and its native clients. They alternate; each
//! object is stored, then read, then removed, so that all of them meet the same server. Each object has unique bytes:
//! a backend that deduplicates (IPFS does) would otherwise store the second one for free. Bytes come from memory
//! and are discarded; a client that is a program reads from and writes to a file in memory, and its start counts, since
//! its users wait for it too.
//!
//! A ratio is the adapter's rate to the native client's, the median over the rounds; where there is more than one native
//! client, to the one with the highest median.

mod archive;
mod bags;
mod bucket;
mod content;
mod folder;
mod program;
mod report;
mod share;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{SettingValue, StoreHint};

pub use report::{Backends, Quantiles, Row};

use crate::peers::Sink;
use crate::stats::{median, quantile, rounded};
use crate::{MIB, data, transfer};

/// A small object's bytes.
const SMALL: u64 = 4096;
/// The unit in which storage looks for what it has already.
const PAGE: usize = 4096;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds that count; one more comes first.
    pub rounds: usize,
    /// A large object's bytes.
    pub size: u64,
    /// Small objects of each backend.
    pub small: usize,
    /// Only these backends; all if it is empty.
    pub only: Vec<String>,
}

/// One object's bytes, in memory and in a file in memory.
pub struct Input {
    /// The bytes.
    pub bytes: Bytes,
    /// The same, for programs.
    pub file: PathBuf,
}

/// How people reach a backend without Tidelock.
pub trait Native: Send + Sync {
    /// The snapshot.
    fn name(&self) -> &'static str;

    /// Stores the bytes under a name that nothing has yet; gives the name by which they are read.
    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>>;

    /// Does what has to be done before the object can be read. Its time does not count.
    fn prepare<'a>(&'a self, _object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Reads an object. A program that is not to be compared writes into nothing and gives no bytes to `sink`.
    fn retrieve<'a>(&'a self, object: &'a str, compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>>;

    /// Removes it.
    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// A backend with its server, the adapter and the native clients.
pub struct Contest {
    /// The backend's name, which is its adapter's.
    backend: &'static str,
    adapter: Arc<Adapter>,
    /// The adapter that reads, where it is to be another one than the one that stored.
    reader: Option<Arc<Adapter>>,
    natives: Vec<Box<dyn Native>>,
    /// Small objects, if fewer than planned.
    small: Option<usize>,
    /// Restores from the archive before it reads.
    cold: bool,
    /// What has to live as long. After the clients, so that it ends last.
    _server: Box<dyn Send + Sync>,
}

/// How a backend is set up: in a folder of its own.
type SetUp = fn(&Path) -> BoxFuture<'_, Result<Contest>>;

const ALL: [(&str, SetUp); 6] = [
    ("fs", folder::set_up),
    ("s3", bucket::set_up),
    ("glacier", archive::set_up),
    ("nfs", share::set_up),
    ("ipfs", content::set_up),
    ("ton", bags::set_up),
];

/// The names of the backends.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// Measures. `note` gets each step. Backends that cannot be had here are named with the reason.
pub async fn run(plan: &Plan, note: impl Fn(&str)) -> Result<Backends> {
    let (mut rows, mut skipped, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (name, set_up) in ALL {
        if !plan.only.is_empty() && !plan.only.iter().any(|only| only == name) {
            continue;
        }
        if let Some(why) = why_not(name) {
            note(&format!("leaving {name} out: {why}"));
            skipped.push((name, why));
            continue;
        }
        // The results of others are printed even if this one fails.
        match measure(name, set_up, plan, &note).await {
            Ok(row) => rows.push(row),
            Err(error) => {
                note(&format!("{name} failed: {error:#}"));
                failed.push((name, format!("{error:#}")));
            }
        }
    }
    Ok(Backends { bytes: plan.size, rounds: plan.rounds, rows, skipped, failed })
}

async fn measure(name: &'static str, set_up: SetUp, plan: &Plan, note: &impl Fn(&str)) -> Result<Row> {
    note(&format!("{name}: starting its server"));
    let dir = folder_for(name, plan)?;
    let contest = set_up(dir.path()).await.context("it cannot be set up")?;
    note(&format!("{name}: {} small objects", contest.small.unwrap_or(plan.small)));
    let latencies = contest.small(plan).await.context("small objects")?;
    note(&format!("{name}: {} MiB, {} rounds", plan.size / MIB, plan.rounds));
    let rounds = contest.large(plan, dir.path()).await.context("large objects")?;
    Ok(report::row(&contest, &latencies, &rounds))
}

fn why_not(name: &str) -> Option<String> {
    let kind = xtask::backends::Kind::ALL.into_iter().find(|kind| kind.serves(name));
    kind.and_then(|kind| kind.why_not())
}

/// On the disk for the file system, whose matter a disk is; in memory where there is room for the others, whose server
/// shall not wait for it.
fn folder_for(name: &str, plan: &Plan) -> Result<tempfile::TempDir> {
    if name == "fs" { crate::place::on_disk() } else { crate::place::fast(plan.size * (4 * plan.rounds as u64 + 8)) }
}

/// What one contestant took for one object, in seconds.
#[derive(Clone, Copy)]
struct Lap {
    store: f64,
    retrieve: f64,
}

/// The laps of the adapter, then of each native client.
struct Rounds {
    size: u64,
    laps: Vec<Vec<Lap>>,
}

/// Milliseconds of the adapter, then of each native client.
struct Latencies(Vec<Vec<Lap>>);

impl Contest {
    /// Who there is: `None` for the adapter.
    fn contestants(&self) -> Vec<Option<&dyn Native>> {
        std::iter::once(None).chain(self.natives.iter().map(|native| Some(&**native))).collect()
    }

    async fn large(&self, plan: &Plan, dir: &Path) -> Result<Rounds> {
        let laps = self.turns(plan.rounds, 1, plan.size, dir).await?;
        Ok(Rounds { size: plan.size, laps })
    }

    async fn small(&self, plan: &Plan) -> Result<Latencies> {
        let dir = crate::place::fast(MIB)?;
        let count = self.small.unwrap_or(plan.small).min(plan.small);
        Ok(Latencies(self.turns(count, count.div_ceil(10), SMALL, dir.path()).await?))
    }

    /// So many rounds that count after some that do not, everybody in turns, each with bytes of its own.
    async fn turns(&self, rounds: usize, warm_up: usize, size: u64, dir: &Path) -> Result<Vec<Vec<Lap>>> {
        let contestants = self.contestants();
        let mut laps = vec![Vec::new(); contestants.len()];
        let mut bytes = data::random(size)?;
        let file = dir.join("input");
        for round in 0..rounds + warm_up {
            for turn in 0..contestants.len() {
                let index = (turn + round) % contestants.len();
                stamp(&mut bytes, (round * contestants.len() + index) as u64);
                tokio::fs::write(&file, &bytes).await?;
                let input = Input { bytes: Bytes::from(bytes), file: file.clone() };
                let key = format!("bench-{size}-{round}-{index}");
                let lap = match contestants[index] {
                    None => self.by_adapter(&key, &input, round < warm_up).await.context("the adapter failed")?,
                    Some(native) => {
                        let lap = by_native(native, &key, &input, round < warm_up).await;
                        lap.with_context(|| format!("{} failed", native.name()))?
                    }
                };
                if round >= warm_up {
                    laps[index].push(lap);
                }
                bytes = input.bytes.try_into_mut().map(Vec::from).unwrap_or_else(|shared| shared.to_vec());
            }
        }
        Ok(laps)
    }

    async fn by_adapter(&self, key: &str, input: &Input, compare: bool) -> Result<Lap> {
        let size = input.bytes.len() as u64;
        let hint = StoreHint { key: key.into(), size: Some(size), labels: Vec::new() };
        let began = Instant::now();
        let receipt = self.adapter.store(transfer::body(&input.bytes), hint).await?;
        let store = began.elapsed().as_secs_f64();
        ensure!(receipt.size == size, "it stored {} bytes", receipt.size);
        if self.cold {
            archive::thaw(&self.adapter, &receipt.id).await?;
        }
        let mut compared = Compared::with(&input.bytes, compare);
        let began = Instant::now();
        let body = self.reader.as_ref().unwrap_or(&self.adapter).retrieve(&receipt.id, None).await?;
        transfer::drain(body, &mut |chunk| compared.take(chunk)).await?;
        let retrieve = began.elapsed().as_secs_f64();
        ensure!(compared.seen as u64 == size, "it gave {} bytes", compared.seen);
        compared.conclude()?;
        for adapter in std::iter::once(&self.adapter).chain(&self.reader) {
            adapter.remove(&receipt.id).await?;
        }
        Ok(Lap { store, retrieve })
    }
}

async fn by_native(native: &dyn Native, key: &str, input: &Input, compare: bool) -> Result<Lap> {
    let began = Instant::now();
    let object = native.store(key, input).await?;
    let store = began.elapsed().as_secs_f64();
    native.prepare(&object).await?;
    let mut compared = Compared::with(&input.bytes, compare);
    let began = Instant::now();
    native.retrieve(&object, compare, &mut |chunk| compared.take(chunk)).await?;
    let retrieve = began.elapsed().as_secs_f64();
    ensure!(!compare || compared.seen == input.bytes.len(), "it gave {} bytes", compared.seen);
    compared.conclude()?;
    native.remove(&object).await?;
    Ok(Lap { store, retrieve })
}

/// Counts what is read, and compares it with what was stored, if requested.
struct Compared<'a> {
    expected: Option<&'a [u8]>,
    seen: usize,
    same: bool,
}

impl<'a> Compared<'a> {
    fn with(expected: &'a [u8], compare: bool) -> Self {
        Self { expected: compare.then_some(expected), seen: 0, same: true }
    }

    fn take(&mut self, chunk: &[u8]) {
        if let Some(expected) = self.expected {
            self.same &= expected.get(self.seen..self.seen + chunk.len()) == Some(chunk);
        }
        self.seen += chunk.len();
    }

    fn conclude(&self) -> Result<()> {
        ensure!(self.same, "what was read is not what was stored");
        Ok(())
    }
}

/// Makes every page another than it was.
fn stamp(bytes: &mut [u8], number: u64) {
    for page in bytes.chunks_mut(PAGE) {
        for (byte, mark) in page.iter_mut().zip(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()) {
            *byte ^= mark;
        }
    }
}

/// An adapter that travels in the library, with these grants and settings.
async fn adapter(name: &'static str, capabilities: Capabilities, settings: &[(&str, &str)]) -> Result<Arc<Adapter>> {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), SettingValue::Text((*value).to_owned()));
    let spec = BackendSpec {
        name: name.into(),
        capabilities,
        settings: settings.iter().map(text).collect(),
        limits: Limits::default(),
        trust: Default::default(),
    };
    let engine = Sandbox::new(EngineOptions::default())?;
    Ok(Arc::new(Adapter::load(&engine, &spec, transfer::component(name)?).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_every_object_is_another() {
        let mut bytes = vec![7; 3 * PAGE + 100];
        let before = bytes.clone();
        stamp(&mut bytes, 1);
        assert!(bytes.chunks(PAGE).zip(before.chunks(PAGE)).all(|(now, before)| now != before));
    }

    #[test]
    fn other_bytes_are_seen() {
        let mut compared = Compared::with(b"abcdef", true);
        compared.take(b"abc");
        compared.take(b"dxf");
        assert!(compared.conclude().is_err() && compared.seen == 6);
        let mut uncompared = Compared::with(b"abc", false);
        uncompared.take(b"xyz");
        assert!(uncompared.conclude().is_ok());
    }
}
