//! Packs as they lie on backends: their metadata, and the bytes of the snapshots that they hold.
//!
//! Whatever is fetched is proven before it counts: metadata by the pack's id, which the catalogue knows; frames by the
//! digests in the metadata; and what is read comes out through the same check as that of any other object, segment by
//! segment. What a source gives is taken from whichever of its placements has it, so damage in one of them is found,
//! recorded, and does not show.

mod amend;
mod check;
mod encoders;
mod frames;
mod metadata;
mod needs;
mod open;
mod other_form;
mod prefix;
mod prove;
mod read;
mod room;
mod shares;
mod short;
mod task;
mod whole;

pub(super) use check::check_pack;
pub(super) use encoders::{EncoderRoom, Encoders};
pub(super) use frames::RecentFrames;
pub(super) use metadata::{RecentPacks, needs_of};
pub(super) use needs::Sound;
pub(super) use read::PackReader;
pub(super) use room::Memory;
pub(super) use shares::Shares;

/// Where what is read of packs may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caches {
    /// Metadata and frames that were read before, of whichever copy, and sources on any backend: the bytes count.
    Use,
    /// This object, and objects of its backend, as they are now: it is the copy that is to be proven.
    Bypass,
}

/// The most frames that a host decodes at once for long reads: each takes up to 48 MiB.
const MOST_DECODERS: usize = 4;

/// Places for the decoding of frames: one for each processor, within bounds.
pub(super) fn decoders() -> tokio::sync::Semaphore {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    tokio::sync::Semaphore::new(processors.min(MOST_DECODERS))
}
