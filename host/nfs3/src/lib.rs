//! The files of an NFSv3 export, without a mount: in user space, over TCP, with only the permissions of the user in the
//! grant.
//!
//! The guarantees are those of a local directory. A file is written in `.tmp` below the export, committed, and gets its
//! name by RENAME (by LINK, if it must not replace another), which servers do atomically and durably; `write.rs` and
//! `temporary.rs` describe how a server restart, a lost reply and a dead writer are handled. Two guarantees are weaker,
//! since NFSv3 has no open files: reading a file that is *removed* fails, and a file that is *replaced* stays readable
//! for the lease's time (15 minutes). Neither ever returns bytes of another file.
//!
//! The protocol is implemented here (`xdr.rs`, `rpc.rs`, `calls.rs`) rather than by a library: see ADR 10.
//! [`docs/backends.md`] is for operators.
//!
//! [`docs/backends.md`]: https://github.com/tidelock/tidelock/blob/main/docs/backends.md

mod calls;
mod grant;
mod object;
mod read;
mod rpc;
mod session;
mod status;
mod temporary;
#[cfg(test)]
mod tests;
mod tree;
mod write;
mod xdr;

use std::sync::Arc;

use tidelock_types::files::{File, FileInfo, Page, WriteOptions};
use tidelock_types::path::check_path;
use tidelock_types::{Body, ByteRange, Platform, Result};

pub use self::grant::{NfsGrant, NfsUser};
use self::session::Session;

/// The files of an NFSv3 export. Cheap to clone; the connections are shared.
///
/// Paths are relative and `/`-separated; [`check_path`] defines valid ones. Futures can be dropped: a dropped write
/// leaves nothing.
#[derive(Debug, Clone)]
pub struct NfsDirectory(Arc<Session>);

impl NfsDirectory {
    /// Connects to nothing yet: the first operation does.
    pub fn open(grant: NfsGrant) -> Self {
        Self::open_with(grant, Platform::system())
    }

    /// As [`Self::open`], with a clock and random numbers of the caller's own.
    pub fn open_with(grant: NfsGrant, platform: Platform) -> Self {
        Self(Arc::new(Session::new(grant, platform)))
    }

    /// Writes a file and returns its size. It appears under its name whole and durable, or not at all; parent directories
    /// are made.
    ///
    /// # Errors
    /// Errors of the body; `conflict` with `if_absent`; errors of the server.
    pub async fn write(&self, path: &str, data: Body, options: WriteOptions) -> Result<u64> {
        check_path(path)?;
        write::write(&self.0, path, data, options).await
    }

    /// The file, or a range of it.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a directory, and for a range beyond the end.
    pub async fn read(&self, path: &str, range: Option<ByteRange>) -> Result<File> {
        check_path(path)?;
        read::open(&self.0, path, range.unwrap_or_default()).await
    }

    /// Size and time, without reading.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn stat(&self, path: &str) -> Result<FileInfo> {
        check_path(path)?;
        let (_, found) = self.0.file(path).await?;
        Ok(tree::info(&found))
    }

    /// Removes a file, durably; one that is not there is success.
    ///
    /// # Errors
    /// `invalid` for a directory.
    pub async fn remove(&self, path: &str) -> Result<()> {
        check_path(path)?;
        self.0.unlink(path).await
    }

    /// The entries of a directory in order of their names; the empty path is the root.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a file.
    pub async fn list_entries(&self, path: &str, cursor: Option<&str>, limit: u32) -> Result<Page> {
        if !path.is_empty() {
            check_path(path)?;
        }
        self.0.list(path, cursor, limit).await
    }

    /// The most bytes that are held while a file is written, of this size if it is known.
    pub fn write_holds(&self, size: Option<u64>) -> u64 {
        write::holds(size)
    }

    /// The most bytes that are held while a file is opened to read so many bytes of it, if their number is known.
    pub fn open_holds(&self, len: Option<u64>) -> u64 {
        read::open_holds(len)
    }

    /// The most bytes that are held for the body of a file that is read, of this length if it is known.
    pub fn read_holds(&self, len: Option<u64>) -> u64 {
        read::holds(len)
    }

    /// The most bytes that are held while a page of so many entries is listed.
    pub fn listing_holds(&self, limit: u32) -> u64 {
        tree::listing_holds(limit)
    }

    /// Removes temporary files whose writers are gone, and returns their number.
    ///
    /// # Errors
    /// Errors of the server.
    pub async fn gc(&self) -> Result<u64> {
        temporary::gc(&self.0).await
    }
}
