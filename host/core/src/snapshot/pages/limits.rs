//! What reading the metadata of packs may cost, and what it takes in memory.

use std::any::Any;
use std::sync::Arc;

use super::layout::{FOOTER, Footer};
use super::pack::{Contents, Pack};

/// What reading the metadata of packs may cost. Writers keep to it: a pack that a reader would refuse is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of columns, decoded, and the most bytes of digests.
    pub metadata: u32,
    /// The most runs of map and prefixes and the most frames, all together.
    pub items: u32,
    /// The most bytes that the metadata of a pack and of all of its sources may take in memory ([`Pack::memory`]).
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

impl Pack {
    /// Returns at least the bytes that opening a pack takes, from the last bytes of its object; as many as its metadata may have
    /// if they are no pack's.
    pub fn opening(tail: &[u8], object: u64, limits: Limits) -> usize {
        let footer = tail.split_last_chunk::<FOOTER>().and_then(|(_, footer)| Footer::parse(footer, object).ok());
        let bytes = footer
            .map_or((0, 0), |footer| (footer.digests_len, footer.columns_len.saturating_add(footer.columns_stored)));
        let (digests, columns) = (bytes.0.min(limits.metadata) as usize, bytes.1.min(limits.metadata) as usize);
        // Columns, their numbers and what is made of them.
        3 * digests + columns + (columns / 2).min(limits.items as usize) * 40
    }

    /// The bytes that this takes in memory, about: whole KiB, since budgets are counted in these.
    pub fn memory(&self) -> usize {
        let Contents { sources, frames, map, prefixes, listed, .. } = &self.contents;
        let bytes = size_of::<Self>()
            + size_of_val(sources.as_slice())
            + size_of_val(frames.as_slice())
            + size_of_val(map.runs())
            + size_of_val(prefixes.runs())
            + size_of_val(listed.as_slice())
            + size_of_val(self.homes.as_slice());
        bytes.next_multiple_of(1 << 10)
    }

    /// Lets go of something when nobody has this pack any more: its share of a budget.
    #[must_use]
    pub fn charged(mut self: Arc<Self>, share: impl Any + Send + Sync) -> Arc<Self> {
        Arc::make_mut(&mut self).charge = Charge(Some(Arc::new(share)));
        self
    }
}
