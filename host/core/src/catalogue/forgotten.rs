//! What came of forgetting a backend.

use crate::types::SnapshotId;

/// A backend that was to be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Its placements: those that are forgotten, or would have been.
    pub placements: u64,
    /// Snapshots of which nothing else counts as a copy, with the latest of their names: at most [`Self::MOST`]. Once it is
    /// forgotten, those that are with it.
    pub last_copies: Vec<(SnapshotId, Option<String>)>,
    /// How many of these there are.
    pub last: u64,
    /// Whether it is forgotten.
    pub done: bool,
}

impl Forgotten {
    /// How many snapshots are named.
    pub const MOST: usize = 1000;
}
