//! Files of a directory as values: metadata, options of writing, a page of a listing.

use super::{Body, Result};

/// The most entries that a listing returns at once; a larger limit is reduced to it.
pub const LIST_LIMIT: u32 = 1000;

/// How to write a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The exact number of bytes, if known. A body of another length is an error and leaves nothing.
    pub size: Option<u64>,
    /// Fail with `conflict` if the file exists.
    pub if_absent: bool,
}

/// Metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Its bytes.
    pub size: u64,
    /// When it was written (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
}

/// A file, open for reading.
#[derive(Debug)]
pub struct File {
    /// The size of the whole file, even when a range was requested.
    pub info: FileInfo,
    /// The bytes of the range.
    pub body: Body,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of its path.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its bytes; 0 for a directory.
    pub size: u64,
    /// When it was written (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
}

/// Some entries of a directory, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of their names, byte by byte.
    pub entries: Vec<Entry>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Returns a body that fails if its length differs from `options`; fails at once if the length is known.
pub fn sized(data: Body, options: WriteOptions) -> Result<Body> {
    data.with_size(options.size)
}
