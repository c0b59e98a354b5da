//! Reading: chunks of a MiB at their offsets, four ahead.
//!
//! Each chunk is a separate job of the operation's account on the blocking threads, so that a slow or abandoned reader holds a
//! file handle and at most four chunks, but no thread. The memory of dropped chunks is reused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use futures::stream::StreamExt;

use super::File;
use super::inner::info_of_file;
use tidelock_types::{Account, Body, ByteRange, Error, Result, Stop, job};

/// Bytes of one read.
const CHUNK: u64 = 1 << 20;
/// Reads in flight or waiting to be taken.
const AHEAD: usize = 4;

/// The most bytes that are held for `len` bytes that are read, if that is known: those that are read ahead, and those that are
/// looked at.
pub(super) fn holds(len: Option<u64>) -> u64 {
    len.unwrap_or(u64::MAX).min(CHUNK * (AHEAD as u64 + 1))
}

/// Opens a file at a checked path. Blocks for a moment.
pub(super) fn open(root: &Dir, path: &str, range: ByteRange, account: Arc<dyn Account>) -> Result<File> {
    // A FIFO would block until its other end is opened; O_NONBLOCK has no effect on a file.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = root
        .open_with(path, OpenOptions::new().read(true).custom_flags(nonblocking))
        .map_err(|error| Error::io(format!("opening `{path}`"), error))?;
    let metadata = file.metadata().map_err(|error| Error::io(format!("`{path}`"), error))?;
    let info = info_of_file(path, &metadata)?;
    let (start, len) = range.within(info.size)?;
    let file = Arc::new(file.into_std());
    let buffers = Arc::new(Buffers::default());
    let chunks = (0..len.div_ceil(CHUNK)).map(move |index| {
        let (file, buffers, account) = (Arc::clone(&file), Arc::clone(&buffers), Arc::clone(&account));
        let from = index * CHUNK;
        let read = move |_: &Stop| read_at(&file, buffers.take(), start + from, CHUNK.min(len - from));
        async move { job(&account, read).await }
    });
    let stream = futures::stream::iter(chunks).buffered(AHEAD);
    Ok(File { info, body: Body::new(stream, Some(len)) })
}

fn read_at(file: &std::fs::File, mut buffer: Buffer, mut offset: u64, len: u64) -> Result<Bytes> {
    // At most a chunk, so that it fits.
    let len = len as usize;
    let bytes = &mut buffer.bytes;
    bytes.clear();
    bytes.reserve_exact(len);
    while bytes.len() < len {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset) {
            Ok(0) => return Err(Error::unavailable("a file was truncated while it was read")),
            Ok(read) => offset += read as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("reading a file", error.into())),
        }
    }
    // An allocator may have returned more capacity than requested.
    bytes.truncate(len);
    Ok(Bytes::from_owner(buffer))
}

/// The memory of chunks that were taken and dropped again, for those that are still to come: new memory comes from the
/// system page by page, which takes about as long as reading from its cache.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: Arc<Self>) -> Buffer {
        let bytes = self.free().pop().unwrap_or_default();
        Buffer { bytes, home: self }
    }
}

/// A chunk's memory, which is returned to the pool when the chunk is dropped.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free();
        // Those that are read ahead, and the one that is being looked at.
        if free.len() <= AHEAD {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
