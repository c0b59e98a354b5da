//! The pages of a frame that is damaged in every object of its pack, from another object of the same snapshot.
//!
//! Which pages of the snapshot a frame has follows from the metadata of its pack, which is proven. What any other object of
//! that snapshot gives for them is proven by the digests of its segments. So as long as there is one such object, and the
//! metadata of the pack, nothing is lost. Those who take pages from the pack still lack it: their next store sends them
//! whole.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

use super::Caches;
use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::snapshot::pages::{Chain, FrameRef};
use crate::snapshot::{Identity, PAGE, SEGMENT};
use crate::types::{ByteRange, Error, Result};

/// Pages of a segment.
const SEGMENT_PAGES: u32 = (SEGMENT / PAGE) as u32;

impl Host {
    /// Returns the pages of a frame from a live object that holds its snapshot in another form, if there is one.
    pub(super) fn in_another_form<'a>(&'a self, chain: &'a Arc<Chain>, at: FrameRef) -> BoxFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            let (pack, _) = chain.frame(at)?;
            let identity = self.identity_of(pack.snapshot()).await.ok()?;
            let mut placements = self.readable(pack.snapshot()).await.ok()?;
            placements.retain(|other| other.state == PlacementState::Live && !other.is_pack(pack.id()));
            for placement in placements {
                // Their bytes have no share of a budget until all of a frame is there.
                let _turn = self.inner.pack_shares.other_forms.of(placement.backend.clone()).await;
                match self.frame_in(chain, at, &placement, &identity).await {
                    Ok(bytes) => return Some(bytes),
                    Err(error) => {
                        tracing::warn!(backend = placement.backend, %error, "cannot read the pages there either");
                    }
                }
            }
            None
        })
    }

    async fn frame_in(
        &self,
        chain: &Chain,
        at: FrameRef,
        placement: &Placement,
        identity: &Arc<Identity>,
    ) -> Result<Bytes> {
        let lost = || Error::corrupt("the pack has no such frame");
        let (pack, frame) = chain.frame(at).ok_or_else(lost)?;
        let mut pages = BytesMut::with_capacity(frame.pages as usize * PAGE);
        // Its pages are in the order of the snapshot, nearly always.
        let mut last: Option<(u32, Bytes)> = None;
        for page in frame.first..frame.first + frame.pages {
            let home = pack.home(page).ok_or_else(lost)?;
            let segment = home / SEGMENT_PAGES;
            let bytes = match &last {
                Some((number, bytes)) if *number == segment => bytes,
                _ => {
                    let start = u64::from(segment) * SEGMENT as u64;
                    let len = (SEGMENT as u64).min(identity.size().saturating_sub(start));
                    // Nothing but this object and its backend: what it lacks itself is not looked for elsewhere once more.
                    let range = Some(ByteRange::of(start, len));
                    let body = self.open_placement(placement, identity, range, Caches::Bypass).await?;
                    &last.insert((segment, body.collect(SEGMENT).await?)).1
                }
            };
            let from = (home % SEGMENT_PAGES) as usize * PAGE;
            let end = bytes.len().min(from + PAGE);
            pages.extend_from_slice(bytes.get(from..end).ok_or_else(lost)?);
            pages.resize((page + 1 - frame.first) as usize * PAGE, 0);
        }
        Ok(pages.freeze())
    }
}
