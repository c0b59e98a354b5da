//! Pages that are proven alone, by page digests that are kept on this machine: a read of one page needs that page, wherever it comes
//! from, and no other byte of its segment.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PAGE;
use super::decode::digest_at;
use super::digests::PageDigests;
use super::layout::damaged;
use super::pack::SEGMENT_PAGES;
use crate::snapshot::SegmentDigest;
use crate::types::{Error, Result};

/// Segments whose digests are kept: 16 KiB for each.
const KEPT: usize = 1024;

/// The page digests of a snapshot, for reads of single pages. Each segment's are proven by the digest of the segment when they are
/// first needed, and kept: at most 16 MiB.
pub struct PageProofs {
    digests: PageDigests,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    segments: BTreeMap<u32, Arc<Vec<SegmentDigest>>>,
    /// What was kept first is first.
    order: VecDeque<u32>,
}

impl PageProofs {
    /// Over these digests.
    pub fn new(digests: PageDigests) -> Self {
        Self { digests, kept: Mutex::default() }
    }

    /// The whole pages in which `len` bytes from `offset` lie, in bytes, as far as the snapshot has them.
    pub fn pages(&self, offset: u64, len: u64) -> Range<u64> {
        let size = self.digests.identity().size();
        let page = PAGE as u64;
        let end = offset.saturating_add(len).min(size);
        let start = offset.min(end) / page * page;
        start..end.div_ceil(page).saturating_mul(page).min(size)
    }

    /// Returns whether [`Self::check`] needs to read nothing for this range.
    pub fn is_ready(&self, range: &Range<u64>) -> bool {
        let kept = self.kept();
        segments(range).all(|number| kept.segments.contains_key(&number))
    }

    /// Proves bytes of a range of [`Self::pages`]. Reads the digests of a segment from a file when they are first needed.
    ///
    /// # Errors
    /// `corrupt` if a byte is another one, or if the digests are damaged; errors of reading them; `invalid` for a range that is not
    /// of whole pages.
    pub fn check(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let size = self.digests.identity().size();
        let end = start.saturating_add(bytes.len() as u64);
        if !start.is_multiple_of(PAGE as u64) || end > size || (end < size && !end.is_multiple_of(PAGE as u64)) {
            return Err(Error::invalid("only whole pages can be proven"));
        }
        let mut segment: Option<(u32, Arc<Vec<SegmentDigest>>)> = None;
        // Below the most pages: the digests have been opened.
        for (page, bytes) in ((start / PAGE as u64) as u32..).zip(bytes.chunks(PAGE)) {
            let number = page / SEGMENT_PAGES;
            let digests = match segment.take() {
                Some((other, digests)) if other == number => digests,
                _ => self.segment(number)?,
            };
            let expected = digests.get((page % SEGMENT_PAGES) as usize).copied();
            if expected != Some(digest_at(size, page, bytes)) {
                let id = self.digests.identity().id();
                return Err(damaged(format!("page {page} of snapshot {id} differs from the stored one")));
            }
            segment = Some((number, digests));
        }
        Ok(())
    }

    /// Fills `buffer` with bytes of the snapshot from `offset` on, which lie within it. `read` gives exactly the bytes of the buffer that it is
    /// handed, from the offset that it is told.
    ///
    /// # Errors
    /// Those of `read`; `corrupt` if what it gave is not right; `invalid` past the end.
    pub fn read(&self, buffer: &mut [u8], offset: u64, read: impl FnOnce(&mut [u8], u64) -> Result<()>) -> Result<()> {
        let pages = self.pages(offset, buffer.len() as u64);
        if pages.end < offset.saturating_add(buffer.len() as u64) {
            return Err(Error::invalid("a read past the end of the snapshot"));
        }
        if pages.start == offset && pages.end - pages.start == buffer.len() as u64 {
            read(buffer, offset)?;
            return self.check(offset, buffer);
        }
        let mut whole = vec![0; (pages.end - pages.start) as usize];
        read(&mut whole, pages.start)?;
        self.check(pages.start, &whole)?;
        let from = (offset - pages.start) as usize;
        buffer.copy_from_slice(&whole[from..from + buffer.len()]);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment(&self, number: u32) -> Result<Arc<Vec<SegmentDigest>>> {
        if let Some(found) = self.kept().segments.get(&number) {
            return Ok(found.clone());
        }
        let found = Arc::new(self.digests.segment(number)?);
        let mut kept = self.kept();
        if kept.segments.insert(number, found.clone()).is_none() {
            kept.order.push_back(number);
        }
        while kept.order.len() > KEPT {
            if let Some(oldest) = kept.order.pop_front() {
                kept.segments.remove(&oldest);
            }
        }
        Ok(found)
    }
}

/// The numbers of the segments of a range of bytes.
fn segments(range: &Range<u64>) -> Range<u32> {
    let segment = u64::from(SEGMENT_PAGES) * PAGE as u64;
    (range.start / segment) as u32..range.end.div_ceil(segment) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::pages::{Options, Profile, encode_full};
    use crate::snapshot::testing::pattern;

    #[test]
    fn a_page_is_read_alone_and_any_other_byte_is_found() {
        let mut image = pattern(2 * crate::snapshot::SEGMENT + 5000);
        image[8192..12288].fill(0);
        let mut digests = Vec::new();
        let options = Options::new(Profile::Compact);
        let full = encode_full(&image, &options, Some(&mut digests), &mut |_| Ok(())).unwrap();
        let digests = PageDigests::open(Box::new(digests), Arc::new(full.identity)).unwrap();
        let proofs = PageProofs::new(digests);
        let size = image.len();
        for (offset, len) in
            [(0, 4096), (4096, 1), (4095, 2), (8192, 4096), (size - 1, 1), (size - 5000, 5000), (100, 0)]
        {
            let mut buffer = vec![1; len];
            let mut asked = 0..0;
            let read = |to: &mut [u8], from: u64| {
                asked = from..from + to.len() as u64;
                to.copy_from_slice(&image[from as usize..from as usize + to.len()]);
                Ok(())
            };
            proofs.read(&mut buffer, offset as u64, read).unwrap();
            assert_eq!(buffer, &image[offset..offset + len]);
            assert!(asked.end - asked.start <= (len as u64).next_multiple_of(4096) + 4096, "{asked:?}");
            if len > 0 {
                assert!(proofs.is_ready(&asked));
                let flipped = |to: &mut [u8], from: u64| {
                    to.copy_from_slice(&image[from as usize..from as usize + to.len()]);
                    to[to.len() / 2] ^= 1;
                    Ok(())
                };
                let error = proofs.read(&mut buffer, offset as u64, flipped).unwrap_err();
                assert_eq!(error.kind().name(), "corrupt");
            }
        }
        assert_eq!(proofs.read(&mut [0; 2], size as u64 - 1, |_, _| Ok(())).unwrap_err().kind().name(), "invalid");
        assert_eq!(proofs.check(1, &image[1..2]).unwrap_err().kind().name(), "invalid");
    }
}
