//! What a backend was found to hold, to be recorded, and what the catalogue knows of it already.

use std::collections::HashSet;

use super::{NewPlacement, NewSnapshot, PlacementState, WantedCopies};
use crate::types::{ObjectId, SnapshotId};

/// An object whose bytes were read, with what they are.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The snapshot in it. Its base and name are taken where nothing better is known.
    pub snapshot: NewSnapshot,
    /// Where it is.
    pub placement: NewPlacement,
    /// What the backend says that it is a change against, by the backend's name; goes before the snapshot's `base`.
    pub base: Option<ObjectId>,
    /// When it was stored (seconds since 1970-01-01 UTC), if the backend says so.
    pub stored: Option<u64>,
    /// Whether its name gives way to any other: it is not encrypted, on a backend whose objects are.
    pub weak_name: bool,
    /// The copies that are wanted of the snapshot, unless somebody has said that before.
    pub wanted: Option<WantedCopies>,
}

/// What the catalogue knows of an object that a backend holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The snapshot in it.
    pub snapshot: SnapshotId,
    /// The bytes of the object.
    pub stored_bytes: u64,
    /// Whether it can be relied on.
    pub state: PlacementState,
    /// Whether the base of that snapshot is known.
    pub has_base: bool,
}

/// What the catalogue knows of some objects at one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Of each, in the order in which they were asked for.
    pub known: Vec<Option<Known>>,
    /// The keys of all stores on the backend that have begun and not ended.
    pub under_way: HashSet<String>,
}
