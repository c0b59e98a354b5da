//! Deleting objects of backends. Every deletion goes through here.
//!
//! An object is claimed in the catalogue before it is deleted, and the claim ends in the transaction that forgets it
//! (`catalogue/removal.rs`). So no store can rely on it or record it meanwhile, and no two hosts delete the same object at
//! once: where objects are named after their bytes, the later of two deletions could hit what was stored in between. Within
//! a host, a set of what is being deleted does the same.
//!
//! The container is looked at before a deletion, so that nothing is deleted in another one, and after it, so that nothing is
//! forgotten that was not deleted.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Host;
use super::labels::is_identity_name;
use crate::catalogue::{Claim, OwnerToken, Placement, PlacementState};
use crate::types::{Error, ObjectId, Result, SnapshotId};

/// What this host is deleting.
#[derive(Default)]
pub(super) struct Deletions {
    under_way: Mutex<HashSet<(String, ObjectId)>>,
}

/// One deletion. If it is dropped before its claim has ended, whatever cut it short, the claim is given up: the placement is
/// still `removing` then, or the intent that led to the object is there.
struct Deletion<'a> {
    host: &'a Host,
    what: (String, ObjectId),
    claimed: Option<OwnerToken>,
}

impl<'a> Deletion<'a> {
    /// Begins one, unless it is under way.
    fn begin(host: &'a Host, backend: &str, object: &ObjectId) -> Option<Self> {
        let what = (backend.to_owned(), object.clone());
        let all = &host.inner.deletions.under_way;
        let new = all.lock().unwrap_or_else(PoisonError::into_inner).insert(what.clone());
        new.then_some(Self { host, what, claimed: None })
    }
}

impl Drop for Deletion<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.claimed {
            let (backend, object) = self.what.clone();
            self.host.inner.owner.release(Claim { backend, object, owner: String::new(), token });
        }
        self.host.inner.deletions.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

/// How an object is claimed.
#[derive(Clone, Copy, Default)]
pub(super) struct Claiming {
    /// Also if it is claimed under this lease, which was ended.
    pub(super) instead_of: Option<OwnerToken>,
    /// Under this lease, under which was found out that the object is not needed: if that was ended meanwhile, not at all.
    /// Under the current one if there is none.
    pub(super) under: Option<OwnerToken>,
}

impl Host {
    /// Deletes an object that is no placement, or one whose removal has begun, and forgets it. Returns whether it did: not
    /// if the object is relied on by now, or if another is about to delete it.
    ///
    /// # Errors
    /// `unavailable` if the backend talks to another container than the one that is recorded; errors of the backend and of
    /// the catalogue.
    pub(super) async fn delete_object(&self, backend: &str, object: &ObjectId) -> Result<bool> {
        Box::pin(self.delete_object_as(backend, object, Claiming::default())).await
    }

    /// As [`Self::delete_object`], claimed so. Deletes also what was kept for this object alone; what of that cannot be deleted
    /// now is left to the next garbage collection.
    pub(super) async fn delete_object_as(&self, backend: &str, object: &ObjectId, how: Claiming) -> Result<bool> {
        let Some(mut unneeded) = self.delete_with_replaced(backend, object, how).await? else { return Ok(false) };
        while let Some(placement) = unneeded.pop() {
            let Placement { backend, object, .. } = &placement;
            let deleted = self.delete_with_replaced(backend, object, Claiming { instead_of: None, ..how }).await;
            match deleted {
                Ok(more) => unneeded.extend(more.into_iter().flatten()),
                Err(error) => {
                    tracing::warn!(backend, object = %placement.object, %error, "an object that nothing needs any more stays");
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Deletes one object. Returns what nothing needs any more, with what was rebased and kept for this object alone; `None` if
    /// it was not deleted.
    async fn delete_with_replaced(
        &self,
        backend: &str,
        object: &ObjectId,
        how: Claiming,
    ) -> Result<Option<Vec<Placement>>> {
        let catalogue = &self.inner.catalogue;
        let needed = catalogue.needs_of(backend, object).await?;
        let Some(mut unneeded) = self.delete_one(backend, object, how).await? else { return Ok(None) };
        for need in needed {
            for old in catalogue.replaced(backend, need.snapshot).await? {
                if self.retire_replaced(&old).await? {
                    unneeded.push(old);
                }
            }
        }
        Ok(Some(unneeded))
    }

    /// Deletes one object. Returns what nothing needs any more; `None` if it was not deleted.
    async fn delete_one(&self, backend: &str, object: &ObjectId, how: Claiming) -> Result<Option<Vec<Placement>>> {
        let Some(mut deletion) = Deletion::begin(self, backend, object) else { return Ok(None) };
        let objects = &self.backend(backend).await?.objects;
        // A deletion succeeds where there is nothing, so nothing else would notice another container.
        if !is_identity_name(object.as_str()) {
            self.check_container(backend).await?;
        }
        let catalogue = &self.inner.catalogue;
        let claimed = match how.under {
            Some(token) => catalogue.claim(backend, object, token, how.instead_of).await?.then_some(token),
            None => self.inner.owner.claim(backend, object, how.instead_of).await?,
        };
        let Some(token) = claimed else { return Ok(None) };
        deletion.claimed = Some(token);
        objects.delete(object).await?;
        // Nor would it notice one that has taken the place since it was looked at: then the object may still be there.
        if !is_identity_name(object.as_str()) {
            self.confirm_container(backend).await?;
        }
        match catalogue.end_claim(backend, object, token).await? {
            Some(unneeded) => {
                deletion.claimed = None;
                Ok(Some(unneeded))
            }
            None => Err(Error::conflict(format!("this host lost its claim on object `{object}` while it deleted it"))
                .on_backend(backend)),
        }
    }

    /// Deletes the objects of a snapshot on a backend whose removal has begun. What cannot be deleted now is left to `gc`.
    pub(super) async fn remove_replaced(&self, backend: &str, id: SnapshotId) {
        let placements = match self.inner.catalogue.placements(id).await {
            Ok(placements) => placements,
            Err(error) => return tracing::warn!(backend, %error, "what was replaced is left to gc"),
        };
        let removing = |p: &&Placement| p.backend == backend && p.state == PlacementState::Removing;
        for placement in placements.iter().filter(removing) {
            if let Err(error) = self.delete_object(backend, &placement.object).await {
                tracing::warn!(backend, object = %placement.object, %error, "what was replaced is left to gc");
            }
        }
    }
}
