//! Records of snapshots, the objects that hold them, stores in progress, and the swap log.
//!
//! One SQLite file, in WAL mode, opened by path and shared by any number of processes on one machine (the file must not
//! lie on a network file system: WAL needs shared memory). Every commit is on disk when the call returns
//! (`synchronous=FULL`): a placement that was reported is never forgotten, since forgetting one loses a snapshot.
//!
//! A store calls [`Catalogue::begin_intent`] before the first byte leaves, then gets the backends' receipts, then calls
//! [`Catalogue::commit`], which records the snapshot and its placements and removes the intent in one transaction. A
//! crash leaves an intent whose [`Owner`] is dead, never a placement without an object.
//!
//! Calls run on blocking threads, one at a time; the lock is never held across an await. A call whose future is dropped
//! still runs to its end, so dropping one never leaves half a change.
//!
//! A reader of the file with other tools finds ids as 32-byte blobs and times in seconds since 1970-01-01 UTC. The
//! schema is `schema.rs`; `docs/formats.md` describes the tables.

mod adopt;
mod import_queue;
mod owner;
mod query;
mod schema;
mod swaps;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::types::{Encoding, Error, ErrorKind, ObjectId, Result, SnapshotId, blocking};

pub use adopt::{Adopted, Known, Standing};
pub use import_queue::{ImportItem, ImportQueue};
pub use owner::Owner;
pub use swaps::SwapRow;

/// The catalogue of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

/// A snapshot as recorded in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its logical size in bytes.
    pub size: u64,
    /// The base snapshot. Informational: it may be gone.
    pub base: Option<SnapshotId>,
    /// Its name. Names need not be unique.
    pub name: Option<String>,
    /// Time of the first store (seconds since 1970-01-01 UTC).
    pub created: u64,
}

/// A snapshot to be recorded.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its logical size in bytes.
    pub size: u64,
    /// The snapshot that it was made from.
    pub base: Option<SnapshotId>,
    /// Its name.
    pub name: Option<String>,
    /// Its segment digests, one after the other (`SegmentDigests::to_bytes`). Opaque here.
    pub segments: Vec<u8>,
}

/// Whether the object of a placement can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementState {
    /// It holds the snapshot.
    Live,
    /// It was found to be missing or damaged.
    Bad,
    /// Its removal has begun; it must not be read any more.
    Removing,
}

impl PlacementState {
    /// The text in the database and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Bad => "bad",
            Self::Removing => "removing",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Bad, Self::Removing].into_iter().find(|state| state.name() == name)
    }
}

/// The fact that an object on a backend holds a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The snapshot that it holds.
    pub snapshot: SnapshotId,
    /// On which backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// How the bytes are laid out: `raw` is the logical bytes as they are.
    pub encoding: Encoding,
    /// Whether it can be relied on.
    pub state: PlacementState,
    /// The bytes of the object.
    pub stored_bytes: u64,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub created: u64,
}

/// A placement to be recorded.
#[derive(Debug, Clone)]
pub struct NewPlacement {
    /// On which backend.
    pub backend: String,
    /// The backend's name for it.
    pub object: ObjectId,
    /// How the bytes are laid out: `raw` is the logical bytes as they are.
    pub encoding: Encoding,
    /// The bytes of the object.
    pub stored_bytes: u64,
}

/// A store that was begun and neither committed nor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The key under which the object was announced to the backend.
    pub key: String,
    /// On which backend.
    pub backend: String,
    /// The name of the [`Owner`] that began it.
    pub owner: String,
    /// When (seconds since 1970-01-01 UTC).
    pub started: u64,
}

/// A page of snapshots, oldest first, with the cursor of the next one.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<u64>,
}

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots.
    pub snapshots: u64,
    /// The sum of their logical bytes.
    pub logical_bytes: u64,
    /// Stores in progress, or left by a crash.
    pub intents: u64,
    /// Totals of each backend, by name.
    pub backends: Vec<BackendStats>,
}

/// How much one backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendStats {
    /// The backend.
    pub backend: String,
    /// Objects in any state.
    pub placements: u64,
    /// Objects that were found to be missing or damaged.
    pub bad: u64,
    /// The sum of their bytes.
    pub stored_bytes: u64,
}

impl Catalogue {
    /// Opens the file, and makes it (and its directory) if there is none. Older schemas are brought up to date.
    ///
    /// # Errors
    /// `corrupt` for a damaged file, `invalid` for a file that is not a catalogue, `unsupported` for one of a newer
    /// version, `denied` or `unavailable` for errors of the operating system.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path: Arc<Path> = path.into().into();
        let shown = path.clone();
        let connection = blocking(move || schema::open(&shown)).await?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a call on a blocking thread.
    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        let result = blocking(move || {
            // A panic in a call cannot leave a transaction half done: dropping one rolls it back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            call(&mut connection)
        });
        result.await.map_err(|error| match error.kind() {
            ErrorKind::Corrupt if error.advice().is_none() => error.hint(damaged(&self.path)),
            _ => error,
        })
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The hint for a damaged file.
fn damaged(path: &Path) -> String {
    format!(
        "move {} away together with its -wal and -shm files and put back a copy that was made with `sqlite3 … .backup`; \
         `sqlite3 … .recover` may save what is readable",
        path.display()
    )
}

/// An error of SQLite in our words.
fn sql(error: rusqlite::Error) -> Error {
    if let rusqlite::Error::ToSqlConversionFailure(_) = error {
        // Its integers have 63 bits.
        return Error::invalid(format!("too large for the catalogue: {error}")).with_source(error);
    }
    use rusqlite::ErrorCode as Code;
    let kind = match error.sqlite_error_code() {
        Some(Code::DatabaseCorrupt | Code::NotADatabase) => ErrorKind::Corrupt,
        Some(Code::ReadOnly | Code::PermissionDenied | Code::AuthorizationForStatementDenied) => ErrorKind::Denied,
        Some(Code::ConstraintViolation) => ErrorKind::Conflict,
        Some(_) => ErrorKind::Unavailable,
        // A value that does not fit its column's meaning.
        None => ErrorKind::Corrupt,
    };
    let text = format!("the catalogue: {error}");
    let made = Error::new(kind, text);
    let hint = match error.sqlite_error_code() {
        Some(Code::DiskFull) => "free some space in the data directory",
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => "try again: another process has locked the catalogue",
        Some(Code::ReadOnly) => "make the catalogue and its directory writable",
        _ => return made.with_source(error),
    };
    made.hint(hint).with_source(error)
}

/// Seconds since 1970-01-01 UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
