//! The pages of a frame that is damaged in every object of its pack, from another object of the same snapshot.
//!
//! Which pages of the snapshot a frame has follows from the metadata of its pack, which is proven. What any other object of
//! that snapshot gives for them is proven by the digests of its segments. So as long as there is one such object, and the
//! metadata of the pack, nothing is lost. Those who take pages from the pack still lack it: their next store sends them
//! whole.

use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

use super::Caches;
use super::read::PackReader;
use crate::catalogue::{Placement, PlacementState};
use crate::snapshot::pages::FrameRef;
use crate::snapshot::{Identity, PAGE, SEGMENT, segment_digest};
use crate::types::{ByteRange, Encoding, Error, Result};

/// Pages of a segment.
const SEGMENT_PAGES: u32 = (SEGMENT / PAGE) as u32;

impl PackReader {
    /// Returns the pages of a frame from a live object that holds its snapshot in another form, if there is one.
    pub(super) fn in_another_form(&self, at: FrameRef) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let (pack, _) = self.chain.frame(at)?;
            let identity = self.host.identity_of(pack.snapshot()).await.ok()?;
            let mut placements = self.host.readable(pack.snapshot()).await.ok()?;
            placements.retain(|other| other.state == PlacementState::Live && !other.is_pack(pack.id()));
            for placement in placements {
                // Their bytes have no share of a budget until all of a frame is there.
                let _turn = self.host.inner.pack_shares.other_forms.of(placement.backend.clone()).await;
                match self.frame_in(at, &placement, &identity).await {
                    Ok(bytes) => return Some(bytes),
                    Err(error) => {
                        tracing::warn!(backend = placement.backend, %error, "cannot read the pages there either");
                    }
                }
            }
            None
        })
    }

    /// The reader of another object that is a pack.
    async fn other(&self, placement: &Placement, identity: &Arc<Identity>) -> Result<Option<Arc<Self>>> {
        if placement.encoding == Encoding::Raw {
            return Ok(None);
        }
        let key = (placement.backend.clone(), placement.object.clone());
        let known = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let opened = Arc::new(self.host.open_pack_alone(placement, identity).await?);
        self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(key, opened.clone());
        Ok(Some(opened))
    }

    async fn frame_in(&self, at: FrameRef, placement: &Placement, identity: &Arc<Identity>) -> Result<Bytes> {
        let lost = || Error::corrupt("the pack has no such frame");
        let (pack, frame) = self.chain.frame(at).ok_or_else(lost)?;
        let other = self.other(placement, identity).await?;
        let mut pages = BytesMut::with_capacity(frame.pages as usize * PAGE);
        // Its pages are in the order of the snapshot, nearly always.
        let mut last: Option<(u32, Bytes)> = None;
        for page in frame.first..frame.first + frame.pages {
            let home = pack.home(page).ok_or_else(lost)?;
            let number = home / SEGMENT_PAGES;
            let bytes = match &last {
                Some((last, bytes)) if *last == number => bytes,
                _ => {
                    let segment = self.segment_in(number, other.as_deref(), placement, identity).await?;
                    &last.insert((number, segment)).1
                }
            };
            let from = (home % SEGMENT_PAGES) as usize * PAGE;
            let end = bytes.len().min(from + PAGE);
            pages.extend_from_slice(bytes.get(from..end).ok_or_else(lost)?);
            pages.resize((page + 1 - frame.first) as usize * PAGE, 0);
        }
        Ok(pages.freeze())
    }

    /// A segment, proven, from nothing but this object and its backend: what it lacks itself is not looked for elsewhere once more.
    async fn segment_in(
        &self,
        number: u32,
        other: Option<&Self>,
        placement: &Placement,
        identity: &Arc<Identity>,
    ) -> Result<Bytes> {
        let start = u64::from(number) * SEGMENT as u64;
        let len = (SEGMENT as u64).min(identity.size().saturating_sub(start));
        let Some(other) = other else {
            let range = Some(ByteRange::of(start, len));
            let body = self.host.open_placement(placement, identity, range, Caches::Bypass).await?;
            return body.collect(SEGMENT).await;
        };
        let bytes = other.window(start, len).await?;
        match identity.segments().as_slice().get(number as usize) {
            Some(digest) if *digest == segment_digest(&bytes) => Ok(bytes),
            _ => Err(Error::corrupt("a segment differs from the stored one").on_backend(&placement.backend)),
        }
    }
}
