//! Jobs: durable work on snapshots that no command waits for, and what is recorded of it.
//!
//! A job is a row that is enqueued in the transaction of what makes it necessary: a repair with the mark of a bad placement, a
//! push with the placement that is to be pushed. Whoever runs it holds it under a lease ([`OwnerToken`]); a job whose lease
//! is gone is taken by others, and what its former holder commits under it is refused ([`HeldJob`]). A job says what to look
//! at, not what to do: whoever runs it looks first, so that running one twice does no harm.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{OwnerToken, Placement, Reserved, RiskBound};
use crate::types::{ObjectId, Result, SnapshotId};

/// The events that are kept of a snapshot.
pub const MAX_EVENTS: u32 = 100;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Makes a good copy in place of a bad placement.
    Repair,
    /// Brings a snapshot that has too few copies to its number.
    Copy,
    /// Brings a snapshot from the hot tier to the backends of its route.
    Push,
    /// Makes a full pack of the profile `compact` in place of a pack.
    RebaseCompact,
    /// Makes a full pack of the profile `random` in place of a pack.
    RebaseRandom,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Repair, Self::Copy, Self::Push, Self::RebaseCompact, Self::RebaseRandom];

    /// The text in the database and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repair => "repair",
            Self::Copy => "copy",
            Self::Push => "push",
            Self::RebaseCompact => "rebase-compact",
            Self::RebaseRandom => "rebase-random",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It can be run.
    Queued,
    /// A host runs it, or has ended while it did.
    Running,
    /// It failed, and is tried again after a time.
    Waiting,
    /// It failed and is not tried again unless somebody asks for it.
    Failed,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Waiting, Self::Failed];

    /// The text in the database and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A job to be enqueued. There is one of each kind, snapshot, backend and object at the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// What it does.
    pub kind: JobKind,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The backend that it is about; `None` for any of the route.
    pub backend: Option<String>,
    /// The object that it is about.
    pub object: Option<ObjectId>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Job {
    /// Its number, never given twice.
    pub id: u64,
    /// What it does.
    pub kind: JobKind,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The backend that it is about; none for any of the route.
    pub backend: Option<String>,
    /// The object that it is about.
    pub object: Option<ObjectId>,
    /// Where it stands.
    pub state: JobState,
    /// The live copies of the snapshot: jobs with the fewest are run first.
    pub copies: u32,
    /// How often it was begun.
    pub attempts: u32,
    /// The time before which it is not run (seconds since 1970-01-01 UTC).
    pub not_before: u64,
    /// When it was enqueued (seconds since 1970-01-01 UTC).
    pub created: u64,
    /// Why it failed last: at most 300 bytes of visible characters.
    pub reason: Option<String>,
}

impl Job {
    /// Returns whether it was begun before its time, since a placement of its snapshot has become good.
    pub(crate) fn was_woken(&self) -> bool {
        self.attempts > 1 && self.not_before == 0
    }
}

/// A job that a host runs, under its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldJob {
    /// Its number.
    pub id: u64,
    /// The lease.
    pub token: OwnerToken,
}

/// Which job to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The next that is due: that of the snapshot with the fewest live copies, then the one that was begun the fewest times, then
    /// the oldest.
    Due,
    /// This one, also if it waits or has failed.
    This(u64),
}

/// The backends that a job goes on between: the one that it reads from first, and the one that it writes to; `""` if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// Where it reads.
    pub source: String,
    /// Where it writes.
    pub target: String,
}

impl Between {
    /// Returns whether these are the same backends, in either direction.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.source, &self.target) == (&other.source, &other.target)
            || (&self.source, &self.target) == (&other.target, &other.source)
    }
}

/// Which backends a job may be taken for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The backends of each route that copies may be made on, in its order.
    pub routes: BTreeMap<String, Vec<String>>,
    /// No job between two of these.
    pub not_between: Vec<Between>,
    /// None of these, unless it is asked for by its number.
    pub without: Vec<u64>,
}

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// There is nothing left to do: the job is gone.
    Done,
    /// It is to be tried again from this time on (seconds since 1970-01-01 UTC).
    Wait(u64, String),
    /// Nothing of it was tried. It may be begun from this time on, and this time does not count as an attempt.
    Untried(u64, String),
    /// It is not to be tried again.
    Fail(String),
}

/// How many copies of a snapshot are wanted, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCopies {
    /// Live copies on different backends.
    pub copies: u32,
    /// The route whose backends take them. A snapshot that was stored on several is wanted on each: then their names, with line
    /// breaks between ([`Self::routes`]).
    pub route: String,
}

impl WantedCopies {
    /// The routes whose backends take the copies, in the order in which the snapshot was stored on them.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.route.split('\n')
    }

    /// What is wanted of a snapshot if these copies are wanted as well: those of every route, and the greater number.
    pub fn and(&self, other: &Self) -> Self {
        let mut routes: Vec<&str> = self.routes().collect();
        for route in other.routes() {
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
        Self { copies: self.copies.max(other.copies), route: routes.join("\n") }
    }
}

/// How many jobs there are, and what they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Jobs by kind and state, where there are any.
    pub jobs: Vec<(JobKind, JobState, u64)>,
    /// Snapshots that have fewer live copies than are wanted.
    pub under_number: u64,
    /// Logical bytes of snapshots with a [`JobKind::Push`]: acknowledged, and on this machine alone.
    pub at_risk: u64,
    /// When the first of the jobs that wait is due (seconds since 1970-01-01 UTC).
    pub next: Option<u64>,
}

/// Something that happened to a placement.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct PlacementEvent {
    /// When (seconds since 1970-01-01 UTC).
    pub at: u64,
    /// The backend.
    pub backend: String,
    /// The object.
    pub object: ObjectId,
    /// `bad`, `suspect` and `live` for a change of its state; `repaired`, `copied`, `pushed` and `rebased` for an object that a
    /// job has made.
    pub what: String,
    /// Why, or from where, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A placement, and where it stands in the rotation of scrubs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// The placement.
    pub placement: Placement,
    /// When its turn was last, or else when it was stored; and a number that tells apart what is equal there.
    pub cursor: (u64, u64),
}

/// Packs that need many objects, as far as was looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LongChains {
    /// Their placements.
    pub placements: Vec<Placement>,
    /// Where to go on; the number that was given if there is no further placement.
    pub next: u64,
}

/// The jobs of a catalogue, and what belongs to them. Each operation costs the same however many jobs and snapshots there
/// are, save [`Self::job_stats`], what is said of others, and [`Self::take_job_beside`] where it passes jobs over: that keeps nobody
/// from changing anything, and those are not looked at again for a while. Guarantees and errors are those of [`Catalogue`](super::Catalogue).
pub trait JobQueue: Send + Sync {
    /// Enqueues jobs of snapshots that are known. One that is there already is left as it is. Returns how many are new.
    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<u64>>;

    /// Enqueues a [`JobKind::Copy`] for at most `limit` snapshots that have fewer live copies than are wanted and none yet,
    /// those with the fewest first. Then for those that have enough, but not on the backends that are `configured`: copies on
    /// others do not count. One with a repair that is queued or run is left for later. Returns how many. Reads every placement
    /// on backends that are not configured.
    fn enqueue_copies(&self, limit: u32, configured: Vec<String>) -> BoxFuture<'_, Result<u64>>;

    /// Returns whether [`Self::take_job`] would find a job that is due, or [`Self::enqueue_copies`] a snapshot that has too few
    /// copies on all backends together. Changes nothing.
    fn has_due_job(&self) -> BoxFuture<'_, Result<bool>>;

    /// Takes a job under a lease. A job that is run under a lease which was ended, or has expired, is due.
    ///
    /// # Errors
    /// `conflict` if the lease was ended.
    fn take_job(&self, which: Take, token: OwnerToken) -> BoxFuture<'_, Result<Option<Job>>>;

    /// Takes a job as [`Self::take_job`] does, of those that the choice allows, and says which backends it goes on between. A job
    /// reads from any live placement of its snapshot, and writes to the backend that it is about, or to the first of its route
    /// that has none. One that has nothing to read ends soon, and is not held up.
    fn take_job_beside<'a>(
        &'a self,
        which: Take,
        choice: &'a Choice,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<(Job, Between)>>>;

    /// Ends a run. Returns whether the job was still held: not if it was cancelled, or taken by another since.
    fn end_job(&self, held: HeldJob, end: JobEnd) -> BoxFuture<'_, Result<bool>>;

    /// Gives up runs that ended without a word: their jobs are due again. Those that are not held any more are no error.
    ///
    /// Waits for nothing, as the operations on leases.
    fn release_jobs(&self, held: Vec<HeldJob>) -> BoxFuture<'_, Result<()>>;

    /// At most `limit` jobs in the order in which they were enqueued, after this number.
    fn jobs(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>>;

    /// The jobs of a snapshot.
    fn jobs_of(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Job>>>;

    /// Removes a job; a [`JobKind::Push`] is left as one that has failed. What runs it can commit nothing under it any more. It comes
    /// back if its reason arises anew. Returns the
    /// job as it was.
    fn cancel_job(&self, id: u64) -> BoxFuture<'_, Result<Option<Job>>>;

    /// How many jobs there are. Counts them all. Copies on backends that are not `configured` do not count.
    fn job_stats(&self, configured: Vec<String>) -> BoxFuture<'_, Result<JobStats>>;

    /// Logical bytes of snapshots with a [`JobKind::Push`].
    fn at_risk(&self) -> BoxFuture<'_, Result<u64>>;

    /// Reserves room for bytes of a route that are to be at risk, under a lease, if the bound allows that beside what is at risk and
    /// what others have reserved. Counts the pushes once half of the bound is taken.
    ///
    /// Waits for nothing, as the operations on leases.
    fn reserve_risk(
        &self,
        token: OwnerToken,
        bound: RiskBound,
        route: String,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Reserved>>;

    /// Reserves room for bytes of the hot tier under a lease, however much there is, and returns its number.
    ///
    /// Waits for nothing, as the operations on leases.
    fn reserve_hot(&self, token: OwnerToken, bytes: u64) -> BoxFuture<'_, Result<u64>>;

    /// The bytes of the hot tier that are reserved, by those with lower numbers than this one if there is one.
    fn reserved_hot(&self, before: Option<u64>) -> BoxFuture<'_, Result<u64>>;

    /// Gives back what was reserved. What ended with its lease is no error.
    ///
    /// Waits for nothing, as the operations on leases.
    fn release_rooms(&self, rooms: Vec<u64>) -> BoxFuture<'_, Result<()>>;

    /// The copies of a snapshot that are wanted, if somebody said so.
    fn wanted(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<WantedCopies>>>;

    /// Begins the removal of a bad placement that is just as it was seen, if its snapshot has a live one on the backend
    /// `relied`, and no pack needs it. Returns whether it was begun.
    fn retire<'a>(&'a self, seen: &'a Placement, relied: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Begins the removal of a placement that is just as it was seen, if another live one of its snapshot and backend, `by`, can
    /// take its place: not if a pack needs it, or may. Returns whether it was begun.
    fn retire_for<'a>(&'a self, seen: &'a Placement, by: &'a ObjectId) -> BoxFuture<'a, Result<bool>>;

    /// The placements of a snapshot on a backend that another live one there has taken the place of, which needs nothing, and which
    /// are needed by nothing: packs that were rebased, and what is bad beside one that is whole. To be retired for it
    /// ([`Self::retire_for`]) by whoever has looked at that.
    fn replaced<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>>;

    /// The rebased packs among these, of all snapshots, in the next part of the catalogue after this number, and the number to go
    /// on after; `None` after the last part.
    fn all_replaced(&self, after: u64) -> BoxFuture<'_, Result<(Vec<Placement>, Option<u64>)>>;

    /// Returns whether every byte of a placement, which is still just as it was seen and live, was read since it is in this state:
    /// since it was written, or made live again.
    fn was_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<bool>>;

    /// Notes that every byte of a placement was read and was right, if it is still just as it was seen.
    fn note_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<()>>;

    /// At most `limit` live packs of known snapshots on a backend that need more than `most` objects each, among the next placements
    /// that came after the one of number `after`, and the number to go on after. Leaves out what has another live object there that
    /// needs none.
    fn long_chains<'a>(
        &'a self,
        backend: &'a str,
        after: u64,
        most: u32,
        limit: u32,
    ) -> BoxFuture<'a, Result<LongChains>>;

    /// The placements of packs on a backend that take pages from an object of a snapshot there.
    fn dependents<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>>;

    /// What happened to the placements of a snapshot, the latest first, at most [`MAX_EVENTS`].
    fn events(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<PlacementEvent>>>;

    /// At most `limit` placements on a backend whose turn was not since the time `before`, those that wait the longest first,
    /// after the one that gave `after`.
    fn to_scrub<'a>(
        &'a self,
        backend: &'a str,
        after: Option<(u64, u64)>,
        before: u64,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Scrubbed>>>;

    /// Notes that a placement has had its turn at this time (seconds since 1970-01-01 UTC), whatever came of it.
    fn note_scrubbed<'a>(&'a self, placement: &'a Placement, at: u64) -> BoxFuture<'a, Result<()>>;
}
