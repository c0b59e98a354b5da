//! Reading: chunks of a MiB at their offsets, two ahead.
//!
//! Each chunk is a task of its own on the blocking threads, so that a reader who is slow, or never comes back, holds a
//! file handle and at most two chunks, but no thread.

use std::sync::Arc;

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use futures::stream::StreamExt;

use super::File;
use super::local::info_of_file;
use crate::types::{Body, ByteRange, Error, Result, blocking};

/// Bytes of one read.
const CHUNK: u64 = 1 << 20;
/// Reads in flight or waiting to be taken.
const AHEAD: usize = 2;

/// Opens a file at a checked path. Blocks for a moment.
pub(super) fn open(root: &Dir, path: &str, range: ByteRange) -> Result<File> {
    // A FIFO would block until somebody opens its other end; O_NONBLOCK means nothing to a file.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = root
        .open_with(path, OpenOptions::new().read(true).custom_flags(nonblocking))
        .map_err(|error| Error::io(format!("opening `{path}`"), error))?;
    let metadata = file.metadata().map_err(|error| Error::io(format!("`{path}`"), error))?;
    let info = info_of_file(path, &metadata)?;
    let (start, len) = range.within(info.size)?;
    let file = Arc::new(file.into_std());
    let chunks = (0..len.div_ceil(CHUNK)).map(move |index| {
        let file = Arc::clone(&file);
        let from = index * CHUNK;
        blocking(move || read_at(&file, start + from, CHUNK.min(len - from)))
    });
    let stream = futures::stream::iter(chunks).buffered(AHEAD);
    Ok(File { info, body: Body::new(stream, Some(len)) })
}

fn read_at(file: &std::fs::File, mut offset: u64, len: u64) -> Result<Bytes> {
    // At most a chunk, so that it fits.
    let len = len as usize;
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    while bytes.len() < len {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), offset) {
            Ok(0) => return Err(Error::unavailable("a file became shorter while it was read")),
            Ok(read) => offset += read as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("reading a file", error.into())),
        }
    }
    // An allocator may have given more room than was asked for.
    bytes.truncate(len);
    Ok(bytes.into())
}
