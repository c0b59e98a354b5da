//! What operations came to, with the keys that the command line's `--json` and the HTTP API print.

use serde::Serialize;
use utoipa::ToSchema;

use super::backend::{ConfiguredBackend, OpenBackend};
use crate::config::Tier;
use crate::types::{ArchiveState, Encoding, Error, ErrorKind, Features, ObjectId, SnapshotId};

/// Where a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlacementInfo {
    /// The backend.
    pub backend: String,
    /// The backend's name for the object.
    pub object: ObjectId,
}

/// What a store, an update or an apply did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stored {
    /// What was stored.
    pub id: SnapshotId,
    /// Its logical bytes.
    pub size: u64,
    /// The bytes that backends hold for it now because of this operation; 0 if it was there already.
    pub stored_bytes: u64,
    /// Where it is, first the one that the route prefers.
    pub placements: Vec<PlacementInfo>,
    /// How long it took.
    pub seconds: f64,
    /// What it is a change against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotId>,
    /// The bytes of the change: what was given to `apply`, or what an update had to store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_bytes: Option<u64>,
}

/// One placement in detail.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlacementStat {
    /// The backend.
    pub backend: String,
    /// The backend's name for the object.
    pub object: ObjectId,
    /// How the bytes lie in the object.
    pub encoding: Encoding,
    /// `live`, `bad` or `removing`.
    pub state: &'static str,
    /// The bytes that the backend holds.
    pub stored_bytes: u64,
    /// When it was stored (seconds since 1970-01-01 UTC).
    pub created: u64,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotStat {
    /// What it is.
    pub id: SnapshotId,
    /// Its logical bytes.
    pub size: u64,
    /// What it was stored as a change against.
    pub base: Option<SnapshotId>,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// When it was first stored (seconds since 1970-01-01 UTC).
    pub created: u64,
    /// The bytes that backends hold for it, all placements together.
    pub stored_bytes: u64,
    /// Where it is.
    pub placements: Vec<PlacementStat>,
}

/// What a removal did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Removed {
    /// What is gone.
    pub id: SnapshotId,
    /// The objects that were removed.
    pub placements: u64,
}

/// A placement that is not as it should be.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BadPlacement {
    /// The snapshot.
    pub id: SnapshotId,
    /// The backend.
    pub backend: String,
    /// The object.
    pub object: ObjectId,
    /// What is wrong.
    pub why: String,
}

/// A placement on a backend that can be cold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdPlacement {
    /// The backend.
    pub backend: String,
    /// The object.
    pub object: ObjectId,
    /// Whether it can be read now.
    pub state: ArchiveState,
}

/// What is known of a snapshot in cold storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ColdStorage {
    /// `archived`, `restoring` or `readable`.
    state: &'static str,
    /// How long a restore that is under way may take, all in all.
    estimate_seconds: Option<u64>,
    /// Until when it is readable (seconds since 1970-01-01 UTC).
    until: Option<u64>,
}

impl ColdStorage {
    /// What a failure says of it; `None` for one that is about something else.
    pub fn of(error: &Error) -> Option<Self> {
        let ErrorKind::Archived(state) = error.kind() else { return None };
        let (state, estimate_seconds, until) = match state {
            ArchiveState::Archived => ("archived", None, None),
            ArchiveState::Restoring(left) => ("restoring", left.map(|left| left.as_secs()), None),
            ArchiveState::Readable(until) => ("readable", None, *until),
        };
        Some(Self { state, estimate_seconds, until })
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// Placements that were looked at.
    pub checked: u64,
    /// The bytes that were read and compared: none unless it was deep.
    pub bytes: u64,
    /// Those that are not as they should be.
    pub bad: Vec<BadPlacement>,
    /// Those whose backend could not be asked.
    pub unreachable: Vec<BadPlacement>,
}

/// What a collection of leftovers did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GcReport {
    /// Temporary files and unfinished uploads that were removed.
    pub leftovers: u64,
    /// Objects that no catalogue entry names, of stores that were cut short.
    pub objects: u64,
    /// Removals that had been cut short and are done now.
    pub removals: u64,
}

/// A backend and what serves it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AdapterInfo {
    /// The backend.
    pub backend: String,
    /// The adapter's name.
    pub adapter: String,
    /// The adapter's version.
    pub version: String,
    /// The SHA-256 of the component.
    pub digest: String,
    /// The generation that serves.
    pub generation: u64,
    /// Since when it serves (seconds since 1970-01-01 UTC).
    pub since: u64,
    /// `hot`, `warm` or `cold`.
    pub tier: &'static str,
    /// How long after it took over the first operation began on it, in milliseconds; `None` if none has, and for the
    /// generation that a start found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_operation_ms: Option<f64>,
    /// What the adapter can do.
    pub features: Features,
    /// The optional interfaces that it exports.
    pub optional: Vec<&'static str>,
}

impl AdapterInfo {
    pub(super) fn of(backend: &ConfiguredBackend, open: &OpenBackend) -> Self {
        let serving = open.serving();
        let description = serving.adapter.description();
        Self {
            backend: backend.name().to_owned(),
            adapter: description.name.clone(),
            version: description.version.clone(),
            digest: serving.adapter.digest().to_string(),
            generation: serving.generation,
            since: serving.since,
            tier: match backend.tier() {
                Tier::Hot => "hot",
                Tier::Warm => "warm",
                Tier::Cold => "cold",
            },
            first_operation_ms: serving.first_operation_after.map(|after| after.as_secs_f64() * 1e3),
            features: description.features,
            optional: serving.adapter.optional_interfaces(),
        }
    }
}
