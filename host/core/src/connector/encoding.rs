//! What the encoding of an object decides, in one place: which one a store writes, which one an object of unknown origin
//! has, and how many bytes an object must have.
//!
//! Reading dispatches in `Host::open_placement`. Each match here and there is exhaustive, so that another encoding does not
//! compile before all of them say what it means to them.

use crate::catalogue::Placement;
use crate::snapshot::{Progress, Reading, Source};
use crate::types::{Body, Encoding, ObjectStat};

use super::options::StoreOptions;

/// How a store lays out the bytes.
pub(super) fn to_write(options: &StoreOptions) -> Encoding {
    // As they are, whether or not that is asked for: there is no other encoding yet.
    let StoreOptions { raw: _, .. } = options;
    Encoding::Raw
}

/// Returns whether an object that is there already is what a store asks for: one that asks for the bytes as they are
/// takes no other.
pub(super) fn suits(found: Encoding, options: &StoreOptions) -> bool {
    match (found, options.raw) {
        (Encoding::Raw, true | false) => true,
    }
}

/// The bytes of an object to be stored, with their number if it is known.
pub(super) fn encode(encoding: Encoding, source: Source, progress: Option<Progress>) -> (Body, Reading, Option<u64>) {
    match encoding {
        Encoding::Raw => {
            let size = source.size();
            let (body, reading) = source.read(progress);
            (body, reading, size)
        }
    }
}

/// Returns the encoding of an object that is in no catalogue.
pub(super) fn of_unknown(_: &ObjectStat) -> Encoding {
    Encoding::Raw
}

/// The bytes that the object of a placement must have, if it holds a snapshot of `size` bytes.
pub(super) fn expected_size(placement: &Placement, size: u64) -> u64 {
    placement.encoding.object_size(size).unwrap_or(placement.stored_bytes)
}
