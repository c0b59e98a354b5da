//! Placements: which object of which backend holds a snapshot.

use crate::types::{Encoding, ObjectId, SnapshotId};

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

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Bad, Self::Removing].into_iter().find(|state| state.name() == name)
    }
}

/// The fact that an object on a backend holds a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What it holds.
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
    /// When it was stored (seconds since 1970-01-01 UTC).
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
