//! Finding, listing, describing and removing snapshots.

use super::Host;
use super::report::{PlacementStat, Removed, SnapshotStat};
use crate::catalogue::{PlacementState, SnapshotPage};
use crate::types::{Error, Result, SnapshotId};

impl Host {
    /// Finds a snapshot by its id, its name, or a beginning of its id that no other has.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a text that is not an id, or a beginning that several have.
    pub async fn find(&self, text: &str) -> Result<SnapshotId> {
        Ok(self.inner.catalogue.find(text).await?.id)
    }

    /// Snapshots in the order in which they were first stored, at most `limit` of them; `after` is a page's `next`.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn list(&self, after: Option<u64>, limit: usize) -> Result<SnapshotPage> {
        self.inner.catalogue.list(after, limit).await
    }

    /// Describes a snapshot from the catalogue, without access to a backend.
    ///
    /// # Errors
    /// `not-found`.
    pub async fn stat(&self, id: SnapshotId) -> Result<SnapshotStat> {
        let snapshot = self.known(id).await?;
        let placements: Vec<_> = self
            .inner
            .catalogue
            .placements(id)
            .await?
            .into_iter()
            .map(|placement| PlacementStat {
                backend: placement.backend,
                object: placement.object,
                encoding: placement.encoding,
                state: placement.state.name(),
                stored_bytes: placement.stored_bytes,
                created: placement.created,
            })
            .collect();
        Ok(SnapshotStat {
            id,
            size: snapshot.size,
            base: snapshot.base,
            name: snapshot.name,
            created: snapshot.created,
            stored_bytes: placements.iter().map(|placement| placement.stored_bytes).sum(),
            placements,
        })
    }

    /// Removes a snapshot from all backends and forgets it. Snapshots with it as their base stay complete.
    /// It stops being readable at once; leftovers of a failure are removed by `gc`.
    ///
    /// # Errors
    /// `not-found`; the error of a backend that cannot remove its object now.
    pub async fn remove(&self, id: SnapshotId) -> Result<Removed> {
        self.known(id).await?;
        let catalogue = &self.inner.catalogue;
        let placements = catalogue.placements(id).await?;
        if let Some(lost) = placements.iter().find(|p| !self.inner.backends.contains_key(&p.backend)) {
            return Err(Error::unavailable(format!(
                "snapshot {id} has an object on this backend, which is not configured"
            ))
            .on_backend(&lost.backend)
            .hint("add the backend to the configuration"));
        }
        for placement in &placements {
            // One that cannot be opened is met before anything is marked.
            self.open_backend(&placement.backend).await?;
        }
        for placement in &placements {
            catalogue.mark_placement(&placement.backend, &placement.object, PlacementState::Removing).await?;
        }
        for placement in &placements {
            self.backend(&placement.backend).await?.objects.delete(&placement.object).await?;
            catalogue.remove_placement(&placement.backend, &placement.object).await?;
        }
        catalogue.remove_snapshot(id).await?;
        Ok(Removed { id, placements: placements.len() as u64 })
    }
}
