//! Where a file has data and where it has holes.
//!
//! `SEEK_DATA` and `SEEK_HOLE` move the shared offset of the open file; everything here reads and writes at explicit
//! offsets instead, so that several threads can query at once. File systems without holes report everything as data,
//! which only costs time.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::types::{Error, Result};

/// The next run of data that begins at or after `from` and before `end`; `None` if there is only hole up to `end`.
pub(super) fn next_data(file: &File, from: u64, end: u64, what: &dyn std::fmt::Display) -> Result<Option<Range<u64>>> {
    if from >= end {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start.max(from),
        Err(Errno::NXIO) => return Ok(None),
        // A device, or a file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(Some(from..end)),
        Err(errno) => return Err(Error::io(format!("cannot find data in {what}"), errno.into())),
    };
    if start >= end {
        return Ok(None);
    }
    let stop = match seek(file, SeekFrom::Hole(start)) {
        Ok(stop) => stop.min(end),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => end,
        Err(errno) => return Err(Error::io(format!("cannot find holes in {what}"), errno.into())),
    };
    // The file is being punched meanwhile: go on as if it were data, reading decides.
    Ok(Some(start..if stop > start { stop } else { end }))
}
