//! Import: rebuilds the catalogue, or completes it, from the objects of a backend.
//!
//! ```text
//! list ── in order of time ──▶ known? under way? foreign? ── others ──▶ stat ──▶ read and hash ──▶ record in batches
//! ```
//!
//! Only its bytes identify a snapshot, so every unknown object is read once; its metadata on the backend (base, labels,
//! time) only describes it. Known objects are compared with the listing and not read; those that it does not have are looked at.
//!
//! **It can be interrupted and run again at any time, beside any other operation.** Results are recorded in
//! transactions of several objects; the next run finds those known and continues with the others. A store in progress in
//! any process on this catalogue is recognised by its intent, and its object skipped. The catalogue only gains missing
//! records. Once everything is read, objects of removed snapshots are deleted that had stayed since something unknown might
//! have needed them (`connector/looked_through.rs`); nothing else on the backend is changed.
//!
//! **Memory** does not grow with the number of objects: the list is on disk (`catalogue/import_queue.rs`), some are
//! taken from it at once, few are read at once, and the report names the first thousand that were skipped.
//!
//! **What an object says of itself is not trusted.** A name is given where it is free or where this backend gave it before,
//! bases likewise, and no time lies in the future (`catalogue/sqlite/adopt.rs`). Identity objects (`connector/container.rs`)
//! are no snapshots; the first one becomes the identity of a container that has none yet.
//!
//! **Limits.** A name given to a snapshot whose bytes were already stored is in the catalogue only. The adapter lists:
//! objects that it does not regard as its own have to be named. An object whose name contains no key of a host
//! and is shorter than a digest counts as foreign.

mod examine;
mod packs;
mod report;
mod unlisted;

use std::sync::Arc;
use std::time::Instant;

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};

pub use report::{ImportProgress, ImportStep, Imported, ImportedSnapshot, LeftAlone, LeftState};

use super::Host;
use super::labels::{is_identity_name, keys_in, may_be_ours};
use super::listing::Listing;
use super::packs::Sound;
use crate::backend::Backend;
use crate::catalogue::{Adopted, ImportItem, ImportQueue, Known, PlacementState, WantedCopies};
use crate::types::{Encoding, Error, ObjectId, Result, SnapshotId};
use examine::{Examined, Finding, Manner};
use report::Meter;

/// Objects that are listed at once.
const PAGE: u32 = 1000;
/// Objects that are taken from the list at once, and so compared with the catalogue at one moment.
const BATCH: u32 = 256;
/// Objects that are read at once. Each takes a few MiB of memory.
const AT_ONCE: usize = 8;
/// Objects that are recorded at once, at the most.
const RECORDED: usize = 64;
/// Number of unreadable objects in a row after which the backend counts as down.
const PATIENCE: u32 = 32;

/// Why an identity object is left alone.
const IDENTIFIES: &str = "it identifies the container of the backend, and holds no snapshot";

/// The objects to import, and options.
#[derive(Clone, Default)]
pub struct ImportOptions {
    /// These objects, by the backend's names, even from other programs. Empty: all that the adapter lists.
    pub objects: Vec<ObjectId>,
    /// Also those listed objects that no host seems to have stored.
    pub foreign: bool,
    /// Request a restore of objects in cold storage, which costs money. A later import reads them.
    pub restore: bool,
    /// What the bytes of the objects are, whatever their labels say: for named objects alone.
    pub encoding: Option<Encoding>,
    /// Take the container that the backend talks to now for its own, in place of the recorded one, which is lost for good.
    pub new_container: bool,
    /// How many objects the backend may list; `None` is [`MOST_LISTED`](super::MOST_LISTED).
    pub max_objects: Option<u64>,
    /// The route whose copies are wanted of what is recorded; the default one if there is none here. A store notes which
    /// route it took, and that is lost with the catalogue.
    pub route: Option<String>,
    /// Progress callback.
    pub progress: Option<ImportProgress>,
}

impl Host {
    /// Records objects of a backend that the catalogue lacks. Safe to drop, to run again, and to run beside any other
    /// operation.
    ///
    /// # Errors
    /// `not-found` for an unknown backend; `invalid` for an encoding without named objects, and for an unknown route; `unavailable` if it talks to another container than the one that is recorded;
    /// `unsupported` if its adapter cannot list and no objects are named; the
    /// backend's error if it stops answering. Problems of single objects are in the report, not errors.
    pub async fn import(&self, backend: &str, options: ImportOptions) -> Result<Imported> {
        let began = self.inner.platform.now();
        if options.encoding.is_some() && options.objects.is_empty() {
            return Err(Error::invalid("an encoding can be given for named objects only"));
        }
        let wanted = self.wanted_on(options.route.as_deref())?;
        let objects = &*self.backend(backend).await?.objects;
        let since = self.inner.platform.unix_seconds();
        // Before anything of it is recorded.
        let look = self.begin_look(backend, &options).await?;
        let mut run = Run {
            host: self,
            backend,
            objects,
            queue: self.inner.catalogue.import_queue().await?,
            named: !options.objects.is_empty(),
            report: Imported { backend: backend.to_owned(), ..Imported::default() },
            meter: Arc::new(Meter::new(options.progress.clone())),
            answers: Vec::new(),
            silent: 0,
            sound: Sound::default(),
            packs: Vec::new(),
            has_identity: self.inner.catalogue.container(backend).await?.is_some(),
            identity_seen: false,
            options: &options,
            wanted,
        };
        if run.named {
            run.queue.name(options.objects.clone()).await?;
            run.meter.found(options.objects.len() as u64);
        } else {
            run.list().await?;
            // What another container lists, which took the place meanwhile, is not all that there is.
            self.confirm_container(backend).await?;
        }
        run.work().await?;
        run.late_packs().await?;
        run.settle_bases().await?;
        if !run.named && objects.info().inventory {
            run.look_at_unlisted(since).boxed().await?;
        }
        if let Some(look) = look
            && run.has_seen_all()
        {
            self.confirm_container(backend).await?;
            run.report.removed = self.end_look(backend, look).await?.unwrap_or_default();
        }
        run.report.complete = self.inner.catalogue.not_looked_through(vec![backend.to_owned()]).await?.is_empty();
        Ok(run.finish(began))
    }

    /// Makes sure of the container, or of one that takes its place, and begins to look through the backend, unless that
    /// was done.
    async fn begin_look(&self, backend: &str, options: &ImportOptions) -> Result<Option<u64>> {
        let catalogue = &self.inner.catalogue;
        // One of which nothing is known and that does not answer has said nothing of what it has.
        if options.objects.is_empty() && catalogue.container(backend).await?.is_none() {
            self.answers(backend).await?;
        }
        let look = match self.can_have_packs(backend).await? {
            true => catalogue.begin_look(backend, false).await?,
            false => {
                self.pass_over_looks(vec![backend.to_owned()]).await?;
                None
            }
        };
        if !options.new_container {
            self.check_container(backend).await?;
            return Ok(look);
        }
        let replaced = self.replace_container(backend).await?;
        let lists = self.backend(backend).await?.objects.info().inventory;
        match replaced && lists && self.can_have_packs(backend).await? {
            true => catalogue.begin_look(backend, true).await,
            false => Ok(look),
        }
    }
}

struct Run<'a> {
    host: &'a Host,
    backend: &'a str,
    objects: &'a dyn Backend,
    options: &'a ImportOptions,
    /// What is wanted of the snapshots that are recorded.
    wanted: WantedCopies,
    queue: Box<dyn ImportQueue>,
    /// Whether the caller named the objects.
    named: bool,
    report: Imported,
    meter: Arc<Meter>,
    /// The snapshots in the named objects, with their positions in the given order.
    answers: Vec<(u64, ImportedSnapshot)>,
    /// Objects in a row that the backend did not return.
    silent: u32,
    /// What was looked at of objects that were absent before.
    sound: Sound,
    /// The numbers of the packs that have come before what they take pages from.
    packs: Vec<u64>,
    /// Whether the container's identity is known, and whether it was listed.
    has_identity: bool,
    identity_seen: bool,
}

impl Run<'_> {
    /// Takes down everything that the adapter lists.
    async fn list(&mut self) -> Result<()> {
        if !self.objects.info().inventory {
            if self.options.new_container {
                // That was all that was asked for.
                return self.queue.sort().await;
            }
            return Err(Error::unsupported("its adapter cannot list objects")
                .on_backend(self.backend)
                .during("import")
                .hint(format!("name the objects: `tidelock import {} OBJECT…`", self.backend)));
        }
        let mut cursor = None;
        let mut listing = Listing::of(self.backend, "import", self.options.max_objects).kept();
        loop {
            let mut page = self.objects.list(cursor.clone(), PAGE).await?;
            // Before they are kept, which takes room.
            listing.page(&page)?;
            let listed = page.entries.len();
            for identity in page.entries.extract_if(.., |entry| is_identity_name(entry.id.as_str())) {
                self.identified(&identity.id).await?;
            }
            let only_identities = page.entries.is_empty();
            let new = self.queue.add(page.entries).await?;
            self.meter.found(new as u64);
            let circles = (listed > 0 && new == 0 && !only_identities) || page.next == cursor;
            match page.next {
                None => break,
                Some(_) if circles => return Err(listing.cyclic()),
                Some(next) => cursor = Some(next),
            }
        }
        self.queue.sort().await
    }

    /// Takes note of an identity object.
    async fn identified(&mut self, object: &ObjectId) -> Result<()> {
        self.identity_seen = true;
        self.host.inner.catalogue.record_container(self.backend, object, None, None).await.map(drop)
    }

    /// Returns whether everything that may be a pack, or may be needed by one, was read. Where the adapter cannot list, the caller
    /// knows what there is.
    fn has_seen_all(&self) -> bool {
        let all = !self.named || !self.objects.info().inventory;
        // What could not be read may be a pack, and a listing without the identity of its container does not have everything.
        let report = &self.report;
        let lacks = report.unreachable + report.pending + report.damaged + report.gone + report.unlisted;
        all && lacks == 0 && (self.named || self.identity_seen || !self.has_identity)
    }

    async fn work(&mut self) -> Result<()> {
        let mut after = 0;
        loop {
            let batch = self.queue.page(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = last.number;
            let unknown = self.sift(batch).await?;
            let (objects, meter) = (self.objects, self.meter.clone());
            let days = self.host.backend(self.backend).await?.restore_days;
            let how = Manner { restore: self.options.restore.then_some(days), encoding: self.options.encoding };
            // In order, so that the catalogue lists snapshots in the order in which they were stored.
            let examined =
                stream::iter(unknown).map(|item| examine::examine(objects, item, how, &meter)).buffered(AT_ONCE);
            let mut examined = std::pin::pin!(examined.ready_chunks(RECORDED));
            while let Some(some) = examined.next().await {
                self.record_in_order(some).await?;
                self.meter.done(self.report.done());
            }
        }
    }

    /// Handles objects that need no access to the backend, and returns the others.
    async fn sift(&mut self, batch: Vec<ImportItem>) -> Result<Vec<ImportItem>> {
        let objects = batch.iter().map(|item| item.object.clone()).collect();
        let standing = self.host.inner.catalogue.standing(self.backend, objects).await?;
        let features = self.objects.info().features;
        let mut unknown = Vec::new();
        for (item, known) in batch.into_iter().zip(standing.known) {
            if keys_in(item.object.as_str()).any(|key| standing.under_way.contains(key)) {
                let why = "its store is in progress or was interrupted; `tidelock gc` removes leftovers";
                self.report.leave(item.object, LeftState::UnderWay, why);
            } else if self.named && is_identity_name(item.object.as_str()) {
                self.report.leave(item.object, LeftState::Foreign, IDENTIFIES);
            } else if let Some(known) = known {
                // Where labels are kept, the base was recorded with the snapshot.
                if features.lineage && !features.labels && !known.has_base {
                    self.look_for_base(&item).await?;
                }
                if known.state == PlacementState::Bad {
                    self.look_again(&item).await?;
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

    /// An object that was absent is there: it is live again if nothing else is wrong with it.
    async fn look_again(&mut self, item: &ImportItem) -> Result<()> {
        let known = self.host.inner.catalogue.placement_of(self.backend, &item.object).await?;
        let Some(bad) = known.filter(|known| known.is_absent() || known.is_lacking()) else { return Ok(()) };
        // Where its digests are damaged, `verify` says so.
        let Ok(identity) = self.host.identity_of(bad.snapshot).await else { return Ok(()) };
        self.host.verify_one(&bad, &identity, false, None, &mut 0, &mut self.sound).await.map(drop)
    }

    /// Returns whether a known object still matches its record, according to the listing.
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

    /// An interrupted import may have recorded a snapshot without its base.
    async fn look_for_base(&mut self, item: &ImportItem) -> Result<()> {
        match self.objects.stat(&item.object).await {
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
        let seals = self.host.configured(self.backend)?.seals();
        for Examined { item, finding } in examined {
            match finding {
                Finding::Snapshot(found) => {
                    self.silent = 0;
                    numbers.push(item.number);
                    adopted.push(found.placed(self.backend, seals, item, &self.wanted));
                }
                // Not among those that come here.
                Finding::Pack => self.packs.push(item.number),
                Finding::Identity if self.named => {
                    self.silent = 0;
                    self.report.leave(item.object, LeftState::Foreign, IDENTIFIES);
                }
                Finding::Identity => {
                    self.silent = 0;
                    self.meter.leave_out();
                    self.identified(&item.object).await?;
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

    /// Bases that were imported after their deltas.
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
        self.report.seconds = self.host.inner.platform.since(began).as_secs_f64();
        self.report
    }
}
