//! What a store sends to a backend: the image as it is, a full pack that is made of it on the way, or a pack of what has changed.

use std::ops::Range;
use std::sync::Arc;

use super::full::FullPack;
use super::object_bytes::{Layout, ObjectBytes, again};
use crate::catalogue::NewPack;
use crate::snapshot::{FileSource, Identity, Progress, Source};
use crate::types::{Encoding, Error, Result};

/// A pack that was made on this machine, in a file that is gone when it is closed.
pub(super) struct PackFile {
    /// Its bytes.
    pub(super) file: FileSource,
    /// The snapshot that it holds.
    pub(super) identity: Arc<Identity>,
    /// What it is and needs.
    pub(super) pack: NewPack,
    /// The bytes of the snapshot that are not as in the base that it was made against, if that is known.
    pub(super) changed: Option<Vec<Range<u64>>>,
}

/// What is sent.
pub(super) enum Payload {
    /// The image.
    Image(Source),
    /// The image, encoded on its way.
    Full(FullPack),
    /// A pack of what has changed.
    Pack(Arc<PackFile>),
}

impl Payload {
    /// The same once more, if it can be read again.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Image(source) => again(source).map(Self::Image),
            Self::Full(full) => full.again().map(Self::Full),
            Self::Pack(pack) => Some(Self::Pack(pack.clone())),
        }
    }

    /// Begins to read.
    pub(super) fn open(self, progress: Option<Progress>) -> ObjectBytes {
        match self {
            Self::Image(source) => {
                let size = source.size();
                let (body, reading) = source.read(progress);
                ObjectBytes { body, reading, size, layout: Layout { encoding: Encoding::Raw, pack: None }, made: None }
            }
            Self::Full(full) => full.open(progress),
            Self::Pack(pack) => {
                // It fails at its end unless it is what was written.
                let (body, reading) = pack.file.read(None);
                ObjectBytes {
                    body,
                    reading: reading.holding(pack.identity.clone()),
                    size: Some(pack.file.size()),
                    layout: Layout { encoding: Encoding::Pages, pack: Some(pack.pack.clone()) },
                    made: None,
                }
            }
        }
    }
}

/// Takes a payload to be read, and leaves it if it can be read again.
///
/// # Errors
/// `invalid` for a stream that was read already.
pub(super) fn take(payload: &mut Option<Payload>) -> Result<Payload> {
    let again = payload.as_ref().and_then(Payload::again);
    std::mem::replace(payload, again)
        .ok_or_else(|| Error::invalid("the image comes from a stream, which can be read only once"))
}
