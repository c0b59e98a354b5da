//! The bytes of a pack in a file: whether they are those of the pack, whatever it takes pages from.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::snapshot::pages::{Limits, Opened, Pack};
use crate::types::{Error, Result};

/// Makes sure that a file is a pack to the byte. `what` names the file in errors.
///
/// # Errors
/// `corrupt` if it is not; errors of reading.
pub(in crate::connector) fn check_pack(file: &File, pack: &Arc<Pack>, what: &str) -> Result<()> {
    let fail = |error| Error::io(what, error);
    let damaged = |what: &str| Error::corrupt(format!("{what} of the pack is not what was stored"));
    if file.metadata().map_err(fail)?.len() != pack.stored() {
        return Err(damaged("the size"));
    }
    let read = |start: u64, end: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(|_| damaged("the size"))?];
        file.read_exact_at(&mut bytes, start).map_err(fail)?;
        Ok(bytes)
    };
    let frames = pack.frames();
    let first = frames.as_slice().first().map_or(frames.end(), |frame| frame.offset);
    pack.check_header(&read(0, first)?)?;
    for frame in frames.as_slice() {
        let stored = read(frame.offset, frame.offset + u64::from(frame.stored))?;
        if *blake3::hash(&stored).as_bytes() != frame.digest {
            return Err(damaged("a frame"));
        }
    }
    match Pack::open(&read(frames.end(), pack.stored())?, pack.stored(), Some(pack.id()), Limits::default())? {
        Opened::Pack(_) => Ok(()),
        Opened::Longer { .. } => Err(damaged("the metadata")),
    }
}
