//! Removing what is recorded: names, snapshots, and objects of backends.
//!
//! An object is deleted under a *claim*, so that nobody relies on it or stores it anew meanwhile: on a backend that names
//! objects after their bytes, a deletion that comes late would hit the object of a later store. A claim belongs to a host's
//! lease ([`OwnerToken`]). One whose host has ended is taken over by the next garbage collection.

use super::{OwnerToken, Placement};
use crate::types::{ObjectId, SnapshotId};

/// What to remove of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalScope {
    /// This name, and the snapshot with the last one, unless it was also stored without a name.
    Name(String),
    /// The snapshot, if it has one name at the most.
    Snapshot,
    /// The snapshot with all of its names.
    AllNames,
}

/// What a removal has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BegunRemoval {
    /// Only the name is gone: the snapshot has these names left, none if it stays because it was also stored without one.
    NameOnly(Vec<String>),
    /// The snapshot is gone once these objects are; at once if there are none, unless others need it.
    Objects(Vec<Placement>),
    /// The snapshot is gone for its users. Objects of others take pages from objects of it, or may do so, which stay as long as
    /// they do; the ones here are not needed.
    Needed {
        /// What can be deleted.
        spare: Vec<Placement>,
        /// Some of the snapshots that need the rest.
        by: Vec<SnapshotId>,
        /// The backends on which the rest is that are not looked through.
        unknown_on: Vec<String>,
    },
}

/// A claim to delete an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// On which backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// The name of the host that deletes it.
    pub owner: String,
    /// The lease under which it does.
    pub token: OwnerToken,
}
