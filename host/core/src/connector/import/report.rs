//! The report of an import, with the keys of the command line's `--json`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::types::{ObjectId, SnapshotId};

/// How many objects that were left alone are named; all are counted.
const MAX_NAMED: usize = 1000;

/// The result of an import.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Imported {
    /// The backend.
    pub backend: String,
    /// Objects that were listed, or named by the caller.
    pub objects: u64,
    /// Those that are recorded now and were not before.
    pub imported: u64,
    /// Those that had been recorded before. Their bytes were not read.
    pub known: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// Objects of a store in progress or interrupted (`gc` removes the latter).
    pub under_way: u64,
    /// Objects that no host seems to have stored.
    pub foreign: u64,
    /// Objects that were gone by the time they were read.
    pub gone: u64,
    /// Objects in cold storage, which have to be restored before they can be read.
    pub pending: u64,
    /// Objects that do not match the backend's metadata or the record.
    pub damaged: u64,
    /// Objects that could not be read.
    pub unreachable: u64,
    /// Recorded objects that are there, or cannot be looked at, and were not listed: the listing does not have everything.
    pub unlisted: u64,
    /// Recorded objects that were not listed, and are not sound.
    pub missing: u64,
    /// Objects of removed snapshots that were deleted, since nothing that was found needs them.
    pub removed: u64,
    /// Whether the catalogue knows all that the backend holds, as far as it matters for removals. If not, objects of snapshots
    /// that are removed stay.
    pub complete: bool,
    /// Skipped objects with the reason: the first thousand.
    pub left: Vec<LeftAlone>,
    /// The snapshots in the named objects, in the given order; empty if none were named.
    pub snapshots: Vec<ImportedSnapshot>,
    /// The duration.
    pub seconds: f64,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportStep {
    /// Objects that were listed so far, or named by the caller.
    pub objects: u64,
    /// Those that have been dealt with.
    pub done: u64,
    /// The bytes that have been read.
    pub bytes: u64,
}

/// A callback for the progress of an import, called often. While objects are listed, only their number grows.
pub type ImportProgress = Arc<dyn Fn(ImportStep) + Send + Sync>;

/// Counts, and calls the callback.
#[derive(Default)]
pub(super) struct Meter {
    objects: AtomicU64,
    done: AtomicU64,
    bytes: AtomicU64,
    progress: Option<ImportProgress>,
}

impl Meter {
    pub(super) fn new(progress: Option<ImportProgress>) -> Self {
        Self { progress, ..Self::default() }
    }

    pub(super) fn found(&self, objects: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
        self.tell();
    }

    /// One of those that were found is not to be counted.
    pub(super) fn leave_out(&self) {
        self.objects.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn done(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.tell();
    }

    pub(super) fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// How far it is.
    pub(super) fn step(&self) -> ImportStep {
        let [objects, done, bytes] =
            [&self.objects, &self.done, &self.bytes].map(|count| count.load(Ordering::Relaxed));
        ImportStep { objects, done, bytes }
    }

    fn tell(&self) {
        if let Some(progress) = &self.progress {
            progress(self.step());
        }
    }
}

/// An object that was not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// The backend's name for it.
    pub object: ObjectId,
    /// Under which heading it was counted.
    pub state: LeftState,
    /// The reason, for people.
    pub why: String,
}

/// Why an object was not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftState {
    /// Its store is in progress or was interrupted.
    UnderWay,
    /// No host seems to have stored it.
    Foreign,
    /// It was not there any more.
    Gone,
    /// It is in cold storage.
    Pending,
    /// It is damaged.
    Damaged,
    /// It could not be read.
    Unreachable,
}

impl LeftState {
    /// The text in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnderWay => "under-way",
            Self::Foreign => "foreign",
            Self::Gone => "gone",
            Self::Pending => "pending",
            Self::Damaged => "damaged",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A named object and its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedSnapshot {
    /// The backend's name for it.
    pub object: ObjectId,
    /// The snapshot.
    pub id: SnapshotId,
}

impl Imported {
    pub(super) fn leave(&mut self, object: ObjectId, state: LeftState, why: impl Into<String>) {
        let count = match state {
            LeftState::UnderWay => &mut self.under_way,
            LeftState::Foreign => &mut self.foreign,
            LeftState::Gone => &mut self.gone,
            LeftState::Pending => &mut self.pending,
            LeftState::Damaged => &mut self.damaged,
            LeftState::Unreachable => &mut self.unreachable,
        };
        *count += 1;
        if self.left.len() < MAX_NAMED {
            self.left.push(LeftAlone { object, state, why: why.into() });
        }
    }

    /// Objects that have been dealt with, in whatever way.
    pub fn done(&self) -> u64 {
        let left = [self.under_way, self.foreign, self.gone, self.pending, self.damaged, self.unreachable];
        self.imported + self.known + left.iter().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_named() {
        let mut report = Imported::default();
        for number in 0..MAX_NAMED + 5 {
            report.leave(ObjectId::new(format!("o{number}")).unwrap(), LeftState::Foreign, "x");
        }
        assert_eq!((report.foreign, report.done(), report.left.len()), (1005, 1005, 1000));
        let json = serde_json::to_value(&report.left[0]).unwrap();
        assert_eq!(json, serde_json::json!({ "object": "o0", "state": "foreign", "why": "x" }));
        for state in [LeftState::UnderWay, LeftState::Gone, LeftState::Pending, LeftState::Damaged] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
