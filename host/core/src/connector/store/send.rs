//! Sending an image or a pack to a backend.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::copy::StoredCopy;
use crate::backend::{Upload, UploadSource as _};
use crate::catalogue::{Placement, PlacementState};
use crate::connector::change::Change;
use crate::connector::packs::Sound;
use crate::connector::payload::PackFile;
use crate::connector::upload::StoreUpload;
use crate::connector::{Host, encoding};
use crate::types::{Encoding, Error, ErrorKind, Result};

impl Host {
    /// Returns whether a backend can take this pack: it has all that the pack needs.
    pub(super) async fn takes_pack(&self, backend: &str, pack: &PackFile) -> Result<bool> {
        if !self.takes_packs(backend).await? {
            return Ok(false);
        }
        // What others may need can be mended by the same bytes alone, and must not come to need itself.
        let there = self.inner.catalogue.placements(pack.identity.id()).await?;
        let other =
            |p: &Placement| p.backend == backend && p.state != PlacementState::Removing && p.pack != Some(pack.pack.id);
        Ok(!there.iter().any(other) && self.has_all_of(backend, &pack.pack.needs, &mut Sound::of_a_new_pack()).await?)
    }

    /// The pack of a change, if others take pages from it and the backend has all that it needs: that is how it lay there before, so
    /// it cannot come to need itself.
    pub(super) async fn needed_pack<'a>(&self, backend: &str, change: Change<'a>) -> Result<Option<&'a Arc<PackFile>>> {
        let Some(pack) = change.pack.filter(|_| change.needed && change.sends_pack()) else { return Ok(None) };
        let takes = self.takes_packs(backend).await?
            && self.has_all_of(backend, &pack.pack.needs, &mut Sound::of_a_new_pack()).await?;
        Ok(Some(pack).filter(|_| takes))
    }

    /// Sends what an upload has.
    async fn send(&self, upload: &Arc<StoreUpload>) -> Result<StoredCopy> {
        let backend = upload.backend();
        let objects = &self.backend(backend).await?.objects;
        let mut put = objects.put(Upload::new(upload.clone())).await;
        if let (Err(error), Some(base)) = (&put, upload.base())
            && *error.kind() == ErrorKind::NotFound
            && self.base_is_missing(backend, base, error).await?
            && upload.is_replayable()
        {
            // Lineage is information: without its base, an image is stored all the same.
            put = objects.put(Upload::new(upload.clone())).await;
        }
        let options = Some(upload.options()).filter(|_| !upload.is_anew());
        let mut copy = self.settle(backend, put?, upload.take_stored(), options).await?;
        copy.upload = Some(upload.clone());
        Ok(copy)
    }

    /// Sends an image as it is, and asks the backend for its size: a receipt says what was sent, and a server that answers 200 to a
    /// PUT and keeps nothing, or half, would be found out only when the image is needed. One question about an object costs
    /// little beside its upload, and S3 and all that is like it shows what it has acknowledged.
    ///
    /// # Errors
    /// `corrupt` if it is not there or has another size: then it is removed again. What the backend says.
    pub(super) async fn send_image(&self, upload: StoreUpload) -> Result<StoredCopy> {
        let upload = &Arc::new(upload);
        let copy = self.send(upload).await?;
        let Some((object, size)) = copy.made() else { return Ok(copy) };
        let backend = upload.backend();
        let lost = |what: String| {
            Error::corrupt(format!("the backend has acknowledged object `{object}`, and {what}"))
                .on_backend(backend)
                .during("store")
                .hint("the server, or something in front of it, does not keep what it acknowledges")
        };
        let error = match self.size_of_new(backend, object).await {
            Ok(shown) if shown.is_none_or(|shown| shown == size) => return Ok(copy),
            Ok(shown) => lost(format!("has {} of its {size} bytes", shown.unwrap_or(0))),
            // Whatever says so may be in front of another container, or of none.
            Err(error) if *error.kind() == ErrorKind::NotFound => match self.check_container(backend).await {
                Ok(()) => lost("does not have it".to_owned()).with_source(error),
                Err(away) => away,
            },
            Err(error) => error,
        };
        self.discard(vec![copy]).await;
        Err(error)
    }

    /// Sends a pack, or an image that becomes one, and makes sure that its label has arrived: without it, nothing would tell the pack
    /// from an image when a catalogue is rebuilt. `None` if the backend cannot keep it, and has none of it.
    pub(in crate::connector) async fn send_pack(&self, upload: StoreUpload) -> Result<Option<StoredCopy>> {
        let upload = &Arc::new(upload);
        let backend = upload.backend();
        let copy = match self.send(upload).await {
            Err(error) if upload.was_refused() => {
                tracing::warn!(backend, %error, "the image is stored whole");
                return Ok(None);
            }
            sent => sent?,
        };
        let Some(made) = &copy.made else { return Ok(Some(copy)) };
        let stat = self.backend(backend).await?.objects.stat(&made.object).await;
        match stat.and_then(|stat| encoding::of_unknown(&stat)) {
            Ok(Encoding::Pages) => Ok(Some(copy)),
            Ok(Encoding::Raw) => {
                tracing::warn!(backend, "the backend does not keep labels: images are stored whole");
                self.configured(backend)?.loses_labels.store(true, Ordering::Relaxed);
                self.discard(vec![copy]).await;
                Ok(None)
            }
            Err(error) => {
                self.discard(vec![copy]).await;
                Err(error)
            }
        }
    }
}
