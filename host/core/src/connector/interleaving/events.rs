//! What is noted of a run, and the checks that it can leave out.

use crate::types::SnapshotId;

/// A check that is left out, to see that the test finds what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// Nothing.
    Nothing,
    /// Stores rely on what they have found, whatever has become of it.
    Reliance,
    /// Objects are deleted whoever else is deleting them.
    Claims,
    /// Packs are recorded although something that they need is gone.
    Needs,
    /// States are changed whatever they are by now.
    Versions,
}

/// An event of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) id: SnapshotId,
    pub(super) what: Happened,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// This task recorded it.
    Recorded(usize),
    /// Its removal has begun.
    Removed,
}
