//! What a store records in one transaction.

use super::{HeldJob, NewJob, NewPlacement, NewSnapshot, Placement, WantedCopies};
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
    /// The copies that are wanted of it.
    pub wanted: Option<WantedCopies>,
    /// Jobs to be enqueued.
    pub jobs: Vec<NewJob>,
    /// The job that has made the objects: of the snapshot nothing is changed then but where it is, and it has to be known
    /// still, or kept for others that need it on the backends of the placements.
    pub job: Option<JobCommit>,
    /// A placement of the snapshot that the objects of a job take the place of: its removal begins if it is just as it was seen
    /// and nothing needs it, nor may. The snapshot has to be known then: what is kept for others needs no other form.
    pub replaces: Option<Placement>,
}

/// The job of a commit.
#[derive(Debug, Clone)]
pub struct JobCommit {
    /// The job, which has to be held still.
    pub held: HeldJob,
    /// What becomes an event of each placement: `repaired`, `copied`, `pushed` or `rebased`.
    pub what: &'static str,
    /// Where the bytes came from.
    pub why: String,
}

impl Commit {
    /// One that records a snapshot and nothing else.
    pub fn of(snapshot: NewSnapshot) -> Self {
        Self {
            snapshot,
            placements: Vec::new(),
            relies_on: Vec::new(),
            intents: Vec::new(),
            wanted: None,
            jobs: Vec::new(),
            job: None,
            replaces: None,
        }
    }
}

/// What recording a store has changed beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The snapshot that the name was taken from.
    pub name_taken_from: Option<SnapshotId>,
}
