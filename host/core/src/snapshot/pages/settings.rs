//! What an encoder is told, and what it tells.

use std::sync::Arc;

use bytes::Bytes;

use super::Profile;
use super::limits::Limits;
use super::pack::Pack;
use super::pool::processors;
use crate::snapshot::Identity;
use crate::types::Result;

/// Takes the bytes of a pack, in order. It may block, so that no more is encoded than can be sent; an error ends the encoder.
pub type Sink<'a> = &'a mut dyn FnMut(Bytes) -> Result<()>;

/// How a pack is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What the pack is for.
    pub profile: Profile,
    /// The level of zstd: 1 to 19; 0: pages are stored as they are.
    pub level: i32,
    /// The number of threads; 0: one for each processor, at most 16.
    pub threads: usize,
    /// The pages of a frame, at most [`Profile::most_frame_pages`]; 0: what suits the profile.
    pub frame_pages: u32,
    /// What reading it may cost, alone and together with all its sources.
    pub limits: Limits,
}

impl Options {
    /// The defaults of a profile: level 3, every processor.
    pub const fn new(profile: Profile) -> Self {
        Self { profile, level: 3, threads: 0, frame_pages: 0, limits: Limits::DEFAULT }
    }

    pub(super) fn threads(&self) -> usize {
        if self.threads == 0 { processors() } else { self.threads }
    }

    /// The pages of a frame, where `compact` packs have so many.
    pub(super) fn frame_pages(&self, compact: u32) -> u32 {
        let suits = match self.profile {
            Profile::Compact => compact,
            Profile::Random => 32,
        };
        let pages = if self.frame_pages == 0 { suits } else { self.frame_pages };
        pages.min(self.profile.most_frame_pages())
    }
}

/// What the pages of a snapshot came to. Together they are all of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Zeros that are stored nowhere. Those that the base has there too may count as unchanged.
    pub zero: u64,
    /// As the base has them there.
    pub unchanged: u64,
    /// Equal to another page of the base.
    pub moved: u64,
    /// Equal to another page of the same snapshot that is stored in this pack.
    pub repeated: u64,
    /// Stored in this pack.
    pub stored: u64,
}

/// A pack that was written.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its metadata, read back.
    pub pack: Arc<Pack>,
    /// The identity of the snapshot.
    pub identity: Identity,
    /// What its pages came to.
    pub counts: Counts,
    /// The header of the page digests, if they were written: the first bytes of what was written, unless the size was not known.
    pub digests_header: Option<[u8; super::digests::HEADER]>,
}
