//! The page digests of a snapshot, in a file beside the catalogue: what an update needs when the base itself is not at hand, or
//! when it knows what has changed and reads nothing else.
//!
//! It is written from the first segment to the last, and read segment by segment. Nothing in it is believed: the digests of a
//! segment's pages lead to the digest of the segment, or they are no use.

use std::io::Write;
use std::sync::Arc;

use super::PAGE;
use super::image::Image;
use super::layout::damaged;
use super::pack::{SEGMENT_PAGES, segments_of};
use crate::snapshot::segment::{PageTree, page_digest};
use crate::snapshot::{Identity, SEGMENT, SegmentDigest, ZERO_SEGMENT};
use crate::types::{Error, Result, SnapshotId};

const FIRST: &[u8; 8] = b"TdLkPgDg";
const VERSION: u16 = 1;
pub(super) const HEADER: usize = 24;
const TRAILER: usize = 64;
const BITS: usize = SEGMENT_PAGES as usize / 8;

/// The digests of pages of zeros, by their place in a segment that is longer than a page.
#[derive(Debug)]
pub(super) struct ZeroPages(Known);

impl ZeroPages {
    pub(super) fn new() -> Arc<Self> {
        let digest = |page| page_digest(&[0; PAGE], page * PAGE, SEGMENT);
        let pages = (0..SEGMENT_PAGES as usize).map(digest).collect();
        Arc::new(Self(Known::new(pages).unwrap_or(Known::One(ZERO_SEGMENT))))
    }

    /// The digest of page `page` of a segment.
    pub(super) fn at(&self, page: usize) -> SegmentDigest {
        self.0.pages()[page]
    }
}

/// The bytes of segment `number` of `size` bytes.
pub(super) fn segment_len(size: u64, number: u32) -> usize {
    size.saturating_sub(u64::from(number) * SEGMENT as u64).min(SEGMENT as u64) as usize
}

/// The block of a segment: which of its pages are not zeros, and their digests. None for a full one of zeros.
pub(super) fn block(digests: &[SegmentDigest], len: usize, zeros: &ZeroPages) -> Vec<u8> {
    let mut bits = [0u8; BITS];
    let mut kept = Vec::with_capacity(BITS + digests.len() * 32);
    kept.extend_from_slice(&bits);
    for (page, digest) in digests.iter().enumerate() {
        let full = (page + 1) * PAGE <= len && len > PAGE;
        if !(full && *digest == zeros.at(page)) {
            bits[page / 8] |= 1 << (page % 8);
            kept.extend_from_slice(digest);
        }
    }
    if len == SEGMENT && kept.len() == BITS {
        return Vec::new();
    }
    kept[..BITS].copy_from_slice(&bits);
    kept
}

/// Writes the page digests of a snapshot.
pub(super) struct DigestWriter<'a> {
    out: &'a mut dyn Write,
    header: [u8; HEADER],
    index: Vec<u8>,
    at: u64,
}

impl<'a> DigestWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write, size: u64) -> Result<Self> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(FIRST);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[16..].copy_from_slice(&size.to_le_bytes());
        out.write_all(&header).map_err(cannot_write)?;
        Ok(Self { out, header, index: Vec::new(), at: HEADER as u64 })
    }

    /// The block of the next segment; empty for a full one of zeros.
    pub(super) fn push(&mut self, block: &[u8]) -> Result<()> {
        self.index.extend_from_slice(&self.at.to_le_bytes());
        self.at += block.len() as u64;
        self.out.write_all(block).map_err(cannot_write)
    }

    /// Writes the rest, once all segments are there. Returns the header, which was not known at the beginning if the size was not.
    pub(super) fn finish(mut self, snapshot: SnapshotId, size: u64) -> Result<[u8; HEADER]> {
        self.header[16..].copy_from_slice(&size.to_le_bytes());
        self.index.extend_from_slice(&self.at.to_le_bytes());
        let check = check(&self.header, &self.index, &snapshot);
        let parts = [&self.index[..], snapshot.as_bytes(), &check];
        parts.into_iter().try_for_each(|part| self.out.write_all(part)).map_err(cannot_write)?;
        self.out.flush().map_err(cannot_write)?;
        Ok(self.header)
    }
}

fn check(header: &[u8; HEADER], index: &[u8], snapshot: &SnapshotId) -> SegmentDigest {
    *blake3::Hasher::new().update(header).update(index).update(snapshot.as_bytes()).finalize().as_bytes()
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io("writing page digests", error)
}

/// The page digests of one segment.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// One that is a page or less.
    One(SegmentDigest),
    /// A longer one.
    Tree(PageTree),
}

impl Known {
    /// `None` for no pages.
    pub(super) fn new(pages: Vec<SegmentDigest>) -> Option<Self> {
        match pages[..] {
            [] => None,
            [only] => Some(Self::One(only)),
            _ => PageTree::new(pages).map(Self::Tree),
        }
    }

    /// The digests of the pages.
    pub(super) fn pages(&self) -> &[SegmentDigest] {
        match self {
            Self::One(digest) => std::slice::from_ref(digest),
            Self::Tree(tree) => tree.pages(),
        }
    }

    /// The digest of the segment.
    pub(super) fn root(&self) -> SegmentDigest {
        match self {
            Self::One(digest) => *digest,
            Self::Tree(tree) => tree.root(),
        }
    }

    /// Exchanges the digests of some pages, in their order.
    pub(super) fn exchange(&mut self, changed: impl IntoIterator<Item = (usize, SegmentDigest)>) {
        match self {
            Self::One(digest) => changed.into_iter().filter(|(page, _)| *page == 0).for_each(|(_, new)| *digest = new),
            Self::Tree(tree) => tree.exchange(changed),
        }
    }
}

/// The page digests of a snapshot.
pub struct PageDigests {
    file: Box<dyn Image>,
    identity: Arc<Identity>,
    /// Where the block of each segment begins, then the end.
    index: Vec<u64>,
    zeros: Arc<ZeroPages>,
}

impl PageDigests {
    /// Opens the page digests of this snapshot.
    ///
    /// # Errors
    /// `corrupt` if the file is damaged or belongs to another snapshot; errors of reading.
    pub fn open(file: Box<dyn Image>, identity: Arc<Identity>) -> Result<Self> {
        let wrong = || damaged(format!("these are not the page digests of {}", identity.id()));
        let segments = segments_of(identity.size()) as usize;
        let rest = ((segments + 1) * 8 + TRAILER) as u64;
        let start = file.size().checked_sub(rest).filter(|start| *start >= HEADER as u64).ok_or_else(wrong)?;
        let mut header = [0; HEADER];
        file.read_at(&mut header, 0)?;
        let mut index = vec![0; (segments + 1) * 8];
        file.read_at(&mut index, start)?;
        let mut trailer = [0; TRAILER];
        file.read_at(&mut trailer, start + index.len() as u64)?;
        let mut expected = [0; HEADER];
        expected[..8].copy_from_slice(FIRST);
        expected[8..10].copy_from_slice(&VERSION.to_le_bytes());
        expected[16..].copy_from_slice(&identity.size().to_le_bytes());
        let id = identity.id();
        if header != expected || trailer[..32] != id.as_bytes()[..] || trailer[32..] != check(&header, &index, &id) {
            return Err(wrong());
        }
        let index: Vec<u64> = index.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        if index.first() != Some(&(HEADER as u64)) || index.last() != Some(&start) || !index.is_sorted() {
            return Err(wrong());
        }
        Ok(Self { file, identity, index, zeros: ZeroPages::new() })
    }

    /// The snapshot.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The digests of the pages of a segment, proven by the digest of the segment.
    ///
    /// # Errors
    /// `corrupt` if they are damaged; errors of reading; `invalid` if there is no such segment.
    pub fn segment(&self, number: u32) -> Result<Vec<SegmentDigest>> {
        self.known(number).map(|known| known.pages().to_vec())
    }

    /// The same, with what is between them and the digest of the segment.
    pub(super) fn known(&self, number: u32) -> Result<Known> {
        let block = self.block(number)?;
        let len = segment_len(self.identity.size(), number);
        let pages = len.div_ceil(PAGE);
        let wrong = || damaged(format!("the page digests of segment {number} are damaged"));
        let expected = self.identity.segments().as_slice()[number as usize];
        if block.is_empty() {
            let zero = len == SEGMENT && expected == ZERO_SEGMENT;
            return if zero { Ok(self.zeros.0.clone()) } else { Err(wrong()) };
        }
        let (bits, digests) = block.split_at_checked(BITS).ok_or_else(wrong)?;
        let mut digests = digests.as_chunks::<32>().0.iter();
        let digest = |page: usize| match bits[page / 8] >> (page % 8) & 1 {
            0 => Some(self.zeros.at(page)),
            _ => digests.next().copied(),
        };
        let found: Vec<SegmentDigest> = (0..pages).map_while(digest).collect();
        let past = (pages..SEGMENT_PAGES as usize).any(|page| bits[page / 8] >> (page % 8) & 1 == 1);
        if found.len() != pages || past || digests.next().is_some() {
            return Err(wrong());
        }
        Known::new(found).filter(|known| known.root() == expected).ok_or_else(wrong)
    }

    /// The digests of the pages of a segment that are not zeros, one after the other, as they are stored: not proven.
    pub(super) fn kept(&self, number: u32) -> Result<Vec<u8>> {
        let block = self.block(number)?;
        Ok(block.get(BITS..).unwrap_or_default().to_vec())
    }

    /// The block of a segment as it is stored.
    pub(super) fn block(&self, number: u32) -> Result<Vec<u8>> {
        let at = number as usize;
        let (Some(start), Some(end)) = (self.index.get(at), self.index.get(at + 1)) else {
            return Err(Error::invalid(format!("the snapshot has no segment {number}")));
        };
        let len = end - start;
        if len > (BITS + SEGMENT_PAGES as usize * 32) as u64 {
            return Err(damaged(format!("the page digests of segment {number} are damaged")));
        }
        let mut block = vec![0; len as usize];
        self.file.read_at(&mut block, *start)?;
        Ok(block)
    }

    /// Returns whether the digest of a page of a segment of this snapshot means the same in another one of `size` bytes.
    pub(super) fn comparable(&self, number: u32, size: u64) -> bool {
        let (own, other) = (segment_len(self.identity.size(), number), segment_len(size, number));
        own > 0 && (own == other || (own > PAGE && other > PAGE))
    }
}
