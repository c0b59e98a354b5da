//! A good copy in place of a bad placement.
//!
//! The new object is on the same backend, made from another live placement of which every byte is checked, read back to its end
//! before it is recorded, and recorded in the transaction that begins the removal of the bad one. A pack is replaced by the same
//! pack where another backend has it or it can be made again (`remake.rs`), and this one has what it needs, since others may take
//! pages from this very pack; by the whole image otherwise. What is alone and yet can be read, since its label is what is lost, is
//! stored again from itself. Packs that take pages from one that is bad are bad themselves until it is repaired, and have jobs of their own:
//! if it cannot be had any more they become whole, from their other copies or as far as other backends complete them, and it
//! goes when the last of them is whole.

use std::sync::Arc;

use futures::FutureExt as _;

use super::report::{MadeObject, RepairReport};
use super::run::Worked;
use super::this_run::Run;
use crate::catalogue::{HeldJob, Job, JobCommit, JobKind, JobState, Placement, PlacementState, Take};
use crate::config::HOT;
use crate::connector::change::Change;
use crate::connector::packs::{Caches, Sound};
use crate::connector::payload::PackFile;
use crate::connector::report::BadPlacement;
use crate::connector::store::StoredCopy;
use crate::connector::verify::Verdict;
use crate::connector::{Host, StoreOptions};
use crate::snapshot::Identity;
use crate::types::{Encoding, Error, ErrorKind, Result, SnapshotId};

impl Host {
    /// Reads every byte of every placement of a snapshot, and repairs those that are bad, and those of other snapshots that it
    /// takes pages from, as far as that can be done. What could not be repaired is left to its job.
    ///
    /// # Errors
    /// `not-found`; errors of the catalogue. What cannot be repaired is in the report.
    pub async fn repair(&self, id: SnapshotId) -> Result<RepairReport> {
        let verified = self.verify(Some(id), true, None).await?;
        let mut report = RepairReport {
            id,
            checked: verified.checked,
            damaged: verified.bad,
            repaired: Vec::new(),
            unrepaired: verified.unreachable,
        };
        let run = Run::new(self, None, None);
        for bad in self.bad_placements(id).await? {
            let outcome = match self.job_for(JobKind::Repair, &bad).await? {
                Some(job) => self.run_one(Take::This(job.id), &run).await?,
                None => continue,
            };
            match outcome {
                Some(outcome) if outcome.done => report.repaired.extend(outcome.made),
                Some(outcome) => {
                    let why = outcome.why.unwrap_or_default();
                    report.unrepaired.push(BadPlacement::of(&bad, why));
                }
                None => {
                    let why = "another host is about to repair it".to_owned();
                    report.unrepaired.push(BadPlacement::of(&bad, why));
                }
            }
        }
        Ok(report)
    }

    /// The bad placements of a snapshot, after those that it takes pages from.
    async fn bad_placements(&self, id: SnapshotId) -> Result<Vec<Placement>> {
        let catalogue = &self.inner.catalogue;
        let own = catalogue.placements(id).await?;
        let mut bad = Vec::new();
        for placement in own.iter().filter(|placement| placement.pack.is_some()) {
            for need in catalogue.needs_of(&placement.backend, &placement.object).await? {
                let needed = catalogue.placements(need.snapshot).await?.into_iter();
                bad.extend(needed.filter(|p| p.backend == placement.backend && p.is_pack(need.pack)));
            }
        }
        bad.extend(own);
        bad.retain(|placement| placement.state == PlacementState::Bad);
        let mut seen = std::collections::HashSet::new();
        bad.retain(|placement| seen.insert((placement.backend.clone(), placement.object.clone())));
        Ok(bad)
    }

    /// Runs a [`JobKind::Repair`].
    pub(super) async fn run_repair(&self, job: &Job, held: HeldJob, run: &Run) -> Result<Worked> {
        let (Some(backend), Some(object)) = (&job.backend, &job.object) else {
            return Ok(Worked::nothing("it names no object"));
        };
        let Some(bad) = self.inner.catalogue.placement_of(backend, object).await? else {
            return Ok(Worked::nothing("the placement is gone"));
        };
        match bad.state {
            PlacementState::Bad => {}
            PlacementState::Live | PlacementState::Suspect => return Ok(Worked::nothing("it is not bad any more")),
            PlacementState::Removing => return Ok(Worked::nothing("it is being removed")),
        }
        run.check(backend)?;
        run.tries();
        // Opened and looked at, so that what is away is not taken for what is lost.
        self.backend(backend).await?;
        self.confirm_container(backend).await?;
        if backend == HOT {
            self.let_hot_packs_go(&bad).await?;
            let now = self.inner.catalogue.placement_of(backend, object).await?;
            if now.is_none_or(|now| now.state != PlacementState::Bad) {
                return Ok(Worked::nothing("it went with the last of what took pages from it"));
            }
        }
        let identity = self.identity_of(bad.snapshot).await?;
        if bad.is_absent() && self.is_back(&bad, &identity).boxed().await? {
            return Ok(Worked::nothing("its object is there again, and every byte of it is right"));
        }
        let mut sources = self.copies_of(bad.snapshot, Some(&bad)).await?;
        if bad.is_lacking() {
            let verdict = self.verify_one(&bad, &identity, false, None, &mut 0, &mut Sound::default()).await?;
            if let Verdict::Sound = verdict {
                return Ok(Worked::nothing("what it takes pages from is there again, or the whole image is"));
            }
            if self.has_a_source_to_repair(&bad).await? {
                return Err(Error::unavailable("what it takes pages from is repaired first"));
            }
            // Another backend may complete it. All that is read is checked.
            sources.push(bad.clone());
        } else if sources.is_empty() && backend != HOT {
            let mut sound = Sound::of(true);
            if let Verdict::Sound = self.verify_one(&bad, &identity, true, None, &mut 0, &mut sound).await? {
                return Ok(Worked::nothing("every byte of it is right"));
            }
            // What is wrong may be its label, or parts of a base that it does not need; these come from wherever they are.
            if self.read_all(&bad, &identity, Caches::Use).boxed().await.is_ok() {
                sources.push(bad.clone());
            }
        }
        if sources.is_empty() {
            return Err(Error::unavailable("there is no other live copy to repair it from")
                .hint("store the image again if you still have it"));
        }
        if backend == HOT {
            // It is an image at hand, and comes back with the next store or update. It may have the only good bytes of a part, so
            // another copy is proven first.
            for source in sources {
                let (mut read, mut sound) = (0, Sound::of(true));
                if let Verdict::Sound = self.verify_one(&source, &identity, true, None, &mut read, &mut sound).await? {
                    self.retire_bad(&bad, &source.backend).boxed().await?;
                    return Ok(Worked::nothing("the image is not kept hot any more"));
                }
            }
            return Err(Error::unavailable("no other copy is sound"));
        }
        // The same pack would lack the same.
        let same = if bad.is_lacking() { None } else { self.same_pack(&bad, &identity, run).boxed().await? };
        let (mut last, mut made) = (None, None);
        for source in sources {
            if let Err(error) = run.enter(&source.backend, backend) {
                last = Some(error);
                continue;
            }
            let remade = match same {
                Some(_) => None,
                None if bad.is_lacking() => None,
                None => self.remade_pack(&bad, &source, &identity, run).boxed().await.unwrap_or_else(|error| {
                    tracing::warn!(backend = source.backend, %error, "cannot make the pack again from this copy");
                    None
                }),
            };
            let pack = same.as_ref().or(remade.as_ref());
            let replaced = self.replace(&bad, &source, pack, &identity, held, run).boxed().await;
            run.ended(backend, &replaced);
            match replaced {
                Ok(object) => {
                    made = Some(object);
                    break;
                }
                Err(error) if source.object == bad.object && source.backend == bad.backend => {
                    last = Some(
                        Error::unavailable(format!("no other live copy of it can be read: {}", error.message()))
                            .hint("store the image again if you still have it"),
                    );
                }
                Err(error) => last = Some(self.at_its_source(error, &source, backend, &identity).await?),
            }
        }
        let Some(made) = made else {
            return Err(last.unwrap_or_else(|| Error::unavailable("no other copy could be read")));
        };
        self.inner.jobs.made(JobKind::Repair, made.bytes);
        // What takes its place was read back there.
        self.retire_bad(&bad, backend).boxed().await?;
        Ok(Worked::made(vec![made]))
    }

    /// Returns whether an object that was absent is there again and is right: then it is live.
    async fn is_back(&self, bad: &Placement, identity: &Arc<Identity>) -> Result<bool> {
        if self.verify_size(bad, identity.size()).await.is_err() {
            return Ok(false);
        }
        match self.verify_one(bad, identity, true, None, &mut 0, &mut Sound::default()).await? {
            Verdict::Sound => Ok(true),
            _ => Ok(false),
        }
    }

    /// The pack that a bad placement was, from another placement that has it, or from its own object if that is whole; `None` if
    /// none is, or it was no pack.
    async fn same_pack(&self, bad: &Placement, identity: &Arc<Identity>, run: &Run) -> Result<Option<Arc<PackFile>>> {
        let Some(id) = bad.pack else { return Ok(None) };
        let mut there = self.readable_of(self.inner.catalogue.placements_of_pack(id).await?)?;
        there.retain(|p| p.state == PlacementState::Live && (&p.backend, &p.object) != (&bad.backend, &bad.object));
        if !bad.is_absent() {
            there.push(bad.clone());
        }
        for placement in there {
            // Rather later than as an image: others may take pages from this very pack.
            run.enter(&placement.backend, &bad.backend)?;
            match self.pack_on(&placement, identity, &run.meter).await {
                Ok(pack) => return Ok(Some(pack)),
                Err(error) => tracing::warn!(backend = placement.backend, %error, "cannot take the pack from here"),
            }
        }
        Ok(None)
    }

    /// Makes a good object in place of a bad one, and records it.
    async fn replace(
        &self,
        bad: &Placement,
        source: &Placement,
        same: Option<&Arc<PackFile>>,
        identity: &Arc<Identity>,
        held: HeldJob,
        run: &Run,
    ) -> Result<MadeObject> {
        let snapshot = self.inner.catalogue.get_kept(bad.snapshot).await?;
        let change = Change {
            base: snapshot.as_ref().and_then(|snapshot| snapshot.base),
            pack: same,
            needed: true,
            ..Change::default()
        };
        let options = StoreOptions {
            name: snapshot.and_then(|snapshot| snapshot.name),
            // Somebody may use the object as it is.
            raw: bad.encoding == Encoding::Raw,
            route: self.route_of(bad.snapshot, &bad.backend).await?,
            ..StoreOptions::default()
        };
        let image = self.image_on(source, identity, &run.meter);
        let copy = self.copy_to(&bad.backend, image, change, &options, &mut Some(identity.clone())).await?;
        let copy = self.read_back(copy, identity).boxed().await?;
        let info = copy.info();
        let bytes = copy.made().map_or(0, |(_, size)| size);
        let why = format!("from {}", source.backend);
        self.record_further(copy, JobCommit { held, what: "repaired", why }).await?;
        let object = info.map_or_else(|| bad.object.clone(), |info| info.object);
        Ok(MadeObject { backend: bad.backend.clone(), object, from: source.backend.clone(), bytes })
    }

    /// A route that a snapshot was stored on and that is configured: one that leads to this backend, if there is one.
    pub(super) async fn route_of(&self, id: SnapshotId, backend: &str) -> Result<Option<String>> {
        let Some(wanted) = self.inner.catalogue.wanted(id).await? else { return Ok(None) };
        let Ok(routes) = self.on_routes(&wanted) else { return Ok(None) };
        let leads = routes.iter().find(|route| route.backends().any(|one| one == backend)).or(routes.first());
        Ok(leads.map(|route| route.name.to_owned()))
    }

    /// Returns whether something that a pack takes pages from is about to be repaired, which may make the pack good.
    async fn has_a_source_to_repair(&self, pack: &Placement) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        for need in catalogue.needs_of(&pack.backend, &pack.object).await? {
            for needed in catalogue.placements(need.snapshot).await? {
                let lost = needed.state == PlacementState::Bad && !needed.is_lacking();
                if lost && needed.backend == pack.backend && needed.is_pack(need.pack) {
                    let soon = |job: &Job| {
                        job.kind == JobKind::Repair
                            && job.object.as_ref() == Some(&needed.object)
                            && matches!(job.state, JobState::Queued | JobState::Running)
                    };
                    if catalogue.jobs_of(need.snapshot).await?.iter().any(soon) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Reads every byte of a copy before it is recorded. Removes it if that fails.
    pub(super) async fn read_back(&self, copy: StoredCopy, identity: &Arc<Identity>) -> Result<StoredCopy> {
        let placement = match (copy.made(), copy.info()) {
            (Some(_), _) => copy.unrecorded(),
            (None, Some(info)) => self.inner.catalogue.placement_of(&info.backend, &info.object).await?,
            (None, None) => None,
        };
        let Some(placement) = placement else { return Ok(copy) };
        let Err(error) = self.prove(&placement, identity).await else { return Ok(copy) };
        let there = copy.made().is_none();
        self.discard(vec![copy]).await;
        if there && *error.kind() == ErrorKind::Corrupt {
            self.note_damage(&placement, error.message()).await?;
        }
        Err(Error::new(error.kind().clone(), format!("what was stored cannot be read back: {}", error.message()))
            .on_backend(&placement.backend)
            .during("store")
            .with_source(error))
    }

    /// Removes a bad placement that another one, on the backend `relied`, has taken the place of: every byte of that was just
    /// read. One that packs need goes once these are repaired.
    async fn retire_bad(&self, bad: &Placement, relied: &str) -> Result<()> {
        let catalogue = &self.inner.catalogue;
        let Some(now) = catalogue.placement_of(&bad.backend, &bad.object).await? else { return Ok(()) };
        if now.state != PlacementState::Bad {
            return Ok(());
        }
        if catalogue.retire(&now, relied).await? {
            self.remove_replaced(&bad.backend, bad.snapshot).await;
            return Ok(());
        }
        let backend = &bad.backend;
        let mut waits = !bad.is_lacking();
        for dependent in catalogue.dependents(backend, bad.snapshot).await? {
            if bad.is_lacking() {
                // Its own object is not at fault, so others may go on taking pages from it.
                waits |= dependent.state == PlacementState::Bad;
            } else if dependent.state == PlacementState::Live
                && self.lacks(&dependent, &mut Sound::default()).await? == Some(bad.snapshot)
            {
                self.note_lacking(&dependent, bad.snapshot).await?;
            }
        }
        if !waits {
            return Ok(());
        }
        Err(Error::unavailable("others take pages from it: it goes once they are repaired").on_backend(backend))
    }
}
