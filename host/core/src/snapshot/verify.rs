//! Bodies of which no byte passes unchecked.
//!
//! With the segment digests of a snapshot, each segment is held back until it has been hashed and compared: all bytes
//! passed on are verified. Without them (a snapshot that another host stored), verification is only possible at the
//! end, and a body of other bytes ends with an error. Segments are hashed on blocking threads while the next one
//! arrives; at most three are in memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt};

use super::identity::{Identity, identity_of};
use super::segment::{SEGMENT, SegmentDigest, SegmentHasher};
use crate::types::{Body, ByteRange, Error, Result, SnapshotId, owned_if_sparse};

/// Pieces shorter than this are copied together: a peer that sends single bytes must not cost a handle for each. Longer ones
/// are kept as they are: who made them sees to it that there is little else behind them ([`owned_if_sparse`]).
const SMALL: usize = 16 << 10;

/// Segments that are being hashed while the next is assembled.
const AHEAD: usize = 2;

/// Passes a whole snapshot whose segment digests are not known. The body ends in `corrupt` unless it was the snapshot;
/// if its size is known, the last segment is held back until then. Runs on a Tokio runtime.
pub fn verify(body: Body, id: SnapshotId) -> Body {
    let size = body.remaining();
    let mut digests = Vec::new();
    let mut len = 0;
    let checked = hashed(body).map(Some).chain(stream::iter([None])).map(move |item| {
        let pieces = match item {
            Some(segment) => {
                let segment = segment?;
                digests.push(segment.digest);
                len += segment.len as u64;
                // A reader that knows the size may stop at the last byte and never ask for the end.
                if size != Some(len) {
                    return Ok(segment.pieces);
                }
                segment.pieces
            }
            None if size == Some(len) && len > 0 => return Ok(Vec::new()),
            None => Vec::new(),
        };
        let found = identity_of(len, std::mem::take(&mut digests));
        if found.id() == id {
            return Ok(pieces);
        }
        Err(Error::corrupt(format!("the {len} bytes received are not snapshot {id}, but {}", found.id())))
    });
    Body::new(pieces(checked), size)
}

/// Passes a whole snapshot, each segment only once it is known to be right. Runs on a Tokio runtime.
///
/// Ends with `corrupt`, which names segment and offset, at the first segment that differs, and if there
/// are fewer or more bytes than the snapshot has.
pub fn verify_known(body: Body, expected: Arc<Identity>) -> Body {
    let size = expected.size();
    segments(body, expected, 0, size)
}

/// Returns the range to fetch in order to verify `range` of `size` bytes: whole segments. Empty for an empty range.
///
/// # Errors
/// `invalid` for a range that does not lie within the snapshot, see [`ByteRange::within`].
pub fn aligned(range: ByteRange, size: u64) -> Result<ByteRange> {
    let (start, len) = range.within(size)?;
    if len == 0 {
        return Ok(ByteRange::of(start, 0));
    }
    let segment = SEGMENT as u64;
    let end = (start + len).div_ceil(segment).saturating_mul(segment).min(size);
    Ok(ByteRange { start: start / segment * segment, end: Some(end) })
}

/// Returns `range` of a snapshot from a body of the range of [`aligned`], verified like [`verify_known`].
///
/// # Errors
/// `invalid` for a range that does not lie within the snapshot.
pub fn verify_range(body: Body, expected: Arc<Identity>, range: ByteRange) -> Result<Body> {
    if range.within(expected.size())?.1 == 0 {
        return Ok(Body::new(stream::empty(), Some(0)));
    }
    let fetched = aligned(range, expected.size())?;
    let size = expected.size();
    let end = fetched.end.unwrap_or(size);
    trimmed(segments(body, expected, fetched.start, end), fetched.start, range, size)
}

/// Returns `range` of a snapshot of `size` bytes from verified bytes that begin at `from`.
///
/// # Errors
/// `invalid` for a range that does not lie within the snapshot.
pub fn trimmed(body: Body, from: u64, range: ByteRange, size: u64) -> Result<Body> {
    let (start, len) = range.within(size)?;
    let (mut skip, mut left) = (start.saturating_sub(from), len);
    let cut = body.map(move |chunk| {
        let mut chunk = chunk?;
        let whole = chunk.len();
        // Both are at most the chunk's length.
        let head = skip.min(chunk.len() as u64);
        skip -= head;
        let mut chunk = chunk.split_off(head as usize);
        chunk.truncate(left.min(chunk.len() as u64) as usize);
        left -= chunk.len() as u64;
        Ok(owned_if_sparse(chunk, whole))
    });
    Ok(Body::new(cut, Some(len)))
}

/// The bytes from `start` (the start of a segment) to `end` (the end of one) of a known snapshot.
fn segments(body: Body, expected: Arc<Identity>, start: u64, end: u64) -> Body {
    let first = start / SEGMENT as u64;
    let wanted = end - start;
    let mut got = 0;
    let mut number = first;
    let checked = hashed(body).map(Some).chain(stream::iter([None])).map(move |item| {
        let Some(segment) = item else {
            if got == wanted {
                return Ok(Vec::new());
            }
            return Err(Error::corrupt(format!("ends after {got} of {wanted} bytes")));
        };
        let segment = segment?;
        let this = number;
        number += 1;
        got += segment.len as u64;
        if got > wanted {
            return Err(Error::corrupt(format!("has more than the {wanted} bytes that were stored")));
        }
        let right = expected.segments().as_slice().get(usize::try_from(this).unwrap_or(usize::MAX));
        if right != Some(&segment.digest) {
            let from = this * SEGMENT as u64;
            let len = expected.segment_len(this);
            return Err(Error::corrupt(if segment.len as u64 == len {
                format!("segment {this} (bytes {from}..{}) differs from the stored one", from + len)
            } else {
                format!("ends after {got} of {wanted} bytes, in segment {this} (from byte {from})")
            }));
        }
        Ok(segment.pieces)
    });
    Body::new(pieces(checked), Some(wanted))
}

/// Computes the identity of a body without keeping it. `passed` gets the number of bytes so far, and can reject more.
/// Runs on a Tokio runtime.
///
/// # Errors
/// The error that ended the body; errors of `passed`.
pub async fn identify(body: Body, mut passed: impl FnMut(u64) -> Result<()>) -> Result<Identity> {
    let (mut digests, mut len) = (Vec::new(), 0);
    let mut segments = std::pin::pin!(hashed(body));
    while let Some(segment) = segments.next().await {
        let segment = segment?;
        digests.push(segment.digest);
        len += segment.len as u64;
        passed(len)?;
    }
    Ok(identity_of(len, digests))
}

/// A segment as it came, with its digest.
struct Hashed {
    digest: SegmentDigest,
    len: usize,
    pieces: Vec<Bytes>,
}

/// Cuts a body into segments and hashes them, in order.
fn hashed(body: Body) -> impl Stream<Item = Result<Hashed>> + Send + 'static {
    let assembled = stream::unfold(Some((body, Bytes::new())), |state| async move {
        let (mut body, mut rest) = state?;
        let mut segment = Assembly::default();
        loop {
            segment.take(&mut rest);
            if segment.len == SEGMENT {
                return Some((Ok(segment), Some((body, rest))));
            }
            match body.next().await {
                Some(Ok(chunk)) => rest = chunk,
                Some(Err(error)) => return Some((Err(error), None)),
                None if segment.len == 0 => return None,
                None => return Some((Ok(segment), None)),
            }
        }
    });
    assembled.map(|segment: Result<Assembly>| async move { hash(segment?.finish()).await }).buffered(AHEAD)
}

async fn hash(pieces: Vec<Bytes>) -> Result<Hashed> {
    let job = tokio::task::spawn_blocking(move || {
        let mut hasher = SegmentHasher::default();
        pieces.iter().for_each(|piece| hasher.update(piece));
        Hashed { len: hasher.len(), digest: hasher.finish(), pieces }
    });
    job.await.map_err(|error| Error::other("hashing was interrupted").with_source(error))
}

/// The pieces of a segment on their way in.
#[derive(Default)]
struct Assembly {
    pieces: Vec<Bytes>,
    small: BytesMut,
    len: usize,
}

impl Assembly {
    /// Takes as many of `bytes` as fit into the segment.
    fn take(&mut self, bytes: &mut Bytes) {
        let some = bytes.split_to(bytes.len().min(SEGMENT - self.len));
        self.len += some.len();
        if some.len() < SMALL {
            self.small.extend_from_slice(&some);
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
        self.pieces.push(some);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.pieces.push(self.small.freeze());
        }
        self.pieces
    }
}

/// One piece after the other; an error comes after everything that was right.
fn pieces(
    checked: impl Stream<Item = Result<Vec<Bytes>>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes>> + Send {
    checked.flat_map(|segment| {
        let (pieces, error) = match segment {
            Ok(pieces) => (pieces, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        stream::iter(pieces.into_iter().map(Ok).chain(error.map(Err)))
    })
}

#[cfg(test)]
mod tests;
