//! What a store records in one transaction.

use super::{NewPlacement, NewSnapshot};
use crate::types::{ObjectId, SnapshotId};

/// A store to be recorded.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The snapshot. Its name is given to it, and taken from whichever snapshot has it.
    pub snapshot: NewSnapshot,
    /// Objects that were stored.
    pub placements: Vec<NewPlacement>,
    /// Backends and objects that were there already and that the store counts on: they have to be live placements of this
    /// snapshot when it is recorded.
    pub relies_on: Vec<(String, ObjectId)>,
    /// The intents to be ended.
    pub intents: Vec<String>,
}

/// What recording a store has changed beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The snapshot that the name was taken from.
    pub name_taken_from: Option<SnapshotId>,
}
