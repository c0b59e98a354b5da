//! The identities of snapshots, from the catalogue. Those of the snapshots that were opened last are kept, so that one that is
//! opened again and again (each range that is asked for over HTTP opens it) does not cost loading and hashing all of its
//! digests each time.
//!
//! An id stands for the same digests for ever, so nothing here becomes stale. Whether there is such a snapshot, the
//! catalogue says at each opening.

use std::sync::Arc;

use super::Host;
use super::recent::{Recent, Weighed};
use crate::snapshot::{Identity, SegmentDigests};
use crate::types::{Error, Result, SnapshotId};

/// The most digests that are kept: 32 MiB of them, for 2 TiB of images. Those of the snapshot that was opened last are kept in
/// any case.
const DIGESTS: usize = 1 << 20;
/// The most snapshots whose digests are kept.
const SNAPSHOTS: usize = 32;

/// Digests by snapshot.
pub(super) type RecentDigests = Recent<Identity>;

impl Weighed for Identity {
    type Id = SnapshotId;
    const MOST: usize = DIGESTS;
    const COUNT: usize = SNAPSHOTS;

    fn id(&self) -> SnapshotId {
        self.id()
    }

    fn weight(&self) -> usize {
        self.segments().len()
    }
}

impl Host {
    /// The identity of a snapshot that is known, or is kept for others.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot; `corrupt` if the recorded digests do not lead to its id.
    pub(super) async fn identity_of(&self, id: SnapshotId) -> Result<Arc<Identity>> {
        let Some(size) = self.inner.catalogue.get_kept(id).await?.map(|snapshot| snapshot.size) else {
            return Err(Error::not_found(format!("no snapshot {id}")));
        };
        if let Some(identity) = self.inner.recent_digests.get(id) {
            return Ok(identity);
        }
        let segments = SegmentDigests::from_bytes(&self.inner.catalogue.segments(id).await?)?;
        let identity = Arc::new(Identity::from_parts(id, size, segments)?);
        self.inner.recent_digests.put(identity.clone());
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SEGMENT;

    fn identity(segments: usize, number: u8) -> Arc<Identity> {
        let digests = SegmentDigests::new(vec![[number; 32]; segments]);
        Arc::new(Identity::new((segments * SEGMENT) as u64, digests).unwrap())
    }

    #[test]
    fn the_least_recently_used_entry_is_evicted() {
        let recent = RecentDigests::default();
        let [first, second, third] = [1, 2, 3].map(|number| identity(DIGESTS / 2, number));
        recent.put(first.clone());
        recent.put(second.clone());
        assert_eq!(recent.get(first.id()).unwrap().id(), first.id());
        recent.put(third.clone());
        assert!(recent.get(second.id()).is_none() && recent.get(first.id()).is_some());
        let large = identity(DIGESTS + 1, 4);
        recent.put(large.clone());
        assert!(recent.get(large.id()).is_some() && recent.get(third.id()).is_none(), "it is the last");
        recent.put(third.clone());
        assert!(recent.get(large.id()).is_none() && recent.get(third.id()).is_some());
        for number in 0..100 {
            recent.put(identity(1, number));
        }
        assert_eq!(recent.kept().len(), SNAPSHOTS);
    }
}
