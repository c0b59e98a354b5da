//! Files below one directory: the `directory` capability.
//!
//! [`LocalDirectory`] serves it from a local file system, [`NfsDirectory`] from an NFSv3 export without a mount.
//!
//! Locally the tree is reached through one open handle (cap-std), so
//! neither `..` nor a symbolic link nor a directory moved meanwhile leads out of it, whatever the texts say; they are
//! checked lexically as well, because a clear refusal is better than a puzzling one.
//!
//! A write goes to a temporary file in `.tmp/` below the root, is made durable, and only then gets its name by an atomic
//! rename. Blocking calls run on tokio's blocking threads, a bounded number of chunks ahead, so that a file larger than
//! memory streams in a few MiB.

mod local;
mod names;
pub(in crate::capabilities) mod nfs;
mod path;
mod read;
mod temporary;
#[cfg(test)]
mod tests;
mod write;

pub use local::LocalDirectory;
pub use nfs::NfsDirectory;
pub use path::check_path;

use futures::future::BoxFuture;

use crate::types::{Body, ByteRange, Error, Result};

/// The most entries that [`Directory::list_entries`] gives at once; a larger limit is cut to it.
pub const LIST_LIMIT: u32 = 1000;

/// How to write a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The exact number of bytes, if known. A body of another length is an error and leaves nothing.
    pub size: Option<u64>,
    /// Fail with `conflict` if the file exists.
    pub if_absent: bool,
}

/// What is known of a file.
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
    /// Of the whole file, even when a range was asked for.
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
    /// Give this to the next call; `None` when there is no more.
    pub next: Option<String>,
}

/// A body that is cut where it has another length than `options` say; refused at once where that is known.
fn sized(data: Body, options: WriteOptions) -> Result<Body> {
    match (options.size, data.remaining()) {
        (Some(said), Some(known)) if said != known => {
            Err(Error::invalid(format!("a size of {said} bytes, and a body of {known}")))
        }
        (_, None) => Ok(Body::new(data, options.size)),
        _ => Ok(data),
    }
}

/// Files below one directory. Paths are relative and `/`-separated; [`check_path`] says which are taken.
///
/// Dropping a future gives up: a write that was dropped leaves nothing.
pub trait Directory: Send + Sync + 'static {
    /// Writes a file and gives its size. Parent directories are made. The file appears under its name whole and
    /// durable, or not at all; a reader that has the old one open keeps reading the old one. If several write the same
    /// path at once, each sees its own success and the last one to finish is what stays.
    ///
    /// # Errors
    /// Whatever cut the body short; `conflict` with `if_absent`; `unavailable` with advice when the disk is full.
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>>;

    /// The file, or a range of it.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a directory, and for a range beyond the end.
    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>>;

    /// Size and time, without reading.
    ///
    /// # Errors
    /// As for `read`.
    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>>;

    /// Removes a file, durably; one that is not there is success.
    ///
    /// # Errors
    /// `invalid` for a directory.
    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The entries of a directory in order of their names; the empty path is the root. Neither temporary files nor names
    /// that are not UTF-8 are shown.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a file.
    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>>;

    /// Removes what writers that are gone (a process that was killed) have left, and gives the number. Never touches
    /// what a living writer, here or in another process, still needs.
    fn collect(&self) -> BoxFuture<'_, Result<u64>>;
}
