//! Equal pages, wherever they are: a hash that depends on content alone, and a table of bounded size.
//!
//! The hash only finds candidates, whose bytes are then compared. It is not collision resistant; who makes images with
//! collisions gets larger packs.

use super::PAGE;

const ODD: [u64; 4] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// The upper and the lower half of a product, mixed.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A hash of a page of 4096 bytes.
pub(super) fn content_hash(page: &[u8]) -> u64 {
    debug_assert_eq!(page.len(), PAGE);
    let mut lanes = ODD;
    for block in page.as_chunks::<64>().0 {
        let words = block.as_chunks::<8>().0;
        for (lane, (pair, odd)) in lanes.iter_mut().zip(words.as_chunks::<2>().0.iter().zip(ODD)) {
            *lane = fold(u64::from_le_bytes(pair[0]) ^ odd, u64::from_le_bytes(pair[1]) ^ *lane);
        }
    }
    fold(fold(lanes[0], lanes[1] ^ ODD[2]) ^ fold(lanes[2] ^ ODD[0], lanes[3]), ODD[1])
}

/// Pages by their hash, as many as there is room for: of two that need the same room, the later one stays.
pub(super) struct Table {
    slots: Vec<(u32, u32)>,
}

impl Table {
    /// With room for about `pages` pages, and for 2^22 (32 MiB) at most.
    pub(super) fn new(pages: u64) -> Self {
        let slots = (pages.clamp(1, 1 << 21) * 2).next_power_of_two();
        Self { slots: vec![(0, u32::MAX); slots as usize] }
    }

    fn slot(&self, hash: u64) -> (usize, u32) {
        // A power of two, so a mask.
        ((hash as usize) & (self.slots.len() - 1), (hash >> 32) as u32)
    }

    /// A page that may have this hash.
    pub(super) fn get(&self, hash: u64) -> Option<u32> {
        let (slot, rest) = self.slot(hash);
        let (found, page) = self.slots[slot];
        (found == rest && page != u32::MAX).then_some(page)
    }

    /// Remembers a page.
    pub(super) fn put(&mut self, hash: u64, page: u32) {
        let (slot, rest) = self.slot(hash);
        self.slots[slot] = (rest, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::pattern;

    #[test]
    fn every_bit_of_a_page_counts() {
        let mut page = pattern(PAGE);
        let hash = content_hash(&page);
        let mut seen = std::collections::BTreeSet::from([hash]);
        for bit in 0..PAGE * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(content_hash(&page)), "{bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(content_hash(&page), hash);
    }

    #[test]
    fn a_table_forgets_and_does_not_invent() {
        let mut table = Table::new(8);
        for page in 0..1000u32 {
            table.put(u64::from(page).wrapping_mul(0x9e37_79b9_7f4a_7c15), page);
        }
        let found = (0..1000u32).filter(|page| match table.get(u64::from(*page).wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            Some(found) => {
                assert_eq!(found, *page);
                true
            }
            None => false,
        });
        assert!((1..=16).contains(&found.count()));
        assert_eq!(Table::new(0).get(0), None);
    }
}
