//! Storing an image: hashed while it is read, sent as it is read, recorded when it is durable.
//!
//! The order is: intent in the catalogue → bytes to the backend → receipt → snapshot, placement and end of the intent in
//! one transaction. A file that may be known already (the catalogue has a snapshot of its size) is hashed first: if it
//! is there, nothing is sent. If a backend cannot take an image, the next one of the route does; that needs a source
//! that can be read again, so a stream fails with its first backend.

use std::time::Instant;

use super::Host;
use super::labels::{self, check_name, fresh_key};
use super::report::{PlacementInfo, Stored};
use crate::catalogue::{NewPlacement, NewSnapshot, PlacementState};
use crate::runtime::Attempt;
use crate::snapshot::{FileSource, Identity, Progress, Reading, Source};
use crate::types::{Body, Encoding, Error, ErrorKind, ObjectId, Receipt, Result, SnapshotId, StoreHint};

/// How to store.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// The route; the default one if there is none here.
    pub route: Option<String>,
    /// A name for people, by which the snapshot can be found. A later snapshot of the same name takes it over.
    pub name: Option<String>,
    /// Store the bytes as they are, so that the object is of use to others too. Snapshots are stored so in any case
    /// as yet.
    pub raw: bool,
    /// A callback for the number of bytes read.
    pub progress: Option<Progress>,
}

impl Host {
    /// Stores an image. When this returns, it is durable on as many backends as the route asks for.
    ///
    /// # Errors
    /// Errors of reading the source (`conflict` if a file changed meanwhile); the error of the last backend of the route.
    pub async fn store(&self, source: Source, options: StoreOptions) -> Result<Stored> {
        self.put(source, None, &options).await
    }

    /// Stores an image as a change of another one. The backend keeps the lineage where it can.
    ///
    /// # Errors
    /// `not-found` for an unknown base; otherwise as [`Self::store`].
    pub async fn update(&self, base: SnapshotId, source: Source, options: StoreOptions) -> Result<Stored> {
        self.known(base).await?;
        let mut stored = self.put(source, Some(base), &options).await?;
        stored.delta_bytes = Some(stored.stored_bytes);
        Ok(stored)
    }

    pub(super) async fn put(&self, source: Source, base: Option<SnapshotId>, options: &StoreOptions) -> Result<Stored> {
        let began = Instant::now();
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
        };
        let (mut source, mut last) = (Some(source), None);
        for backend in &route.backends {
            let Some(this) = source.take() else { break };
            let again = again(&this);
            match self.put_on(backend, this, base, options).await {
                Ok(put) => {
                    (outcome.id, outcome.size) = (put.id, put.size);
                    outcome.stored_bytes += put.stored_bytes;
                    outcome.placements.push(PlacementInfo { backend: backend.clone(), object: put.object });
                    if outcome.placements.len() == copies {
                        outcome.seconds = began.elapsed().as_secs_f64();
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

    async fn put_on(
        &self,
        backend: &str,
        source: Source,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<Put> {
        if let Source::File(file) = &source
            && let Some(put) = self.there_already(backend, file, base, options).await?
        {
            return Ok(put);
        }
        let mut attempt = self.backend(backend).await?.slot.begin();
        let mut source = source;
        loop {
            let fresh = again(&source);
            let outcome = self.put_once(&attempt, backend, source, base, options).await;
            let next = attempt.end(outcome.as_ref().map(|_| ()), fresh.is_some());
            let (Err(error), Some(next), Some(fresh)) = (&outcome, next, fresh) else { return outcome };
            tracing::debug!(backend, %error, "storing again on another generation of the adapter");
            (attempt, source) = (next, fresh);
        }
    }

    /// One attempt, under its own key: the outcome of an earlier one may be unknown.
    async fn put_once(
        &self,
        attempt: &Attempt,
        backend: &str,
        source: Source,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<Put> {
        let key = fresh_key()?;
        let size = source.size();
        let (body, reading) = source.read(options.progress.clone());
        self.inner.catalogue.begin_intent(&key, backend, self.inner.owner.name()).await?;
        let labels = match attempt.adapter().description().features.labels {
            true => labels::labels(base, options.name.as_deref()),
            false => Vec::new(),
        };
        let hint = StoreHint { key: key.clone(), size, labels };
        match self.send(attempt, backend, hint, base, body, reading).await {
            Ok((receipt, identity)) => {
                if let Ok(Some(object)) = self.sound_object_on(backend, &identity).await {
                    // A stream that turned out to be there already, or two stores of one image at once.
                    self.remove_spare(backend, &receipt.id).await;
                    self.inner.catalogue.commit(snapshot(&identity, base, options), Vec::new(), vec![key]).await?;
                    return Ok(Put { id: identity.id(), size: identity.size(), stored_bytes: 0, object });
                }
                let put = Put {
                    id: identity.id(),
                    size: identity.size(),
                    stored_bytes: receipt.size,
                    object: receipt.id.clone(),
                };
                let snapshot = snapshot(&identity, base, options);
                let shared = !receipt.id.as_str().contains(&key);
                let placement = NewPlacement {
                    backend: backend.to_owned(),
                    object: receipt.id,
                    encoding: Encoding::Raw,
                    stored_bytes: receipt.size,
                };
                self.inner.catalogue.commit(snapshot, vec![placement], vec![key]).await?;
                if shared {
                    self.outlived(backend, &put.object).await?;
                }
                Ok(put)
            }
            Err(error) => {
                // If the backend may have completed it nevertheless, the intent stays, for `gc` to check.
                if !outcome_unknown(&error) {
                    self.inner.catalogue.end_intent(&key).await?;
                }
                Err(error)
            }
        }
    }

    /// Removes an unused object. If that fails it is an orphan, which only costs space.
    ///
    /// If a name follows from the bytes (a CID), a second store has the object of the first: an object in the
    /// catalogue is never unused.
    async fn remove_spare(&self, backend: &str, object: &ObjectId) {
        let removed = match (self.inner.catalogue.placement_of(backend, object).await, self.backend(backend).await) {
            (Ok(Some(_)), _) => return,
            (Ok(None), Ok(there)) => there.slot.remove(object).await,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(backend, %object, %error, "cannot remove an unused object");
        }
    }

    /// Verifies an object whose name is not specific to this store: a concurrent removal of the same image may have
    /// removed it between its store and its record. From the record on, a removal would be one of this snapshot.
    async fn outlived(&self, backend: &str, object: &ObjectId) -> Result<()> {
        match self.backend(backend).await?.slot.stat(object).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                self.inner.catalogue.mark_placement(backend, object, PlacementState::Bad).await?;
                Err(Error::conflict("the same image was removed during the store")
                    .on_backend(backend)
                    .hint("store the image again"))
            }
            _ => Ok(()),
        }
    }

    /// Hands the bytes to the adapter. The identity of a file that changed while it was read is an error, and then the
    /// object that may have been made of it is removed again.
    async fn send(
        &self,
        attempt: &Attempt,
        backend: &str,
        hint: StoreHint,
        base: Option<SnapshotId>,
        body: Body,
        reading: Reading,
    ) -> Result<(Receipt, Identity)> {
        let adapter = attempt.adapter();
        let base = match base {
            Some(base) if adapter.description().features.lineage => self.object_on(backend, base).await?,
            _ => None,
        };
        let receipt = match &base {
            Some(base) => attempt.run(adapter.incremental_update(base, body, hint)).await,
            None => attempt.run(adapter.store(body, hint)).await,
        }?;
        match reading.identity().await {
            Ok(identity) => Ok((receipt, identity)),
            Err(error) => {
                self.remove_spare(backend, &receipt.id).await;
                Err(error)
            }
        }
    }

    /// Whether the backend holds this very image. Hashes it only if it might.
    async fn there_already(
        &self,
        backend: &str,
        file: &FileSource,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Result<Option<Put>> {
        if self.inner.catalogue.by_size(file.size()).await?.is_empty() {
            return Ok(None);
        }
        let identity = file.identify(None).await?;
        let Some(object) = self.sound_object_on(backend, &identity).await? else { return Ok(None) };
        self.inner.catalogue.commit(snapshot(&identity, base, options), Vec::new(), Vec::new()).await?;
        Ok(Some(Put { id: identity.id(), size: identity.size(), stored_bytes: 0, object }))
    }

    /// Returns the object of a snapshot on a backend, if the backend confirms it. A missing one is marked bad.
    async fn sound_object_on(&self, backend: &str, identity: &Identity) -> Result<Option<ObjectId>> {
        let Some(object) = self.object_on(backend, identity.id()).await? else { return Ok(None) };
        match self.backend(backend).await?.slot.stat(&object).await {
            Ok(stat) if stat.size == identity.size() => return Ok(Some(object)),
            Ok(_) => {}
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.inner.catalogue.mark_placement(backend, &object, PlacementState::Bad).await?;
        Ok(None)
    }

    /// The object that holds a snapshot on a backend, if there is a live one.
    pub(super) async fn object_on(&self, backend: &str, id: SnapshotId) -> Result<Option<ObjectId>> {
        let placements = self.inner.catalogue.placements(id).await?;
        let live = |p: &crate::catalogue::Placement| p.backend == backend && p.state == PlacementState::Live;
        Ok(placements.into_iter().find(live).map(|placement| placement.object))
    }
}

struct Put {
    id: SnapshotId,
    size: u64,
    stored_bytes: u64,
    object: ObjectId,
}

/// The same source once more, if it can be read again.
fn again(source: &Source) -> Option<Source> {
    match source {
        Source::File(file) => Some(Source::File(file.clone())),
        Source::Stream(_) => None,
    }
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

/// Whether the backend may hold the object although the store failed: a reply that was lost, a guest that was cut.
fn outcome_unknown(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Limit, Other, TimedOut, Trapped, Unavailable};
    error.backend().is_some() && matches!(error.kind(), Unavailable | TimedOut | Limit | Trapped | Cancelled | Other)
}
