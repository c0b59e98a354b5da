//! Results of operations, with the keys of the command line's `--json` and the HTTP API.

use serde::Serialize;
use utoipa::ToSchema;

use super::backend::{ConfiguredBackend, OpenBackend};
use crate::catalogue::{ChainLink, Placement, PlacementEvent, SharedObject};
use crate::config::{Cost, Tier};
use crate::types::{ArchiveState, Encoding, Error, ErrorKind, Features, ObjectId, SnapshotId};

/// A placement of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlacementInfo {
    /// The backend.
    pub backend: String,
    /// The backend's name for the object.
    pub object: ObjectId,
}

/// The result of a store, an update or an apply.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stored {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its logical size in bytes.
    pub size: u64,
    /// Bytes stored on backends by this operation; 0 if the snapshot existed already.
    pub stored_bytes: u64,
    /// Its placements, in the order of the route.
    pub placements: Vec<PlacementInfo>,
    /// The duration.
    pub seconds: f64,
    /// The base snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotId>,
    /// The bytes of the delta: the input of `apply`, or the bytes that an update stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_bytes: Option<u64>,
    /// The snapshot that had the name before. It is still stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_taken_from: Option<SnapshotId>,
}

/// One placement in detail.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlacementStat {
    /// The backend.
    pub backend: String,
    /// The backend's name for the object.
    pub object: ObjectId,
    /// The encoding of the object's bytes.
    pub encoding: Encoding,
    /// `live`, `suspect`, `bad` or `removing`.
    pub state: &'static str,
    /// Whether its backend is configured. If not, it does not count as a copy.
    pub configured: bool,
    /// The reason for the state, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time since which it is in this state (seconds since 1970-01-01 UTC).
    pub since: u64,
    /// The bytes on the backend.
    pub stored_bytes: u64,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub created: u64,
    /// The number of objects on the longest way from this one to one that needs no other: 0 if it needs none itself.
    pub depth: u32,
    /// The objects of its backend that it takes pages from, those that need the most themselves first.
    pub chain: Vec<ChainStat>,
    /// Some of the snapshots that take pages from it, at most 10.
    pub needed_by: Vec<SnapshotId>,
}

impl PlacementStat {
    pub(super) fn of(object: SharedObject, is_configured: impl Fn(&str) -> bool) -> Self {
        let SharedObject { placement, depth, needs, needed_by } = object;
        Self {
            configured: is_configured(&placement.backend),
            backend: placement.backend,
            object: placement.object,
            encoding: placement.encoding,
            state: placement.state.name(),
            reason: placement.reason,
            since: placement.since,
            stored_bytes: placement.stored_bytes,
            created: placement.created,
            depth,
            chain: needs.into_iter().map(ChainStat::of).collect(),
            needed_by,
        }
    }
}

/// An object that another one takes pages from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChainStat {
    /// The snapshot that it holds. It may have been removed and be kept for others alone.
    pub id: SnapshotId,
    /// The backend's name for it; none if it is not recorded.
    pub object: Option<ObjectId>,
    /// The bytes on the backend.
    pub stored_bytes: u64,
    /// As that of the placement, among these.
    pub depth: u32,
    /// Whether it is there for others too: its snapshot was not removed, or objects of other snapshots take pages from it.
    pub shared: bool,
}

impl ChainStat {
    fn of(link: ChainLink) -> Self {
        let ChainLink { snapshot, object, stored_bytes, depth, shared } = link;
        Self { id: snapshot, object, stored_bytes, depth, shared }
    }
}

/// A snapshot and its placements.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotStat {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its logical size in bytes.
    pub size: u64,
    /// The base snapshot.
    pub base: Option<SnapshotId>,
    /// The latest of its names.
    pub name: Option<String>,
    /// Its names, the latest first, at most 100 of them.
    pub names: Vec<String>,
    /// Time of the first store (seconds since 1970-01-01 UTC).
    pub created: u64,
    /// The bytes on backends, over all placements.
    pub stored_bytes: u64,
    /// The bytes of the objects that its placements take pages from and that are there for others too.
    pub shared_bytes: u64,
    /// The bytes that its removal, with all of its names, would free.
    pub frees_bytes: u64,
    /// Its placements.
    pub placements: Vec<PlacementStat>,
    /// The copies that are wanted of it, on different backends; none for a snapshot of a version that did not note it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Whether it was acknowledged and is on this machine alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_risk: bool,
    /// The copies that it has: live, on different backends that are configured, the hot tier apart.
    pub counted: u32,
    /// What happened to its placements, the latest first: at most 100 events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PlacementEvent>,
}

/// The result of a removal.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Removed {
    /// The snapshot.
    pub id: SnapshotId,
    /// The number of removed objects.
    pub placements: u64,
    /// Whether the snapshot is still stored: it has other names, or was also stored without one.
    pub kept: bool,
    /// The names that it has left, the latest first, at most 100 of them.
    pub names: Vec<String>,
    /// Some of the snapshots that take pages from it. It cannot be read any more, but its objects stay until these are
    /// removed too.
    pub needed_by: Vec<SnapshotId>,
    /// Backends that may hold more than the catalogue knows. It cannot be read any more, but its objects there stay until an
    /// import has looked through the backend, and as long as something needs them.
    pub kept_on: Vec<String>,
}

/// A placement with a problem.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BadPlacement {
    /// The snapshot.
    pub id: SnapshotId,
    /// The backend.
    pub backend: String,
    /// The object.
    pub object: ObjectId,
    /// The problem.
    pub why: String,
}

impl BadPlacement {
    pub(super) fn of(placement: &Placement, why: String) -> Self {
        let Placement { snapshot, backend, object, .. } = placement;
        Self { id: *snapshot, backend: backend.clone(), object: object.clone(), why }
    }
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

/// What a store that failed has left: a snapshot without the name that it should have got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LeftBehind {
    /// The snapshot.
    id: SnapshotId,
    /// Its placements: fewer than the route asks for.
    placements: Vec<PlacementInfo>,
}

impl LeftBehind {
    /// Returns what is left from an error; `None` if nothing is.
    pub fn of(error: &Error) -> Option<Self> {
        let left = error.left()?;
        let placement = |(backend, object): &(String, String)| {
            Some(PlacementInfo { backend: backend.clone(), object: ObjectId::new(object.as_str()).ok()? })
        };
        let placements = left.placements.iter().filter_map(placement).collect();
        Some(Self { id: left.snapshot.parse().ok()?, placements })
    }
}

/// The state of a snapshot in cold storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ColdStorage {
    /// `archived`, `restoring` or `readable`.
    state: &'static str,
    /// Estimated total duration of a restore in progress.
    estimate_seconds: Option<u64>,
    /// End of its readability (seconds since 1970-01-01 UTC).
    until: Option<u64>,
}

impl ColdStorage {
    /// Returns the state from an error; `None` if the error is about something else.
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

/// The result of a verification.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// Placements that were checked.
    pub checked: u64,
    /// The bytes that were read and compared: 0 unless it was deep.
    pub bytes: u64,
    /// Placements that are missing or damaged.
    pub bad: Vec<BadPlacement>,
    /// Placements that could not be checked.
    pub unreachable: Vec<BadPlacement>,
    /// Why they could not be: each error of each backend, once.
    pub failed: Vec<FailedBackend>,
    /// Placements on backends that are not configured, of snapshots that have as many sound copies as are wanted elsewhere.
    /// They are not counted as checked.
    pub elsewhere: Vec<BadPlacement>,
}

impl Verification {
    /// What was found on several backends, in their order.
    pub(super) fn together(all: Vec<Self>) -> Self {
        let mut whole = Self::default();
        for one in all {
            whole.checked += one.checked;
            whole.bytes += one.bytes;
            whole.bad.extend(one.bad);
            whole.unreachable.extend(one.unreachable);
            whole.failed.extend(one.failed);
            whole.elsewhere.extend(one.elsewhere);
        }
        whole
    }

    /// Takes note of a placement that could not be checked.
    pub(super) fn could_not_check(&mut self, placement: &Placement, error: &Error) {
        const MOST: usize = 1000;
        self.unreachable.push(BadPlacement::of(placement, error.message().to_owned()));
        let failed = FailedBackend::of(&placement.backend, error);
        if self.failed.len() < MOST && !self.failed.contains(&failed) {
            self.failed.push(failed);
        }
    }
}

/// The result of a gc.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GcReport {
    /// Temporary files and unfinished uploads that were removed.
    pub leftovers: u64,
    /// Objects of interrupted stores, which no catalogue entry names.
    pub objects: u64,
    /// Interrupted removals that were completed.
    pub removals: u64,
    /// Why leftovers, or some of them, could not be removed: each error of each backend.
    pub failed: Vec<FailedBackend>,
}

/// An error of a backend that did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedBackend {
    /// The backend.
    pub backend: String,
    /// The kind of its error.
    pub kind: &'static str,
    /// What it said.
    pub why: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl FailedBackend {
    pub(super) fn of(backend: &str, error: &Error) -> Self {
        Self {
            backend: backend.to_owned(),
            kind: error.kind().name(),
            why: error.message().to_owned(),
            hint: error.advice().map(str::to_owned),
        }
    }
}

/// A backend and its current adapter.
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
    /// The current generation.
    pub generation: u64,
    /// Time since which it serves (seconds since 1970-01-01 UTC).
    pub since: u64,
    /// `hot`, `warm` or `cold`.
    pub tier: &'static str,
    /// What the backend costs, as it is configured.
    pub cost: Cost,
    /// Time from its takeover to the start of its first operation, in milliseconds; absent before that, and for the
    /// generation found at a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_operation_ms: Option<f64>,
    /// The features of the adapter.
    pub features: Features,
    /// The optional interfaces that it exports.
    pub optional: Vec<&'static str>,
}

impl AdapterInfo {
    pub(super) fn of(backend: &ConfiguredBackend, open: &OpenBackend) -> Option<Self> {
        let serving = open.serving().ok()?;
        let description = serving.adapter.description();
        Some(Self {
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
            cost: backend.cost(),
            first_operation_ms: serving.first_operation_after.map(|after| after.as_secs_f64() * 1e3),
            features: description.features,
            optional: serving.adapter.optional_interfaces(),
        })
    }
}
