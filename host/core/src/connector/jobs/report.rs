//! What is said of jobs, with the keys of `--json` and of the HTTP API.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use utoipa::ToSchema;

use super::wakings::Wakings;
use crate::catalogue::{Job, JobKind, JobState, Placement};
use crate::config::PackProfile;
use crate::connector::report::{BadPlacement, PlacementInfo};
use crate::types::{Error, ObjectId, SnapshotId};

/// The most outcomes, or placements, that a report names.
pub(super) const MOST_NAMED: usize = 1000;

/// An object that a job has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MadeObject {
    /// The backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// The backend that its bytes were read from.
    pub from: String,
    /// The bytes of the object; 0 if a good one was there already.
    pub bytes: u64,
}

/// How the run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobOutcome {
    /// The number of the job.
    pub job: u64,
    /// What it does.
    pub kind: JobKind,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The backend that it is about; none for any of the route.
    pub backend: Option<String>,
    /// The object that it is about.
    pub object: Option<ObjectId>,
    /// Whether there is nothing left to do.
    pub done: bool,
    /// The objects that it has made.
    pub made: Vec<MadeObject>,
    /// Why it is not done, or why there was nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The result of a run of jobs.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct JobReport {
    /// Jobs that have nothing left to do.
    pub done: u64,
    /// Jobs that have failed, and are tried again later if that may help.
    pub failed: u64,
    /// The bytes that were read for them.
    pub bytes: u64,
    /// The outcome of each, of at most 1000.
    pub outcomes: Vec<JobOutcome>,
}

impl JobReport {
    pub(super) fn add(&mut self, outcome: JobOutcome) {
        match outcome.done {
            true => self.done += 1,
            false => self.failed += 1,
        }
        if self.outcomes.len() < MOST_NAMED {
            self.outcomes.push(outcome);
        }
    }
}

/// The result of a repair in the foreground.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RepairReport {
    /// The snapshot.
    pub id: SnapshotId,
    /// Placements that were checked, every byte of them.
    pub checked: u64,
    /// Those that were damaged or missing.
    pub damaged: Vec<BadPlacement>,
    /// Objects that were made in their place.
    pub repaired: Vec<MadeObject>,
    /// Placements that could not be repaired, and why.
    pub unrepaired: Vec<BadPlacement>,
}

/// The result of a rebase in the foreground.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RebaseReport {
    /// The snapshot.
    pub id: SnapshotId,
    /// What the new packs are made for: `compact` or `random`.
    pub profile: &'static str,
    /// Packs that were made, which take pages from nothing.
    pub rebased: Vec<MadeObject>,
    /// Placements for which there was nothing to do.
    pub unchanged: Vec<PlacementInfo>,
    /// Objects that stay although another one took their place, since packs take pages from them.
    pub kept: Vec<PlacementInfo>,
    /// Placements that could not be rebased, and why. Their jobs are tried again later.
    pub failed: Vec<BadPlacement>,
}

impl RebaseReport {
    pub(super) fn of(id: SnapshotId, profile: PackProfile) -> Self {
        let (rebased, unchanged, kept, failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { id, profile: profile.name(), rebased, unchanged, kept, failed }
    }
}

/// The result of a scrub.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ScrubReport {
    /// Placements of which every byte was read.
    pub checked: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// Placements that are missing or damaged, at most 1000 of them. Repairs are enqueued.
    pub bad: Vec<BadPlacement>,
    /// Placements that could not be checked, at most 1000 of them.
    pub unreachable: Vec<BadPlacement>,
    /// Whether everything was looked at, rather than as much as the budget allows.
    pub complete: bool,
}

impl ScrubReport {
    /// Takes note of a placement that is missing or damaged.
    pub(super) fn is_bad(&mut self, placement: &Placement, why: String) {
        if self.bad.len() < MOST_NAMED {
            self.bad.push(BadPlacement::of(placement, why));
        }
    }

    /// Takes note of a placement that could not be checked.
    pub(super) fn is_unreachable(&mut self, placement: &Placement, error: &Error) {
        if self.unreachable.len() < MOST_NAMED {
            self.unreachable.push(BadPlacement::of(placement, error.message().to_owned()));
        }
    }

    /// The report of several backends, in their order.
    pub(super) fn together(all: Vec<Self>) -> Self {
        let mut whole = Self { complete: true, ..Self::default() };
        let (mut bad, mut unreachable) = (Vec::new(), Vec::new());
        for one in all {
            whole.checked += one.checked;
            whole.bytes += one.bytes;
            whole.complete &= one.complete;
            bad.push(one.bad);
            unreachable.push(one.unreachable);
        }
        (whole.bad, whole.unreachable) = (some_of_each(bad), some_of_each(unreachable));
        whole
    }
}

/// As many as a report names: none of those of one backend for more of another, if there are too many.
fn some_of_each(mut all: Vec<Vec<BadPlacement>>) -> Vec<BadPlacement> {
    let (mut left, mut backends) = (MOST_NAMED, all.len());
    let mut fewest: Vec<usize> = (0..backends).collect();
    fewest.sort_by_key(|number| all[*number].len());
    for number in fewest {
        let share = left / backends.max(1);
        all[number].truncate(share);
        left -= all[number].len();
        backends -= 1;
    }
    all.into_iter().flatten().collect()
}

/// A page of jobs, in the order in which they were enqueued.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The cursor of the next page; none on the last one.
    pub next: Option<u64>,
}

/// How many jobs there are, and what is in danger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobOverview {
    /// Jobs by kind and state.
    pub jobs: Vec<(JobKind, JobState, u64)>,
    /// Snapshots that have fewer live copies on backends that are configured than are wanted.
    pub under_number: u64,
    /// Logical bytes that were acknowledged and are on this machine alone.
    pub at_risk: u64,
    /// When the first of the jobs that wait is due (seconds since 1970-01-01 UTC); none if no job waits.
    pub next: Option<u64>,
}

/// What this host has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Bytes of objects that were made in place of bad ones.
    pub repaired_bytes: u64,
    /// Bytes of objects that were made to bring snapshots to their number.
    pub copied_bytes: u64,
    /// Bytes of full packs that were made in place of others.
    pub rebased_bytes: u64,
    /// Bytes that scrubs have read.
    pub scrubbed_bytes: u64,
}

/// The same while it grows, and what else the runs of a host have in common.
#[derive(Default)]
pub(in crate::connector) struct Totals {
    repaired: AtomicU64,
    copied: AtomicU64,
    rebased: AtomicU64,
    scrubbed: AtomicU64,
    /// What was begun before its time.
    pub(super) wakings: Wakings,
}

impl Totals {
    pub(super) fn made(&self, kind: JobKind, bytes: u64) {
        let total = match kind {
            JobKind::Repair => &self.repaired,
            JobKind::Copy | JobKind::Push => &self.copied,
            JobKind::RebaseCompact | JobKind::RebaseRandom => &self.rebased,
        };
        total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn scrubbed(&self, bytes: u64) {
        self.scrubbed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> JobCounts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        JobCounts {
            repaired_bytes: read(&self.repaired),
            copied_bytes: read(&self.copied),
            rebased_bytes: read(&self.rebased),
            scrubbed_bytes: read(&self.scrubbed),
        }
    }
}
