//! Objects that hold a snapshot as it is, as sources of packs.

use super::frames::Frames;
use super::map::{Map, Place};
use super::pack::{Contents, Pack, SEGMENT_PAGES, segments_of};
use super::{PAGE, Profile};
use crate::snapshot::{Identity, ZERO_SEGMENT};
use crate::types::{Error, PackId, Result, SnapshotId};

/// Returns whether a pack of this id is an object that holds its snapshot as it is.
pub fn is_raw(id: PackId, snapshot: SnapshotId) -> bool {
    id.as_bytes() == snapshot.as_bytes()
}

impl Pack {
    /// An object that holds a snapshot as it is, as the source of packs: a frame for each segment, proven by the segment's
    /// digest. Its id is the root of the snapshot, and its stored pages are the snapshot's.
    ///
    /// # Errors
    /// `unsupported` for a snapshot of more than [`MAX_PAGES`](super::MAX_PAGES).
    pub fn raw(identity: &Identity) -> Result<Self> {
        let size = identity.size();
        let Ok(pages) = u32::try_from(size.div_ceil(PAGE as u64)) else {
            return Err(Error::unsupported(format!("an image of {size} bytes is too large for a pack")));
        };
        let mut map = Map::default();
        for segment in 0..segments_of(size) {
            let first = segment * SEGMENT_PAGES;
            let zero = identity.segments().as_slice().get(segment as usize) == Some(&ZERO_SEGMENT);
            let place = if zero { Place::Nowhere } else { Place::Stored { source: 0, page: first } };
            map.push(SEGMENT_PAGES.min(pages - first), place);
        }
        let contents = Contents {
            size,
            snapshot: identity.id(),
            profile: Profile::Compact,
            sources: Vec::new(),
            frames: Frames::raw(size, identity.segments().as_slice()),
            map,
            prefixes: Map::default(),
            listed: Vec::new(),
        };
        let id = PackId::from_bytes(*identity.id().as_bytes());
        Ok(Self::from_parts(contents, id, 0, vec![(0, 0)], size))
    }

    /// Returns whether the object holds the snapshot as it is ([`Self::raw`]).
    pub fn is_raw(&self) -> bool {
        is_raw(self.id, self.contents.snapshot)
    }
}
