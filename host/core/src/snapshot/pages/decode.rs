//! From the stored bytes of a frame to its pages. No byte passes unchecked.

use std::collections::BTreeMap;
use std::ops::Range;

use super::PAGE;
use super::chain::{Chain, FramePart, FrameRef};
use super::frames::{Coding, Frame};
use super::layout::damaged;
use super::pack::Pack;
use super::zst;
use crate::snapshot::segment::{is_zero, page_digest};
use crate::snapshot::{SEGMENT, SegmentDigest};
use crate::types::{Error, Result};

/// The pages of frame `number` of a pack, from its stored bytes and, if it has one, its prefix: see [`Chain::prefix`].
///
/// The stored bytes are proven by the hash in the metadata before anything else is done with them; where they contain page
/// digests, these are checked too.
///
/// # Errors
/// `corrupt` for any other bytes; `invalid` if there is no such frame.
pub fn decode_frame(pack: &Pack, number: u32, stored: &[u8], prefix: &[u8]) -> Result<Vec<u8>> {
    let Some(frame) = pack.frames().as_slice().get(number as usize) else {
        return Err(Error::invalid(format!("the pack has no frame {number}")));
    };
    if stored.len() != frame.stored as usize || *blake3::hash(stored).as_bytes() != frame.digest {
        return Err(damaged(format!("frame {number} of pack {} is damaged", pack.id())));
    }
    // As long as its digests at least: checked when the metadata was read.
    let (digests, payload) = stored.split_at(frame.pages as usize * pack.profile().bytes_of_digest() as usize);
    let mut pages = match frame.coding {
        Coding::Raw => payload.to_vec(),
        Coding::Zstd => zst::decode(payload, &[], frame.decoded())?,
        Coding::Prefixed => zst::decode(payload, prefix, frame.decoded())?,
    };
    // The end of an object that holds its snapshot as it is.
    pages.resize(frame.decoded(), 0);
    check_pages(pack, frame, &pages, digests.as_chunks::<32>().0)?;
    Ok(pages)
}

fn check_pages(pack: &Pack, frame: &Frame, pages: &[u8], digests: &[SegmentDigest]) -> Result<()> {
    for ((page, bytes), digest) in (frame.first..).zip(pages.chunks(PAGE)).zip(digests) {
        let home = pack.home(page).ok_or_else(|| damaged("the pack has a page that it does not need"))?;
        let (bytes, rest) = bytes.split_at(page_len(pack.size(), home));
        if digest_at(pack.size(), home, bytes) != *digest || !is_zero(rest) {
            return Err(damaged(format!("page {home} of snapshot {} is damaged", pack.snapshot())));
        }
    }
    Ok(())
}

/// The bytes of a page of a snapshot of `size` bytes: 4096, or fewer for the last.
pub(super) fn page_len(size: u64, page: u32) -> usize {
    size.saturating_sub(u64::from(page) * PAGE as u64).min(PAGE as u64) as usize
}

/// The digest of a page of a snapshot of `size` bytes.
pub(super) fn digest_at(size: u64, page: u32, bytes: &[u8]) -> SegmentDigest {
    let offset = u64::from(page) * PAGE as u64;
    let start = offset / SEGMENT as u64 * SEGMENT as u64;
    let segment = (size - start).min(SEGMENT as u64) as usize;
    page_digest(bytes, (offset - start) as usize, segment)
}

/// Gives bytes of an object: those of a pack, in a range of its bytes.
pub type Fetch<'a> = &'a mut dyn FnMut(&Pack, Range<u64>) -> Result<Vec<u8>>;

/// The bytes of `range` of a snapshot, as far as it has them.
///
/// Everything that is needed is held in memory until it is done, so a caller that reads much keeps frames itself.
///
/// # Errors
/// Errors of `fetch`; `corrupt` if it gives other bytes than were stored.
pub fn read_pages(chain: &Chain, range: Range<u64>, fetch: Fetch<'_>) -> Result<Vec<u8>> {
    let end = range.end.min(chain.pack().size());
    let start = range.start.min(end);
    // Both are within the snapshot.
    let first = (start / PAGE as u64) as u32;
    let last = end.div_ceil(PAGE as u64) as u32;
    let mut kept = BTreeMap::new();
    let mut bytes = Vec::new();
    for part in chain.parts(first, last.saturating_sub(first)) {
        match part.at {
            None => bytes.resize(bytes.len() + part.len as usize * PAGE, 0),
            Some(at) => {
                for frame in chain.closure(at.frame) {
                    decode(chain, frame, &mut kept, fetch)?;
                }
                append(&mut bytes, at, &kept)?;
            }
        }
    }
    let skipped = (start - u64::from(first) * PAGE as u64) as usize;
    bytes.truncate((end - u64::from(first) * PAGE as u64) as usize);
    Ok(bytes.split_off(skipped.min(bytes.len())))
}

type Kept = BTreeMap<FrameRef, Vec<u8>>;

/// Decodes a frame whose prefix is there, unless it has been.
fn decode(chain: &Chain, at: FrameRef, kept: &mut Kept, fetch: Fetch<'_>) -> Result<()> {
    if kept.contains_key(&at) {
        return Ok(());
    }
    let (pack, frame) = chain.frame(at).ok_or_else(|| Error::invalid("the chain has no such frame"))?;
    let stored = fetch(pack, frame.offset..frame.offset + u64::from(frame.stored))?;
    let mut prefix = Vec::new();
    for part in chain.prefix(at) {
        append(&mut prefix, part, kept)?;
    }
    kept.insert(at, decode_frame(pack, at.frame, &stored, &prefix)?);
    Ok(())
}

fn append(bytes: &mut Vec<u8>, part: FramePart, kept: &Kept) -> Result<()> {
    let pages = (part.first as usize * PAGE)..((part.first + part.len) as usize * PAGE);
    let frame = kept.get(&part.frame).and_then(|frame| frame.get(pages));
    bytes.extend_from_slice(frame.ok_or_else(|| damaged("a frame that is needed is not there"))?);
    Ok(())
}
