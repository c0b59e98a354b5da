//! Reading an image back: which placements may be read, how one of them is opened, and no byte unchecked.
//!
//! The catalogue has the digest of every segment of 2 MiB, so each segment is verified before it is passed on, also for
//! ranges: a range is widened to whole segments, fetched, verified and trimmed.

use std::sync::Arc;

use futures::StreamExt as _;

use super::Host;
use super::packs::Caches;
use crate::backend::Backend;
use crate::catalogue::{Placement, PlacementState, Snapshot};
use crate::config::HOT;
use crate::snapshot::{Identity, aligned, verify_known, verify_range};
use crate::types::{Body, ByteRange, Encoding, Error, ErrorKind, ObjectId, Result, SnapshotId};

/// A snapshot, or a part of it, that is being read.
#[derive(Debug)]
pub struct Retrieved {
    /// The snapshot.
    pub id: SnapshotId,
    /// The bytes to come.
    pub size: u64,
    /// The backend that the first of them comes from.
    pub source: String,
    /// The bytes, each verified before it is returned. Ends in an error if not all of them can be read.
    pub body: Body,
}

impl Host {
    /// Reads a snapshot, or a part of it. To read several parts, keep the [`Image`](super::Image) that
    /// [`Self::open`] returns.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; otherwise as [`Image::stream`](super::Image::stream).
    pub async fn retrieve(&self, id: SnapshotId, range: Option<ByteRange>) -> Result<Retrieved> {
        self.open(id).await?.stream(range).await
    }

    /// Opens one placement, with every segment checked. A swap meanwhile is not noticed.
    pub(super) async fn open_placement(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        range: Option<ByteRange>,
        caches: Caches,
    ) -> Result<Body> {
        match placement.encoding {
            Encoding::Raw => self.open_raw(placement, identity, range).await,
            Encoding::Pages => Box::pin(self.open_pack(placement, identity, range, caches)).await,
        }
    }

    async fn open_raw(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        range: Option<ByteRange>,
    ) -> Result<Body> {
        let objects = &self.backend(&placement.backend).await?.objects;
        let (object, identity) = (&placement.object, identity.clone());
        // The range lies within the snapshot, so whatever is wrong with it is wrong with the object.
        let wanted = range.map(|range| aligned(range, identity.size())).transpose()?;
        let body = objects.get(object, wanted).await;
        let body = body.map_err(|error| error.on_backend(objects.name()).during("retrieve"))?;
        let body = match range {
            None => verify_known(body, identity),
            Some(range) => verify_range(body, identity, range)?,
        };
        Ok(checked(body, objects.clone(), object.clone()))
    }

    /// Returns the placements that may be read: live ones first, then those that are suspect, then those that are bad;
    /// each the hot one first, then in the order of the default route, those of other backends after them, the cheapest to read first.
    pub(super) async fn readable(&self, id: SnapshotId) -> Result<Vec<Placement>> {
        self.readable_of(self.inner.catalogue.placements(id).await?)
    }

    /// Those of some placements that may be read, in the order of [`Self::readable`].
    pub(super) fn readable_of(&self, mut placements: Vec<Placement>) -> Result<Vec<Placement>> {
        placements.retain(|p| p.state != PlacementState::Removing && self.inner.backends.contains_key(&p.backend));
        self.cheapest_first(&mut placements);
        let order = &self.route(None)?.backends;
        placements.sort_by_key(|p| {
            let state = match p.state {
                PlacementState::Live => 0,
                PlacementState::Suspect => 1,
                PlacementState::Bad | PlacementState::Removing => 2,
            };
            (state, p.backend != HOT, order.iter().position(|name| *name == p.backend).unwrap_or(usize::MAX))
        });
        Ok(placements)
    }

    /// Sorts placements by what it costs to read them. A backend without a price costs nothing; equal ones keep their order.
    pub(super) fn cheapest_first(&self, placements: &mut [Placement]) {
        let price = |p: &Placement| {
            self.inner.backends.get(&p.backend).and_then(|backend| backend.cost().egress_gb).unwrap_or_default()
        };
        placements.sort_by(|a, b| price(a).total_cmp(&price(b)));
    }

    /// Returns why no placement of a known snapshot may be read.
    pub(super) async fn why_unreadable(&self, id: SnapshotId) -> Result<Error> {
        let placements = self.inner.catalogue.placements(id).await?;
        if placements.iter().any(|placement| placement.state == PlacementState::Removing) {
            return Ok(Error::unavailable(format!("snapshot {id} is being removed")));
        }
        Ok(Error::unavailable(format!("no configured backend holds snapshot {id}"))
            .hint(format!("run `tidelock stat {id}` to see its placements")))
    }

    /// Returns the catalogue's entry.
    pub(super) async fn known(&self, id: SnapshotId) -> Result<Snapshot> {
        self.inner.catalogue.get(id).await?.ok_or_else(|| {
            Error::not_found(format!("no snapshot {id}")).hint("run `tidelock ls` to list the snapshots")
        })
    }
}

/// A body that was checked: what the check found wrong is the backend's, and reported to it.
fn checked(body: Body, backend: Arc<dyn Backend>, object: ObjectId) -> Body {
    let size = body.remaining();
    let chunks = body.map(move |chunk| {
        chunk.map_err(|error| {
            if error.backend().is_none() && *error.kind() == ErrorKind::Corrupt {
                backend.report(&object, &error);
            }
            error.on_backend(backend.name()).during("retrieve")
        })
    });
    Body::new(chunks, size)
}
