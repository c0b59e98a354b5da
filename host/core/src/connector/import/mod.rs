//! Import: the catalogue rebuilt, or brought up to date, from what a backend holds.
//!
//! ```text
//! list ── in order of time ──▶ known? under way? foreign? ── the rest ──▶ stat ──▶ read and hash ──▶ record, some at once
//! ```
//!
//! What a snapshot is follows from its bytes, so every object that is not known is read once; what the backend says of it
//! (its base, its labels, its time) only describes it. Objects that are known are compared with the listing and not read.
//!
//! **It can be cut short and run again at any time, beside anything else.** What was read is recorded in transactions of
//! some objects; the next run finds those known and goes on with the rest. A store that is under way in any process on
//! this catalogue is seen by its intent, and its object left alone. Nothing on the backend is changed, and nothing in the
//! catalogue but what is missing there.
//!
//! **Memory** does not grow with the number of objects: the list lies on disk (`catalogue/queue.rs`), some are taken from it
//! at once, few are read at once, and the report names the first thousand that were left alone.
//!
//! **Limits.** A name that was given to a snapshot when its bytes were stored already is in the catalogue alone. What lists
//! is the adapter: objects that it does not take for its own have to be named. An object whose name holds no key of a host
//! and is shorter than a digest counts as foreign.

mod examine;
mod report;

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream;

pub use report::{ImportProgress, ImportStep, Imported, ImportedSnapshot, LeftAlone, LeftState};

use super::Host;
use super::labels::{keys_in, may_be_ours};
use crate::catalogue::{Adopted, ImportItem, ImportQueue, Known, PlacementState};
use crate::runtime::Slot;
use crate::types::{Error, ObjectId, Result, SnapshotId};
use examine::{Examined, Finding};
use report::Meter;

/// Objects that are listed at once.
const PAGE: u32 = 1000;
/// Objects that are taken from the list at once, and so compared with the catalogue at one moment.
const BATCH: u32 = 256;
/// Objects that are read at once. Each takes a few MiB of memory.
const AT_ONCE: usize = 8;
/// Objects that are recorded at once, at the most.
const RECORDED: usize = 64;
/// The most objects that are believed: a listing without an end fills the disk.
const MAX_OBJECTS: u64 = 100_000_000;
/// The most pages in a row without an object: an adapter may have to pass over what is none of its own.
const MAX_BARREN: u32 = 100_000;
/// After how many objects in a row that the backend could not give it counts as down.
const PATIENCE: u32 = 32;

/// What to import, and how.
#[derive(Clone, Default)]
pub struct ImportOptions {
    /// These objects, by the backend's names, whoever stored them. Empty: all that the adapter lists.
    pub objects: Vec<ObjectId>,
    /// Also those listed objects that no host seems to have stored.
    pub foreign: bool,
    /// Ask for a restore of what is in cold storage, which costs money. A later import reads it.
    pub restore: bool,
    /// Is told how far it is.
    pub progress: Option<ImportProgress>,
}

impl Host {
    /// Records what a backend holds and the catalogue does not know. Safe to be dropped, to run again, and to run beside
    /// everything else.
    ///
    /// # Errors
    /// `not-found` for an unknown backend; `unsupported` if its adapter cannot list and no objects are named; what the
    /// backend says if it does not answer any more. What is wrong with a single object is in the answer, not an error.
    pub async fn import(&self, backend: &str, options: ImportOptions) -> Result<Imported> {
        let began = Instant::now();
        let slot = &self.backend(backend).await?.slot;
        let mut run = Run {
            host: self,
            backend,
            slot,
            queue: ImportQueue::new().await?,
            named: !options.objects.is_empty(),
            report: Imported { backend: backend.to_owned(), ..Imported::default() },
            meter: Arc::new(Meter::new(options.progress.clone())),
            answers: Vec::new(),
            silent: 0,
            options: &options,
        };
        if run.named {
            run.queue.name(options.objects.clone()).await?;
            run.meter.found(options.objects.len() as u64);
        } else {
            run.list().await?;
        }
        run.work().await?;
        run.settle_bases().await?;
        Ok(run.finish(began))
    }
}

struct Run<'a> {
    host: &'a Host,
    backend: &'a str,
    slot: &'a Slot,
    options: &'a ImportOptions,
    queue: ImportQueue,
    /// Whether the caller named the objects.
    named: bool,
    report: Imported,
    meter: Arc<Meter>,
    /// What is in the objects that the caller named, with their places in his order.
    answers: Vec<(u64, ImportedSnapshot)>,
    /// Objects in a row that the backend could not give.
    silent: u32,
}

impl Run<'_> {
    /// Takes down everything that the adapter lists.
    async fn list(&mut self) -> Result<()> {
        if !self.slot.current().adapter().optional_interfaces().contains(&"inventory") {
            return Err(Error::unsupported("its adapter cannot list objects")
                .on_backend(self.backend)
                .during("import")
                .hint(format!("name the objects: `tidelock import {} OBJECT…`", self.backend)));
        }
        let (mut cursor, mut barren) = (None, 0);
        loop {
            let page = self.slot.list_objects(cursor.clone(), PAGE).await?;
            let listed = page.entries.len();
            let new = self.queue.add(page.entries).await?;
            self.meter.found(new as u64);
            barren = if new == 0 { barren + 1 } else { 0 };
            let circles = (listed > 0 && new == 0) || page.next == cursor || barren > MAX_BARREN;
            match page.next {
                None => break,
                Some(_) if circles => return Err(self.endless("is cyclic")),
                Some(_) if self.meter.step().objects > MAX_OBJECTS => {
                    return Err(self.endless(&format!("has more than {MAX_OBJECTS} objects")));
                }
                Some(next) => cursor = Some(next),
            }
        }
        self.queue.sort().await
    }

    fn endless(&self, why: &str) -> Error {
        Error::corrupt(format!("the adapter's listing {why}")).on_backend(self.backend).during("import")
    }

    async fn work(&mut self) -> Result<()> {
        let mut after = 0;
        loop {
            let batch = self.queue.page(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = last.number;
            let unknown = self.sift(batch).await?;
            let (slot, meter) = (self.slot, self.meter.clone());
            let days = self.host.backend(self.backend).await?.restore_days;
            let restore = self.options.restore.then_some(days);
            // In order, so that the catalogue lists snapshots in the order in which they were stored.
            let examined =
                stream::iter(unknown).map(|item| examine::examine(slot, item, restore, &meter)).buffered(AT_ONCE);
            let mut examined = std::pin::pin!(examined.ready_chunks(RECORDED));
            while let Some(some) = examined.next().await {
                self.record(some).await?;
                self.meter.done(self.report.done());
            }
        }
    }

    /// Deals with what needs no look at the backend, and gives the rest.
    async fn sift(&mut self, batch: Vec<ImportItem>) -> Result<Vec<ImportItem>> {
        let objects = batch.iter().map(|item| item.object.clone()).collect();
        let standing = self.host.inner.catalogue.standing(self.backend, objects).await?;
        let features = self.slot.current().adapter().description().features;
        let mut unknown = Vec::new();
        for (item, known) in batch.into_iter().zip(standing.known) {
            if keys_in(item.object.as_str()).any(|key| standing.under_way.contains(key)) {
                let why = "its store is in progress or was interrupted; `tidelock gc` removes leftovers";
                self.report.leave(item.object, LeftState::UnderWay, why);
            } else if let Some(known) = known {
                // Where labels are kept, the base was recorded with the snapshot.
                if features.lineage && !features.labels && !known.has_base {
                    self.look_for_base(&item).await?;
                }
                self.compare(item, known);
            } else if !self.named && !self.options.foreign && !may_be_ours(item.object.as_str()) {
                self.report.leave(item.object, LeftState::Foreign, "its name was not assigned by a host");
            } else {
                unknown.push(item);
            }
        }
        Ok(unknown)
    }

    /// Whether a known object is still as it was recorded, as far as the listing says.
    fn compare(&mut self, item: ImportItem, known: Known) {
        let Known { snapshot, stored_bytes, state, .. } = known;
        match item.size {
            Some(size) if size != stored_bytes && state != PlacementState::Removing => {
                let why = format!("it has {size} bytes, but {stored_bytes} are recorded for {snapshot}");
                self.report.leave(item.object, LeftState::Damaged, why);
            }
            _ => {
                self.report.known += 1;
                self.answer(item.number, item.object, snapshot);
            }
        }
    }

    fn answer(&mut self, number: u64, object: ObjectId, id: SnapshotId) {
        if self.named {
            self.answers.push((number, ImportedSnapshot { object, id }));
        }
    }

    /// An import that was cut short may have recorded a snapshot and not yet its base.
    async fn look_for_base(&mut self, item: &ImportItem) -> Result<()> {
        match self.slot.stat(&item.object).await {
            Ok(stat) => match stat.base {
                Some(base) => self.queue.defer_bases(vec![(item.number, base)]).await,
                None => Ok(()),
            },
            Err(error) => {
                tracing::warn!(backend = self.backend, object = %item.object, %error, "cannot find its base");
                Ok(())
            }
        }
    }

    async fn record(&mut self, examined: Vec<Examined>) -> Result<()> {
        let (mut adopted, mut numbers, mut down) = (Vec::<Adopted>::new(), Vec::new(), None);
        for Examined { item, finding } in examined {
            match finding {
                Finding::Snapshot(found) => {
                    self.silent = 0;
                    numbers.push(item.number);
                    adopted.push(found.placed(self.backend, item));
                }
                Finding::Left(state, why) => {
                    self.silent = 0;
                    self.report.leave(item.object, state, why);
                }
                Finding::Failed(error) => {
                    self.silent += 1;
                    self.report.leave(item.object, LeftState::Unreachable, error.message());
                    if self.silent >= PATIENCE {
                        down = Some(error);
                    }
                }
            }
        }
        let told: Vec<_> =
            adopted.iter().map(|one| (one.placement.object.clone(), one.snapshot.id, one.base.clone())).collect();
        let unsettled = self.host.inner.catalogue.adopt(adopted).await?;
        self.report.imported += told.len() as u64;
        let mut debts = Vec::new();
        for ((number, (object, id, base)), owes) in numbers.into_iter().zip(told).zip(unsettled) {
            self.answer(number, object, id);
            debts.extend(base.filter(|_| owes).map(|base| (number, base)));
        }
        if !debts.is_empty() {
            self.queue.defer_bases(debts).await?;
        }
        let hint = "run the import again once the backend answers; it continues where it stopped";
        down.map_or(Ok(()), |error| Err(error.hint(hint)))
    }

    /// Bases that came after what was made from them.
    async fn settle_bases(&self) -> Result<()> {
        let mut after = 0;
        loop {
            let deferred = self.queue.deferred_bases(after, BATCH).await?;
            let Some((last, ..)) = deferred.last() else { return Ok(()) };
            after = *last;
            let pairs = deferred.into_iter().map(|(_, object, base)| (object, base)).collect();
            self.host.inner.catalogue.link(self.backend, pairs).await?;
        }
    }

    fn finish(mut self, began: Instant) -> Imported {
        self.answers.sort_by_key(|(number, _)| *number);
        self.report.snapshots = self.answers.into_iter().map(|(_, answer)| answer).collect();
        let step = self.meter.step();
        (self.report.objects, self.report.bytes) = (step.objects, step.bytes);
        self.report.seconds = began.elapsed().as_secs_f64();
        self.report
    }
}
