//! Files below one directory: the `directory` capability.
//!
//! [`LocalDirectory`] serves it from a local file system, [`NfsDirectory`] from an NFSv3 export without a mount.
//!
//! Locally the tree is accessed through one open handle (cap-std), so neither `..` nor a symbolic link nor a directory
//! moved meanwhile leads out of it, whatever the paths are; they are checked lexically as well, for clear errors. An operation
//! begins in the directory that is at its place by then (`place.rs`).
//!
//! A write goes to a temporary file in `.tmp/` below the root, is made durable, and then gets its name by an atomic
//! rename. Blocking calls run on tokio's blocking threads, a bounded number of chunks ahead, so that a file larger than
//! memory streams in a few MiB.

mod inner;
mod local;
mod names;
mod nfs;
mod place;
mod read;
mod temporary;
#[cfg(test)]
mod tests;
mod write;

pub use local::LocalDirectory;
pub use nfs::NfsDirectory;
use tidelock_types::files::sized;
pub use tidelock_types::files::{Entry, File, FileInfo, LIST_LIMIT, Page, WriteOptions};
pub use tidelock_types::path::check_path;

use std::sync::Arc;

use futures::future::BoxFuture;

use tidelock_types::{Account, Body, ByteRange, Result};

/// The most entries of a page of `directory`, up to `limit`, for which at most so many bytes are held. At least one.
pub fn listing_limit(directory: &dyn Directory, limit: u32, bytes: u64) -> u32 {
    let all = limit.clamp(1, LIST_LIMIT);
    (1..=all).rev().find(|limit| directory.listing_holds(*limit) <= bytes).unwrap_or(1)
}

/// Files below one directory. Paths are relative and `/`-separated; [`check_path`] defines valid ones.
///
/// Dropping a future gives up: a write that was dropped leaves nothing.
pub trait Directory: Send + Sync + 'static {
    /// Writes a file and returns its size. Parent directories are created. The file appears atomically and durably under
    /// its name; readers of the old file keep reading it. If several writers write the same
    /// path at once, each succeeds and the last one to finish wins.
    ///
    /// # Errors
    /// The error that the body ends with; `conflict` with `if_absent`; `unavailable` with advice when the disk is full.
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

    /// The most bytes that are held while a file is written, of this size if it is known. They are charged to the operation
    /// that writes.
    fn write_holds(&self, size: Option<u64>) -> u64;

    /// The most bytes that are held while a file is opened to read so many bytes of it, if their number is known.
    fn open_holds(&self, len: Option<u64>) -> u64;

    /// The most bytes that are held for the body of a file that is read, of this length if it is known.
    fn read_holds(&self, len: Option<u64>) -> u64;

    /// The most bytes that are held while a page of so many entries is listed, with the page.
    fn listing_holds(&self, limit: u32) -> u64;

    /// The same directory for one operation, if it does blocking work: that is charged to this account.
    fn for_operation(&self, account: &Arc<dyn Account>) -> Option<Arc<dyn Directory>> {
        let _ = account;
        None
    }

    /// Removes leftovers of dead writers (killed processes), and returns their number. Never touches
    /// files of a living writer, here or in another process.
    fn gc(&self) -> BoxFuture<'_, Result<u64>>;
}
