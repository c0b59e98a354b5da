//! One copy of an image on its way to one backend: found there, or made and not yet recorded.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};

use crate::catalogue::{NewPlacement, Placement, PlacementState};
use crate::connector::Host;
use crate::connector::change::Change;
use crate::connector::encoding;
use crate::connector::full::may_be_full;
use crate::connector::object_bytes::{Layout, again};
use crate::connector::options::StoreOptions;
use crate::connector::packs::Caches;
use crate::connector::payload::{PackFile, Payload};
use crate::connector::report::PlacementInfo;
use crate::connector::upload::{StoreUpload, StoredAttempt};
use crate::snapshot::{CheckedSource, Identity, Source};
use crate::types::{Body, Error, ErrorKind, ObjectId, Receipt, Result, SnapshotId};

/// An image on a backend, not yet recorded.
pub(in crate::connector) struct StoredCopy {
    /// The identity of the image.
    pub(super) identity: Arc<Identity>,
    /// The object that was there already. It has been confirmed; if one was made as well, every byte of it was read.
    pub(super) there: Option<ObjectId>,
    /// The object that this store has made.
    pub(super) made: Option<Made>,
    /// Keys of attempts of which nothing is left, whose intents end when it is recorded.
    keys: Vec<String>,
    backend: String,
    /// Gives up the intents of its attempts when it ends, so it must not end before the copy is recorded.
    pub(super) upload: Option<Arc<StoreUpload>>,
}

/// An object that a store has made.
pub(super) struct Made {
    pub(super) object: ObjectId,
    key: String,
    layout: Layout,
    size: u64,
}

impl StoredCopy {
    /// The object that this store has made and that counts: not if one was there already.
    fn counting(&self) -> Option<&Made> {
        self.made.as_ref().filter(|_| self.there.is_none())
    }

    /// Returns whether it counts on what was there already: the object itself, or what its pack takes pages from.
    pub(super) fn relies(&self) -> bool {
        self.made.as_ref().is_none_or(|made| made.layout.pack.is_some())
    }

    /// The backend that it is on.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    /// The bytes that were sent and are kept.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.counting().map_or(0, |made| made.size)
    }

    /// The object that it is, and the placement that it will have.
    pub(in crate::connector) fn made(&self) -> Option<(&ObjectId, u64)> {
        self.counting().map(|made| (&made.object, made.size))
    }

    pub(in crate::connector) fn info(&self) -> Option<PlacementInfo> {
        let object = self.there.as_ref().or(self.made.as_ref().map(|made| &made.object))?;
        Some(PlacementInfo { backend: self.backend.clone(), object: object.clone() })
    }

    pub(super) fn placement(&self) -> Option<NewPlacement> {
        self.counting().map(|made| NewPlacement {
            backend: self.backend.clone(),
            object: made.object.clone(),
            encoding: made.layout.encoding,
            pack: made.layout.pack.clone(),
            stored_bytes: made.size,
        })
    }

    /// The object that was made, as a placement before it is recorded.
    pub(in crate::connector) fn unrecorded(&self) -> Option<Placement> {
        let Made { object, layout, size, .. } = self.made.as_ref()?;
        Some(Placement {
            snapshot: self.identity.id(),
            backend: self.backend.clone(),
            object: object.clone(),
            encoding: layout.encoding,
            pack: layout.pack.as_ref().map(|pack| pack.id),
            state: PlacementState::Live,
            reason: None,
            since: 0,
            version: 0,
            stored_bytes: *size,
            created: 0,
        })
    }

    /// The object that was there already, which has to be there still when the copy is recorded.
    pub(super) fn relies_on(&self) -> Option<(String, ObjectId)> {
        self.there.as_ref().map(|object| (self.backend.clone(), object.clone()))
    }

    /// The keys of the intents that end when the copy is recorded.
    pub(super) fn intents(&self) -> impl Iterator<Item = String> {
        self.keys.iter().chain(self.counting().map(|made| &made.key)).cloned()
    }
}

/// The bytes of a copy, read in a task of their own: whoever polls them may be within a call of a guest, and no guest's call
/// can go on within another one's.
pub(in crate::connector) fn apart(host: Host, placement: Arc<Placement>, identity: Arc<Identity>) -> Body {
    let size = identity.size();
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let forward = async {
            let mut body = match host.open_placement(&placement, &identity, None, Caches::Use).await {
                Ok(body) => body,
                Err(error) => return drop(tell.send(Err(error)).await),
            };
            while let Some(chunk) = body.next().await {
                if tell.send(chunk).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = forward => {}
            () = tell.closed() => {}
        }
    });
    let chunks = futures::stream::unfold(told, |mut told| async { told.recv().await.map(|chunk| (chunk, told)) });
    Body::new(chunks, Some(size))
}

impl Host {
    /// Brings an image to a backend, unless it is there already. `identity` is that of the image as it was read before,
    /// and is set by the first reading.
    ///
    /// # Errors
    /// `conflict` if the image is not what it was before; errors of the source, the backend and the catalogue.
    pub(in crate::connector) async fn copy_to(
        &self,
        backend: &str,
        source: Source,
        change: Change<'_>,
        options: &StoreOptions,
        identity: &mut Option<Arc<Identity>>,
    ) -> Result<StoredCopy> {
        let base = change.base;
        self.ensure_container(backend).await?;
        if let (Source::File(file), None) = (&source, &identity)
            && self.inner.catalogue.has_size(file.size()).await?
        {
            *identity = Some(Arc::new(file.identify(None).await?));
        }
        let needed = self.needed_pack(backend, change).boxed().await?;
        let only = needed.map(|pack| pack.pack.id);
        if let Some(known) = identity
            && let Some(object) = self.sound_object_on(backend, known, only, options).await?
        {
            let (identity, there, backend) = (known.clone(), Some(object), backend.to_owned());
            return Ok(StoredCopy { identity, there, made: None, keys: Vec::new(), backend, upload: None });
        }
        let upload = |pack: &Arc<PackFile>| StoreUpload::new(self, backend, Payload::Pack(pack.clone()), base, options);
        let mut copy = match (needed, change.pack) {
            (Some(pack), _) if change.read_back => self.send_and_read_back(upload(pack).anew()).boxed().await?,
            (Some(pack), _) => self.send_pack(upload(pack).anew()).await?,
            (None, Some(pack)) if change.sends_pack() && self.takes_pack(backend, pack).boxed().await? => {
                match change.read_back {
                    true => self.send_and_read_back(upload(pack)).boxed().await?,
                    false => self.send_pack(upload(pack)).await?,
                }
            }
            (None, _) => None,
        };
        let mut source = Some(source);
        if copy.is_none()
            && let Some(this) = source.take()
        {
            source = match self.sends_full_pack(backend, may_be_full(&this), identity.as_deref(), options).await? {
                true => {
                    let again = again(&this);
                    let profile = encoding::profile(self.route(options.route.as_deref())?.profile);
                    match self.full_pack(backend, this, profile).await {
                        Ok(full) => {
                            let full = StoreUpload::new(self, backend, Payload::Full(full), base, options);
                            copy = self.send_pack(full).await?;
                            again
                        }
                        Err(this) => Some(this),
                    }
                }
                false => Some(this),
            };
        }
        let copy = match (copy, source) {
            (Some(copy), _) => copy,
            (None, Some(source)) => {
                self.send_image(StoreUpload::new(self, backend, Payload::Image(source), base, options)).await?
            }
            (None, None) => {
                return Err(Error::unavailable("the backend does not keep the labels that packs need")
                    .on_backend(backend)
                    .hint("store the image again: it will be sent as it is"));
            }
        };
        // It may have gone to another container that took its place meanwhile.
        if let Err(error) = self.confirm_container(backend).await {
            self.discard(vec![copy]).await;
            return Err(error);
        }
        match identity {
            Some(before) if before.id() != copy.identity.id() => {
                self.discard(vec![copy]).await;
                Err(Error::conflict("the image changed while its copies were made: they would differ")
                    .hint("pause the machine that uses the image, or store a copy"))
            }
            Some(_) => Ok(copy),
            None => {
                *identity = Some(copy.identity.clone());
                Ok(copy)
            }
        }
    }

    /// An image as the source of further copies, read from one that is not recorded yet. It is opened once the next backend
    /// has begun to take it.
    pub(super) fn source_of(&self, copy: &StoredCopy) -> Option<Source> {
        // What was made is read, and not what was there, which may be laid out in another way. It goes only once all are recorded.
        let placement = Arc::new(copy.unrecorded()?);
        let (host, identity) = (self.clone(), copy.identity.clone());
        let open = move || {
            let (host, placement, identity) = (host.clone(), placement.clone(), identity.clone());
            async move { Ok(apart(host, placement, identity)) }.boxed()
        };
        Some(Source::Checked(CheckedSource::new(copy.identity.clone(), open)))
    }

    /// Takes note that a backend has no base. Returns whether there was one to be noted.
    pub(super) async fn base_is_missing(&self, backend: &str, base: SnapshotId, error: &Error) -> Result<bool> {
        let Some(placement) = self.placements_on(backend, base).await?.into_iter().next() else { return Ok(false) };
        let error = self.note_missing(&placement, error.duplicate()).await?;
        if *error.kind() == ErrorKind::NotFound { Ok(true) } else { Err(error) }
    }

    /// Returns what a put has stored. Of several attempts that succeeded, the one with the receipt counts. Without options, nothing
    /// counts that was there already.
    ///
    /// # Errors
    /// `conflict` if the file changed while it was read: then the object that was made of it is removed again.
    pub(in crate::connector) async fn settle(
        &self,
        backend: &str,
        receipt: Receipt,
        stored: Vec<StoredAttempt>,
        options: Option<&StoreOptions>,
    ) -> Result<StoredCopy> {
        let (mut chosen, mut keys) = (None, Vec::new());
        for attempt in stored {
            if attempt.receipt == receipt && chosen.is_none() {
                chosen = Some(attempt);
            } else if attempt.receipt.id == receipt.id || self.remove_spare(backend, &attempt.receipt.id).await {
                keys.push(attempt.key);
            }
        }
        let Some(StoredAttempt { key, reading, mut layout, made, .. }) = chosen else {
            return Err(Error::corrupt("no attempt has the receipt that was returned").on_backend(backend));
        };
        let known = async {
            let identity = reading.identity().await?;
            if let Some(made) = made {
                let unread = |_| Error::new(ErrorKind::Cancelled, "the image was not read to the end");
                layout.pack = Some(made.await.map_err(unread)?);
            }
            Ok(identity)
        };
        let identity = match known.await {
            Ok(identity) => Arc::new(identity),
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
        // A stream may turn out to be there already, and so may one of two stores of an image at once.
        let there = match options {
            Some(options) => self.proven_object_on(backend, &identity, &receipt.id, options).await,
            None => None,
        };
        let made = Some(Made { object: receipt.id.clone(), key, layout, size: receipt.size });
        let copy = StoredCopy { identity, there, made, keys, backend: backend.to_owned(), upload: None };
        match self.is_mended(&copy, &receipt.id).boxed().await {
            Ok(()) => Ok(copy),
            Err(error) => {
                self.discard(vec![copy]).await;
                Err(error)
            }
        }
    }

    /// Makes sure of a new object that has the name of one that is known to be bad, since it follows from the bytes: a
    /// backend that knows the name may have kept what it had. Reads every byte.
    ///
    /// # Errors
    /// `corrupt` if it is as bad as before.
    async fn is_mended(&self, copy: &StoredCopy, object: &ObjectId) -> Result<()> {
        let known = self.inner.catalogue.placement_of(&copy.backend, object).await?;
        let Some(placement) = known.filter(|known| known.state != PlacementState::Live) else { return Ok(()) };
        self.prove(&placement, &copy.identity).await.map_err(|error| {
            Error::corrupt(format!(
                "the backend keeps a damaged object of the same bytes and took no other: {}",
                error.message()
            ))
            .on_backend(&copy.backend)
            .hint("remove the damaged data on the backend itself, then store the image again")
            .with_source(error)
        })
    }

    /// Removes what was made of copies and is not recorded. What cannot be removed keeps its intent, for a garbage
    /// collection.
    pub(in crate::connector) async fn discard(&self, copies: Vec<StoredCopy>) {
        for StoredCopy { made, mut keys, backend, upload, .. } in copies {
            if let Some(made) = made
                && self.remove_spare(&backend, &made.object).await
            {
                keys.push(made.key);
            }
            for key in keys {
                if let Err(error) = self.inner.catalogue.end_intent(&key).await {
                    tracing::warn!(key, %error, "cannot end the intent of an object that was removed");
                }
            }
            drop(upload);
        }
    }

    /// Removes an object that is not needed, and returns whether nothing is left to be removed. If it is, the intent of its
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

    /// Makes sure of an object whose name is not its store's own: whoever removed the same image may have removed it
    /// between the store and its record. From the record on, a removal would be one of this snapshot.
    pub(super) async fn ensure_it_outlived(&self, copy: &StoredCopy) -> Result<()> {
        let (backend, Some(made)) = (&copy.backend, copy.counting()) else { return Ok(()) };
        // An object whose name is not this store's own: it follows from the bytes, and another store may share it.
        let object = &made.object;
        if object.as_str().contains(&made.key) {
            return Ok(());
        }
        // As it was before the object is looked for: another store may bring it back meanwhile, and record that.
        let placement = self.inner.catalogue.placement_of(backend, object).await?;
        match self.backend(backend).await?.objects.stat(object).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                if let Some(placement) = placement {
                    let error = self.note_missing(&placement, error).await?;
                    if *error.kind() != ErrorKind::NotFound {
                        return Err(error);
                    }
                }
                Err(Error::conflict("the same image was removed during the store")
                    .on_backend(backend)
                    .hint("store the image again"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
