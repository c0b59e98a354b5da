//! Snapshots as a catalogue records them.

use crate::types::SnapshotId;

/// A snapshot as recorded in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its logical size in bytes.
    pub size: u64,
    /// The base snapshot. Informational: it may be gone.
    pub base: Option<SnapshotId>,
    /// The latest of its names.
    pub name: Option<String>,
    /// Its names, the latest first, at most 100 of them. A name refers to the latest snapshot that was stored under it.
    pub names: Vec<String>,
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
    /// The base snapshot.
    pub base: Option<SnapshotId>,
    /// A name to be given to it, beside those that it has.
    pub name: Option<String>,
    /// Whether it stays when its last name goes, since somebody knows it by its id. Never taken back.
    pub by_id: bool,
    /// Its segment digests, one after the other (`SegmentDigests::to_bytes`). Opaque here.
    pub segments: Vec<u8>,
}

/// A page of snapshots, oldest first, with the cursor of the next one.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// The cursor of the next page; none on the last one.
    pub next: Option<u64>,
}
