//! Images that are read in any order, by several threads.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{MAX_PAGES, PAGE};
use crate::snapshot::extents::next_data;
use crate::types::{Error, Result};

/// The bytes of a snapshot. Reading blocks.
pub trait Image: Send + Sync {
    /// The number of bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset`.
    ///
    /// # Errors
    /// Errors of reading; `conflict` if the image does not reach that far any more.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// The next run of bytes that begins at or after `from` and before `end` and may be other than zeros; `None` if there are only
    /// zeros up to `end`.
    ///
    /// # Errors
    /// Errors of reading.
    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        Ok((from < end).then_some(from..end))
    }

    /// Returns whether what is read is known to be right. What is not is compared with the digests of its snapshot while it serves as
    /// the base of a delta.
    fn is_proven(&self) -> bool {
        true
    }

    /// Returns whether reading it costs little more than comparing it. Where page digests say which pages have changed, only those are
    /// read of an image that is not near.
    fn is_near(&self) -> bool {
        true
    }

    /// All bytes, if they are in memory or mapped into it: they are then compared where they are.
    fn bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// An image in a file; its holes are not read. It must not change meanwhile.
#[derive(Debug)]
pub struct FileImage {
    file: File,
    size: u64,
    name: String,
}

impl FileImage {
    /// The first `size` bytes of a file or block device; `name` is what errors call it.
    pub fn new(file: File, size: u64, name: impl Into<String>) -> Self {
        Self { file, size, name: name.into() }
    }
}

impl Image for FileImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => ends(&self.name),
            _ => Error::io(&self.name, error),
        })
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        next_data(&self.file, from, end, &self.name)
    }
}

/// Which parts of an image are holes, asked from the first to the last.
pub(super) struct Holes<'a> {
    image: &'a dyn Image,
    /// The run of data that was found last.
    data: Range<u64>,
}

impl<'a> Holes<'a> {
    pub(super) fn new(image: &'a dyn Image) -> Self {
        Self { image, data: 0..0 }
    }

    /// Returns whether there is no data from `start` to `end`.
    pub(super) fn covers(&mut self, start: u64, end: u64) -> Result<bool> {
        if self.data.end <= start {
            let size = self.image.size();
            self.data = self.image.next_data(start, size)?.unwrap_or(u64::MAX - 1..u64::MAX);
        }
        Ok(self.data.start >= end)
    }
}

/// # Errors
/// `unsupported` for more pages than a pack can have.
pub(super) fn check_size(size: u64) -> Result<()> {
    if size.div_ceil(PAGE as u64) <= u64::from(MAX_PAGES) {
        return Ok(());
    }
    Err(Error::unsupported("an image of 16 TiB or more does not fit into one pack")
        .hint("store it as it is: with `--raw`, or on a route with `encoding = \"raw\"`"))
}

fn ends(name: &str) -> Error {
    Error::conflict(format!("{name} was truncated while it was being read"))
}

fn copy(from: &[u8], buffer: &mut [u8], offset: u64) -> Result<()> {
    let start = usize::try_from(offset).map_err(|_| ends("the image"))?;
    let found = start.checked_add(buffer.len()).and_then(|end| from.get(start..end));
    buffer.copy_from_slice(found.ok_or_else(|| ends("the image"))?);
    Ok(())
}

/// Bytes in memory.
impl<T: AsRef<[u8]> + Send + Sync> Image for T {
    fn size(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        copy(self.as_ref(), buffer, offset)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.as_ref())
    }
}
