//! From the stored bytes of a frame to its pages. No byte passes unchecked.

use super::PAGE;
use super::frames::{Coding, Frame};
use super::layout::damaged;
use super::pack::Pack;
use super::zst;
use crate::snapshot::segment::{is_zero, page_digest};
use crate::snapshot::{SEGMENT, SegmentDigest};
use crate::types::{Error, Result};

/// The pages of frame `number` of a pack, from its stored bytes and, if it has one, its prefix: see [`Chain::prefix`](super::Chain::prefix).
///
/// The stored bytes are proven by the hash in the metadata before anything else is done with them; where they contain page
/// digests, these are checked too. Pages that are stored as they are are given from there; `buffer` has room for others, so that it
/// can be used again.
///
/// # Errors
/// `corrupt` for any other bytes; `invalid` if there is no such frame.
pub fn decode_frame<'a>(
    pack: &Pack,
    number: u32,
    stored: &'a [u8],
    prefix: &[u8],
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let Some(frame) = pack.frames().as_slice().get(number as usize) else {
        return Err(Error::invalid(format!("the pack has no frame {number}")));
    };
    if stored.len() != frame.stored as usize || *blake3::hash(stored).as_bytes() != frame.digest {
        return Err(damaged(format!("frame {number} of pack {} is damaged", pack.id())));
    }
    // As long as its digests at least: checked when the metadata was read.
    let (digests, payload) = stored.split_at(frame.pages as usize * pack.profile().bytes_of_digest() as usize);
    let pages = match frame.coding {
        Coding::Raw if payload.len() == frame.decoded() => payload,
        Coding::Raw => {
            // The end of an object that holds its snapshot as it is.
            buffer.clear();
            buffer.extend_from_slice(payload);
            buffer.resize(frame.decoded(), 0);
            buffer
        }
        Coding::Zstd | Coding::Prefixed => {
            let prefix = if frame.coding == Coding::Prefixed { prefix } else { &[] };
            zst::decode(payload, prefix, frame.decoded(), buffer)?;
            buffer
        }
    };
    check_pages(pack, frame, pages, digests.as_chunks::<32>().0)?;
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

/// Returns whether these 4096 bytes are page `page` of a snapshot of `size` bytes, where that has this digest: a last page that is shorter is
/// followed by zeros.
pub fn page_is(size: u64, page: u32, bytes: &[u8], digest: &SegmentDigest) -> bool {
    let Some((bytes, rest)) = bytes.split_at_checked(page_len(size, page)) else { return false };
    !bytes.is_empty() && is_zero(rest) && digest_at(size, page, bytes) == *digest
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
