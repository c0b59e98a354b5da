//! The encoding `pages`: packs, which hold those pages of a snapshot that no earlier pack holds.
//!
//! Images of machines change in place, a page here and there. A pack has a complete map from the pages of its snapshot to its own
//! frames and those of its sources, so reading costs no walk along a chain. What a changed page used to hold is nearly all that
//! is worth having as a dictionary for what it holds now, so a `compact` delta compresses changed pages with their previous content
//! as prefix; a `random` one has no such dependency, and gives any page with one ranged read. The bytes: `docs/formats.md`.
//!
//! Everything here is pure and blocking: bytes in, bytes out, no network. Whoever fetches and stores is above.
//!
//! | module | contents |
//! | --- | --- |
//! | `layout`, `columns`, `zst` | header and footer; numbers; single zstd frames |
//! | `map`, `frames`, `pack` | metadata: where pages lie, what frames there are, all of it with its bounds |
//! | `chain` | a pack with its sources: what is needed for a page, and what that costs |
//! | `unproven` | what has to be read to prove a pack |
//! | `decode`, `steps` | from stored bytes to pages, of which none passes unchecked; whole ranges, each frame once |
//! | `plan` | long ranges: which frames in which order, for which windows |
//! | `proof` | pages that are proven alone |
//! | `raw` | objects that hold a snapshot as it is |
//! | `image`, `pool`, `hash` | what an encoder reads from, its threads, and equal pages |
//! | `scan`, `changes`, `digests` | pages against those of the base; page digests beside the catalogue |
//! | `sketch` | how much two images have in common |
//! | `frame`, `assemble`, `full`, `delta`, `settings` | packs being written |
//!
//! Reading: [`Pack::open`] on the end of an object, [`Chain::new`] with its sources, [`Chain::steps`] for the frames of a range and
//! [`Decoder`] for their pages; or, for who keeps frames, [`Chain::parts`], [`Chain::prefix`] and [`decode_frame`].
//! Writing: [`encode_full`], [`encode_segments`], [`encode_delta`], into a sink that may block.

mod assemble;
mod chain;
mod changes;
mod columns;
mod decode;
mod delta;
mod digests;
mod frame;
mod frames;
mod full;
mod hash;
mod image;
mod layout;
mod limits;
mod map;
mod memory;
mod pack;
mod plan;
mod pool;
mod proof;
mod raw;
mod scan;
mod settings;
mod sketch;
mod steps;
mod unproven;
mod zst;

#[cfg(test)]
mod tests;

pub use crate::types::PackId;
pub use chain::{Chain, Cost, FramePart, FrameRef, Part};
pub use changes::{changed_bytes, compare, write_digests};
pub use decode::{decode_frame, page_is};
pub use delta::{Base, encode_delta};
pub use digests::PageDigests;
pub use frames::{Coding, Frame, Frames};
pub use full::{NextSegment, encode_full, encode_full_with, encode_segments, full_memory};
pub use image::{FileImage, Image};
pub use layout::{LAST_BYTES, looks_like_pack};
pub use limits::Limits;
pub use map::{Map, Place, Run};
pub use pack::{Opened, Pack, PackSource};
pub use plan::{Plan, Planned, Window, is_direct};
pub use proof::PageProofs;
pub use raw::is_raw;
pub use settings::{Counts, Encoded, Options, Sink};
pub use sketch::Sketch;
pub use steps::{Decoder, Fetch, Placed, Step, read_pages};

use super::segment::PAGE;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = PAGE as u64;

/// Bytes of the header of a pack.
pub const HEADER_BYTES: u64 = layout::HEADER as u64;

/// The most pages of a snapshot: 16 TiB, less one.
pub const MAX_PAGES: u32 = u32::MAX;

/// The most sources of a pack.
pub const MAX_SOURCES: usize = 255;

/// The most packs, one above the other, through which the prefixes of a frame lead.
pub const MAX_DEPTH: u8 = 8;

/// What a pack is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Few bytes: frames of up to 16 MiB, which may need pages of the base.
    Compact,
    /// Cheap reads anywhere: frames of up to 256 KiB, which need nothing else.
    Random,
}

impl Profile {
    /// The most pages of a frame.
    pub const fn most_frame_pages(self) -> u32 {
        match self {
            Self::Compact => 4096,
            Self::Random => 64,
        }
    }

    /// The bytes that a frame has for the digest of each of its pages.
    const fn bytes_of_digest(self) -> u64 {
        match self {
            Self::Compact => 0,
            Self::Random => 32,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Compact => 1,
            Self::Random => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Compact),
            2 => Some(Self::Random),
            _ => None,
        }
    }
}
