//! The bytes of one attempt to send an object, and how they are encoded.

use tokio::sync::oneshot;

use crate::catalogue::NewPack;
use crate::snapshot::{Reading, Source};
use crate::types::{Body, Encoding};

/// The bytes of one attempt.
pub(super) struct ObjectBytes {
    /// The bytes of the object.
    pub(super) body: Body,
    /// What they turn out to be.
    pub(super) reading: Reading,
    /// The number of bytes, if it is known.
    pub(super) size: Option<u64>,
    /// How they are encoded.
    pub(super) layout: Layout,
    /// The pack that they turn out to be, if that is known only at their end.
    pub(super) made: Option<oneshot::Receiver<NewPack>>,
}

/// How the bytes of an object are encoded.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) encoding: Encoding,
    /// The pack that the object is, once that is known.
    pub(super) pack: Option<NewPack>,
}

/// The same source once more, if it can be read again.
pub(super) fn again(source: &Source) -> Option<Source> {
    match source {
        Source::File(file) => Some(Source::File(file.clone())),
        Source::Checked(checked) => Some(Source::Checked(checked.clone())),
        Source::Stream(_) => None,
    }
}
