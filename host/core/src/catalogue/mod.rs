//! Records of snapshots, the objects that hold them, stores in progress, and the swap log.
//!
//! [`Catalogue`] is a trait of typed operations: values go in and come out, and each call is one transaction of its own. No
//! caller gets hold of a connection, and no file is touched inside a transaction, so that an engine may lie on another
//! machine and may run a transaction twice. [`SqliteCatalogue`] is the engine for one machine. `suite/` is what every
//! engine has to pass.
//!
//! A store goes: [`Catalogue::begin_intent`] before the first byte leaves, then the backend's receipts, then
//! [`Catalogue::commit`], which records the snapshot and its placements and removes the intent in one transaction. What
//! a crash leaves is an intent whose owner's lease expires ([`OwnerToken`]), never a placement without an object.

mod adopted;
mod commit;
mod container;
mod forgotten;
mod import_queue;
mod job;
mod owner;
mod placement;
mod removal;
mod reserved;
mod sharing;
mod snapshot;
mod sqlite;
mod stats;
mod swap_row;

use std::time::Duration;

use futures::future::BoxFuture;

use crate::types::{ObjectId, PackId, Result, SnapshotId};

pub use adopted::{Adopted, Known, Standing};
pub use commit::{Commit, Committed, JobCommit};
pub use container::Container;
pub use forgotten::Forgotten;
pub use import_queue::{ImportItem, ImportQueue};
pub use job::{
    Between, Choice, HeldJob, Job, JobEnd, JobKind, JobQueue, JobState, JobStats, LongChains, MAX_EVENTS, NewJob,
    PlacementEvent, Scrubbed, Take, WantedCopies,
};
pub use owner::{ExpiredOwner, Intent, OwnerToken};
pub use placement::{ABSENT, LACKING, Need, NewPack, NewPlacement, Placement, PlacementState};
pub use removal::{BegunRemoval, Claim, RemovalScope};
pub use reserved::{AtRisk, Reserved, RiskBound, RiskRoute};
pub use sharing::{ChainLink, MOST_NEEDING, SharedObject, Sharing};
pub use snapshot::{NewSnapshot, Snapshot, SnapshotPage};
pub use sqlite::SqliteCatalogue;
pub use stats::{BackendStats, Stats};
pub use swap_row::SwapRow;

/// What is where. Shared by any number of hosts, in one process or in many.
///
/// # Guarantees
/// - **Durable.** What a call that returned `Ok` has recorded survives a crash of the process and of the machine. The one
///   exception are leases, which mean nothing after their machine has gone down.
/// - **Atomic.** A call happens whole or not at all. One that fails has changed nothing.
/// - **Serialisable.** The effect is that of the calls one after the other, those of other handles included.
/// - **Never half.** A call whose future is dropped after it was polled happens whole or not at all.
/// - **Never older than what it acknowledged.** If the database is put back to an earlier state, from a copy or by a loss of
///   its last changes, no call acts on what that state holds as begun: intents, claims and placements that are being removed
///   are forgotten, leases are ended, no backend counts as looked through, and tokens and versions that may have been given since are not given again. It need not be noticed
///   before the next change, opening or [`Self::standing`].
///
/// # Errors
/// Beside what an operation names, every one fails with `unavailable` if the database cannot be reached or keeps it waiting
/// for too long, `corrupt` if it is damaged, `denied` for what its permissions refuse, and `invalid` for a number that it
/// cannot hold (2^63 and above).
pub trait Catalogue: JobQueue + Send + Sync {
    /// The snapshot of this id, if it is known: not if it was removed and is kept for others.
    fn get(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>>;

    /// The same, and also one that was removed and of which objects are kept because others need them.
    fn get_kept(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>>;

    /// The segment digests of a snapshot as they were recorded, one after the other; also of one that is kept for others.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot.
    fn segments(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<u8>>>;

    /// The one snapshot that a text means: an id, else a name, else the beginning of an id (`tl1` and at least four
    /// characters).
    ///
    /// # Errors
    /// `not-found` if there is none; `invalid` if there are several, with some of them.
    fn find<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Snapshot>>;

    /// At most `limit` snapshots in the order in which they were first stored, after the page that gave `after`.
    fn list(&self, after: Option<u64>, limit: usize) -> BoxFuture<'_, Result<SnapshotPage>>;

    /// The snapshot that has this name.
    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SnapshotId>>>;

    /// Returns whether there is a snapshot of exactly so many bytes. Where there is none, new bytes of that length are a new
    /// snapshot.
    fn has_size(&self, size: u64) -> BoxFuture<'_, Result<bool>>;

    /// Where a snapshot is, in any state, in the order in which it was placed.
    fn placements(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Placement>>>;

    /// Where a pack is, in any state, in the order in which it was placed.
    fn placements_of_pack(&self, pack: PackId) -> BoxFuture<'_, Result<Vec<Placement>>>;

    /// What an object of a backend needs there, if it is a pack that is known.
    fn needs_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Vec<Need>>>;

    /// What the objects of a snapshot take pages from, who takes pages from them, and what its removal would free. Nothing of an
    /// unknown one.
    fn sharing(&self, id: SnapshotId) -> BoxFuture<'_, Result<Sharing>>;

    /// Every placement in a state that is not `live`, for example the removals that a crash cut short.
    ///
    /// # Errors
    /// `invalid` for `live`, of which there may be any number.
    fn placements_in(&self, state: PlacementState) -> BoxFuture<'_, Result<Vec<Placement>>>;

    /// At most `limit` live placements on a backend, in the order of the names of their objects, after this name.
    fn some_placements<'a>(&'a self, on: &'a str, after: &'a str, limit: u32) -> BoxFuture<'a, Result<Vec<Placement>>>;

    /// What an object of a backend holds, if it is known: garbage collection asks this of every object it finds.
    fn placement_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Option<Placement>>>;

    /// Moves a placement to another state, if it is still just as it was seen: every other change in between, a removal or a
    /// store of the same image among them, wins. Returns whether it was moved. Of the reason, at most 300 bytes of visible
    /// characters are kept. With a move to `bad` a [`JobKind::Repair`] is enqueued, and one to `live` ends it. What takes pages from an object
    /// that comes to be bad, and has them from nowhere else on its backend, becomes bad with it ([`LACKING`]), and live with it. This is how every change of state is made but those of [`Self::commit`] and
    /// [`Self::begin_removal`].
    ///
    /// # Errors
    /// `invalid` from or to `removing`.
    fn transition<'a>(
        &'a self,
        seen: &'a Placement,
        to: PlacementState,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Corrects what is recorded of a pack, if its placement is still just as it was seen: which pack its object is, its bytes,
    /// and what it needs. Its state stays. Returns whether it was corrected.
    ///
    /// # Errors
    /// `conflict` if it needs a snapshot that is not known, or would come to need itself.
    fn amend<'a>(&'a self, seen: &'a Placement, pack: NewPack, stored_bytes: u64) -> BoxFuture<'a, Result<bool>>;

    /// Replaces the segment digests of a snapshot, which were found to be damaged, by those that lead to its id.
    fn mend_segments(&self, id: SnapshotId, segments: Vec<u8>) -> BoxFuture<'_, Result<()>>;

    /// Begins to remove a name or a snapshot, in one transaction. Its placements are `removing` from then on, save those
    /// that a pack on the same backend needs: these stay until the last such pack is gone. So do those on a backend that is not
    /// looked through, until it is. Other snapshots may name it as their base and go on doing so.
    ///
    /// # Errors
    /// `not-found` if it is not known or does not have the name any more; `conflict` if it has several names and the scope
    /// does not include them.
    fn begin_removal(&self, id: SnapshotId, scope: RemovalScope) -> BoxFuture<'_, Result<BegunRemoval>>;

    /// Begins to remove one placement, for room: it is `removing` from then on. Returns whether it is: not if nothing else that
    /// is live on the backends `relied` holds its snapshot, or if a pack on the same backend needs one of the snapshot's
    /// objects there. What is recorded says nothing of whether a backend is still there: `relied` are those that were looked at.
    fn begin_eviction<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        relied: Vec<String>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Forgets everything that is recorded of a backend: placements, what these need, its container, claims and intents; and
    /// the snapshots that have no placement left. Not if that were the last live copy of a snapshot that is known, as far
    /// as those on the backends `relied` count, unless these are given up (`lose`). Nothing is deleted on any backend.
    fn forget_backend<'a>(
        &'a self,
        backend: &'a str,
        relied: Vec<String>,
        lose: bool,
    ) -> BoxFuture<'a, Result<Forgotten>>;

    /// Claims an object for deletion under a lease. While it is claimed, no store can record it. Returns whether it was:
    /// not if it is a placement in any other state than `removing`, if it is the identity of a container, or if it is
    /// claimed under another lease than this one and `instead_of`, which must have been ended.
    ///
    /// # Errors
    /// `conflict` if the lease was ended.
    fn claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
        instead_of: Option<OwnerToken>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Ends a claim: the object is gone from its backend. Forgets its placement, and the snapshot with the last one.
    /// Returns the placements whose removal this has begun, of removed snapshots that nothing needs any more; `None` if the
    /// object is not claimed under this lease any more.
    fn end_claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<Vec<Placement>>>>;

    /// Gives up claims: the deletions have ended, and may have had no effect. Those that are not there are no error.
    ///
    /// Waits for nothing, as the operations on leases.
    fn release_claims(&self, claims: Vec<Claim>) -> BoxFuture<'_, Result<()>>;

    /// All claims. Each is one of a deletion that is under way or was cut short.
    fn claims(&self) -> BoxFuture<'_, Result<Vec<Claim>>>;

    /// The container of a backend, once it is recorded.
    fn container<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Option<Container>>>;

    /// Records the container of a backend and ends the intent of that key, if the recorded one is what is `expected`:
    /// none, or the one that is lost. Returns the one that is recorded now. With a container that is lost, all that was stored
    /// into it is: its placements are bad from then on ([`ABSENT`]), and repairs of them are enqueued.
    fn record_container<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        expected: Option<&'a ObjectId>,
        intent: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Container>>;

    /// Takes a lease for an owner of this name, which must be the caller's own, for so long from now. An earlier lease
    /// under this name ends. Returns its token, which is greater than every one given before.
    ///
    /// Leases are also renewed while every thread for blocking work is taken: the operations on them wait neither for
    /// those threads nor for other operations of this handle, and need no async runtime.
    fn acquire_owner<'a>(&'a self, name: &'a str, lease: Duration) -> BoxFuture<'a, Result<OwnerToken>>;

    /// Makes a lease last for so long from now. One that has expired can be renewed as long as nobody has ended it.
    ///
    /// # Errors
    /// `conflict` if it was ended: what its owner began under it will be refused.
    fn renew_owner(&self, token: OwnerToken, lease: Duration) -> BoxFuture<'_, Result<()>>;

    /// Ends a lease; one that is not there is no error. Intents under it are stale from then on.
    fn release_owner(&self, token: OwnerToken) -> BoxFuture<'_, Result<()>>;

    /// Ends the leases of owners that are known to have ended, by their names. Never name one that may live.
    fn end_owners(&self, names: Vec<String>) -> BoxFuture<'_, Result<()>>;

    /// Notes that an object is about to be stored, so that a crash leaves a trace of it.
    ///
    /// # Errors
    /// `conflict` if the key is in use, or the owner's lease was ended.
    fn begin_intent<'a>(&'a self, key: &'a str, backend: &'a str, owner: OwnerToken) -> BoxFuture<'a, Result<()>>;

    /// Ends an intent without a placement: the store failed and nothing is left of it on the backend. Ending one that
    /// is not there is no error.
    fn end_intent<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Gives up intents of a host that lives: their attempts have ended, and what came of them is not known. They are stale
    /// from then on, and no store of theirs can be committed. Those that are not there any more are no error.
    ///
    /// Waits for nothing, as the operations on leases.
    fn abandon_intents(&self, keys: Vec<String>) -> BoxFuture<'_, Result<()>>;

    /// Returns the leases that have expired and were not ended. Whether their owners are still there is not known here.
    fn expired_owners(&self) -> BoxFuture<'_, Result<Vec<ExpiredOwner>>>;

    /// Ends those of these leases that are still as they were seen ([`Self::expired_owners`]), and returns the intents
    /// without a living owner. From then on no store of theirs can be committed: what they have left on backends may be
    /// removed. A lease that has expired and was not seen so goes on.
    ///
    /// Intents without a token are among them whether or not their owner lives ([`Intent::token`]).
    fn stale_intents(&self, expired: Vec<ExpiredOwner>) -> BoxFuture<'_, Result<Vec<Intent>>>;

    /// Records a snapshot and where it is, and ends the intents.
    ///
    /// A snapshot that is known already keeps its first time and its names; the base is replaced where a new one is given. A
    /// placement that is known already becomes live again. A name passes from the snapshot that had it, which stays. One that
    /// was kept for others alone is there again, unless the commit is one of a job ([`Commit::job`]). Jobs are enqueued, and
    /// wanted copies noted where none or fewer were wanted.
    ///
    /// # Errors
    /// `conflict` if an intent is gone or its owner's lease was ended, if a job is not held any more, if one of the objects is known to hold another
    /// snapshot or is being removed, if an object that it relies on is not a live placement of the snapshot (store it anew
    /// then), if a pack needs a snapshot that has no live placement on the pack's backend, or if the snapshot is known with
    /// another size.
    fn commit(&self, store: Commit) -> BoxFuture<'_, Result<Committed>>;

    /// Records one more object of a snapshot, and ends the intents. Returns whether it did: not if the snapshot is not known
    /// any more. Changes nothing else about it.
    ///
    /// # Errors
    /// As [`Self::commit`].
    fn add_placement(
        &self,
        id: SnapshotId,
        placement: NewPlacement,
        intents: Vec<String>,
    ) -> BoxFuture<'_, Result<bool>>;

    /// What is known of objects of a backend, all at one moment: an object that was visible before this was asked, and is
    /// neither known nor under way, is not about to become known by the store that made it.
    fn standing<'a>(&'a self, backend: &'a str, objects: Vec<ObjectId>) -> BoxFuture<'a, Result<Standing>>;

    /// Records objects. Returns for each whether its base is still unknown although the backend names one.
    ///
    /// A snapshot that is known keeps its time, and its base unless an earlier import from this backend gave it. A name
    /// is given where it is free, or where an earlier import from this backend gave it to a snapshot that was stored earlier.
    /// An object that is known by now, or claimed for deletion, is left as it is. Times are those of the objects, and not later than now.
    /// Wanted copies are noted where none were. What is in the hot tier alone has a push enqueued, which goes once there
    /// are as many copies as are wanted.
    ///
    /// # Errors
    /// `conflict` if a snapshot is known with another size.
    fn adopt(&self, objects: Vec<Adopted>) -> BoxFuture<'_, Result<Vec<bool>>>;

    /// Fills in the bases of snapshots that have none: pairs of an object and the object that it is a change against.
    /// Where either is not known, nothing happens.
    fn link<'a>(&'a self, backend: &'a str, pairs: Vec<(ObjectId, ObjectId)>) -> BoxFuture<'a, Result<()>>;

    /// Those of some backends that are not looked through: they may hold packs that are not known here, and nothing on them is
    /// removed that these may need. That is so of every backend once the database was put back, and of one from
    /// [`Self::begin_look`] on.
    fn not_looked_through(&self, backends: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>>;

    /// Begins to look through a backend. It counts as not looked through from then on if nothing of it was recorded before, or
    /// `anew`, since its container is another one. Returns the number by which [`Self::end_look`] ends that; `None` if it
    /// is looked through.
    fn begin_look<'a>(&'a self, backend: &'a str, anew: bool) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Ends it: all that the backend held when the look of this number had begun, or later, is recorded. Returns the placements
    /// whose removal this has begun, of removed snapshots that nothing needs; `None` if another look was begun
    /// since, or the database was put back.
    fn end_look<'a>(&'a self, backend: &'a str, look: u64) -> BoxFuture<'a, Result<Option<Vec<Placement>>>>;

    /// An empty list for an import.
    fn import_queue(&self) -> BoxFuture<'_, Result<Box<dyn ImportQueue>>>;

    /// The rows of the history of a backend's adapter, oldest first.
    fn swaps<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<SwapRow>>>;

    /// The rows of all backends, oldest first, with the backends' names.
    fn all_swaps(&self) -> BoxFuture<'_, Result<Vec<(String, SwapRow)>>>;

    /// Adds a row and forgets all but the last `keep` of the backend, and the one that says what serves. A row with a
    /// generation gets the next number, whatever number it has. Returns the row as it was written.
    fn add_swap<'a>(&'a self, backend: &'a str, row: SwapRow, keep: usize) -> BoxFuture<'a, Result<SwapRow>>;

    /// How much there is.
    fn stats(&self) -> BoxFuture<'_, Result<Stats>>;
}

#[cfg(test)]
mod suite;
