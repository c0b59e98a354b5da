//! The two lower levels of the tree: pages of 4 KiB and segments of 2 MiB.
//!
//! A segment's digest is the plain BLAKE3 hash of its bytes, so that any BLAKE3 tool can check one. BLAKE3 is itself a
//! tree over chunks of 1 KiB whose left subtrees have a power of two of chunks. So every aligned page of 4 KiB is a
//! subtree of its segment, and its chaining value serves as the page's digest: a segment's digest follows from those of
//! its pages without reading the bytes of the others. So the cost of an update is proportional to the change.
//!
//! The price: a page's digest depends on its offset in the segment, so equal pages at different offsets have
//! different digests (finding those is up to a delta, which compares bytes), and a segment that is a single
//! page has no chaining values at all: BLAKE3 finishes its root differently. Its page digest is the segment digest.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::types::{Error, Result};

/// Bytes of a page: the unit of change.
pub const PAGE: usize = 4096;

/// Bytes of a segment: the unit of hashing, reading and checking.
pub const SEGMENT: usize = 2 << 20;

/// A BLAKE3 hash or chaining value.
pub type SegmentDigest = [u8; 32];

/// The digest of a segment of 2 MiB of zeros.
pub const ZERO_SEGMENT: SegmentDigest = [
    0x8a, 0xc8, 0x3f, 0x8c, 0xe0, 0x9d, 0x06, 0x4b, 0x02, 0x3a, 0xb3, 0xc1, 0x58, 0x80, 0xb0, 0x2f, 0x26, 0x86, 0xcd,
    0x18, 0x17, 0xfd, 0x25, 0x91, 0x5b, 0x81, 0x53, 0x31, 0x6e, 0xe0, 0x59, 0xf8,
];

/// Returns whether all bytes are zero, at the speed of a memory comparison.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    bytes.chunks(PAGE).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Returns the digest of a segment: the plain BLAKE3 hash of its bytes. A full segment of zeros is detected, not hashed.
///
/// `bytes` are 1 to [`SEGMENT`] bytes; the hash of more is not the digest of any segment.
pub fn segment_digest(bytes: &[u8]) -> SegmentDigest {
    if bytes.len() == SEGMENT && is_zero(bytes) { ZERO_SEGMENT } else { *blake3::hash(bytes).as_bytes() }
}

/// The digests of the pages of one segment, in order; the last page may be short. None for no bytes.
pub fn pages_of(segment: &[u8]) -> Vec<SegmentDigest> {
    segment.chunks(PAGE).enumerate().map(|(page, bytes)| page_digest(bytes, page * PAGE, segment.len())).collect()
}

/// The digest of a page that begins at `offset` in a segment of `segment` bytes.
pub(super) fn page_digest(page: &[u8], offset: usize, segment: usize) -> SegmentDigest {
    if segment <= PAGE {
        return segment_digest(page);
    }
    Hasher::new().set_input_offset(offset as u64).update(page).finalize_non_root()
}

/// The digest of a segment of `len` bytes from the digests of all its pages: equal to [`segment_digest`] of its bytes.
///
/// # Errors
/// `invalid` if `len` is not 1 to [`SEGMENT`] bytes or the number of pages does not fit it.
pub fn segment_from_pages(pages: &[SegmentDigest], len: usize) -> Result<SegmentDigest> {
    if len == 0 || len > SEGMENT || pages.len() != len.div_ceil(PAGE) {
        return Err(Error::invalid(format!("{} page digests for a segment of {len} bytes", pages.len())));
    }
    if let [only] = pages {
        return Ok(*only);
    }
    let (left, right) = halves(pages, len);
    Ok(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The chaining values of the two subtrees under the node of `len` bytes, which is more than one page.
fn halves(pages: &[SegmentDigest], len: usize) -> (ChainingValue, ChainingValue) {
    // At most half a segment, so it fits any `usize`.
    let left = left_subtree_len(len as u64) as usize;
    let (before, after) = pages.split_at(left / PAGE);
    (subtree(before, left), subtree(after, len - left))
}

fn subtree(pages: &[SegmentDigest], len: usize) -> ChainingValue {
    if let [only] = pages {
        return *only;
    }
    let (left, right) = halves(pages, len);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The digests of the pages of one segment with all that is between them and the digest of the segment, so that it costs little to
/// exchange a few of them.
#[derive(Debug, Clone)]
pub(super) struct PageTree {
    /// The pages, then the nodes above them, up to the two under the root. The last node of an odd number has none beside it, and
    /// is a node of the next level too.
    levels: Vec<Vec<SegmentDigest>>,
}

impl PageTree {
    /// The tree of a segment that is longer than a page, from the digests of all its pages; `None` for fewer than two.
    pub(super) fn new(pages: Vec<SegmentDigest>) -> Option<Self> {
        if pages.len() < 2 {
            return None;
        }
        let mut levels = vec![pages];
        while let Some(below) = levels.last().filter(|below| below.len() > 2) {
            levels.push(below.chunks(2).map(node).collect());
        }
        Some(Self { levels })
    }

    /// The digests of the pages.
    pub(super) fn pages(&self) -> &[SegmentDigest] {
        &self.levels[0]
    }

    /// Exchanges the digests of some pages, in their order.
    pub(super) fn exchange(&mut self, changed: impl IntoIterator<Item = (usize, SegmentDigest)>) {
        let mut places = Vec::new();
        for (page, digest) in changed {
            if let Some(there) = self.levels[0].get_mut(page) {
                *there = digest;
                places.push(page);
            }
        }
        for level in 1..self.levels.len() {
            places.iter_mut().for_each(|place| *place /= 2);
            places.dedup();
            for place in &places {
                let above = self.levels[level - 1].chunks(2).nth(*place).map(node);
                if let (Some(there), Some(above)) = (self.levels[level].get_mut(*place), above) {
                    *there = above;
                }
            }
        }
    }

    /// The digest of the segment.
    pub(super) fn root(&self) -> SegmentDigest {
        match self.levels.last().map(Vec::as_slice) {
            Some([left, right]) => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            // There are always two.
            _ => [0; 32],
        }
    }
}

/// The node over one or two others.
fn node(below: &[SegmentDigest]) -> SegmentDigest {
    match below {
        [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
        [only] => *only,
        _ => [0; 32],
    }
}

/// The digest of one segment whose bytes arrive in pieces. Hashes nothing while all of them are zeros.
#[derive(Default)]
pub(super) struct SegmentHasher {
    /// Absent while every byte so far was a zero.
    hasher: Option<Box<Hasher>>,
    len: usize,
}

impl SegmentHasher {
    /// The bytes so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes the next bytes; the caller stops at the end of the segment.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if self.hasher.is_none() && !is_zero(bytes) {
            let mut hasher = Box::new(Hasher::new());
            feed_zeros(&mut hasher, self.len);
            self.hasher = Some(hasher);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.len += bytes.len();
    }

    /// The digest.
    pub(super) fn finish(self) -> SegmentDigest {
        match self.hasher {
            Some(hasher) => *hasher.finalize().as_bytes(),
            None if self.len == SEGMENT => ZERO_SEGMENT,
            None => {
                let mut hasher = Hasher::new();
                feed_zeros(&mut hasher, self.len);
                *hasher.finalize().as_bytes()
            }
        }
    }
}

fn feed_zeros(hasher: &mut Hasher, mut count: usize) {
    static ZEROS: [u8; 16 * PAGE] = [0; 16 * PAGE];
    while count > 0 {
        let some = count.min(ZEROS.len());
        hasher.update(&ZEROS[..some]);
        count -= some;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes without a period that a page or a segment could share.
    fn pattern(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_constant_is_what_it_says() {
        assert_eq!(ZERO_SEGMENT, *blake3::hash(&vec![0; SEGMENT]).as_bytes());
    }

    #[test]
    fn pages_lead_to_their_segment_at_every_edge() {
        for pages in [0, 1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 511, 512] {
            for extra in [0, 1, 1023, 1024, 1025, 4095] {
                let len = pages * PAGE + extra;
                if len == 0 || len > SEGMENT {
                    continue;
                }
                let bytes = pattern(len, len as u64);
                let digests = pages_of(&bytes);
                assert_eq!(segment_from_pages(&digests, len).unwrap(), segment_digest(&bytes), "{len}");
            }
        }
        assert!(pages_of(&[]).is_empty());
    }

    #[test]
    fn a_tree_in_which_pages_are_exchanged_is_that_of_the_new_bytes() {
        assert!(PageTree::new(vec![[0; 32]]).is_none());
        for pages in [2, 3, 5, 8, 257, 511, 512] {
            for short in [0, 1, 4095] {
                let len = pages * PAGE - short;
                let mut bytes = pattern(len, 1);
                let mut tree = PageTree::new(pages_of(&bytes)).unwrap();
                assert_eq!(tree.root(), segment_digest(&bytes), "{len}");
                let changed: Vec<usize> =
                    [0, 1, 2, pages / 2, pages - 1].into_iter().filter(|page| *page < pages).collect();
                changed.iter().for_each(|page| bytes[page * PAGE] ^= 1);
                let digests = pages_of(&bytes);
                let mut places = changed.clone();
                places.sort_unstable();
                tree.exchange(places.into_iter().map(|page| (page, digests[page])));
                assert_eq!((tree.root(), tree.pages()), (segment_digest(&bytes), &digests[..]), "{len}");
            }
        }
    }

    #[test]
    fn zeros_in_pages_are_the_constant_too() {
        let pages = pages_of(&vec![0; SEGMENT]);
        assert_eq!(segment_from_pages(&pages, SEGMENT).unwrap(), ZERO_SEGMENT);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (pages, len) in [(0, 0), (1, 0), (0, 1), (2, PAGE), (1, PAGE + 1), (513, SEGMENT + 1)] {
            assert!(segment_from_pages(&vec![[0; 32]; pages], len).is_err(), "{pages} {len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn one_changed_page_changes_one_digest(len in 1usize..=SEGMENT, at: prop::sample::Index, seed: u64) {
            let mut bytes = pattern(len, seed);
            let mut pages = pages_of(&bytes);
            let at = at.index(len);
            bytes[at] ^= 1;
            let after = pages_of(&bytes);
            let page = at / PAGE;
            prop_assert!(pages.iter().zip(&after).enumerate().all(|(i, (a, b))| (a != b) == (i == page)));
            pages[page] = after[page];
            prop_assert_eq!(segment_from_pages(&pages, len).unwrap(), segment_digest(&bytes));
        }

        #[test]
        fn pieces_do_not_matter(
            zeros in 0usize..10_000, len in 0usize..10_000, tail in 0usize..10_000, piece in 1usize..5_000
        ) {
            let mut bytes = vec![0; zeros];
            bytes.extend(pattern(len, 7));
            bytes.resize(zeros + len + tail, 0);
            let mut hasher = SegmentHasher::default();
            for chunk in bytes.chunks(piece) {
                hasher.update(chunk);
            }
            prop_assert_eq!(hasher.len(), bytes.len());
            prop_assert_eq!(hasher.finish(), segment_digest(&bytes));
        }
    }
}
