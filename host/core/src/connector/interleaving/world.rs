//! A run: two hosts on one catalogue and two backends, the operations of its tasks, and what has to hold.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::backend::{WatchedBackend, shared};
use super::events::{Happened, Without};
use super::images::{CHANGES, IMAGES, id_of, packs, temporary};
use super::judge::{Report, forget, judge, read, stays};
use super::scheduler::{self, Points, Step, Task};
use super::watched::WatchedCatalogue;
use crate::backend::testing::MemoryBackend;
use crate::backend::{Backend, Operation};
use crate::catalogue::{Catalogue, SqliteCatalogue};
use crate::config::{Config, PackProfile};
use crate::connector::backend::ConfiguredBackend;
use crate::connector::change::Change;
use crate::connector::jobs::DueJobs;
use crate::connector::lazy_sandbox::LazySandbox;
use crate::connector::owner::Owner;
use crate::connector::packs::decoders;
use crate::connector::page_digests::MAX_DIGEST_BYTES;
use crate::connector::payload::PackFile;
use crate::connector::swap_log::CatalogueSwapLog;
use crate::connector::{Host, HostInner, HostOptions, ImportOptions, StoreBase, StoreOptions};
use crate::runtime::{EngineOptions, SwapLog};
use crate::snapshot::{FileSource, Source, StreamSource};
use crate::types::{Clock, Entropy, ErrorKind, Platform, Result, SnapshotId};

const NAMES: [Option<&str>; 3] = [None, Some("web"), Some("db")];
const ROUTES: [&str; 3] = ["keyed", "hashed", "both"];
const CONFIG: &str = "
[backends.keyed]
adapter = 'fs'
[backends.hashed]
adapter = 'fs'
[routes.default]
backends = ['keyed', 'hashed']
[routes.keyed]
backends = ['keyed']
[routes.hashed]
backends = ['hashed']
[routes.both]
backends = ['keyed', 'hashed']
copies = 2
encoding = 'pages'
";

/// The operation of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Store { image: usize, name: usize, route: usize, stream: bool },
    Update { change: usize, name: usize, route: usize },
    RemoveName { name: usize },
    RemoveId { image: usize },
    Gc,
    Verify { deep: bool },
    Import { backend: usize },
    Retrieve { image: usize },
    Rebase { image: usize, profile: PackProfile },
}

/// An act, on one of the hosts, perhaps given up on the way, perhaps with a failure of a backend before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) act: Act,
    pub(super) host: usize,
    pub(super) given_up_after: Option<u32>,
    /// The next put or deletion of a backend fails, with or without an effect.
    pub(super) fault: Option<(usize, bool, bool)>,
}

struct Still(Instant);

impl Clock for Still {
    fn now(&self) -> Instant {
        self.0
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }
}

struct Counting(u8, AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let random = blake3::hash(&[&[self.0][..], &number.to_le_bytes()].concat());
        bytes.iter_mut().zip(random.as_bytes().iter().cycle()).for_each(|(byte, random)| *byte = *random);
        Ok(())
    }
}

/// Everything that all runs share.
pub(super) struct Stage {
    config: Config,
    swap_log: Arc<dyn SwapLog>,
    dir: tempfile::TempDir,
    /// Of each change.
    packs: Vec<Arc<PackFile>>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nowhere: Arc<dyn Catalogue> = Arc::new(SqliteCatalogue::in_memory(Platform::system()));
        let swap_log = CatalogueSwapLog::new(nowhere, dir.path().join("adapters"), Platform::system());
        let config = Config::parse(CONFIG, Path::new("")).unwrap();
        Self { config, swap_log: Arc::new(swap_log), dir, packs: packs() }
    }

    fn host(&self, number: u8, catalogue: &Arc<WatchedCatalogue>, backends: &[Arc<WatchedBackend>; 2]) -> Host {
        let platform = Platform::new(Still(Instant::now()), Counting(number, AtomicU64::new(0)));
        let given = |backend: &Arc<WatchedBackend>| (backend.name().to_owned(), backend.clone() as Arc<dyn Backend>);
        let options = HostOptions { platform: platform.clone(), backends: backends.iter().map(given).collect() };
        let roots = Arc::new(self.config.trust.clone());
        let configured = |(name, backend): (&String, _)| {
            let log = self.swap_log.clone();
            (name.clone(), ConfiguredBackend::new(name, backend, roots.clone(), log, &options))
        };
        let catalogue: Arc<dyn Catalogue> = catalogue.clone();
        let inner = HostInner {
            hot: None,
            page_digest_bytes: MAX_DIGEST_BYTES,
            owner: Owner::new(catalogue.clone(), self.dir.path().join("run"), platform.clone()),
            catalogue,
            platform,
            data_dir: self.dir.path().to_owned(),
            // Never made: all backends are models.
            sandbox: LazySandbox::new(EngineOptions::default()),
            backends: self.config.backends.iter().map(configured).collect(),
            routes: self.config.routes.clone(),
            recent_digests: Default::default(),
            recent_packs: Default::default(),
            recent_frames: Default::default(),
            pack_memory: Default::default(),
            pack_shares: Default::default(),
            decoders: decoders(),
            encoders: Default::default(),
            apply_places: Default::default(),
            deletions: Default::default(),
            job_settings: self.config.jobs.clone(),
            scrub_settings: self.config.scrub.clone(),
            rebase_settings: self.config.rebase.clone(),
            jobs: Default::default(),
            pushes: Box::new(DueJobs),
            secrets: None,
            begun: true,
        };
        Host { inner: Arc::new(inner) }
    }
}

fn source(image: usize, stream: bool) -> Source {
    if stream {
        return Source::Stream(StreamSource::new(IMAGES[image], "stream"));
    }
    Source::File(FileSource::new(temporary(IMAGES[image]), "image").unwrap())
}

fn options(name: usize, route: usize) -> StoreOptions {
    let (route, name) = (Some(ROUTES[route].to_owned()), NAMES[name].map(str::to_owned));
    StoreOptions { route, name, base: Some(StoreBase::None), ..StoreOptions::default() }
}

async fn act(
    number: usize,
    op: Op,
    host: Host,
    catalogue: Arc<WatchedCatalogue>,
    report: Arc<Mutex<Report>>,
    packs: Vec<Arc<PackFile>>,
) {
    let wrong = |what: String| report.lock().unwrap().wrong.push(format!("{op:?}: {what}"));
    match op.act {
        Act::Store { image, name, route, stream } => {
            if let Ok(stored) = host.store(source(image, stream), options(name, route)).await {
                if stored.id != id_of(image) {
                    wrong(format!("it is {}", stored.id));
                }
                report.lock().unwrap().acknowledged.insert(number);
            }
        }
        Act::Update { change, name, route } => {
            let (base, _, image) = CHANGES[change];
            let change = Change { base: Some(id_of(base)), pack: Some(&packs[change]), ..Change::default() };
            if let Ok(stored) = host.store_on_route(source(image, false), change, &options(name, route)).await {
                if stored.id != id_of(image) {
                    wrong(format!("it is {}", stored.id));
                }
                report.lock().unwrap().acknowledged.insert(number);
            }
        }
        Act::RemoveName { name } => drop(host.remove_by(NAMES[name].unwrap_or("nobody"), false).await),
        Act::RemoveId { image } => drop(host.remove_by(&id_of(image).to_string(), true).await),
        Act::Gc => {
            if let Err(error) = host.gc(Duration::ZERO).await {
                wrong(format!("{error:?}"));
            }
        }
        Act::Verify { deep } => {
            forget(&host);
            let steady = Steady::begin(&catalogue, &report);
            match host.verify(None, deep, None).await {
                Err(error) => wrong(format!("{error:?}")),
                Ok(found) => {
                    if let Some(bad) = found.bad.iter().find(|bad| steady.is_still(bad.id)) {
                        wrong(format!("{bad:?}"));
                    }
                }
            }
        }
        Act::Import { backend } => {
            if let Err(error) = host.import(ROUTES[backend], ImportOptions::default()).await {
                wrong(format!("{error:?}"));
            }
        }
        Act::Rebase { image, profile } => drop(host.rebase(id_of(image), Some(profile)).await),
        Act::Retrieve { image } => {
            let steady = Steady::begin(&catalogue, &report);
            let got = read(&host, image).await;
            match got {
                Ok(bytes) if bytes == IMAGES[image] => {}
                Ok(bytes) => wrong(format!("{bytes:?} came out")),
                Err(error) if steady.is_still(id_of(image)) => {
                    wrong(format!("it was stored and not removed: {error:?}"))
                }
                Err(_) => {}
            }
        }
    }
}

/// A snapshot that is stored while an operation runs: acknowledged before it began, and not removed until its end.
struct Steady<'a> {
    catalogue: &'a WatchedCatalogue,
    acknowledged: BTreeSet<usize>,
    began: usize,
}

impl<'a> Steady<'a> {
    fn begin(catalogue: &'a WatchedCatalogue, report: &Mutex<Report>) -> Self {
        let began = catalogue.events.lock().unwrap().len();
        Self { catalogue, acknowledged: report.lock().unwrap().acknowledged.clone(), began }
    }

    fn is_still(&self, id: SnapshotId) -> bool {
        let events = self.catalogue.events.lock().unwrap();
        let (before, since) = events.split_at(self.began);
        before.iter().rfind(|event| event.id == id).is_some_and(|event| stays(event, &self.acknowledged))
            && !since.iter().any(|event| event.id == id && event.what == Happened::Removed)
    }
}

/// The violation, and the steps that led to it.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) what: String,
    pub(super) steps: Vec<Step>,
}

/// Runs the operations, the first `before` of them one after the other, the others as the choices say.
pub(super) fn run(
    stage: &Stage,
    ops: &[Op],
    before: usize,
    choices: &[u8],
    without: Without,
) -> std::result::Result<(), Failed> {
    let runtime = tokio::runtime::Handle::current();
    let points = Arc::new(Points::default());
    let catalogue = Arc::new(WatchedCatalogue {
        points: points.clone(),
        inner: SqliteCatalogue::in_memory(Platform::new(Still(Instant::now()), Counting(9, AtomicU64::new(0)))),
        without,
        events: Mutex::default(),
    });
    let backends =
        [shared(MemoryBackend::new("keyed"), &points), shared(MemoryBackend::named_by_content("hashed"), &points)];
    let hosts = [0, 1].map(|number| stage.host(number, &catalogue, &backends));
    let report = Arc::new(Mutex::new(Report::default()));
    runtime.block_on(async {
        for host in &hosts {
            host.inner.owner.current().await.unwrap();
            for backend in ["keyed", "hashed"] {
                host.ensure_container(backend).await.unwrap();
            }
        }
    });
    let task = |(number, op): (usize, &Op)| Task {
        number,
        future: {
            let (op, host, catalogue) = (*op, hosts[op.host].clone(), catalogue.clone());
            let (report, backends, packs) = (report.clone(), backends.clone(), stage.packs.clone());
            Box::pin(async move {
                if let Some((backend, deletion, takes_effect)) = op.fault {
                    let operation = if deletion { Operation::Delete } else { Operation::Put };
                    backends[backend].inner.fail_next(operation, ErrorKind::Unavailable, takes_effect);
                }
                act(number, op, host, catalogue, report, packs).await;
            })
        },
        given_up_after: op.given_up_after,
    };
    let mut tasks: Vec<Task> = ops.iter().enumerate().map(task).collect();
    let rest = tasks.split_off(before.min(tasks.len()));
    tasks.into_iter().for_each(|one| scheduler::run(&points, vec![one], &[]));
    scheduler::run(&points, rest, choices);
    let [host, other] = hosts;
    drop(other);
    let report = std::mem::take(&mut *report.lock().unwrap());
    let outcome = runtime.block_on(judge(host, &catalogue, &backends, report));
    outcome.map_err(|what| Failed { what, steps: points.steps() })
}
