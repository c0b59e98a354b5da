//! Deleting objects of backends. Every deletion goes through here.
//!
//! An object is claimed in the catalogue before it is deleted, and the claim ends in the transaction that forgets it
//! (`catalogue/removal.rs`). So no store can rely on it or record it meanwhile, and no two hosts delete the same object at
//! once: where objects are named after their bytes, the later of two deletions could hit what was stored in between. Within
//! a host, a set of what is being deleted does the same.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Host;
use crate::catalogue::OwnerToken;
use crate::types::{ObjectId, Result};

/// What this host is deleting.
#[derive(Default)]
pub(super) struct Deletions {
    under_way: Mutex<HashSet<(String, ObjectId)>>,
}

/// One deletion; it ends when this is dropped.
struct Deletion<'a> {
    all: &'a Deletions,
    what: (String, ObjectId),
}

impl Deletions {
    /// Begins one, unless it is under way.
    fn begin(&self, backend: &str, object: &ObjectId) -> Option<Deletion<'_>> {
        let what = (backend.to_owned(), object.clone());
        let new = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(what.clone());
        new.then_some(Deletion { all: self, what })
    }
}

impl Drop for Deletion<'_> {
    fn drop(&mut self) {
        self.all.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

impl Host {
    /// Deletes an object that is no placement, or one whose removal has begun, and forgets it. Returns whether it did: not
    /// if the object is relied on by now, or if another is about to delete it.
    ///
    /// # Errors
    /// Errors of the backend and of the catalogue. The claim stays then, for `gc`.
    pub(super) async fn delete_object(&self, backend: &str, object: &ObjectId) -> Result<bool> {
        self.delete_object_of(backend, object, None).await
    }

    /// As [`Self::delete_object`], also if it is claimed under a lease that was ended.
    pub(super) async fn delete_object_of(
        &self,
        backend: &str,
        object: &ObjectId,
        ended: Option<OwnerToken>,
    ) -> Result<bool> {
        let Some(_deletion) = self.inner.deletions.begin(backend, object) else { return Ok(false) };
        let objects = &self.backend(backend).await?.objects;
        let catalogue = &self.inner.catalogue;
        let token = self.inner.owner.current().await?;
        if !catalogue.claim(backend, object, token, ended).await? {
            return Ok(false);
        }
        objects.delete(object).await?;
        catalogue.end_claim(backend, object, token).await
    }
}
