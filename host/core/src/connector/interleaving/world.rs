//! A run: two hosts on one catalogue and two backends, the operations of its tasks, and what has to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::backend::{WatchedBackend, shared};
use super::scheduler::{self, Points, Step, Task};
use super::watched::{Event, Happened, WatchedCatalogue, Without};
use crate::backend::testing::MemoryBackend;
use crate::backend::{Backend, Operation};
use crate::catalogue::{Catalogue, NewPack, Placement, PlacementState, SqliteCatalogue};
use crate::config::Config;
use crate::connector::backend::ConfiguredBackend;
use crate::connector::labels::is_identity_name;
use crate::connector::lazy_sandbox::LazySandbox;
use crate::connector::owner::Owner;
use crate::connector::packs::needs_of;
use crate::connector::payload::PackFile;
use crate::connector::store::Change;
use crate::connector::swap_log::CatalogueSwapLog;
use crate::connector::{Host, HostInner, HostOptions, ImportOptions, StoreOptions};
use crate::runtime::{EngineOptions, SwapLog};
use crate::snapshot::pages::{Base, Chain, Options, Pack, PackSource, Profile, encode_delta};
use crate::snapshot::{FileSource, Identity, PAGE, SegmentDigests, Source, StreamSource, pages, segment_digest};
use crate::types::{Clock, Entropy, ErrorKind, ObjectId, Platform, Result, SnapshotId};

/// The images that there are: two of one size, and one of none. All others begin with the same page.
static IMAGES: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let pages = |bytes: &[u8]| bytes.iter().flat_map(|byte| vec![*byte; PAGE]).collect::<Vec<u8>>();
    let image = |bytes: &[u8], end: &[u8]| [pages(bytes), end.to_vec()].concat();
    [image(&[1, 2], b"one"), image(&[1, 3], b"two"), image(&[1, 3, 4], b"longer"), Vec::new()]
});
/// The changes that packs are made of: the base, and the change whose pack it lies in, if not as it is; the image.
pub(super) const CHANGES: [(usize, Option<usize>, usize); 5] =
    [(0, None, 1), (1, Some(0), 2), (1, None, 2), (1, None, 0), (2, Some(1), 0)];
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
";

/// How many runs ended with packs, and with objects of removed snapshots that packs need.
pub(super) static ENDED_WITH_PACKS: AtomicU64 = AtomicU64::new(0);
pub(super) static ENDED_WITH_KEPT: AtomicU64 = AtomicU64::new(0);

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
            apply_places: Default::default(),
            deletions: Default::default(),
            secrets: None,
        };
        Host { inner: Arc::new(inner) }
    }
}

/// The packs of all changes.
fn packs() -> Vec<Arc<PackFile>> {
    let mut chains: Vec<(Arc<Pack>, Vec<Arc<Pack>>)> = Vec::new();
    let mut files = Vec::new();
    for (base, within, image) in CHANGES {
        let identity = identity_of(base);
        let chain = match within {
            Some(change) => Chain::new(chains[change].0.clone(), chains[change].1.clone()).unwrap(),
            None => Chain::new(Arc::new(Pack::raw(&identity).unwrap()), Vec::new()).unwrap(),
        };
        let [old, new] = [base, image].map(|image| MemoryImage(&IMAGES[image]));
        let parts = Base { chain: &chain, identity: &identity, image: Some(&old), digests: None };
        let mut bytes = Vec::new();
        let mut sink = |some: bytes::Bytes| {
            bytes.extend_from_slice(&some);
            Ok(())
        };
        let encoded = encode_delta(&new, &parts, None, &Options::new(Profile::Compact), None, &mut sink).unwrap();
        assert_eq!(encoded.identity.id(), id_of(image));
        let pack = NewPack { id: encoded.pack.id(), needs: needs_of(&encoded.pack) };
        assert!(!pack.needs.is_empty());
        let of_chain = |source: &PackSource| chain.packs().iter().find(|pack| pack.id() == source.id).unwrap().clone();
        let sources = encoded.pack.sources().iter().map(of_chain).collect();
        chains.push((encoded.pack.clone(), sources));
        let file = FileSource::new(temporary(&bytes), "the delta").unwrap();
        files.push(Arc::new(PackFile { file, identity: Arc::new(encoded.identity), pack }));
    }
    files
}

struct MemoryImage(&'static [u8]);

impl pages::Image for MemoryImage {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

fn temporary(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}

fn source(image: usize, stream: bool) -> Source {
    if stream {
        return Source::Stream(StreamSource::new(&IMAGES[image][..], "stream"));
    }
    Source::File(FileSource::new(temporary(&IMAGES[image]), "image").unwrap())
}

fn identity_of(image: usize) -> Identity {
    let bytes = &IMAGES[image];
    let digests = if bytes.is_empty() { Vec::new() } else { vec![segment_digest(bytes)] };
    Identity::new(bytes.len() as u64, SegmentDigests::new(digests)).unwrap()
}

fn id_of(image: usize) -> SnapshotId {
    static IDS: LazyLock<[SnapshotId; 4]> = LazyLock::new(|| [0, 1, 2, 3].map(|image| identity_of(image).id()));
    IDS[image]
}

fn options(name: usize, route: usize) -> StoreOptions {
    let (route, name) = (Some(ROUTES[route].to_owned()), NAMES[name].map(str::to_owned));
    StoreOptions { route, name, ..StoreOptions::default() }
}

async fn read(host: &Host, image: usize) -> Result<Vec<u8>> {
    forget(host);
    Ok(host.retrieve(id_of(image), None).await?.body.collect(1 << 20).await?.to_vec())
}

/// Forgets what was read before: it would hide that something is gone.
fn forget(host: &Host) {
    host.inner.recent_frames.forget();
    host.inner.recent_packs.forget();
}

/// The reports of the tasks.
#[derive(Default)]
struct Report {
    acknowledged: BTreeSet<usize>,
    wrong: Vec<String>,
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
            let change = Change { base: Some(id_of(base)), pack: Some(&packs[change]) };
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

fn stays(last: &Event, acknowledged: &BTreeSet<usize>) -> bool {
    matches!(last.what, Happened::Recorded(task) if acknowledged.contains(&task))
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

/// Checks the invariants after the end, when one more collection has run.
async fn judge(
    host: Host,
    catalogue: &WatchedCatalogue,
    backends: &[Arc<WatchedBackend>; 2],
    report: Report,
) -> std::result::Result<(), String> {
    if let Some(wrong) = report.wrong.first() {
        return Err(wrong.clone());
    }
    backends.iter().for_each(|backend| backend.inner.fail_no_more());
    let collected = host.gc(Duration::ZERO).await.map_err(|error| format!("the last gc: {error:?}"))?;
    if !collected.failed.is_empty() {
        return Err(format!("the last gc: {:?}", collected.failed));
    }
    let events = catalogue.events.lock().unwrap().clone();
    for (image, bytes) in IMAGES.iter().enumerate() {
        let last = events.iter().rfind(|event| event.id == id_of(image));
        if last.is_some_and(|last| stays(last, &report.acknowledged)) {
            // A read tries those that are bad, too, and heals them: so this is looked at before.
            let placements = Catalogue::placements(&catalogue.inner, id_of(image)).await.unwrap();
            if !placements.iter().any(|placement| placement.state == PlacementState::Live) {
                return Err(format!(
                    "image {image} was acknowledged and not removed, and is live nowhere: {placements:?}"
                ));
            }
            match read(&host, image).await {
                Ok(read) if read == *bytes => {}
                other => return Err(format!("image {image} was acknowledged and not removed: {other:?}")),
            }
        }
    }
    judge_needs(catalogue, backends, &events, &report).await?;
    let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (image, _) in IMAGES.iter().enumerate() {
        for placement in Catalogue::placements(&catalogue.inner, id_of(image)).await.unwrap() {
            if placement.state == PlacementState::Removing {
                return Err(format!("a removal has not ended: {placement:?}"));
            }
            let backend = backends.iter().find(|backend| backend.name() == placement.backend).unwrap();
            // A store that was given up just after its record has not looked whether its object outlived a removal.
            let last = events.iter().rfind(|event| event.id == id_of(image));
            let live =
                placement.state == PlacementState::Live && last.is_some_and(|last| stays(last, &report.acknowledged));
            if live && !backend.inner.objects().contains(&placement.object.as_str().to_owned()) {
                return Err(format!("an object is missing: {placement:?}"));
            }
            known.entry(backend.name()).or_default().insert(placement.object.as_str().to_owned());
        }
    }
    // Where names follow from bytes, they hold no key that would lead to what a store has left.
    let keyed = backends[0].inner.objects().into_iter();
    let unknown: Vec<_> = keyed
        .filter(|name| !is_identity_name(name) && !known.get("keyed").is_some_and(|known| known.contains(name)))
        .collect();
    let claims = Catalogue::claims(&catalogue.inner).await.unwrap();
    let intents = Catalogue::stats(&catalogue.inner).await.unwrap().intents;
    match (unknown.is_empty(), claims.is_empty(), intents) {
        (true, true, 0) => Ok(()),
        _ => Err(format!("gc has left {unknown:?}, {claims:?}, {intents} intents")),
    }
}

/// Checks that each copy has what it needs on its own backend, and that nothing is kept in vain.
async fn judge_needs(
    catalogue: &WatchedCatalogue,
    backends: &[Arc<WatchedBackend>; 2],
    events: &[Event],
    report: &Report,
) -> std::result::Result<(), String> {
    let needs = catalogue.inner.all_needs().await.unwrap();
    ENDED_WITH_PACKS.fetch_add(u64::from(!needs.is_empty()), Ordering::Relaxed);
    let mut kept = 0;
    for (image, _) in IMAGES.iter().enumerate() {
        let id = id_of(image);
        let placements = Catalogue::placements(&catalogue.inner, id).await.unwrap();
        let kept_alone = Catalogue::get(&catalogue.inner, id).await.unwrap().is_none();
        let last = events.iter().rfind(|event| event.id == id);
        let counts = last.is_some_and(|last| stays(last, &report.acknowledged));
        kept += u64::from(kept_alone && !placements.is_empty());
        for placement in &placements {
            let needed = needs.iter().any(|(backend, _, needed)| *backend == placement.backend && *needed == id);
            if kept_alone && !needed {
                return Err(format!("image {image} was removed and nothing needs it: {placement:?}"));
            }
            let backend = backends.iter().find(|backend| backend.name() == placement.backend).unwrap();
            let Placement { backend: name, object, .. } = placement;
            for need in Catalogue::needs_of(&catalogue.inner, name, object).await.unwrap() {
                let sources = Catalogue::placements(&catalogue.inner, need.snapshot).await.unwrap();
                let sound = |source: &Placement| {
                    let there = source.backend == *name && source.is_pack(need.pack);
                    there && backend.inner.bytes(source.object.as_str()).is_some()
                };
                if counts && placement.state == PlacementState::Live && !sources.iter().any(sound) {
                    return Err(format!("image {image} lacks {need:?} on its backend: {placement:?}, {sources:?}"));
                }
            }
        }
        if placements.is_empty() && Catalogue::get_kept(&catalogue.inner, id).await.unwrap().is_some() {
            return Err(format!("image {image} is nowhere and known"));
        }
    }
    ENDED_WITH_KEPT.fetch_add(kept.min(1), Ordering::Relaxed);
    for (backend, object, needed) in needs {
        let name = ObjectId::new(object.as_str()).unwrap();
        if Catalogue::placement_of(&catalogue.inner, &backend, &name).await.unwrap().is_none() {
            return Err(format!("nothing knows of object {object} on {backend}, which needs {needed}"));
        }
    }
    Ok(())
}
