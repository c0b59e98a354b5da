//! A full pack in place of one that takes pages from others: its chain ends there, and it can have another profile.
//!
//! The new object is on the same backend, made from a live copy of which every byte is checked, read back to its end before it is
//! recorded, and recorded in the transaction that begins the removal of the old one. The old one stays where packs take pages from
//! it, and is given back when the last of them is gone; so is what was kept for it alone. A host that ends at any point has left the
//! old object, both, or the new one, and the job.

use std::sync::Arc;

use futures::FutureExt as _;

use super::report::{MadeObject, RebaseReport};
use super::run::{Run, Worked};
use crate::catalogue::{HeldJob, Job, JobCommit, JobKind, JobState, Placement, PlacementState, Snapshot, Take};
use crate::config::{HOT, PackProfile};
use crate::connector::packs::{Caches, Sound};
use crate::connector::payload::Payload;
use crate::connector::relied::{LastLook, Reads};
use crate::connector::report::{BadPlacement, PlacementInfo};
use crate::connector::upload::StoreUpload;
use crate::connector::{Host, StoreOptions, encoding};
use crate::snapshot::Identity;
use crate::snapshot::pages::Profile;
use crate::types::{Error, Result, SnapshotId};

/// Long chains that are looked for at once.
const FOUND: u32 = 16;

/// Where a daemon is in its search for long chains.
#[derive(Default)]
pub(super) struct Search {
    /// The last placement that was looked at.
    after: u64,
    /// What was found there and not begun yet, the last first.
    found: Vec<Placement>,
}

impl Host {
    /// Makes full packs of a profile, by default that of the route that the snapshot was stored on, in place of the packs that hold
    /// it. What takes pages from these goes on doing so: then both stay.
    ///
    /// # Errors
    /// `not-found`; `unsupported` for a snapshot that no pack holds; errors of the catalogue. What cannot be rebased is in the report.
    pub async fn rebase(&self, id: SnapshotId, profile: Option<PackProfile>) -> Result<RebaseReport> {
        self.known(id).await?;
        let catalogue = &self.inner.catalogue;
        let mut packs = catalogue.placements(id).await?;
        packs.retain(|p| p.pack.is_some() && p.backend != HOT && p.state != PlacementState::Removing);
        if packs.is_empty() {
            let what = format!("snapshot {id} is stored as it is (`raw`): it takes pages from nothing");
            return Err(
                Error::unsupported(what).hint("packs come from `update`, and from routes with encoding = \"pages\"")
            );
        }
        let profile = match profile {
            Some(profile) => profile,
            None => self.route(self.route_of(id, "").await?.as_deref())?.profile,
        };
        let mut report = RebaseReport::of(id, profile);
        let (kind, run) = (kind_of(profile), Run::new(self, None, None));
        for old in packs {
            let outcome = match self.job_for(kind, &old).await? {
                Some(job) => self.run_one(Take::This(job.id), &run).await?,
                None => None,
            };
            let place = PlacementInfo { backend: old.backend.clone(), object: old.object.clone() };
            match outcome {
                Some(outcome) if outcome.done => {
                    if outcome.made.is_empty() {
                        report.unchanged.push(place.clone());
                    }
                    report.rebased.extend(outcome.made);
                }
                outcome => {
                    let why = outcome.and_then(|outcome| outcome.why);
                    let why = why.unwrap_or_else(|| "another host is about to rebase it".to_owned());
                    report.failed.push(BadPlacement::of(&old, why));
                    continue;
                }
            }
            let now = catalogue.placement_of(&old.backend, &old.object).await?;
            let replaced = report.rebased.iter().any(|made| made.backend == old.backend);
            if replaced && now.is_some_and(|now| now.state != PlacementState::Removing) {
                report.kept.push(place);
            }
        }
        Ok(report)
    }

    /// Runs a [`JobKind::RebaseCompact`] or a [`JobKind::RebaseRandom`].
    pub(super) async fn run_rebase(&self, job: &Job, profile: Profile, held: HeldJob, run: &Run) -> Result<Worked> {
        let (Some(backend), Some(object)) = (&job.backend, &job.object) else {
            return Ok(Worked::nothing("it names no object"));
        };
        let catalogue = &self.inner.catalogue;
        let Some(old) = catalogue.placement_of(backend, object).await? else {
            return Ok(Worked::nothing("the placement is gone"));
        };
        // What is kept for others is kept for this very pack.
        let Some(snapshot) = catalogue.get(old.snapshot).await? else {
            return Ok(Worked::nothing("the snapshot was removed"));
        };
        match old.state {
            PlacementState::Live => {}
            PlacementState::Removing => return Ok(Worked::nothing("it is being removed")),
            PlacementState::Suspect | PlacementState::Bad => {
                return Err(Error::unavailable("the object may be damaged: it is repaired first").on_backend(backend));
            }
        }
        if old.pack.is_none() || backend == HOT {
            return Ok(Worked::nothing("it is stored as it is"));
        }
        run.check(backend)?;
        self.backend(backend).await?;
        self.confirm_container(backend).await?;
        if let Some(there) = self.full_pack_on(&old, profile).await? {
            if there.object != old.object && !self.is_named(&old).await? {
                self.give_up_for(&old, &there).boxed().await?;
            }
            return Ok(Worked::nothing("it is a full pack of this profile already"));
        }
        let identity = self.identity_of(old.snapshot).await?;
        let mut last = None;
        for source in self.copies_of(old.snapshot, None).await? {
            let made = self.rebase_from(&source, &old, &snapshot, profile, &identity, held, run).boxed().await;
            run.ended(backend, &made);
            match made {
                Ok(made) => {
                    self.inner.jobs.made(job.kind, made.bytes);
                    return Ok(Worked::made(vec![made]));
                }
                Err(error) => last = Some(self.at_its_source(error, &source, backend, &identity).await?),
            }
        }
        Err(last.unwrap_or_else(|| Error::unavailable("there is no live copy to read it from")))
    }

    /// Removes an object for another one of its backend, which is looked at before.
    ///
    /// # Errors
    /// `unavailable` if that is not sound, or cannot be looked at; errors of the catalogue.
    async fn give_up_for(&self, old: &Placement, there: &Placement) -> Result<()> {
        match self.last_look(there, Reads::Always, &mut Sound::default()).await? {
            LastLook::Sound => {}
            LastLook::Unsound => {
                return Err(Error::unavailable("the full pack that is there is damaged").on_backend(&there.backend));
            }
            LastLook::Unknown(error) => return Err(error.and("the full pack that is there cannot be looked at")),
        }
        if self.inner.catalogue.retire_for(old, &there.object).await? {
            self.remove_replaced(&old.backend, old.snapshot).await;
        }
        Ok(())
    }

    /// The live object of a snapshot on the backend of this one that is a full pack of a profile, this one itself if it is.
    async fn full_pack_on(&self, old: &Placement, profile: Profile) -> Result<Option<Placement>> {
        let mut there = self.inner.catalogue.placements(old.snapshot).await?;
        there.retain(|p| p.backend == old.backend && p.state == PlacementState::Live && p.pack.is_some());
        for placement in there {
            let pack = self.pack_of(&placement, Caches::Use).await?;
            if pack.sources().is_empty() && pack.profile() == profile {
                return Ok(Some(placement));
            }
        }
        Ok(None)
    }

    /// Makes a full pack from a copy, reads it back, and records it in place of the old one.
    #[allow(clippy::too_many_arguments)]
    async fn rebase_from(
        &self,
        source: &Placement,
        old: &Placement,
        snapshot: &Snapshot,
        profile: Profile,
        identity: &Arc<Identity>,
        held: HeldJob,
        run: &Run,
    ) -> Result<MadeObject> {
        let backend = &old.backend;
        let options = StoreOptions { name: snapshot.name.clone(), ..StoreOptions::default() };
        let image = self.image_on(source, identity, &run.meter);
        let full = self
            .full_pack(backend, image, profile)
            .await
            .map_err(|_| Error::unavailable("there is no room for its encoder now").hint("it is tried again later"))?;
        let upload = StoreUpload::new(self, backend, Payload::Full(full), snapshot.base, &options).anew();
        let copy = self.send_pack(upload).await?;
        let copy = copy.ok_or_else(|| {
            Error::unsupported("the backend does not keep the labels that packs need").on_backend(backend)
        })?;
        if let Err(error) = self.confirm_container(backend).await {
            self.discard(vec![copy]).await;
            return Err(error);
        }
        let copy = self.read_back(copy, identity).boxed().await?;
        let made = copy.info().zip(copy.made().map(|(_, size)| size));
        let why = format!("from {}", source.backend);
        self.record_instead(copy, JobCommit { held, what: "rebased", why }, Some(old.clone())).await?;
        let (info, bytes) = made.ok_or_else(|| Error::other("a copy has no object"))?;
        Ok(MadeObject { backend: backend.clone(), object: info.object, from: source.backend.clone(), bytes })
    }

    /// Rebases what takes pages from too many others, until so many bytes were read. Returns how many were.
    ///
    /// # Errors
    /// Errors of the catalogue. What cannot be rebased now is left to its job.
    pub(super) async fn rebase_long_chains(&self, search: &mut Search, budget: u64) -> Result<u64> {
        let catalogue = &self.inner.catalogue;
        let run = Run::new(self, None, None);
        while run.meter.read() < budget {
            let Some(old) = search.found.pop() else {
                let found = catalogue.long_chains(search.after, self.inner.rebase_settings.chain, FOUND).await?;
                if found.next == search.after {
                    break;
                }
                search.after = found.next;
                search.found = found.placements;
                search.found.reverse();
                continue;
            };
            let profile = self.route(self.route_of(old.snapshot, &old.backend).await?.as_deref())?.profile;
            // One that has failed is tried again when it is due.
            if let Some(job) = self.job_for(kind_of(profile), &old).await?
                && job.state == JobState::Queued
            {
                self.run_one(Take::This(job.id), &run).await?;
            }
        }
        Ok(run.meter.read())
    }
}

/// The kind of the job that makes packs of a profile.
fn kind_of(profile: PackProfile) -> JobKind {
    match encoding::profile(profile) {
        Profile::Compact => JobKind::RebaseCompact,
        Profile::Random => JobKind::RebaseRandom,
    }
}
