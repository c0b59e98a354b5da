//! Storing an image: hashed while it is read, sent as it is read, recorded when it is durable.
//!
//! The order is: intent in the catalogue → bytes to the backend → receipt → snapshot, placement and end of the intent in
//! one transaction; the intents are those of the upload's attempts (`upload.rs`). A file that may be known already (the
//! catalogue has a snapshot of its size) is hashed first: if it is there, nothing is sent. If a backend
//! cannot take an image, the next one of the route does; that needs a source that can be read again, so a stream fails
//! with its first backend.

use super::labels::check_name;
use super::options::StoreOptions;
use super::report::{PlacementInfo, Stored};
use super::upload::{StoreUpload, StoredAttempt, again};
use super::{Host, encoding};
use crate::backend::Upload;
use crate::catalogue::{ABSENT, Commit, NewPlacement, NewSnapshot, Placement, PlacementState};
use crate::snapshot::{FileSource, Identity, Source};
use crate::types::{Error, ErrorKind, ObjectId, Receipt, Result, SnapshotId};

impl Host {
    /// Stores an image. When this returns, it is durable on as many backends as the route asks for.
    ///
    /// # Errors
    /// Errors of reading the source (`conflict` if a file changed meanwhile); the error of the last backend of the route.
    pub async fn store(&self, source: Source, options: StoreOptions) -> Result<Stored> {
        self.store_on_route(source, None, &options).await
    }

    /// Stores an image as a change of another one. The backend keeps the lineage where it can.
    ///
    /// # Errors
    /// `not-found` for an unknown base; otherwise as [`Self::store`].
    pub async fn update(&self, base: SnapshotId, source: Source, options: StoreOptions) -> Result<Stored> {
        self.known(base).await?;
        let mut stored = self.store_on_route(source, Some(base), &options).await?;
        stored.delta_bytes = Some(stored.stored_bytes);
        Ok(stored)
    }

    /// Stores an image on as many backends of the route as it wants copies, in its order.
    pub(super) async fn store_on_route(
        &self,
        source: Source,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<Stored> {
        let began = self.inner.platform.now();
        options.name.as_deref().map_or(Ok(()), check_name)?;
        let route = self.route(options.route.as_deref())?.clone();
        let copies = (route.copies.max(1) as usize).min(route.backends.len());
        if copies > 1 && matches!(source, Source::Stream(_)) {
            return Err(Error::invalid(format!(
                "the route requires {copies} copies, but a stream can be read only once"
            ))
            .hint("store a file, or use a route with one copy"));
        }
        let mut outcome = Stored {
            id: SnapshotId::from_bytes([0; 32]),
            size: 0,
            stored_bytes: 0,
            placements: Vec::new(),
            seconds: 0.0,
            base,
            delta_bytes: None,
            name_taken_from: None,
        };
        let (mut source, mut last) = (Some(source), None);
        for backend in &route.backends {
            let Some(this) = source.take() else { break };
            let again = again(&this);
            match self.store_on_backend(backend, this, base, options).await {
                Ok(copy) => {
                    (outcome.id, outcome.size) = (copy.id, copy.size);
                    outcome.stored_bytes += copy.stored_bytes;
                    outcome.name_taken_from = outcome.name_taken_from.or(copy.name_taken_from);
                    outcome.placements.push(PlacementInfo { backend: backend.clone(), object: copy.object });
                    if outcome.placements.len() == copies {
                        outcome.seconds = self.inner.platform.since(began).as_secs_f64();
                        return Ok(outcome);
                    }
                }
                Err(error) if worth_another(&error) => {
                    if again.is_some() && route.backends.last() != Some(backend) {
                        tracing::warn!(backend, %error, "the backend failed to store the image, trying the next");
                    }
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
            source = again;
        }
        Err(last.unwrap_or_else(|| Error::unavailable("no backend of the route stored the image")))
    }

    /// Stores an image on one backend, unless that has it already.
    async fn store_on_backend(
        &self,
        backend: &str,
        source: Source,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<BackendCopy> {
        self.ensure_container(backend).await?;
        if let Source::File(file) = &source
            && let Some(copy) = self.there_already(backend, file, base, options).await?
        {
            return Ok(copy);
        }
        let objects = &self.backend(backend).await?.objects;
        let upload = StoreUpload::new(self, backend, source, base, options);
        let receipt = objects.put(Upload::new(upload.clone())).await?;
        self.record(backend, receipt, upload.take_stored(), base, options).await
    }

    /// Records what a put has stored, and ends the intents of its attempts in the same transaction.
    ///
    /// # Errors
    /// `conflict` if the file changed while it was read: then the object that was made of it is removed again.
    pub(super) async fn record(
        &self,
        backend: &str,
        receipt: Receipt,
        stored: Vec<StoredAttempt>,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<BackendCopy> {
        let (mut chosen, mut keys) = (None, Vec::new());
        for attempt in stored {
            if attempt.receipt == receipt && chosen.is_none() {
                chosen = Some(attempt);
            } else if attempt.receipt.id == receipt.id || self.remove_spare(backend, &attempt.receipt.id).await {
                keys.push(attempt.key);
            }
        }
        let Some(StoredAttempt { key, reading, encoding, .. }) = chosen else {
            return Err(Error::corrupt("no attempt has the receipt that was returned").on_backend(backend));
        };
        let shared = !receipt.id.as_str().contains(&key);
        let identity = match reading.identity().await {
            Ok(identity) => identity,
            Err(error) => {
                if self.remove_spare(backend, &receipt.id).await {
                    keys.push(key);
                }
                for key in keys {
                    self.inner.catalogue.end_intent(&key).await?;
                }
                return Err(error);
            }
        };
        let snapshot = snapshot(&identity, base, options);
        let (id, size) = (identity.id(), identity.size());
        if let Ok(Some(object)) = self.sound_object_on(backend, &identity).await {
            // A stream that turned out to be there already, or two stores of one image at once.
            if self.remove_spare(backend, &receipt.id).await {
                keys.push(key);
            }
            let relies_on = vec![(backend.to_owned(), object.clone())];
            let store = Commit { snapshot, placements: Vec::new(), relies_on, intents: keys };
            let name_taken_from = self.inner.catalogue.commit(store).await?.name_taken_from;
            return Ok(BackendCopy { id, size, stored_bytes: 0, object, name_taken_from });
        }
        keys.push(key);
        let placement = NewPlacement {
            backend: backend.to_owned(),
            object: receipt.id.clone(),
            encoding,
            stored_bytes: receipt.size,
        };
        let store = Commit { snapshot, placements: vec![placement], relies_on: Vec::new(), intents: keys };
        let name_taken_from = match self.inner.catalogue.commit(store).await {
            Ok(committed) => committed.name_taken_from,
            Err(error) => {
                // If this host's lease was ended, whoever did so may have cleared away before the object was there. Where
                // names follow from bytes, the object may be another store's by now: an orphan costs space and nothing
                // else.
                if *error.kind() == ErrorKind::Conflict && !shared {
                    self.remove_spare(backend, &receipt.id).await;
                }
                return Err(error);
            }
        };
        if shared {
            self.ensure_it_outlived(backend, &receipt.id).await?;
        }
        Ok(BackendCopy { id, size, stored_bytes: receipt.size, object: receipt.id, name_taken_from })
    }

    /// Removes an object that nobody needs, and says whether nothing is left to be removed. If it is, the intent of its
    /// attempt has to stay.
    ///
    /// Where a name follows from the bytes (a CID), the object of a second store is that of the first: what the
    /// catalogue knows of is never spare.
    async fn remove_spare(&self, backend: &str, object: &ObjectId) -> bool {
        let removed = match (self.inner.catalogue.placement_of(backend, object).await, self.backend(backend).await) {
            (Ok(Some(_)), _) => return true,
            (Ok(None), Ok(_)) => self.delete_object(backend, object).await.map(drop),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if let Err(error) = &removed {
            tracing::warn!(backend, %object, %error, "cannot remove an unused object");
        }
        removed.is_ok()
    }

    /// Makes sure of an object whose name is not this store's own: whoever removed the same image may have removed it
    /// between its store and its record. From the record on, a removal would be one of this snapshot.
    async fn ensure_it_outlived(&self, backend: &str, object: &ObjectId) -> Result<()> {
        match self.backend(backend).await?.objects.stat(object).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                if let Some(placement) = self.inner.catalogue.placement_of(backend, object).await? {
                    self.inner.catalogue.transition(&placement, PlacementState::Bad, Some(ABSENT)).await?;
                }
                Err(Error::conflict("the same image was removed during the store")
                    .on_backend(backend)
                    .hint("store the image again"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the backend holds this very image. Hashes it only if it might.
    async fn there_already(
        &self,
        backend: &str,
        file: &FileSource,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<Option<BackendCopy>> {
        if !self.inner.catalogue.has_size(file.size()).await? {
            return Ok(None);
        }
        let identity = file.identify(None).await?;
        let Some(object) = self.sound_object_on(backend, &identity).await? else { return Ok(None) };
        let store = Commit {
            snapshot: snapshot(&identity, base, options),
            placements: Vec::new(),
            relies_on: vec![(backend.to_owned(), object.clone())],
            intents: Vec::new(),
        };
        let name_taken_from = self.inner.catalogue.commit(store).await?.name_taken_from;
        let (id, size) = (identity.id(), identity.size());
        Ok(Some(BackendCopy { id, size, stored_bytes: 0, object, name_taken_from }))
    }

    /// Returns the object of a snapshot on a backend, if the backend confirms it. A missing one is marked bad.
    async fn sound_object_on(&self, backend: &str, identity: &Identity) -> Result<Option<ObjectId>> {
        let Some(placement) = self.placement_on(backend, identity.id()).await? else { return Ok(None) };
        let expected = encoding::expected_size(&placement, identity.size());
        let object = placement.object.clone();
        let reason = match self.backend(backend).await?.objects.stat(&object).await {
            Ok(stat) if stat.size == expected => return Ok(Some(object)),
            Ok(stat) => format!("it has {} bytes where {expected} were stored", stat.size),
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                self.note_missing(&placement, error).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.note_damage(&placement, &reason).await?;
        Ok(None)
    }

    /// The object that holds a snapshot on a backend, if there is a live one.
    pub(super) async fn object_on(&self, backend: &str, id: SnapshotId) -> Result<Option<ObjectId>> {
        Ok(self.placement_on(backend, id).await?.map(|placement| placement.object))
    }

    async fn placement_on(&self, backend: &str, id: SnapshotId) -> Result<Option<Placement>> {
        let placements = self.inner.catalogue.placements(id).await?;
        Ok(placements.into_iter().find(|p| p.backend == backend && p.state == PlacementState::Live))
    }
}

/// An image on a backend.
pub(super) struct BackendCopy {
    id: SnapshotId,
    size: u64,
    stored_bytes: u64,
    object: ObjectId,
    name_taken_from: Option<SnapshotId>,
}

fn snapshot(identity: &Identity, base: Option<SnapshotId>, options: &StoreOptions) -> NewSnapshot {
    NewSnapshot {
        id: identity.id(),
        size: identity.size(),
        // An image is not a change of itself.
        base: base.filter(|base| *base != identity.id()),
        name: options.name.clone(),
        segments: identity.segments().to_bytes(),
    }
}

/// Returns whether another backend may succeed where this one failed.
fn worth_another(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::Other
            | ErrorKind::Trapped
            | ErrorKind::Limit
            | ErrorKind::TimedOut
            | ErrorKind::RateLimited(_)
            | ErrorKind::InsufficientBalance(_)
    ) && error.backend().is_some()
}
