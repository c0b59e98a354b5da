//! Recording one further copy of a snapshot that is known: what a job has made.

use super::StoredCopy;
use super::snapshot;
use crate::catalogue::{Commit, JobCommit, Placement, PlacementState};
use crate::config::HOT;
use crate::connector::Host;
use crate::types::{ErrorKind, Result, SnapshotId};

impl Host {
    /// Records a copy under a job. Of the snapshot nothing is changed but where it is. Removes what was made if it cannot be
    /// recorded, and bad objects that the new one takes the place of.
    ///
    /// # Errors
    /// `conflict` if the job is not held any more, if the snapshot was removed, or if what the copy relies on was; errors of the
    /// catalogue.
    pub(in crate::connector) async fn record_further(&self, copy: StoredCopy, job: JobCommit) -> Result<()> {
        self.record_instead(copy, job, None).await
    }

    /// The same, in place of another placement on the backend, if there is one: that goes unless it is needed.
    ///
    /// # Errors
    /// As [`Self::record_further`]; `conflict` also if the snapshot is kept for others alone.
    pub(in crate::connector) async fn record_instead(
        &self,
        copy: StoredCopy,
        job: JobCommit,
        replaces: Option<Placement>,
    ) -> Result<()> {
        let (backend, id) = (copy.backend().to_owned(), copy.identity.id());
        let commit = Commit {
            placements: copy.placement().into_iter().collect(),
            relies_on: copy.relies_on().into_iter().collect(),
            intents: copy.intents().collect(),
            job: Some(job),
            replaces,
            ..Commit::of(snapshot(&copy.identity, None, None, false))
        };
        if let Err(error) = self.inner.catalogue.commit(commit).await {
            if *error.kind() == ErrorKind::Conflict {
                self.discard(vec![copy]).await;
            }
            return Err(error);
        }
        match copy.there.is_some() {
            true => self.discard(vec![copy]).await,
            false => self.ensure_it_outlived(&copy).await?,
        }
        self.remove_replaced(&backend, id).await;
        if let Err(error) = self.remove_held_for(id).await {
            tracing::warn!(%id, %error, "what was kept for its hot pack is left to gc");
        }
        Ok(())
    }

    /// Deletes what of removed snapshots was kept on backends for the hot packs of a snapshot, until that was pushed.
    async fn remove_held_for(&self, id: SnapshotId) -> Result<()> {
        for pack in self.inner.catalogue.placements(id).await? {
            if pack.backend != HOT || pack.pack.is_none() {
                continue;
            }
            for need in self.inner.catalogue.needs_of(HOT, &pack.object).await? {
                for held in self.inner.catalogue.placements(need.snapshot).await? {
                    if held.backend != HOT && held.state == PlacementState::Removing {
                        self.delete_object(&held.backend, &held.object).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
