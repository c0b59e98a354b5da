//! The end of a listing: an adapter that lists for ever, or more than there can be, is stopped.
//!
//! Names come from an adapter, so both their number and their bytes are bounded, and pages that bring nothing.

use crate::types::{Error, InventoryEntry, Result};

/// Objects of one listing.
const MAX_OBJECTS: u64 = 100_000_000;
/// Bytes of their names: 80 for each, which is more than ours have.
const MAX_NAME_BYTES: u64 = 8_000_000_000;
/// Pages that bring nothing, one after the other.
const MAX_BARREN: u32 = 100_000;

/// How far a listing has come.
#[derive(Debug, Default)]
pub(super) struct Listing {
    objects: u64,
    name_bytes: u64,
    barren: u32,
}

impl Listing {
    /// Takes note of the entries of a page, and fails if the listing should have ended by now.
    ///
    /// # Errors
    /// `corrupt`, on the backend and during the operation.
    pub(super) fn page(&mut self, entries: &[InventoryEntry], backend: &str, operation: &'static str) -> Result<()> {
        self.objects += entries.len() as u64;
        self.name_bytes += entries.iter().map(|entry| entry.id.as_str().len() as u64).sum::<u64>();
        self.barren = if entries.is_empty() { self.barren + 1 } else { 0 };
        let why = if self.barren > MAX_BARREN {
            "is cyclic".to_owned()
        } else if self.objects > MAX_OBJECTS {
            format!("has more than {MAX_OBJECTS} objects")
        } else if self.name_bytes > MAX_NAME_BYTES {
            format!("has names of more than {MAX_NAME_BYTES} bytes")
        } else {
            return Ok(());
        };
        Err(Error::corrupt(format!("the adapter's listing {why}")).on_backend(backend).during(operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ObjectId;

    fn entries(count: usize, name: usize) -> Vec<InventoryEntry> {
        let entry = InventoryEntry { id: ObjectId::new("x".repeat(name)).unwrap(), size: 1, modified: None };
        vec![entry; count]
    }

    #[test]
    fn a_listing_is_bounded_in_objects_names_and_empty_pages() {
        let goes_on = |objects, name_bytes, barren, entries: &[InventoryEntry]| {
            let mut listing = Listing { objects, name_bytes, barren };
            listing.page(entries, "b", "gc").is_ok()
        };
        let page = entries(10, 1000);
        assert!(goes_on(MAX_OBJECTS - 10, 0, 0, &page) && !goes_on(MAX_OBJECTS - 9, 0, 0, &page));
        assert!(goes_on(0, MAX_NAME_BYTES - 10_000, 0, &page) && !goes_on(0, MAX_NAME_BYTES - 9_999, 0, &page));
        assert!(
            goes_on(0, 0, MAX_BARREN - 1, &[]) && !goes_on(0, 0, MAX_BARREN, &[]) && goes_on(0, 0, MAX_BARREN, &page)
        );
    }
}
