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
use std::time::{Duration, Instant};

use super::Host;
use super::labels::is_identity_name;
use super::packs::Sound;
use super::relied::{LastLook, Reads, Relied};
use crate::catalogue::{Claim, OwnerToken, Placement, PlacementState};
use crate::types::{Error, ObjectId, Result, SnapshotId};

/// How long a look at a container before a deletion is one that was made just before it.
const JUST_BEFORE: Duration = Duration::from_secs(1);

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

    /// As [`Self::delete_object`]. The container is not looked at again if that was done a moment ago: the look began at this time.
    pub(super) async fn delete_looked_at(&self, backend: &str, object: &ObjectId, looked: Instant) -> Result<bool> {
        Box::pin(self.delete_with(backend, object, Claiming::default(), Some(looked))).await
    }

    /// As [`Self::delete_object`], claimed so. Deletes also what was kept for this object alone; what of that cannot be deleted
    /// now is left to the next garbage collection.
    pub(super) async fn delete_object_as(&self, backend: &str, object: &ObjectId, how: Claiming) -> Result<bool> {
        self.delete_with(backend, object, how, None).await
    }

    async fn delete_with(
        &self,
        backend: &str,
        object: &ObjectId,
        how: Claiming,
        looked: Option<Instant>,
    ) -> Result<bool> {
        let Some(mut unneeded) = self.delete_with_replaced(backend, object, how, looked).await? else {
            return Ok(false);
        };
        while let Some(placement) = unneeded.pop() {
            let Placement { backend, object, .. } = &placement;
            let deleted = self.delete_with_replaced(backend, object, Claiming { instead_of: None, ..how }, None).await;
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
        looked: Option<Instant>,
    ) -> Result<Option<Vec<Placement>>> {
        let catalogue = &self.inner.catalogue;
        let needed = catalogue.needs_of(backend, object).await?;
        let Some(mut unneeded) = self.delete_one(backend, object, how, looked).await? else { return Ok(None) };
        for need in needed {
            for old in catalogue.replaced(backend, need.snapshot).await? {
                if self.retire_replaced(&old).await? {
                    unneeded.push(old);
                }
            }
        }
        Ok(Some(unneeded))
    }

    /// Begins the removal of an object that another one has taken the place of, once that was looked at. Returns whether it was
    /// begun: otherwise the next garbage collection tries again.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) async fn retire_replaced(&self, old: &Placement) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        let mut others = catalogue.placements(old.snapshot).await?;
        others.retain(|p| p.backend == old.backend && p.object != old.object && p.state == PlacementState::Live);
        let mut relied = Relied::default();
        for by in others {
            let whole = catalogue.needs_of(&by.backend, &by.object).await?.is_empty();
            if whole
                && relied.is_sound(self, &by, Reads::Always).await?
                && catalogue.retire_for(old, &by.object).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at those objects of a snapshot from which packs go on taking pages while others of it, on the same backend, go: these
    /// could have made up for their damage.
    ///
    /// # Errors
    /// `unavailable` if one cannot be looked at; errors of the catalogue.
    pub(super) async fn look_at_what_stays(&self, placements: &[Placement]) -> Result<()> {
        let live = |p: &&Placement| p.state == PlacementState::Live;
        for copy in placements.iter().filter(live) {
            let beside = |p: &Placement| p.backend == copy.backend && p.object != copy.object;
            if !placements.iter().filter(live).any(beside) || !self.is_named(copy).await? {
                continue;
            }
            if let LastLook::Unknown(error) = self.last_look(copy, Reads::Always, &mut Sound::default()).await? {
                let what = format!("an object that others take pages from cannot be looked at: {}", error.message());
                return Err(Error::unavailable(what).on_backend(&copy.backend).with_source(error));
            }
        }
        Ok(())
    }

    /// Returns whether a pack on the same backend takes pages from this very object.
    pub(super) async fn is_named(&self, copy: &Placement) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        for dependent in catalogue.dependents(&copy.backend, copy.snapshot).await? {
            let needs = catalogue.needs_of(&dependent.backend, &dependent.object).await?;
            if needs.iter().any(|need| copy.is_pack(need.pack)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes one object. Returns what nothing needs any more; `None` if it was not deleted.
    async fn delete_one(
        &self,
        backend: &str,
        object: &ObjectId,
        how: Claiming,
        looked: Option<Instant>,
    ) -> Result<Option<Vec<Placement>>> {
        let Some(mut deletion) = Deletion::begin(self, backend, object) else { return Ok(None) };
        let objects = &self.backend(backend).await?.objects;
        // A deletion succeeds where there is nothing, so nothing else would notice another container.
        let just_looked = looked.is_some_and(|looked| self.inner.platform.since(looked) < JUST_BEFORE);
        if !is_identity_name(object.as_str()) && !just_looked {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::NoSecrets;
    use crate::backend::Operation;
    use crate::backend::testing::MemoryBackend;
    use crate::config::Config;
    use crate::connector::{HostOptions, StoreOptions};
    use crate::snapshot::{Source, StreamSource};
    use crate::types::ErrorKind;

    #[tokio::test]
    async fn what_was_found_under_a_lease_is_not_removed_under_another() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(MemoryBackend::new("local"));
        let backends = BTreeMap::from([("local".to_owned(), disk.clone() as Arc<dyn crate::backend::Backend>)]);
        let options = HostOptions { backends: backends.into_iter().collect(), ..HostOptions::default() };
        let config = Config::embedded_default(dir.path());
        let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
        let source = Source::Stream(StreamSource::new(&b"image"[..], "stream"));
        let id = host.store(source, StoreOptions::default()).await.unwrap().id;
        disk.fail_next(Operation::Delete, ErrorKind::Unavailable, false);
        host.remove(id).await.unwrap_err();
        let object = host.inner.catalogue.placements(id).await.unwrap().remove(0).object;
        let token = host.inner.owner.current().await.unwrap();
        host.inner.catalogue.release_owner(token).await.unwrap();
        let how = Claiming { instead_of: Some(token), under: Some(token) };
        let error = host.delete_object_as("local", &object, how).await.unwrap_err();
        assert_eq!((error.kind(), disk.objects().len()), (&ErrorKind::Conflict, 2), "{error}");
        host.gc(Duration::ZERO).await.unwrap();
        assert_eq!(disk.objects().len(), 1);
    }
}
