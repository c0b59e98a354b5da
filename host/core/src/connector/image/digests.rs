//! The digests of the snapshots that were opened last, so that one that is opened again and again (each range that is asked
//! for over HTTP opens it) does not cost loading and hashing all of them each time.
//!
//! An id stands for the same digests for ever, so nothing here becomes stale. Whether there is such a snapshot, the
//! catalogue says at each opening.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::snapshot::Identity;
use crate::types::SnapshotId;

/// The most digests that are kept: 32 MiB of them, for 2 TiB of images. Those of the snapshot that was opened last are kept in
/// any case.
const DIGESTS: usize = 1 << 20;
/// The most snapshots whose digests are kept.
const SNAPSHOTS: usize = 32;

/// Digests by snapshot. What was used last is last.
#[derive(Default)]
pub(crate) struct RecentDigests {
    kept: Mutex<VecDeque<Arc<Identity>>>,
}

impl RecentDigests {
    /// Those of a snapshot, if they are here.
    pub(super) fn get(&self, id: SnapshotId) -> Option<Arc<Identity>> {
        let mut kept = self.kept();
        let at = kept.iter().position(|identity| identity.id() == id)?;
        let found = kept.remove(at)?;
        kept.push_back(found.clone());
        Some(found)
    }

    /// Keeps some, and lets those go that were not used for longest.
    pub(super) fn put(&self, identity: Arc<Identity>) {
        let mut kept = self.kept();
        kept.retain(|other| other.id() != identity.id());
        kept.push_back(identity);
        let mut digests: usize = kept.iter().map(|identity| identity.segments().len()).sum();
        while kept.len() > 1 && (digests > DIGESTS || kept.len() > SNAPSHOTS) {
            let Some(oldest) = kept.pop_front() else { break };
            digests -= oldest.segments().len();
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Identity>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
