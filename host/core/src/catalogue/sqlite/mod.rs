//! The engine for one machine: one SQLite file, in WAL mode, opened by path and shared by any number of processes. The file
//! must not lie on a network file system: WAL needs shared memory.
//!
//! Every commit is on disk when the call returns (`synchronous=FULL`): a placement that was reported is never forgotten,
//! since forgetting one loses a snapshot. Calls run on threads for blocking work, one at a time; the lock is never held
//! across an await. A call whose future is dropped still runs to its end, so dropping one never leaves half a change.
//!
//! Leases have a connection of their own, and each operation on one has a thread of its own: a store of many hours must not
//! lose its lease because other work keeps all threads, or the connection, busy. They are not synced, since a lease outlives
//! no power failure that its owner does not outlive; an intent that is synced takes its lease to the disk with it.
//!
//! A reader of the file with other tools finds ids as 32-byte blobs and times in seconds since 1970-01-01 UTC. The
//! schema is `schema.rs`; `docs/formats.md` describes the tables.

mod adopt;
mod amend;
mod calls;
mod conditions;
mod dependents;
mod elsewhere;
mod errors;
mod forget;
mod import_queue;
mod job_passing;
mod job_reading;
mod job_rows;
mod job_taking;
mod jobs;
mod looked_through;
mod mark;
mod open_files;
mod owners;
mod paths;
mod place;
mod placements;
mod put_back;
mod query;
mod read_only;
mod removals;
mod replaced;
mod reserved;
mod schema;
mod sharing;
mod swaps;
mod versions;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use rusqlite::Connection;

use self::errors::{damaged, sql};
use self::job_passing::Passed;
use self::open_files::OpenFiles;
use self::place::Place;
use super::{
    Adopted, BegunRemoval, Catalogue, Claim, Commit, Committed, Container, ExpiredOwner, Forgotten, ImportQueue,
    Intent, Need, NewPack, NewPlacement, NewSnapshot, OwnerToken, Placement, PlacementState, RemovalScope, Sharing,
    Snapshot, SnapshotPage, Standing, Stats, SwapRow,
};
use crate::types::{ObjectId, PackId, Platform, Result, SnapshotId, blocking};

/// The catalogue of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct SqliteCatalogue {
    connection: Arc<Mutex<Connection>>,
    /// Opened by the first call on a lease.
    leases: Arc<Mutex<Option<(OpenFiles, Connection)>>>,
    path: Arc<Path>,
    place: Arc<Place>,
    platform: Platform,
    /// Jobs that cannot be begun now.
    passed: Arc<Mutex<Option<Passed>>>,
    /// In memory, for tests: calls run where they are polled.
    #[cfg(test)]
    inline: bool,
}

impl SqliteCatalogue {
    /// Opens the file, and makes it (and its directory) if there is none. Older schemas are brought up to date. Times,
    /// leases among them, are those of the platform's clock: all who share a file must agree on the time.
    ///
    /// # Errors
    /// `corrupt` for a damaged file, `invalid` for a file that is something else, `unsupported` for one that a newer
    /// version wrote, `denied` or `unavailable` for what the operating system refuses.
    pub async fn open(path: impl Into<PathBuf>, platform: Platform) -> Result<Self> {
        let path: Arc<Path> = path.into().into();
        let shown = path.clone();
        let kept = platform.clone();
        let (place, connection) = blocking(move || Place::open(&shown, kept)).await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            leases: Arc::default(),
            path,
            place: Arc::new(place),
            platform,
            passed: Arc::default(),
            #[cfg(test)]
            inline: false,
        })
    }

    /// An empty one in memory, whose calls are ready when they are polled.
    #[cfg(test)]
    pub(crate) fn in_memory(platform: Platform) -> Self {
        let connection = schema::in_memory().expect("memory");
        let (connection, path) = (Arc::new(Mutex::new(connection)), Path::new(":memory:").into());
        let place = Arc::new(Place::in_memory(platform.clone()));
        Self { connection, leases: Arc::default(), path, place, platform, passed: Arc::default(), inline: true }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for SqliteCatalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteCatalogue").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Each operation is the method of the same name in one of the files beside this one.
impl Catalogue for SqliteCatalogue {
    fn get(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>> {
        Box::pin(Self::get(self, id))
    }

    fn get_kept(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>> {
        Box::pin(Self::get_kept(self, id))
    }

    fn segments(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(Self::segments(self, id))
    }

    fn find<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(Self::find(self, text))
    }

    fn list(&self, after: Option<u64>, limit: usize) -> BoxFuture<'_, Result<SnapshotPage>> {
        Box::pin(Self::list(self, after, limit))
    }

    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(Self::named(self, name))
    }

    fn has_size(&self, size: u64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(Self::has_size(self, size))
    }

    fn placements(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(Self::placements(self, id))
    }

    fn placements_of_pack(&self, pack: PackId) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(Self::placements_of_pack(self, pack))
    }

    fn amend<'a>(&'a self, seen: &'a Placement, pack: NewPack, stored_bytes: u64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Self::amend(self, seen, pack, stored_bytes))
    }

    fn mend_segments(&self, id: SnapshotId, segments: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::mend_segments(self, id, segments))
    }

    fn needs_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Vec<Need>>> {
        Box::pin(Self::needs_of(self, backend, object))
    }

    fn sharing(&self, id: SnapshotId) -> BoxFuture<'_, Result<Sharing>> {
        Box::pin(Self::sharing(self, id))
    }

    fn placements_in(&self, state: PlacementState) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(Self::placements_in(self, state))
    }

    fn placement_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Option<Placement>>> {
        Box::pin(Self::placement_of(self, backend, object))
    }

    fn some_placements<'a>(&'a self, on: &'a str, after: &'a str, limit: u32) -> BoxFuture<'a, Result<Vec<Placement>>> {
        Box::pin(Self::some_placements(self, on, after, limit))
    }

    fn transition<'a>(
        &'a self,
        seen: &'a Placement,
        to: PlacementState,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Self::transition(self, seen, to, reason))
    }

    fn begin_removal(&self, id: SnapshotId, scope: RemovalScope) -> BoxFuture<'_, Result<BegunRemoval>> {
        Box::pin(Self::begin_removal(self, id, scope))
    }

    fn begin_eviction<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        relied: Vec<String>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Self::begin_eviction(self, backend, object, relied))
    }

    fn forget_backend<'a>(
        &'a self,
        backend: &'a str,
        relied: Vec<String>,
        lose: bool,
    ) -> BoxFuture<'a, Result<Forgotten>> {
        Box::pin(Self::forget_backend(self, backend, relied, lose))
    }

    fn claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
        instead_of: Option<OwnerToken>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Self::claim(self, backend, object, token, instead_of))
    }

    fn end_claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<Vec<Placement>>>> {
        Box::pin(Self::end_claim(self, backend, object, token))
    }

    fn release_claims(&self, claims: Vec<Claim>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::release_claims(self, claims))
    }

    fn claims(&self) -> BoxFuture<'_, Result<Vec<Claim>>> {
        Box::pin(Self::claims(self))
    }

    fn container<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Option<Container>>> {
        Box::pin(Self::container(self, backend))
    }

    fn record_container<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        expected: Option<&'a ObjectId>,
        intent: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Container>> {
        Box::pin(Self::record_container(self, backend, object, expected, intent))
    }

    fn acquire_owner<'a>(&'a self, name: &'a str, lease: Duration) -> BoxFuture<'a, Result<OwnerToken>> {
        Box::pin(Self::acquire_owner(self, name, lease))
    }

    fn renew_owner(&self, token: OwnerToken, lease: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::renew_owner(self, token, lease))
    }

    fn release_owner(&self, token: OwnerToken) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::release_owner(self, token))
    }

    fn end_owners(&self, names: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::end_owners(self, names))
    }

    fn begin_intent<'a>(&'a self, key: &'a str, backend: &'a str, owner: OwnerToken) -> BoxFuture<'a, Result<()>> {
        Box::pin(Self::begin_intent(self, key, backend, owner))
    }

    fn end_intent<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(Self::end_intent(self, key))
    }

    fn abandon_intents(&self, keys: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::abandon_intents(self, keys))
    }

    fn expired_owners(&self) -> BoxFuture<'_, Result<Vec<ExpiredOwner>>> {
        Box::pin(Self::expired_owners(self))
    }

    fn stale_intents(&self, expired: Vec<ExpiredOwner>) -> BoxFuture<'_, Result<Vec<Intent>>> {
        Box::pin(Self::stale_intents(self, expired))
    }

    fn commit(&self, store: Commit) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(Self::commit(self, store))
    }

    fn add_placement(&self, id: SnapshotId, new: NewPlacement, intents: Vec<String>) -> BoxFuture<'_, Result<bool>> {
        Box::pin(Self::add_placement(self, id, new, intents))
    }

    fn standing<'a>(&'a self, backend: &'a str, objects: Vec<ObjectId>) -> BoxFuture<'a, Result<Standing>> {
        Box::pin(Self::standing(self, backend, objects))
    }

    fn adopt(&self, objects: Vec<Adopted>) -> BoxFuture<'_, Result<Vec<bool>>> {
        Box::pin(Self::adopt(self, objects))
    }

    fn link<'a>(&'a self, backend: &'a str, pairs: Vec<(ObjectId, ObjectId)>) -> BoxFuture<'a, Result<()>> {
        Box::pin(Self::link(self, backend, pairs))
    }

    fn not_looked_through(&self, backends: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(Self::not_looked_through(self, backends))
    }

    fn begin_look<'a>(&'a self, backend: &'a str, anew: bool) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(Self::begin_look(self, backend, anew))
    }

    fn end_look<'a>(&'a self, backend: &'a str, look: u64) -> BoxFuture<'a, Result<Option<Vec<Placement>>>> {
        Box::pin(Self::end_look(self, backend, look))
    }

    fn import_queue(&self) -> BoxFuture<'_, Result<Box<dyn ImportQueue>>> {
        Box::pin(async { Ok(Box::new(import_queue::SqliteImportQueue::new().await?) as Box<dyn ImportQueue>) })
    }

    fn swaps<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<SwapRow>>> {
        Box::pin(Self::swaps(self, backend))
    }

    fn all_swaps(&self) -> BoxFuture<'_, Result<Vec<(String, SwapRow)>>> {
        Box::pin(Self::all_swaps(self))
    }

    fn add_swap<'a>(&'a self, backend: &'a str, row: SwapRow, keep: usize) -> BoxFuture<'a, Result<SwapRow>> {
        Box::pin(Self::add_swap(self, backend, row, keep))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats>> {
        Box::pin(Self::stats(self))
    }
}

#[cfg(test)]
mod plans;
#[cfg(test)]
mod tests;
