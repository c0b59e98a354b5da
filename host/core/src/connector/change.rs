//! What has changed of an image since another one, as a pack (`store/update.rs` stores it).
//!
//! The base is compared page by page, or by the digests of its pages where these are kept on this machine; where the caller
//! knows which parts can have changed, only those are read. A backend gets the pack if it has what the pack takes pages from,
//! so that no copy depends on another backend than its own; any other one gets the image as it is. So does every backend if
//! the pack would save little, or would need too many others.

mod encode;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) use encode::{Stop, Stoppable};
use encode::{StoredImage, Written, encode};

use super::encoding::keeps_packs;
use super::packs::{Caches, needs_of};
use super::payload::PackFile;
use super::{Host, StoreOptions, encoding};
use crate::catalogue::{NewPack, Placement, PlacementState};
use crate::snapshot::pages::{Chain, Encoded, Options, PageDigests};
use crate::snapshot::{DirtyRanges, FileSource, Identity, Source, pages};
use crate::types::{Error, ErrorKind, Result, SnapshotId, blocking};

/// The most sources of a pack: beyond it, the image is stored whole.
pub(super) const MAX_SOURCES: usize = 64;
/// The most runs of pages per GiB that a map may have, and at least.
const RUNS_PER_GIB: u64 = 65_536;
const RUNS: u64 = 65_536;
/// A pack above this percentage of the image's data is not stored, nor is one of an image of less than 100 bytes.
const MAX_PACK_PERCENT: u64 = 80;

/// What an image is a change of, if it is one.
#[derive(Clone, Copy, Default)]
pub(in crate::connector) struct Change<'a> {
    /// The base.
    pub(in crate::connector) base: Option<SnapshotId>,
    /// What has changed, for backends that have the base.
    pub(in crate::connector) pack: Option<&'a Arc<PackFile>>,
    /// The bytes in which all changes lie, if the caller has said so.
    pub(in crate::connector) changed: Option<&'a [Range<u64>]>,
    /// Send the image all the same. What the pack holds is what the image has to be.
    pub(in crate::connector) whole: bool,
    /// The pack counts only where it was read back with all that it takes pages from: its base was found and not named, or a job
    /// sends it, which nobody waits for.
    pub(in crate::connector) read_back: bool,
    /// This very pack is wanted, as others take pages from it, whatever else there is of the image.
    pub(in crate::connector) needed: bool,
}

impl Change<'_> {
    /// Returns whether backends are sent the pack.
    pub(in crate::connector) fn sends_pack(&self) -> bool {
        self.pack.is_some() && !self.whole
    }
}

/// What an image is compared with.
pub(super) struct BaseOf {
    pub(super) chain: Chain,
    pub(super) identity: Arc<Identity>,
    pub(super) image: Arc<dyn pages::Image>,
    pub(super) digests: Option<PageDigests>,
    /// The backend that it is read from; `None` if it is at hand.
    pub(super) backend: Option<String>,
}

impl Host {
    /// The change of an image against a base, as a pack; `None` if the image is to be stored whole. `at_hand` has the proven
    /// bytes of the base, if they are on this machine; a hot base is looked for besides.
    ///
    /// # Errors
    /// Errors of reading the image.
    pub(super) async fn change_of(
        &self,
        base: SnapshotId,
        at_hand: Option<Arc<dyn pages::Image>>,
        new: &FileSource,
        dirty: Option<&DirtyRanges>,
        options: &StoreOptions,
    ) -> Result<Option<Arc<PackFile>>> {
        if new.is_device() {
            // It is read twice, and nothing would show that it was written to between.
            return Ok(None);
        }
        let hot = match &at_hand {
            Some(_) => None,
            None => self.hot_view(base).await.unwrap_or_default(),
        };
        let image = at_hand.or_else(|| hot.clone().map(|hot| hot as Arc<dyn pages::Image>));
        let dirty = dirty.map(|dirty| dirty.as_slice().to_vec());
        match (self.change_from(base, image, new, dirty.clone(), options).await, hot) {
            (Err(error), Some(hot)) if *error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%base, %error, "the hot copy of the base is damaged");
                self.condemn(&hot).await;
                self.change_from(base, None, new, dirty, options).await.or_else(|error| unless_base(base, error))
            }
            (Err(error), _) => unless_base(base, error),
            (outcome, _) => outcome,
        }
    }

    async fn change_from(
        &self,
        base: SnapshotId,
        at_hand: Option<Arc<dyn pages::Image>>,
        new: &FileSource,
        dirty: Option<Vec<Range<u64>>>,
        options: &StoreOptions,
    ) -> Result<Option<Arc<PackFile>>> {
        let base = match self.base_of(base, at_hand, options).await {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%base, %error, "cannot read the base: the image is stored whole");
                return Ok(None);
            }
        };
        // Without those of the base, the image would have to be read whole for them.
        let with_digests = dirty.is_none() || base.digests.is_some();
        let profile = encoding::profile(self.route(options.route.as_deref())?.profile);
        self.pack_against(base, new, dirty, Options::new(profile), with_digests).await
    }

    /// The change of an image against a base, as a pack; `None` if it is not worth that. Keeps the page digests of the image
    /// if that is wanted.
    ///
    /// # Errors
    /// Errors of reading the image; `corrupt` if the base is damaged, and other [failures of the base](is_base_failure).
    pub(super) async fn pack_against(
        &self,
        base: BaseOf,
        new: &FileSource,
        dirty: Option<Vec<Range<u64>>>,
        options: Options,
        with_digests: bool,
    ) -> Result<Option<Arc<PackFile>>> {
        let out = self.temporary_file()?;
        let (stop, new_size) = (Stop::default(), new.size());
        let image = Stoppable { image: new.image()?, stop: stop.0.clone() };
        let sidecar = if with_digests { self.temporary_file().ok() } else { None };
        let place = self.inner.encoders.change(base.backend.as_deref()).await?;
        let encoded = blocking(move || encode(&image, &base, dirty.as_deref(), out, sidecar, &options)).await;
        drop((stop, place));
        let Some(Written { encoded, out, id, sidecar, changed }) = encoded? else { return Ok(None) };
        new.check_unchanged(&encoded.identity).await?;
        if let Some(sidecar) = sidecar
            && let Err(error) = self.keep_page_digests(&encoded.identity, sidecar).await
        {
            tracing::warn!(%error, "cannot keep page digests");
        }
        let counts = &encoded.counts;
        let data = (counts.unchanged + counts.moved + counts.repeated + counts.stored) * pages::PAGE_BYTES;
        let worth = encoded.pack.stored() <= data.min(new_size) / 100 * MAX_PACK_PERCENT;
        if !worth || !is_cheap_to_read(&encoded, new_size) {
            return Ok(None);
        }
        let pack = NewPack { id: encoded.pack.id(), needs: needs_of(&encoded.pack) };
        let file = FileSource::own(out, "the pack", Some(id))?;
        Ok(Some(Arc::new(PackFile { file, identity: Arc::new(encoded.identity), pack, changed: Some(changed) })))
    }

    /// What an image is compared with; `None` if no backend of the route could use a pack against it.
    async fn base_of(
        &self,
        id: SnapshotId,
        at_hand: Option<Arc<dyn pages::Image>>,
        options: &StoreOptions,
    ) -> Result<Option<BaseOf>> {
        let route = self.route(options.route.as_deref())?.backends.clone();
        let mut placements = self.inner.catalogue.placements(id).await?;
        placements.retain(|p| p.state == PlacementState::Live && route.contains(&p.backend));
        // Of several objects on a backend the latest: one that took the place of another takes pages from fewer.
        placements.reverse();
        placements.sort_by_key(|p| route.iter().position(|name| *name == p.backend));
        for placement in placements {
            if !self.takes_packs(&placement.backend).await? {
                continue;
            }
            return self.base_on(&placement, at_hand).await.map(Some);
        }
        Ok(None)
    }

    /// A placement as what an image is compared with.
    ///
    /// # Errors
    /// Errors of reading its metadata.
    pub(super) async fn base_on(
        &self,
        placement: &Placement,
        at_hand: Option<Arc<dyn pages::Image>>,
    ) -> Result<BaseOf> {
        let id = placement.snapshot;
        let chain = self.chain(self.pack_of(placement, Caches::Use).await?, &placement.backend, Caches::Use).await?;
        let identity = self.identity_of(id).await?;
        let (image, backend): (Arc<dyn pages::Image>, _) = match at_hand {
            Some(image) => (image, None),
            None => {
                let first = self.readable(id).await?.into_iter().next();
                let image = self.open(id).await?;
                let backend = first.map(|placement| placement.backend);
                (Arc::new(StoredImage { image, runtime: tokio::runtime::Handle::current() }), backend)
            }
        };
        let digests = self.page_digests(&identity).await;
        Ok(BaseOf { chain, identity, image, digests, backend })
    }

    /// Returns whether packs can be stored on a backend: it keeps labels, which tell a pack from an image of the same bytes when a
    /// catalogue is rebuilt, and gives any part of an object at once. Not if it was seen to lose the label of a pack.
    pub(super) async fn takes_packs(&self, backend: &str) -> Result<bool> {
        let info = self.backend(backend).await?.objects.info();
        let backend = self.configured(backend)?;
        Ok(keeps_packs(info.features) && !info.archive && !backend.loses_labels.load(Ordering::Relaxed))
    }

    /// A stream as a file without a name. Whatever reads it is compared with the stream.
    pub(super) async fn spooled(&self, source: Source) -> Result<FileSource> {
        let (body, reading) = source.read(None);
        let file = self.write_out(body, "a temporary copy of the image").await?;
        FileSource::own(file, "a temporary copy of the image", Some(reading.identity().await?.id()))
    }
}

/// A base that is damaged on every backend, or too many sources: nothing is wrong with the image, which is stored whole.
fn unless_base<T>(base: SnapshotId, error: Error) -> Result<Option<T>> {
    if !is_base_failure(&error) {
        return Err(error);
    }
    tracing::warn!(%base, %error, "the image is stored whole");
    Ok(None)
}

/// Returns whether what went wrong is the base's fault, or the format's: the image can be stored whole.
fn is_base_failure(error: &Error) -> bool {
    error.backend().is_some() || matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// Returns whether the map is not in too many pieces.
fn is_cheap_to_read(encoded: &Encoded, size: u64) -> bool {
    let runs = encoded.pack.map().runs().len() as u64;
    encoded.pack.sources().len() <= MAX_SOURCES && runs <= RUNS.max((size >> 30).saturating_mul(RUNS_PER_GIB))
}

#[cfg(test)]
mod tests;
