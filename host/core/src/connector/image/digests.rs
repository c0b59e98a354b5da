//! The digests of the snapshots that were opened last, so that one that is opened again and again (each range that is asked
//! for over HTTP opens it) does not cost loading and hashing all of them each time.
//!
//! An id stands for the same digests for ever, so nothing here becomes stale. Whether there is such a snapshot, the
//! catalogue says at each opening.

use crate::connector::recent::{Recent, Weighed};
use crate::snapshot::Identity;
use crate::types::SnapshotId;

/// The most digests that are kept: 32 MiB of them, for 2 TiB of images. Those of the snapshot that was opened last are kept in
/// any case.
const DIGESTS: usize = 1 << 20;
/// The most snapshots whose digests are kept.
const SNAPSHOTS: usize = 32;

/// Digests by snapshot.
pub(crate) type RecentDigests = Recent<Identity>;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{SEGMENT, SegmentDigests};

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
