//! Images: identity, sources, verification, and applying deltas.
//!
//! | module | contents |
//! | --- | --- |
//! | `segment` | digests of segments and of their pages: the two lower levels of the tree |
//! | `identity` | the root: from bytes to a `SnapshotId` |
//! | `source` | files, devices and streams as bodies that are hashed while they are read |
//! | `dirty` | what a hypervisor says has changed |
//! | `zeros` | which parts of a snapshot are zeros, as its digests say |
//! | `verify` | bodies of which no byte passes unchecked |
//! | `pages` | the encoding of that name: packs of pages that have changed, and maps of where the others lie |
//! | `patch` | changes that a caller brings: `zstd --patch-from` output and sparse difference files |
//!
//! The formats are in `docs/formats.md`, to the byte.

mod dirty;
mod extents;
mod identity;
pub mod pages;
mod patch;
mod segment;
mod source;
#[cfg(test)]
mod testing;
mod verify;
mod zeros;

use std::sync::Arc;

pub use dirty::{DirtyFormat, DirtyRanges, max_dirty_bytes};
pub use identity::{Identifier, Identity, SegmentDigests};
pub(crate) use patch::{HEAD, window_of};
pub use patch::{PatchLimits, SparseReport, apply_sparse, apply_zstd};
pub use segment::{PAGE, SEGMENT, SegmentDigest, ZERO_SEGMENT, pages_of, segment_digest, segment_from_pages};
pub use source::{CheckedSource, FileSource, Reading, Source, StreamSource, identify_file};
pub use verify::{aligned, identify, trimmed, verify, verify_known, verify_range};
pub(crate) use zeros::ReadPart;
pub use zeros::{Extent, ExtentKind};

/// A callback for the number of bytes done, holes included. Called from several threads, so numbers may arrive out of
/// order; the last one is the total.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;
