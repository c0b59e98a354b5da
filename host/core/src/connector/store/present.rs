//! What a backend has of an image already, and what of that a store may count on.

use std::sync::Arc;

use futures::StreamExt as _;

use crate::catalogue::{Placement, PlacementState};
use crate::connector::options::StoreOptions;
use crate::connector::packs::Caches;
use crate::connector::packs::Sound;
use crate::connector::verify::NO_LABEL;
use crate::connector::{Host, encoding};
use crate::sealed::is_sealed;
use crate::snapshot::Identity;
use crate::types::{Error, ErrorKind, ObjectId, PackId, Result, SnapshotId};

impl Host {
    /// Returns the object of a snapshot on a backend, if it is not known to be bad, lies as the store would lay it out, and
    /// the backend confirms its size and its label. One that is missing, has another size or no label is marked bad; one whose key is
    /// missing does not count. With `only`, nothing but that very pack.
    pub(super) async fn sound_object_on(
        &self,
        backend: &str,
        identity: &Identity,
        only: Option<PackId>,
        options: &StoreOptions,
    ) -> Result<Option<ObjectId>> {
        for placement in self.placements_on(backend, identity.id()).await? {
            let other = only.is_some() && placement.pack != only;
            if other || !encoding::satisfies(placement.encoding, options) || self.is_plain(&placement)? {
                continue;
            }
            let expected = encoding::expected_size(&placement, identity.size());
            let objects = &self.backend(backend).await?.objects;
            match objects.stat(&placement.object).await {
                Ok(stat) if !encoding::has_its_label(&placement, &stat, objects.info().features) => {
                    self.note_damage(&placement, NO_LABEL).await?;
                }
                Ok(stat) if self.has_its_size(&placement, expected, stat.size).await => {
                    match self.lacks(&placement, &mut Sound::default()).await {
                        Ok(None) => return Ok(Some(placement.object)),
                        Ok(Some(lost)) => {
                            tracing::warn!(backend, %lost, "what is stored already lacks what it takes pages from")
                        }
                        Err(error) if error.missing_key().is_some() => {
                            tracing::warn!(backend, %error, "what is stored already takes pages from what cannot be read");
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(stat) => {
                    let reason = format!("it has {} bytes where {expected} were stored", stat.size);
                    if let Some(away) = self.note_damage(&placement, &reason).await? {
                        return Err(away);
                    }
                }
                Err(error) if *error.kind() == ErrorKind::NotFound => {
                    let error = self.note_missing(&placement, error).await?;
                    if *error.kind() != ErrorKind::NotFound {
                        // The container is away, and another one must not take the image in its place.
                        return Err(error);
                    }
                }
                Err(error) if error.missing_key().is_some() => {
                    tracing::warn!(backend, object = %placement.object, %error, "what is stored already does not count");
                }
                Err(error) => self.pass_over(&placement, error).await?,
            }
        }
        Ok(None)
    }

    /// Returns whether an object lies unencrypted on a backend whose objects are encrypted: it was stored before they were, or the
    /// backend has put it there. A store that counted on it would leave the image readable, and tell the backend that it is one
    /// of ours.
    ///
    /// # Errors
    /// `not-found` for a backend that is not configured.
    fn is_plain(&self, placement: &Placement) -> Result<bool> {
        Ok(!is_sealed(&placement.object) && self.configured(&placement.backend)?.seals())
    }

    /// Goes on without an object that cannot be examined although its container can: the image is sent again.
    ///
    /// # Errors
    /// The error of the object if it may be that of the backend.
    async fn pass_over(&self, placement: &Placement, error: Error) -> Result<()> {
        let backend = &placement.backend;
        let of_object = self.backend(backend).await?.objects.stat(&placement.object).await.is_err();
        if !of_object || self.check_container(backend).await.is_err() {
            return Err(error);
        }
        tracing::warn!(backend, object = %placement.object, %error, "the object cannot be examined");
        let reason = format!("it cannot be examined: {}", error.message());
        self.inner.catalogue.transition(placement, PlacementState::Suspect, Some(&reason)).await.map(drop)
    }

    /// Returns the object of a snapshot on a backend that makes a new one unnecessary: every byte of it has been read and
    /// was right, and they lie as the store asks for. A new object is never given up for one that the catalogue alone vouches for.
    pub(super) async fn proven_object_on(
        &self,
        backend: &str,
        identity: &Arc<Identity>,
        new: &ObjectId,
        options: &StoreOptions,
    ) -> Option<ObjectId> {
        let placements = self.placements_on(backend, identity.id()).await.unwrap_or_default();
        if placements.iter().any(|placement| placement.object == *new) {
            // The same object: it was stored once more, under the name that follows from its bytes.
            return None;
        }
        let counts = |found: &Placement| {
            encoding::satisfies(found.encoding, options) && self.is_plain(found).is_ok_and(|plain| !plain)
        };
        for placement in placements.into_iter().filter(counts) {
            match self.prove(&placement, identity).await {
                Ok(()) => match self.lacks(&placement, &mut Sound::default()).await {
                    Ok(None) => return Some(placement.object),
                    _ => tracing::warn!(backend, object = %placement.object, "it lacks what it takes pages from"),
                },
                Err(error) => {
                    let (backend, object) = (&placement.backend, &placement.object);
                    tracing::warn!(backend, %object, %error, "what is stored already cannot be relied on");
                    if *error.kind() == ErrorKind::Corrupt {
                        // Should it not be recorded: it is not counted on here, and the next read finds it again.
                        let _ = self.note_damage(&placement, error.message()).await;
                    }
                }
            }
        }
        None
    }

    /// Reads every byte of a copy.
    ///
    /// # Errors
    /// What the read meets; `corrupt` unless the bytes are those of the image.
    pub(in crate::connector) async fn prove(&self, placement: &Placement, identity: &Arc<Identity>) -> Result<()> {
        self.read_all(placement, identity, Caches::Bypass).await
    }

    /// Reads every byte of a snapshot through a placement. A proof of that copy only where caches are bypassed.
    ///
    /// # Errors
    /// As [`Self::prove`].
    pub(in crate::connector) async fn read_all(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        caches: Caches,
    ) -> Result<()> {
        let mut body = self.open_placement(placement, identity, None, caches).await?;
        while let Some(chunk) = body.next().await {
            chunk?;
        }
        Ok(())
    }

    /// The object that holds a snapshot on a backend, if there is a live one.
    pub(in crate::connector) async fn object_on(&self, backend: &str, id: SnapshotId) -> Result<Option<ObjectId>> {
        Ok(self.placements_on(backend, id).await?.into_iter().next().map(|placement| placement.object))
    }

    /// The live placements of a snapshot on a backend.
    pub(super) async fn placements_on(&self, backend: &str, id: SnapshotId) -> Result<Vec<Placement>> {
        let mut placements = self.inner.catalogue.placements(id).await?;
        placements.retain(|p| p.backend == backend && p.state == PlacementState::Live);
        Ok(placements)
    }
}
