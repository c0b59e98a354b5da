//! Snapshots that have fewer copies than are wanted, and those that are in the hot tier alone.
//!
//! What is wanted, and on which routes, was recorded by the stores (`holders.rs`). A copy is the same pack where its backend has what that needs; of what is in
//! the hot tier, it is a change against the recorded base where that can be made; else the whole image.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;

use super::holders::{Holders, OnRoute};
use super::report::MadeObject;
use super::run::Worked;
use super::this_run::Run;
use crate::catalogue::{HeldJob, Job, JobCommit, JobKind, JobState, Placement, PlacementState, Snapshot};
use crate::config::HOT;
use crate::connector::change::Change;
use crate::connector::packs::Sound;
use crate::connector::payload::PackFile;
use crate::connector::{Host, StoreOptions};
use crate::snapshot::{Identity, Source};
use crate::types::{Error, Result, SnapshotId};

/// A snapshot of which copies are made.
struct Copying<'a> {
    job: &'a Job,
    held: HeldJob,
    run: &'a Run,
    snapshot: Snapshot,
    identity: Arc<Identity>,
}

impl Host {
    /// Runs a [`JobKind::Copy`] or a [`JobKind::Push`].
    pub(super) async fn run_copies(&self, job: &Job, held: HeldJob, run: &Run) -> Result<Worked> {
        let catalogue = &self.inner.catalogue;
        let id = job.snapshot;
        let (Some(snapshot), Some(wanted)) = (catalogue.get(id).await?, catalogue.wanted(id).await?) else {
            return Ok(Worked::nothing("no copies of it are wanted any more"));
        };
        let routes = self.on_routes(&wanted)?;
        self.check_some(id, &routes, run).await?;
        let identity = self.identity_of(id).await?;
        let Holders { counted: mut holders, unseen } = self.holders_of(&snapshot, &identity, job.kind, run).await?;
        let enough = |holders: &[String]| {
            holders.len() >= wanted.copies as usize && routes.iter().all(|route| route.is_met(holders))
        };
        if enough(&holders) {
            return match unseen {
                // Its row alone says that it is there.
                Some(error) => Err(error),
                None => Ok(Worked::nothing("it has as many copies as are wanted")),
            };
        }
        if job.kind == JobKind::Copy && self.is_repaired_first(id).await? {
            run.tries();
            return Err(Error::unavailable("a damaged copy of it is repaired first"));
        }
        let copying = Copying { job, held, run, snapshot, identity };
        let change = self.change_for(&copying, routes.first().map(|route| route.name)).boxed().await;
        let (mut made, mut last, mut failed) = (Vec::new(), None, BTreeSet::new());
        // Each route gets what it wants, and then what is missing altogether.
        let turns = routes.iter().map(|route| (route, false)).chain(routes.iter().map(|route| (route, true)));
        for (route, altogether) in turns {
            for backend in route.backends() {
                let met = if altogether { enough(&holders) } else { route.is_met(&holders) };
                if met {
                    break;
                }
                if holders.contains(backend) || failed.contains(backend) {
                    continue;
                }
                if let Err(error) = run.check(backend) {
                    last = Some(error);
                    continue;
                }
                let copied = self.copy_further(backend, &holders, route.name, change.as_ref(), &copying).boxed().await;
                run.ended(backend, &copied);
                match copied {
                    Ok(object) => {
                        self.inner.jobs.made(job.kind, object.bytes);
                        holders.push(backend.clone());
                        made.push(object);
                    }
                    Err(error) => {
                        tracing::warn!(backend, %error, "cannot make a copy here");
                        last = Some(error);
                        failed.insert(backend);
                        if run.was_refused() {
                            // It is made here later, rather than elsewhere now.
                            break;
                        }
                    }
                }
            }
        }
        if enough(&holders) {
            return Ok(Worked::made(made));
        }
        let (there, wanted) = (holders.len(), wanted.copies);
        let error = last.unwrap_or_else(|| Error::unavailable("the route has no further backend"));
        Err(error.and(format!("{there} of {wanted} copies are there")))
    }

    /// Makes sure that not every backend is left out that a further copy could be made on. Nothing is asked of any.
    async fn check_some(&self, id: SnapshotId, routes: &[OnRoute<'_>], run: &Run) -> Result<()> {
        let there = self.inner.catalogue.placements(id).await?;
        let has_one = |backend: &str| there.iter().any(|p| p.backend == backend && p.state == PlacementState::Live);
        let mut lack = routes.iter().flat_map(OnRoute::backends).filter(|backend| !has_one(backend)).peekable();
        match lack.peek().copied() {
            Some(first) if lack.all(|backend| run.leaves_out(backend)) => run.check(first),
            _ => Ok(()),
        }
    }

    /// Returns whether a bad placement of a snapshot may become good without a further copy.
    async fn is_repaired_first(&self, id: SnapshotId) -> Result<bool> {
        let jobs = self.inner.catalogue.jobs_of(id).await?;
        let soon = |job: &Job| match job.state {
            JobState::Running => true,
            JobState::Queued => job.attempts == 0,
            JobState::Waiting | JobState::Failed => false,
        };
        Ok(jobs.iter().any(|job| job.kind == JobKind::Repair && soon(job)))
    }

    /// What of a snapshot has changed since its base, for one that is in the hot tier: it is there in another layout.
    async fn change_for(&self, copying: &Copying<'_>, route: Option<&str>) -> Option<Arc<PackFile>> {
        let (JobKind::Push, Some(base)) = (copying.job.kind, copying.snapshot.base) else { return None };
        let change = async {
            let sources = self.copies_of(copying.snapshot.id, None).await?;
            let Some(source) = sources.first() else { return Ok(None) };
            let image = self.spooled(self.image_on(source, &copying.identity, &copying.run.meter)).await?;
            let options = StoreOptions { route: route.map(str::to_owned), ..StoreOptions::default() };
            self.change_of(base, None, &image, None, &options).await
        };
        change.await.unwrap_or_else(|error: Error| {
            tracing::warn!(%base, %error, "the image is pushed whole");
            None
        })
    }

    /// Makes and records one further copy.
    async fn copy_further(
        &self,
        backend: &str,
        holders: &[String],
        route: &str,
        change: Option<&Arc<PackFile>>,
        copying: &Copying<'_>,
    ) -> Result<MadeObject> {
        self.backend(backend).await?;
        self.ensure_apart(backend, holders.to_vec()).await?;
        let mut last = None;
        for source in self.copies_of(copying.snapshot.id, None).await? {
            if let Err(error) = copying.run.enter(&source.backend, backend) {
                last = Some(error);
                continue;
            }
            copying.run.tries();
            match self.copy_from(&source, backend, (holders, route), change, copying).boxed().await {
                Err(error) => last = Some(self.at_its_source(error, &source, backend, &copying.identity).await?),
                made => return made,
            }
        }
        Err(last.unwrap_or_else(|| Error::unavailable("there is no live copy to make another from")))
    }

    async fn copy_from(
        &self,
        source: &Placement,
        backend: &str,
        (holders, route): (&[String], &str),
        change: Option<&Arc<PackFile>>,
        copying: &Copying<'_>,
    ) -> Result<MadeObject> {
        let Copying { identity, run, snapshot, .. } = copying;
        let same = match change {
            None if source.backend != HOT => self.pack_if_it_fits(source, backend, identity, run).boxed().await?,
            _ => None,
        };
        let pack = change.or(same.as_ref());
        let options =
            StoreOptions { name: snapshot.name.clone(), route: Some(route.to_owned()), ..StoreOptions::default() };
        let image: Source = self.image_on(source, identity, &run.meter);
        let change = Change { base: snapshot.base, pack, read_back: true, ..Change::default() };
        let copy = self.copy_to(backend, image, change, &options, &mut Some(identity.clone())).await?;
        if let Err(error) = self.confirm_apart(backend, holders.to_vec()).await {
            self.discard(vec![copy]).await;
            return Err(error);
        }
        let object = copy.info().map(|info| info.object);
        let bytes = copy.made().map_or(0, |(_, size)| size);
        let what = if copying.job.kind == JobKind::Push { "pushed" } else { "copied" };
        let why = format!("from {}", source.backend);
        self.record_further(copy, JobCommit { held: copying.held, what, why }).await?;
        let object = object.ok_or_else(|| Error::other("a copy has no object"))?;
        Ok(MadeObject { backend: backend.to_owned(), object, from: source.backend.clone(), bytes })
    }

    /// The pack of a placement, if another backend has what it needs.
    async fn pack_if_it_fits(
        &self,
        source: &Placement,
        backend: &str,
        identity: &Arc<Identity>,
        run: &Run,
    ) -> Result<Option<Arc<PackFile>>> {
        if source.pack.is_none() || source.state != PlacementState::Live || !self.takes_packs(backend).await? {
            return Ok(None);
        }
        let needs = self.inner.catalogue.needs_of(&source.backend, &source.object).await?;
        if !self.has_all_of(backend, &needs, &mut Sound::default()).await? {
            return Ok(None);
        }
        self.pack_on(source, identity, &run.meter).await.map(Some)
    }
}
