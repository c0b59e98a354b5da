//! The hot tier: images that lie ready on this machine, beside their other copies.
//!
//! Every store leaves its image hot as well (`store/hot.rs`). Its objects are ordinary placements on the backend
//! [`HOT`](crate::config::HOT). A snapshot that is a change of a hot one is a pack of the pages that have changed, as they are;
//! any other one is its image, with holes. So an image can be read in place, whatever it is stored as ([`HotView`]): an update
//! compares it there, small reads prove single pages, and a retrieve into a file copies or clones it.
//!
//! What would exceed the capacity makes room first (`hot_room.rs`).

mod proof;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::Host;
use crate::hot::HotBackend;
use crate::types::Result;

pub(super) use view::HotView;

/// The hot tier of a host.
pub(super) struct HotTier {
    pub(super) backend: Arc<HotBackend>,
    pub(super) capacity: u64,
    /// The most bytes that may be on this machine alone.
    pub(super) at_risk: u64,
    /// Bytes that stores under way may write.
    pub(super) promised: Arc<AtomicU64>,
    /// Held by who makes room.
    pub(super) making_room: tokio::sync::Mutex<()>,
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
}
