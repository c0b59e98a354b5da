//! Snapshots as a catalogue records them.

use crate::types::SnapshotId;

/// A snapshot as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// What it is.
    pub id: SnapshotId,
    /// Its logical bytes.
    pub size: u64,
    /// The snapshot that it was made from. For information: it may be gone.
    pub base: Option<SnapshotId>,
    /// What somebody called it. Names need not be unique.
    pub name: Option<String>,
    /// When it was first stored (seconds since 1970-01-01 UTC).
    pub created: u64,
}

/// A snapshot to be recorded.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// What it is.
    pub id: SnapshotId,
    /// Its logical bytes.
    pub size: u64,
    /// The snapshot that it was made from.
    pub base: Option<SnapshotId>,
    /// What to call it.
    pub name: Option<String>,
    /// Its segment digests, one after the other (`SegmentDigests::to_bytes`). Opaque here.
    pub segments: Vec<u8>,
}

/// Some snapshots, oldest first, and where to go on.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Give this to the next call; `None` when there is no more.
    pub next: Option<u64>,
}
