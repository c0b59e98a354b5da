//! Reading an image back: from the first placement that has it, and no byte unchecked.
//!
//! The catalogue has the digest of every segment of 2 MiB, so each segment is verified before it is passed on, also for
//! ranges: a range is widened to whole segments, fetched, verified and trimmed.

use std::sync::Arc;

use futures::StreamExt as _;

use super::Host;
use crate::catalogue::{Placement, PlacementState, Snapshot};
use crate::runtime::Adapter;
use crate::snapshot::{Identity, SegmentDigests, aligned, verify_known, verify_range};
use crate::types::{Body, ByteRange, Error, ErrorKind, Result, SnapshotId};

/// A snapshot, or a part of it, on its way.
#[derive(Debug)]
pub struct Retrieved {
    /// The snapshot.
    pub id: SnapshotId,
    /// The bytes to come.
    pub size: u64,
    /// The backend that they come from.
    pub source: String,
    /// The bytes, each checked before it comes out. Ends in an error if they cannot all be had.
    pub body: Body,
}

impl Host {
    /// The bytes of a snapshot, or of a part of it.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; `invalid` for a range that begins past the end; `archived` for one that is
    /// only in cold storage: its restore has been requested, and [`until_restored`](Self::until_restored) waits for it;
    /// the error of the last backend that holds it.
    pub async fn retrieve(&self, id: SnapshotId, range: Option<ByteRange>) -> Result<Retrieved> {
        let snapshot = self.known(id).await?;
        let identity = Arc::new(self.identity(&snapshot).await?);
        if let Some(range) = range {
            range.within(identity.size())?;
        }
        let (mut last, mut cold) = (None, None);
        for placement in self.readable(id).await? {
            if let Err(error) = self.backend(&placement.backend).await {
                // A backend that fails to open says nothing about its objects.
                tracing::warn!(backend = placement.backend, %error, "cannot open the backend");
                last = Some(error);
                continue;
            }
            match self.open_placement(&placement, &identity, range).await {
                Ok(body) => {
                    let size = body.remaining().unwrap_or(identity.size());
                    return Ok(Retrieved { id, size, source: placement.backend, body });
                }
                Err(error) if worth_another(&error) => {
                    if matches!(error.kind(), ErrorKind::Archived(_)) {
                        tracing::info!(backend = placement.backend, "the placement is in cold storage");
                        cold = cold.or(Some(placement));
                        continue;
                    }
                    tracing::warn!(backend = placement.backend, %error, "cannot read the placement");
                    if *error.kind() == ErrorKind::NotFound {
                        let (backend, object) = (&placement.backend, &placement.object);
                        self.inner.catalogue.mark_placement(backend, object, PlacementState::Bad).await?;
                    }
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match (cold, last) {
            (Some(placement), _) => {
                self.ask_for_restore(id, &placement).await?;
                let body = self.open_placement(&placement, &identity, range).await?;
                let size = body.remaining().unwrap_or(identity.size());
                Ok(Retrieved { id, size, source: placement.backend, body })
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.why_unreadable(id).await?),
        }
    }

    /// Opens one placement, verifying every segment. A swap does not interrupt it: a preempted read continues from the
    /// byte where it stopped.
    pub(super) async fn open_placement(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        range: Option<ByteRange>,
    ) -> Result<Body> {
        let slot = &self.backend(&placement.backend).await?.slot;
        let (placement, identity) = (placement.clone(), identity.clone());
        slot.read(move |adapter, given| {
            let (placement, identity) = (placement.clone(), identity.clone());
            async move {
                match rest(range, given, identity.size())? {
                    Rest::Nothing => Ok(Body::from_bytes("")),
                    Rest::Whole => {
                        let body = adapter.retrieve(&placement.object, None).await?;
                        Ok(place(verify_known(body, identity), &placement.backend))
                    }
                    Rest::Part(range) => part(&adapter, &placement, identity, range).await,
                }
            }
        })
        .await
    }

    /// The placements that may be read, in the order of the default route, those of other backends after them.
    pub(super) async fn readable(&self, id: SnapshotId) -> Result<Vec<Placement>> {
        let mut placements = self.inner.catalogue.placements(id).await?;
        placements.retain(|p| p.state == PlacementState::Live && self.inner.backends.contains_key(&p.backend));
        let order = &self.route(None)?.backends;
        placements.sort_by_key(|p| order.iter().position(|name| *name == p.backend).unwrap_or(usize::MAX));
        Ok(placements)
    }

    /// Why no placement of a known snapshot may be read.
    async fn why_unreadable(&self, id: SnapshotId) -> Result<Error> {
        let placements = self.inner.catalogue.placements(id).await?;
        let hint = format!("run `tidelock stat {id}` to see its placements");
        let bad = placements.iter().find(|placement| placement.state == PlacementState::Bad);
        Ok(match bad {
            Some(bad) => Error::corrupt(format!("snapshot {id} was found damaged or missing"))
                .on_backend(&bad.backend)
                .hint("store the image again if you still have it"),
            None => Error::unavailable(format!("no configured backend holds snapshot {id}")).hint(hint),
        })
    }

    /// The catalogue's entry.
    pub(super) async fn known(&self, id: SnapshotId) -> Result<Snapshot> {
        self.inner.catalogue.get(id).await?.ok_or_else(|| {
            Error::not_found(format!("no snapshot {id}")).hint("run `tidelock ls` to list the snapshots")
        })
    }

    /// The digests by which a snapshot is checked.
    pub(super) async fn identity(&self, snapshot: &Snapshot) -> Result<Identity> {
        let segments = SegmentDigests::from_bytes(&self.inner.catalogue.segments(snapshot.id).await?)?;
        Identity::from_parts(snapshot.id, snapshot.size, segments)
    }
}

/// The remaining range.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    Whole,
    Part(ByteRange),
    Nothing,
}

/// Returns the rest of a range of an image, or of all of it, after `done` bytes.
fn rest(range: Option<ByteRange>, given: u64, size: u64) -> Result<Rest> {
    let Some(range) = range.or((given > 0).then(ByteRange::default)) else { return Ok(Rest::Whole) };
    let (start, len) = range.within(size)?;
    Ok(match len.saturating_sub(given) {
        0 if given > 0 => Rest::Nothing,
        left => Rest::Part(ByteRange::of(start + given.min(len), left)),
    })
}

/// A part of an object, widened to whole segments, checked and cut.
async fn part(
    adapter: &Arc<Adapter>,
    placement: &Placement,
    identity: Arc<Identity>,
    range: ByteRange,
) -> Result<Body> {
    let wanted = aligned(range, identity.size())?;
    let (_, len) = wanted.within(identity.size())?;
    let body = if len == 0 {
        Body::from_bytes("")
    } else if adapter.description().features.ranges {
        adapter.retrieve(&placement.object, Some(wanted)).await?
    } else {
        part_of(adapter.retrieve(&placement.object, None).await?, wanted.start, len)
    };
    Ok(place(verify_range(body, identity, range)?, &placement.backend))
}

/// Returns whether another placement may have an object that this one lacks.
fn worth_another(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Cancelled) && error.backend().is_some()
}

fn place(body: Body, backend: &str) -> Body {
    let (size, backend) = (body.remaining(), backend.to_owned());
    Body::new(body.map(move |chunk| chunk.map_err(|error| error.on_backend(&backend).during("retrieve"))), size)
}

/// Returns `len` bytes from `start` of a body that cannot be read in ranges. The bytes after them are not read.
pub(super) fn part_of(body: Body, start: u64, len: u64) -> Body {
    let parts = futures::stream::unfold((body, start, len), |(mut body, mut skip, left)| async move {
        if left == 0 {
            return None;
        }
        loop {
            let mut chunk = match body.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), (body, 0, 0))),
            };
            let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= drop as u64;
            let mut chunk = chunk.split_off(drop);
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
            if !chunk.is_empty() {
                let taken = chunk.len() as u64;
                return Some((Ok(chunk), (body, skip, left - taken)));
            }
        }
    });
    Body::new(parts, Some(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_is_counted_from_where_the_range_begins() {
        let range = |start, end| Some(ByteRange { start, end });
        assert_eq!(rest(None, 0, 10).unwrap(), Rest::Whole);
        assert_eq!(rest(None, 4, 10).unwrap(), Rest::Part(ByteRange::of(4, 6)));
        assert_eq!(rest(None, 10, 10).unwrap(), Rest::Nothing);
        assert_eq!(rest(range(2, Some(8)), 0, 10).unwrap(), Rest::Part(ByteRange::of(2, 6)));
        assert_eq!(rest(range(2, Some(8)), 5, 10).unwrap(), Rest::Part(ByteRange::of(7, 1)));
        assert_eq!(rest(range(2, None), 8, 10).unwrap(), Rest::Nothing);
        assert_eq!(rest(range(10, None), 0, 10).unwrap(), Rest::Part(ByteRange::of(10, 0)));
        assert!(rest(range(11, None), 0, 10).is_err());
    }

    proptest! {
        #[test]
        fn a_part_is_cut_out_of_any_chunks(start in 0usize..60, len in 0usize..60, chunk in 1usize..20) {
            let bytes: Vec<u8> = (0..120).collect();
            let body = Body::from_bytes(bytes.clone()).chunks_of_at_most(chunk);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let cut = runtime.block_on(part_of(body, start as u64, len as u64).collect(1000)).unwrap();
            prop_assert_eq!(&cut[..], &bytes[start..start + len]);
        }
    }
}
