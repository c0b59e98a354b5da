//! What reading the metadata of packs may cost, and what is held for it.

use std::any::Any;
use std::sync::Arc;

/// What reading the metadata of packs may cost. Writers keep to it: a pack that a reader would refuse is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of columns, decoded, and the most bytes of digests.
    pub metadata: u32,
    /// The most runs of map and prefixes and the most frames, all together.
    pub items: u32,
    /// The most bytes that the metadata of a pack and of all of its sources may take in memory (`Pack::memory`).
    pub chain_memory: usize,
}

impl Limits {
    /// 64 MiB, four million items, and 256 MiB for a pack with its sources.
    pub const DEFAULT: Self = Self { metadata: 64 << 20, items: 4 << 20, chain_memory: 256 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Something that is let go of with the pack; it says nothing of it.
#[derive(Clone, Default)]
pub(super) struct Charge(Option<Arc<dyn Any + Send + Sync>>);

impl Charge {
    pub(super) fn new(share: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(share)))
    }
}

impl std::fmt::Debug for Charge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "charged" } else { "not charged" })
    }
}

impl PartialEq for Charge {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Charge {}
