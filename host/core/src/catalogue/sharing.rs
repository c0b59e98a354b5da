//! What the objects of a snapshot have in common with others: what they take pages from, and who takes pages from them.

use super::Placement;
use crate::types::{ObjectId, SnapshotId};

/// The most snapshots that are told of those that need an object.
pub const MOST_NEEDING: u32 = 10;

/// The objects of a snapshot and what they share, as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The snapshot's objects, in the order in which they were placed.
    pub objects: Vec<SharedObject>,
    /// The bytes of objects that the removal of the snapshot, with all of its names, would free: its own that nothing else needs,
    /// and those that are kept for them alone.
    pub frees: u64,
}

/// An object, and its part in chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedObject {
    /// The object.
    pub placement: Placement,
    /// The number of objects on the longest way from this one to one that needs none: 0 if it needs none itself.
    pub depth: u32,
    /// The objects that it takes pages from, on its backend, those that need the most themselves first.
    pub needs: Vec<ChainLink>,
    /// Some of the snapshots that take pages from it, at most [`MOST_NEEDING`].
    pub needed_by: Vec<SnapshotId>,
}

/// An object that another one takes pages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLink {
    /// The snapshot that it holds.
    pub snapshot: SnapshotId,
    /// The backend's name for it; `None` if none is recorded.
    pub object: Option<ObjectId>,
    /// The bytes of the object; 0 without one.
    pub stored_bytes: u64,
    /// As [`SharedObject::depth`], among these.
    pub depth: u32,
    /// Whether it is there for others too: its snapshot is listed, or an object of another snapshot needs it.
    pub shared: bool,
}
