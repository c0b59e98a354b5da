//! What the encoding of an object decides, in one place: whether it is what a store asks for, which one an object of unknown
//! origin has, and how many bytes an object must have. `payload.rs` has what a store writes.
//!
//! Reading dispatches in `Host::open_placement`. Each match here and there is exhaustive, so that another encoding does not
//! compile before all of them say what it means to them.

use crate::catalogue::Placement;
use crate::config::PackProfile;
use crate::snapshot::pages::Profile;
use crate::types::{Encoding, Features, ObjectStat, Result};

use super::labels;
use super::options::StoreOptions;

/// Returns whether an object that is there already is what a store asks for: one that asks for the bytes as they are
/// takes no other.
pub(super) fn satisfies(found: Encoding, options: &StoreOptions) -> bool {
    match (found, options.raw) {
        (Encoding::Raw, true | false) | (Encoding::Pages, false) => true,
        (Encoding::Pages, true) => false,
    }
}

/// The profile of the packs of a route.
pub(super) fn profile(configured: PackProfile) -> Profile {
    match configured {
        PackProfile::Compact => Profile::Compact,
        PackProfile::Random => Profile::Random,
    }
}

/// Returns the encoding of an object that is in no catalogue. An image can hold the bytes of a pack, so they say nothing.
///
/// # Errors
/// `unsupported` for an encoding that this version does not know.
pub(super) fn of_unknown(stat: &ObjectStat) -> Result<Encoding> {
    labels::encoding_in(&stat.labels)
}

/// Returns whether an object has the label that tells what it is, as far as its adapter keeps labels: without it, a catalogue that is
/// rebuilt takes a pack for an image.
pub(super) fn has_its_label(placement: &Placement, stat: &ObjectStat, features: Features) -> bool {
    placement.encoding == Encoding::Raw
        || !features.labels
        || of_unknown(stat).is_ok_and(|found| found == placement.encoding)
}

/// Returns whether an adapter can keep a pack: it keeps labels, which tell a pack from an image of the same bytes, and gives any
/// part of an object at once.
pub(super) fn keeps_packs(features: Features) -> bool {
    features.labels && features.ranges
}

/// The bytes that the object of a placement must have, if it holds a snapshot of `size` bytes.
pub(super) fn expected_size(placement: &Placement, size: u64) -> u64 {
    placement.encoding.object_size(size).unwrap_or(placement.stored_bytes)
}
