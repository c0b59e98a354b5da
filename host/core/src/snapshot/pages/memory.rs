//! What the metadata of a pack takes in memory, and the share of a budget that is held for it.

use std::any::Any;
use std::sync::Arc;

use super::layout::{FOOTER, Footer};
use super::limits::{Charge, Limits};
use super::pack::{Contents, Pack};

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
        Arc::make_mut(&mut self).charge = Charge::new(share);
        self
    }
}
