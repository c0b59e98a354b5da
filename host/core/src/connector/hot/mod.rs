//! The hot tier: images that lie ready on this machine, beside their other copies.
//!
//! Every store leaves its image hot as well, after it was recorded: the hot copy does not count, and neither its failure nor a lack
//! of room fails a store. Its objects are ordinary placements on the backend [`HOT`](crate::config::HOT). A snapshot that is
//! a change of a hot one is a pack of the pages that have changed, as they are (profile `random`, level 0); any other one is
//! its image, with holes. So an image can be read in place, whatever it is stored as ([`HotView`]): an update compares it there, small
//! reads prove single pages, and a retrieve into a file copies or clones it.
//!
//! What would exceed the capacity makes room first (`room.rs`).

mod change;
mod room;
mod view;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::store::{Change, StoredCopy};
use super::{Host, StoreOptions};
use crate::config::HOT;
use crate::hot::HotBackend;
use crate::snapshot::{Identity, Source};
use crate::types::{Error, Result, SnapshotId};

pub(super) use view::HotView;

/// The hot tier of a host.
pub(super) struct HotTier {
    pub(super) backend: Arc<HotBackend>,
    capacity: u64,
    /// The most bytes that may be on this machine alone.
    pub(super) at_risk: u64,
    /// Bytes that stores under way may write.
    promised: Arc<AtomicU64>,
    /// Held by who makes room.
    making_room: tokio::sync::Mutex<()>,
    /// Bytes of stores under way that will be on this machine alone.
    pub(super) to_be_at_risk: Arc<AtomicU64>,
    /// Held by who adds to these.
    pub(super) adding_risk: tokio::sync::Mutex<()>,
}

/// What the hot tier holds and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotStats {
    /// The most bytes that it may take.
    pub capacity: u64,
    /// The bytes that it takes.
    pub bytes: u64,
    /// Its objects.
    pub entries: u64,
    /// How often this host has opened an object of it.
    pub hits: u64,
    /// How many objects of it this host has removed to make room.
    pub evictions: u64,
}

/// What a hot image is a change of, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HotChange<'a> {
    /// The base.
    pub(super) base: Option<SnapshotId>,
    /// The bytes in which all changes lie; `None`: anywhere.
    pub(super) changed: Option<&'a [Range<u64>]>,
}

impl HotTier {
    pub(super) fn new(backend: Arc<HotBackend>, capacity: u64, at_risk: u64) -> Self {
        Self {
            backend,
            capacity,
            at_risk,
            promised: Arc::default(),
            making_room: tokio::sync::Mutex::default(),
            to_be_at_risk: Arc::default(),
            adding_risk: tokio::sync::Mutex::default(),
        }
    }

    /// The bytes of page digests that are kept for its images beyond those that are kept anyway. An image has a 128th of its
    /// bytes, and so has each of its versions, however little that takes.
    pub(super) fn digest_bytes(&self) -> u64 {
        self.capacity / 32
    }
}

impl Host {
    /// What the hot tier holds; `None` if there is none. Looks at each of its files.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub async fn hot_stats(&self) -> Result<Option<HotStats>> {
        let Some(hot) = &self.inner.hot else { return Ok(None) };
        let backend = hot.backend.clone();
        let usage = crate::types::blocking(move || backend.usage()).await?;
        Ok(Some(HotStats {
            capacity: hot.capacity,
            bytes: usage.bytes(),
            entries: usage.entries.len() as u64,
            hits: hot.backend.hits(),
            evictions: hot.backend.evictions(),
        }))
    }

    /// Leaves an image hot that was recorded. What fails is told to the log alone.
    pub(super) async fn keep_hot(
        &self,
        source: Source,
        change: HotChange<'_>,
        identity: Arc<Identity>,
        options: &StoreOptions,
    ) {
        let id = identity.id();
        if let Err(error) = self.try_to_keep_hot(source, change, identity, options).await {
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
        let copy = self.put_hot(source, change, &mut Some(identity.clone()), options).await?;
        if self.record_extra(copy).await? {
            self.ensure_page_digests(&identity).await?;
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
                self.hot_pack(base, file, change.changed).await.unwrap_or_else(|error| {
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
            None => room::of_source(&source, identity.as_deref()),
        };
        let promise = self.make_hot_room(hot, wanted).await?;
        let options = StoreOptions { raw: false, progress: None, ..options.clone() };
        let change = Change { base: change.base, pack: pack.as_ref(), ..Change::default() };
        let copy = Box::pin(self.copy_to(HOT, source, change, &options, identity)).await;
        drop(promise);
        copy
    }
}
