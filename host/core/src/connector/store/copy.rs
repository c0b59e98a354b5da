//! One copy of an image on its way to one backend: found there, or made and not yet recorded.

use std::sync::Arc;

use futures::StreamExt as _;

use crate::backend::Upload;
use crate::catalogue::{NewPlacement, Placement, PlacementState};
use crate::connector::options::StoreOptions;
use crate::connector::report::PlacementInfo;
use crate::connector::upload::{StoreUpload, StoredAttempt};
use crate::connector::{Host, encoding};
use crate::snapshot::{Identity, Source};
use crate::types::{Encoding, Error, ErrorKind, ObjectId, Receipt, Result, SnapshotId};

/// An image on a backend, not yet recorded.
pub(in crate::connector) struct StoredCopy {
    /// What it is.
    pub(super) identity: Arc<Identity>,
    /// The object that this store has made, unless the image was there already.
    pub(super) made: Option<Made>,
    /// Keys whose intents end when it is recorded.
    pub(super) keys: Vec<String>,
    backend: String,
    object: ObjectId,
}

/// An object that a store has made.
pub(super) struct Made {
    key: String,
    encoding: Encoding,
    size: u64,
}

impl StoredCopy {
    /// The bytes that were sent and are kept.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.made.as_ref().map_or(0, |made| made.size)
    }

    pub(super) fn info(&self) -> PlacementInfo {
        PlacementInfo { backend: self.backend.clone(), object: self.object.clone() }
    }

    pub(super) fn placement(&self) -> Option<NewPlacement> {
        self.made.as_ref().map(|made| NewPlacement {
            backend: self.backend.clone(),
            object: self.object.clone(),
            encoding: made.encoding,
            stored_bytes: made.size,
        })
    }

    /// Whether the object's name is not this store's own: it follows from the bytes, and another store may share it.
    fn is_shared(&self) -> bool {
        self.made.as_ref().is_some_and(|made| !self.object.as_str().contains(&made.key))
    }
}

impl Host {
    /// Brings an image to a backend, unless it is there already. `identity` is that of the image as it was read before,
    /// and is set by the first reading.
    ///
    /// # Errors
    /// `conflict` if the image is not what it was before; errors of the source, the backend and the catalogue.
    pub(super) async fn copy_to(
        &self,
        backend: &str,
        source: Source,
        base: Option<SnapshotId>,
        options: &StoreOptions,
        identity: &mut Option<Arc<Identity>>,
    ) -> Result<StoredCopy> {
        if let Source::File(file) = &source {
            if identity.is_none() && !self.inner.catalogue.by_size(file.size()).await?.is_empty() {
                *identity = Some(Arc::new(file.identify(None).await?));
            }
            if let Some(known) = identity
                && let Some(object) = self.sound_object_on(backend, known, options).await?
            {
                let (identity, backend) = (known.clone(), backend.to_owned());
                return Ok(StoredCopy { identity, made: None, keys: Vec::new(), backend, object });
            }
        }
        let objects = &self.backend(backend).await?.objects;
        let upload = StoreUpload::new(self, backend, source, base, options);
        let receipt = objects.put(Upload::new(upload.clone())).await?;
        let copy = self.settle(backend, receipt, upload.take_stored()).await?;
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

    /// What a put has stored. Of several attempts that succeeded, the one with the receipt counts.
    ///
    /// # Errors
    /// `conflict` if the file changed while it was read: then the object that was made of it is removed again.
    pub(in crate::connector) async fn settle(
        &self,
        backend: &str,
        receipt: Receipt,
        stored: Vec<StoredAttempt>,
    ) -> Result<StoredCopy> {
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
        let identity = match reading.identity().await {
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
        let (backend, object) = (backend.to_owned(), receipt.id);
        if let Some(there) = self.proven_object_on(&backend, &identity, &object).await {
            // A stream that turned out to be there already, or two stores of one image at once.
            if self.remove_spare(&backend, &object).await {
                keys.push(key);
            }
            return Ok(StoredCopy { identity, made: None, keys, backend, object: there });
        }
        keys.push(key.clone());
        let made = Some(Made { key, encoding, size: receipt.size });
        Ok(StoredCopy { identity, made, keys, backend, object })
    }

    /// Removes the objects of copies that are not to be recorded. What cannot be removed keeps its intent, for a garbage
    /// collection.
    pub(super) async fn discard(&self, copies: Vec<StoredCopy>) {
        for StoredCopy { made, mut keys, backend, object, .. } in copies {
            if let Some(made) = made
                && !self.remove_spare(&backend, &object).await
            {
                keys.retain(|key| *key != made.key);
            }
            for key in keys {
                if let Err(error) = self.inner.catalogue.end_intent(&key).await {
                    tracing::warn!(key, %error, "cannot end the intent of an object that was removed");
                }
            }
        }
    }

    /// Removes an object that nobody needs, and says whether nothing is left to be removed. If it is, the intent of its
    /// attempt has to stay.
    ///
    /// Where a name follows from the bytes (a CID), the object of a second store is that of the first: what the
    /// catalogue knows of is never spare.
    async fn remove_spare(&self, backend: &str, object: &ObjectId) -> bool {
        let removed = match (self.inner.catalogue.placement_of(backend, object).await, self.backend(backend).await) {
            (Ok(Some(_)), _) => return true,
            (Ok(None), Ok(there)) => there.objects.delete(object).await,
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
        if !copy.is_shared() {
            return Ok(());
        }
        let StoredCopy { backend, object, .. } = copy;
        match self.backend(backend).await?.objects.stat(object).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                self.inner.catalogue.mark_placement(backend, object, PlacementState::Bad).await?;
                Err(Error::conflict("the same image was removed during the store")
                    .on_backend(backend)
                    .hint("store the image again"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the object of a snapshot on a backend, if it is not known to be bad, lies as the store would lay it out, and
    /// the backend confirms its size. One that is missing or has another size is marked bad.
    async fn sound_object_on(
        &self,
        backend: &str,
        identity: &Identity,
        options: &StoreOptions,
    ) -> Result<Option<ObjectId>> {
        let Some(placement) = self.placement_on(backend, identity.id()).await? else { return Ok(None) };
        if !encoding::suits(placement.encoding, options) {
            return Ok(None);
        }
        let expected = encoding::expected_size(&placement, identity.size());
        let object = placement.object;
        match self.backend(backend).await?.objects.stat(&object).await {
            Ok(stat) if stat.size == expected => return Ok(Some(object)),
            Ok(_) => {}
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.inner.catalogue.mark_placement(backend, &object, PlacementState::Bad).await?;
        Ok(None)
    }

    /// Returns the object of a snapshot on a backend that makes a new one unnecessary: every byte of it has been read and
    /// was right. A new object is never given up for one that the catalogue alone vouches for.
    async fn proven_object_on(&self, backend: &str, identity: &Identity, new: &ObjectId) -> Option<ObjectId> {
        let placement = self.placement_on(backend, identity.id()).await.ok()??;
        if placement.object == *new {
            // The same object: it was stored once more, under the name that follows from its bytes.
            return None;
        }
        let read = async {
            let image = self.open(identity.id()).await?;
            let mut body = image.stream_placement(&placement).await?;
            while let Some(chunk) = body.next().await {
                chunk?;
            }
            Ok(())
        };
        match read.await {
            Ok(()) => Some(placement.object),
            Err(error) => {
                let error: Error = error;
                tracing::warn!(backend, object = %placement.object, %error, "the stored copy cannot be relied on");
                None
            }
        }
    }

    /// The object that holds a snapshot on a backend, if there is a live one.
    pub(in crate::connector) async fn object_on(&self, backend: &str, id: SnapshotId) -> Result<Option<ObjectId>> {
        Ok(self.placement_on(backend, id).await?.map(|placement| placement.object))
    }

    async fn placement_on(&self, backend: &str, id: SnapshotId) -> Result<Option<Placement>> {
        let placements = self.inner.catalogue.placements(id).await?;
        Ok(placements.into_iter().find(|p| p.backend == backend && p.state == PlacementState::Live))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoSecrets;
    use crate::backend::Backend as _;
    use crate::backend::testing::MemoryBackend;
    use crate::config::Config;
    use crate::connector::HostOptions;
    use crate::snapshot::FileSource;

    fn file(bytes: &[u8]) -> FileSource {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        FileSource::new(file, "image").unwrap()
    }

    #[tokio::test]
    async fn a_copy_of_other_bytes_is_removed_and_its_intent_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryBackend::new("local"));
        let backends = [(memory.name().to_owned(), memory.clone() as Arc<dyn crate::backend::Backend>)].into();
        let options = HostOptions { backends, ..HostOptions::default() };
        let config = Config::embedded_default(dir.path());
        let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
        // Bytes that changed after the first copy without a trace in the times, as those of a device do.
        let before = file(b"before").identify(None).await.unwrap();
        let mut identity = Some(Arc::new(before));
        let source = Source::File(file(b"behind"));
        let copied = host.copy_to("local", source, None, &StoreOptions::default(), &mut identity).await;
        assert_eq!(*copied.err().unwrap().kind(), ErrorKind::Conflict);
        assert_eq!(memory.objects(), [""; 0]);
        let catalogue = rusqlite::Connection::open(dir.path().join("catalogue.sqlite")).unwrap();
        let intents: u64 = catalogue.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).unwrap();
        assert_eq!(intents, 0);
    }
}
