//! Opening packs to be read: a short range window by window, a long one planned as a whole.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use futures::stream;

use super::Caches;
use super::frames::RecentFrames;
use super::read::{OtherForms, PackReader};
use super::whole;
use crate::catalogue::Placement;
use crate::connector::Host;
use crate::snapshot::pages::Chain;
use crate::snapshot::{Identity, aligned, trimmed, verify_known, verify_range};
use crate::types::{Body, ByteRange, Error, Result};

/// The fewest bytes that are read by a plan: it costs little beside these, and keeps no frame for other readers.
const LONG: u64 = 16 << 20;

impl Host {
    /// Opens a placement whose object is a pack, with every segment checked.
    ///
    /// # Errors
    /// `corrupt` if the pack is damaged, `unavailable` if something that it takes pages from cannot be had; errors of the
    /// backend.
    pub(in crate::connector) async fn open_pack(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        range: Option<ByteRange>,
        caches: Caches,
    ) -> Result<Body> {
        let (chain, size) = (self.chain_of(placement, identity, caches).await?, identity.size());
        let (start, len) = match range {
            Some(range) => aligned(range, size)?.within(size)?,
            None => (0, size),
        };
        if len >= LONG {
            let reader = self.pack_reader(placement.clone(), chain, start..start + len, caches);
            let body = whole::body(reader, Some(identity.clone()), start..start + len);
            return match range {
                None => Ok(body),
                Some(range) => trimmed(body, start, range, size),
            };
        }
        let body = windows(self.pack_reader(placement.clone(), chain, start..start + len, caches), start..start + len);
        match range {
            None => Ok(verify_known(body, identity.clone())),
            Some(range) => verify_range(body, identity.clone(), range),
        }
    }

    /// The pack of a placement with its sources.
    ///
    /// # Errors
    /// As [`Self::open_pack`].
    async fn chain_of(&self, placement: &Placement, identity: &Arc<Identity>, caches: Caches) -> Result<Arc<Chain>> {
        let pack = self.pack_of(placement, caches).await?;
        if pack.snapshot() != identity.id() || pack.size() != identity.size() {
            return Err(Error::corrupt(format!("the object is a pack of snapshot {}", pack.snapshot()))
                .on_backend(&placement.backend)
                .during("retrieve"));
        }
        Ok(Arc::new(self.chain(pack, &placement.backend, caches).await?))
    }

    /// Opens a placement whose object is a pack, for reads of some pages at a time ([`PackReader::some`]).
    ///
    /// # Errors
    /// As [`Self::open_pack`].
    pub(in crate::connector) async fn open_pack_pages(
        &self,
        placement: Placement,
        identity: &Arc<Identity>,
    ) -> Result<PackReader> {
        let chain = self.chain_of(&placement, identity, Caches::Use).await?;
        Ok(self.pack_reader(placement, chain, 0..identity.size(), Caches::Use))
    }

    /// The same of an object alone, whatever else is kept or stored elsewhere.
    ///
    /// # Errors
    /// As [`Self::open_pack`].
    pub(super) async fn open_pack_alone(&self, placement: &Placement, identity: &Arc<Identity>) -> Result<PackReader> {
        let chain = self.chain_of(placement, identity, Caches::Bypass).await?;
        Ok(self.pack_reader(placement.clone(), chain, 0..identity.size(), Caches::Bypass))
    }

    /// Bytes of a snapshot, from whole pages on, as its pack has them: frames are proven, the snapshot is not. Decoded frames are kept
    /// in `frames`.
    pub(super) fn pack_body_with(
        &self,
        placement: Placement,
        chain: Arc<Chain>,
        range: Range<u64>,
        caches: Caches,
        frames: Arc<RecentFrames>,
    ) -> Body {
        let mut reader = self.pack_reader(placement, chain, range.clone(), caches);
        reader.frames = frames;
        if range.end.saturating_sub(range.start) < LONG {
            return windows(reader, range);
        }
        whole::body(reader, None, range)
    }

    fn pack_reader(&self, placement: Placement, chain: Arc<Chain>, range: Range<u64>, caches: Caches) -> PackReader {
        let (at, end, host) = (range.start, range.end, self.clone());
        let frames = match caches {
            Caches::Use => self.inner.recent_frames.clone(),
            Caches::Bypass => Arc::default(),
        };
        PackReader {
            host,
            placement,
            chain,
            at,
            end,
            frames,
            caches,
            places: Mutex::default(),
            others: OtherForms::default(),
        }
    }
}

/// The bytes of a range, one window after the other.
fn windows(reader: PackReader, range: Range<u64>) -> Body {
    let len = range.end.saturating_sub(range.start);
    let windows = stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    });
    Body::new(windows, Some(len))
}
