//! Copies in the hot tier: what a store leaves there beside its other copies, or stores there alone (`store/local.rs`).
//!
//! Every store leaves its image hot as well, after it was recorded: the hot copy does not count, and neither its failure nor a lack
//! of room fails a store. A change of a hot image is a pack of the pages that have changed, as they are (profile `random`, level
//! 0), so that it can be read in place.

use std::ops::Range;
use std::sync::Arc;

use futures::FutureExt as _;

use super::{Change, StoredCopy};
use crate::catalogue::PlacementState;
use crate::config::HOT;
use crate::connector::change::BaseOf;
use crate::connector::hot_room::of_source;
use crate::connector::packs::Caches;
use crate::connector::payload::PackFile;
use crate::connector::{Host, StoreOptions};
use crate::snapshot::pages::{Options, Profile};
use crate::snapshot::{FileSource, Identity, Source, pages};
use crate::types::{Error, ErrorKind, Result, SnapshotId};

/// What a hot image is a change of, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HotChange<'a> {
    /// The base.
    pub(super) base: Option<SnapshotId>,
    /// The bytes in which all changes lie; `None`: anywhere.
    pub(super) changed: Option<&'a [Range<u64>]>,
}

impl Host {
    /// Leaves an image hot that was recorded. What fails is told to the log alone.
    pub(super) async fn keep_hot(
        &self,
        source: Source,
        change: HotChange<'_>,
        identity: Arc<Identity>,
        options: &StoreOptions,
    ) {
        let id = identity.id();
        if let Err(error) = self.try_to_keep_hot(source, change, identity, options).boxed().await {
            tracing::info!(%id, %error, "the image is not kept hot");
        }
    }

    async fn try_to_keep_hot(
        &self,
        source: Source,
        change: HotChange<'_>,
        identity: Arc<Identity>,
        options: &StoreOptions,
    ) -> Result<()> {
        let Some(hot) = &self.inner.hot else { return Ok(()) };
        if let Some(object) = self.object_on(HOT, identity.id()).await? {
            hot.backend.touch(&object);
            return Ok(());
        }
        let copy = self.put_hot(source, change, &mut Some(identity.clone()), options).boxed().await?;
        let copy = self.proven_hot(copy).boxed().await?;
        if self.record_extra(copy).boxed().await? {
            // It may have taken more than was promised.
            drop(self.make_hot_room(hot, 0).await?);
        }
        Ok(())
    }

    /// Stores an image into the hot tier, and makes room for it. It is not recorded: the caller does that, or discards it.
    /// `identity` is that of the image as it was read before, and is set if there is none.
    ///
    /// # Errors
    /// `unsupported` without a hot tier; `unavailable` if there is no room; as [`Self::copy_to`].
    pub(super) async fn put_hot(
        &self,
        source: Source,
        change: HotChange<'_>,
        identity: &mut Option<Arc<Identity>>,
        options: &StoreOptions,
    ) -> Result<StoredCopy> {
        let Some(hot) = &self.inner.hot else {
            return Err(Error::unsupported("there is no hot tier").hint("add a table [hot] to the configuration"));
        };
        let pack = match (&source, change.base) {
            (Source::File(file), Some(base)) => {
                self.hot_pack(base, file, change.changed).boxed().await.unwrap_or_else(|error| {
                    tracing::info!(%base, %error, "the image is kept hot whole");
                    None
                })
            }
            _ => None,
        };
        if let (Some(pack), None) = (&pack, &identity) {
            *identity = Some(pack.identity.clone());
        }
        let wanted = match &pack {
            Some(pack) => pack.file.size(),
            None => of_source(&source, identity.as_deref()),
        };
        let promise = self.make_hot_room(hot, wanted).await?;
        let options = StoreOptions { raw: false, progress: None, ..options.clone() };
        let change = Change { base: change.base, pack: pack.as_ref(), ..Change::default() };
        let copy = self.copy_to(HOT, source, change, &options, identity).boxed().await;
        drop(promise);
        copy
    }

    /// Proves a copy in the hot tier that is not recorded yet: one that was made, or was there. One that cannot be proven is removed
    /// if it was made, and marked if it was there and is damaged.
    ///
    /// # Errors
    /// `corrupt` if it is not the image; other errors if that cannot be told.
    pub(super) async fn proven_hot(&self, copy: StoredCopy) -> Result<StoredCopy> {
        let placement = match copy.relies_on() {
            Some((backend, object)) => self.inner.catalogue.placement_of(&backend, &object).await?,
            None => copy.unrecorded(),
        };
        let Some(placement) = placement else {
            self.discard(vec![copy]).await;
            return Err(Error::conflict("the hot copy was removed meanwhile").on_backend(HOT));
        };
        let Err(error) = self.prove_hot(&placement, &copy.identity).await else { return Ok(copy) };
        let there = copy.relies_on().is_some();
        self.discard(vec![copy]).await;
        if there && *error.kind() == ErrorKind::Corrupt {
            self.note_damage(&placement, error.message()).await?;
        }
        Err(error)
    }

    /// The change of an image against a base that is hot, as a pack of pages as they are; `None` if the base is not hot, or if
    /// the image is better kept whole.
    ///
    /// # Errors
    /// Errors of reading the image and of the base.
    async fn hot_pack(
        &self,
        base: SnapshotId,
        new: &FileSource,
        changed: Option<&[Range<u64>]>,
    ) -> Result<Option<Arc<PackFile>>> {
        if new.is_device() {
            return Ok(None);
        }
        let Some(view) = self.hot_view(base).await? else { return Ok(None) };
        let placements = self.inner.catalogue.placements(base).await?;
        let Some(placement) = placements.iter().find(|p| p.backend == HOT && p.state == PlacementState::Live) else {
            return Ok(None);
        };
        let chain = self.chain(self.pack_of(placement, Caches::Use).await?, HOT, Caches::Use).await?;
        let identity = self.identity_of(base).await?;
        let digests = self.page_digests(&identity).await;
        let base = BaseOf { chain, identity, image: view as Arc<dyn pages::Image>, digests, backend: None };
        let options = Options { level: 0, ..Options::new(Profile::Random) };
        self.pack_against(base, new, changed.map(<[_]>::to_vec), options, false).await
    }
}
