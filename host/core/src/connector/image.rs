//! Images: snapshots opened for reading. Everything that reads a snapshot uses them.
//!
//! An image holds the digests of its segments, so the catalogue is only asked where the objects are, and that at
//! each read of a segment (small reads ask once, and again after a failure: `image/alone.rs`): a placement that is found bad or is added meanwhile takes effect at once. No byte is returned
//! unchecked, and after damage or an outage a read continues from another placement at the byte where it stopped
//! (`image/failover.rs`). Whole segments of zeros are known by their digest and never fetched by [`Image::read_at`].

mod alone;
mod copy_out;
mod failover;
mod in_place;
mod segment_cache;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;

use super::Host;
use super::retrieve::Retrieved;
use crate::snapshot::{Extent, Identity, ReadPart};
use crate::types::{ByteRange, Error, Result, SnapshotId};

use alone::Alone;
pub use copy_out::CopiedOut;
use failover::ImageSource;
use in_place::InPlace;
use segment_cache::SegmentCache;

/// A snapshot that is open for reading. Cheap to clone; all clones share what they have read last (at most two segments of
/// 2 MiB). Keeps its host running.
///
/// Its bytes never change. Reading what is not at hand fails with `unavailable` once the snapshot and its objects have been removed.
#[derive(Debug, Clone)]
pub struct Image {
    inner: Arc<ImageInner>,
}

#[derive(Debug)]
struct ImageInner {
    source: ImageSource,
    cache: SegmentCache,
    in_place: InPlace,
    alone: Alone,
}

impl Host {
    /// Opens a snapshot for reading. Reads the catalogue only, no backend.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; `corrupt` if the recorded digests do not lead to its id.
    pub async fn open(&self, id: SnapshotId) -> Result<Image> {
        self.known(id).await?;
        let identity = self.identity_of(id).await?;
        let source = ImageSource { host: self.clone(), identity };
        let (cache, in_place, alone) = (SegmentCache::default(), InPlace::default(), Alone::default());
        Ok(Image { inner: Arc::new(ImageInner { source, cache, in_place, alone }) })
    }
}

impl Image {
    /// Returns the id of the snapshot.
    pub fn id(&self) -> SnapshotId {
        self.identity().id()
    }

    /// Returns its size in bytes.
    pub fn size(&self) -> u64 {
        self.identity().size()
    }

    /// Returns which runs of its bytes are known to be zeros and which may be anything: in order, without gaps, from
    /// the first byte to the last. Reads nothing. Zeros are known by the segment of 2 MiB.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.identity().extents()
    }

    /// Returns its bytes, or a part of them, as a stream. Damage, an outage or a swap meanwhile is not noticed as long
    /// as another placement has the rest. Returns when the first bytes are there.
    ///
    /// # Errors
    /// `invalid` for a range that begins past the end; `archived` for a snapshot that is in cold storage alone: then its
    /// restore has been requested, and [`Host::until_restored`] waits for it; the errors of the backends that hold it.
    pub async fn stream(&self, range: Option<ByteRange>) -> Result<Retrieved> {
        if let Some(range) = range {
            range.within(self.size())?;
        }
        let (body, source) = self.inner.source.stream(range).await?;
        let size = body.remaining().unwrap_or(self.size());
        Ok(Retrieved { id: self.id(), size, source, body })
    }

    /// Fills `buffer` with the bytes from `offset` on and returns how many there were: fewer than it holds only at the end
    /// of the image, none past it.
    ///
    /// Whole segments are read and checked. Those that were read last are kept, and one that several callers want at once
    /// is fetched once. A small read in a segment that was not read lately fetches its pages alone, where these can be proven:
    /// those of a pack, and those of a snapshot whose page digests are kept on this machine. Needs up to 32 MiB beside the buffer.
    /// A backend without ranges reads an object from its beginning for each segment that is fetched. Of a hot image, up to
    /// 256 KiB are read in place, and only the pages that are asked for.
    ///
    /// # Errors
    /// As [`Self::stream`]; then the content of the buffer is undefined.
    pub async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if let Some(filled) = self.inner.in_place.read(&self.inner.source, offset, buffer).await {
            return Ok(filled);
        }
        let mut filled = 0;
        for part in self.identity().read_plan(offset, buffer.len() as u64) {
            match part {
                ReadPart::Zeros { len } => unfilled(buffer, &mut filled, len)?.fill(0),
                ReadPart::Segment { number, from, len } => {
                    let bytes = self.segment_part(number, from, len).await?;
                    unfilled(buffer, &mut filled, len)?.copy_from_slice(&bytes);
                }
                ReadPart::Run { start, len } => {
                    let bytes = self.inner.source.read_whole(start, len).await?;
                    unfilled(buffer, &mut filled, len)?.copy_from_slice(&bytes);
                }
            }
        }
        Ok(filled)
    }

    /// Returns the bytes of a range, in memory; use [`Self::stream`] for a large one. Otherwise as [`Self::read_at`]. Bytes
    /// of one segment are not copied, and keep that segment in memory.
    ///
    /// # Errors
    /// As [`Self::stream`]; `invalid` for more than fits into memory.
    pub async fn read_range(&self, range: ByteRange) -> Result<Bytes> {
        let (start, len) = range.within(self.size())?;
        let mut parts = self.identity().read_plan(start, len);
        if let (Some(ReadPart::Segment { number, from, len }), None) = (parts.next(), parts.next()) {
            return self.segment_part(number, from, len).await;
        }
        drop(parts);
        let too_many = || Error::invalid(format!("{len} bytes do not fit into memory")).hint("read them as a stream");
        let count = usize::try_from(len).map_err(|_| too_many())?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(count).map_err(|_| too_many())?;
        buffer.resize(count, 0);
        self.read_at(start, &mut buffer).await?;
        Ok(buffer.into())
    }

    pub(super) fn host(&self) -> &Host {
        &self.inner.source.host
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.inner.source.identity
    }

    async fn segment_part(&self, number: u64, from: u64, len: u64) -> Result<Bytes> {
        if !self.inner.cache.has(number)
            && let Some(bytes) = self.inner.alone.read(&self.inner.source, number, from, len).await
        {
            return Ok(bytes);
        }
        let fetch = || {
            let source = self.inner.source.clone();
            async move {
                let (start, len) = source.identity.segment_bytes(number);
                source.read_whole(start, len).await.map_err(Arc::new)
            }
            .boxed()
        };
        let segment = self.inner.cache.get(number, fetch).await?;
        match bounds(from, len).filter(|range| range.end <= segment.len()) {
            Some(range) => Ok(segment.slice(range)),
            None => Err(short(len)),
        }
    }
}

/// Returns the next `len` bytes of a buffer that is being filled.
fn unfilled<'b>(buffer: &'b mut [u8], filled: &mut usize, len: u64) -> Result<&'b mut [u8]> {
    let range = bounds(*filled as u64, len).ok_or_else(|| short(len))?;
    *filled = range.end;
    buffer.get_mut(range).ok_or_else(|| short(len))
}

fn bounds(from: u64, len: u64) -> Option<Range<usize>> {
    Some(usize::try_from(from).ok()?..usize::try_from(from.checked_add(len)?).ok()?)
}

/// Cannot happen: the length of a read is checked before.
fn short(len: u64) -> Error {
    Error::corrupt(format!("a read of {len} bytes did not come out as long as it was planned"))
}
