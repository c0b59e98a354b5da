//! Swaps under load: failures, wrong bytes, latency, and memory growth.
//!
//! Windows with and without swaps alternate in one run, under the same load, so that other load of the machine
//! affects both. The two versions of an adapter are the same component with another custom section: two
//! digests, two compilations, the same work.

pub mod load;
pub mod report;
pub mod restart;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tidelock::capabilities::grant::{BucketCredentials, Secret};
use tidelock::config::{Config, CredentialRef};
use tidelock::runtime::{CompiledFrom, Stage, SwapReport};
use tidelock::{Host, Secrets, Source, StoreOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::place::{self, Server};
use crate::stats::Quantiles;
use crate::stats::{median, quantile, rounded};
use crate::{GIB, MIB, transfer};
use load::{Load, Window};
use report::{Changes, FirstOperation, Found, Row};

/// The backends and the adapters that serve them.
pub const BACKENDS: [(&str, &str); 2] = [("local", "fs"), ("cloud", "s3")];
/// Swaps in one window.
const WINDOW: u64 = 50;
/// Operations before anything counts.
const WARM_UP: Duration = Duration::from_secs(4);
/// Swaps with a component that was never compiled, for each backend.
const COLD: u8 = 8;
/// Swaps of each backend with a client that asks at once.
const AT_ONCE: usize = 100;
/// What that client reads again before the next swap.
const AGAIN: usize = 5;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients at once.
    pub clients: usize,
    /// Swaps, all backends together.
    pub swaps: u64,
    /// From one swap to the next.
    pub every: Duration,
    /// The images' bytes.
    pub size: u64,
    /// Whether to restart the program under load, for comparison.
    pub restart: bool,
}

/// Runs all of it. Gives what was found, and what kept the rest from being measured.
pub async fn run(plan: Plan, note: impl Fn(&str)) -> Result<(Found, Option<anyhow::Error>)> {
    let dir = place::fast(2 * GIB)?;
    let server = Server::start(dir.path())?;
    let host = open(dir.path(), &server).await?;
    note("swapping components that were never compiled, without load");
    let cold = changes(&host, CompiledFrom::Source).await?;
    let cached = changes(&host, CompiledFrom::Cache).await?;
    note("reading at once after a swap, without load");
    let first_operation = first_operation(&host).await?;
    note(&format!("{} clients, {} swaps", plan.clients, plan.swaps));
    let load = Load::start(&host, plan.clients, plan.size);
    sleep(WARM_UP).await;
    let (mut firsts, mut memory, mut done) = (Vec::new(), [0.0; 2], 0);
    while done < plan.swaps {
        load.enter(Window::Swaps);
        let count = WINDOW.min(plan.swaps - done);
        let began = Instant::now();
        firsts.extend(swaps(&host, count, plan.every).await?);
        done += count;
        load.enter(Window::Quiet);
        let quiet = began.elapsed();
        // What the last swap left is drained before memory is looked at.
        sleep(quiet / 2).await;
        let pss = median(&samples(quiet / 2).await?);
        if memory[0] == 0.0 {
            memory[0] = pss;
        }
        memory[1] = pss;
        note(&format!("{done} swaps, {} operations, {} MiB", load.operations(), pss.round()));
    }
    let ended = load.stop().await?;
    drop(host);
    // The results so far are printed even if this fails.
    let (restart, unfinished) = match plan.restart {
        true => match restart::run(&plan, dir.path(), &server, &note).await {
            Ok(restart) => (Some(restart), None),
            Err(error) => (None, Some(error.context("the restarts could not be measured"))),
        },
        false => (None, None),
    };
    let p99 = |window| quantile(&ended.times(|lap| lap.window == window), 0.99);
    let ratio = p99(Window::Swaps) / p99(Window::Quiet);
    let found = Found {
        operations: ended.laps.len() as u64 + ended.failed,
        swaps: done,
        failed: ended.failed,
        wrong: ended.wrong,
        p99_ratio: rounded(ratio, 3),
        first_on_new_ms: Quantiles::of(&firsts, 3),
        first_operation,
        memory_ratio: rounded(memory[1] / memory[0], 3),
        memory_mib: memory.map(|mib| rounded(mib, 1)),
        rows: rows(&ended),
        failures: ended.failures,
        cold,
        cached,
        restart,
    };
    Ok((found, unfinished))
}

fn rows(ended: &load::Ended) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, (backend, _)) in BACKENDS.into_iter().enumerate() {
        for (which, operation) in load::OPERATIONS.into_iter().enumerate() {
            let times = |window| {
                ended.times(|lap| {
                    (usize::from(lap.backend), usize::from(lap.operation), lap.window) == (at, which, window)
                })
            };
            let [quiet, swaps] = [Window::Quiet, Window::Swaps].map(times);
            rows.push(Row {
                backend,
                operation,
                quiet_ms: Quantiles::of(&quiet, 3),
                swaps_ms: Quantiles::of(&swaps, 3),
                p99_ratio: rounded(quantile(&swaps, 0.99) / quantile(&quiet, 0.99), 3),
                operations: quiet.len() + swaps.len(),
            });
        }
    }
    rows
}

/// A host with both backends, each with a route of its name.
async fn open(dir: &Path, server: &Server) -> Result<Host> {
    let config = Config::parse(&config(dir, server), dir)?;
    let seaweed = server.seaweed();
    Ok(Host::start(&config, &Keys(seaweed.access_key.clone(), seaweed.secret_key.clone())).await?)
}

/// The text of a configuration with both backends.
pub fn config(dir: &Path, server: &Server) -> String {
    let cloud = server.config(&dir.join("data"));
    let (cloud, _) = cloud.split_once("[routes.default]").unwrap_or((&cloud, ""));
    format!(
        "{cloud}[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = {:?} }}\n\
         [routes.default]\nbackends = [\"local\"]\n[routes.local]\nbackends = [\"local\"]\n\
         [routes.cloud]\nbackends = [\"cloud\"]\n",
        dir.join("objects")
    )
}

/// The keys of the one server.
struct Keys(String, String);

impl Secrets for Keys {
    fn bucket(&self, _: &CredentialRef) -> tidelock::Result<BucketCredentials> {
        let secret_key = Secret::new(self.1.clone());
        Ok(BucketCredentials { access_key: self.0.clone(), secret_key, session_token: None })
    }

    fn http(&self, _: &CredentialRef) -> tidelock::Result<Secret> {
        Err(tidelock::Error::invalid("no adapter here sends a header"))
    }
}

/// An adapter under another digest: a custom section, which means nothing, behind the component.
pub fn version(adapter: &str, number: u8) -> Result<Vec<u8>> {
    let mut bytes = transfer::component(adapter)?;
    // Section 0, its length, the length of its name, its name, its content.
    bytes.extend([0, 9, 7]);
    bytes.extend(b"version");
    bytes.push(number);
    Ok(bytes)
}

/// Swaps both backends without load, with components that come from the compiler or, once that is so, from the cache.
async fn changes(host: &Host, from: CompiledFrom) -> Result<Changes> {
    let (mut totals, mut compiles) = (Vec::new(), Vec::new());
    for (backend, adapter) in BACKENDS {
        for number in 100..100 + COLD {
            let report = host.swap(backend, version(adapter, number)?).await?;
            ensure!(report.compiled_from == from, "version {number} of {adapter} came from {:?}", report.compiled_from);
            totals.push(until_published(&report));
            compiles.extend(report.stages.iter().filter(|time| time.stage == Stage::Compile).map(|time| time.ms));
        }
    }
    let most = totals.iter().copied().fold(0.0, f64::max);
    Ok(Changes {
        ms: rounded(median(&totals), 2),
        compile_ms: rounded(median(&compiles), 2),
        most_ms: rounded(most, 2),
    })
}

/// What the swap itself adds to the first operation on the new generation, apart from when a client next asks: one client
/// reads an image of 4 KiB as soon as a swap is over, and a few times more. Without load, so that nobody else was first.
async fn first_operation(host: &Host) -> Result<FirstOperation> {
    let (mut firsts, mut laters, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for (backend, adapter) in BACKENDS {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), crate::data::random(4096)?)?;
        let options = StoreOptions { route: Some(backend.to_owned()), ..StoreOptions::default() };
        let id = host.store(Source::open(file.path()).await?, options).await?.id;
        let read = async || {
            let began = Instant::now();
            host.retrieve(id, None).await?.body.collect(4096).await?;
            anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        let versions = [version(adapter, 1)?, version(adapter, 2)?];
        for number in 0..AT_ONCE + versions.len() {
            host.swap(backend, versions[number % versions.len()].clone()).await?;
            let first = read().await?;
            let mut again = Vec::new();
            for _ in 0..AGAIN {
                again.push(read().await?);
            }
            // The first swaps to each version compile it.
            if number >= versions.len() {
                firsts.push(first);
                added.push(first - median(&again));
                laters.extend(again);
            }
        }
        host.remove(id).await?;
    }
    Ok(FirstOperation {
        first_ms: Quantiles::of(&firsts, 3),
        later_ms: Quantiles::of(&laters, 3),
        added_ms: Quantiles::of(&added, 3),
    })
}

fn until_published(report: &SwapReport) -> f64 {
    report.stages.iter().filter(|time| time.stage <= Stage::Publish).map(|time| time.ms).sum()
}

/// So many swaps, of both backends in turn. Gives, for each, the milliseconds until the first operation began on it.
async fn swaps(host: &Host, count: u64, every: Duration) -> Result<Vec<f64>> {
    let each = |at: usize| {
        let host = host.clone();
        let (backend, adapter) = BACKENDS[at];
        let count = count / 2 + if at == 0 { count % 2 } else { 0 };
        tokio::spawn(async move {
            let versions = [version(adapter, 1)?, version(adapter, 2)?];
            let mut ticks = interval(every * 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut firsts = Vec::new();
            for number in 0..count {
                ticks.tick().await;
                let serving = info(&host, backend)?;
                firsts.extend(serving.first_operation_ms.filter(|_| number > 0));
                let next = usize::from(serving.digest == digest(&versions[0]));
                host.swap(backend, versions[next].clone()).await?;
            }
            anyhow::Ok(firsts)
        })
    };
    let (first, second) = tokio::try_join!(each(0), each(1))?;
    Ok(first?.into_iter().chain(second?).collect())
}

fn info(host: &Host, backend: &str) -> Result<tidelock::AdapterInfo> {
    host.adapters().into_iter().find(|info| info.backend == backend).context("the backend is open")
}

fn digest(component: &[u8]) -> String {
    tidelock::runtime::ComponentDigest::of(component).to_string()
}

/// The memory that is this process's share, in MiB, again and again for so long.
async fn samples(time: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + time;
    let mut samples = Vec::new();
    while samples.is_empty() || Instant::now() < end {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").context("the kernel tells no memory")?;
        let pss = place::field(&text, "Pss:").context("the kernel tells no share of memory")?;
        samples.push(pss as f64 / MIB as f64);
        sleep(Duration::from_millis(100)).await;
    }
    Ok(samples)
}

/// Keeps what is measured together with those who wait for it.
pub type Shared<T> = Arc<std::sync::Mutex<T>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_in_their_digest_alone() -> Result<()> {
        let [one, two] = [version("fs", 1)?, version("fs", 2)?];
        assert_ne!(digest(&one), digest(&two));
        assert_eq!(one.len(), two.len());
        Ok(())
    }
}
