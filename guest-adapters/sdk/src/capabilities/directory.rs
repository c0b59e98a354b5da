//! Files below one directory: a local folder, or an export of a file server. The adapter cannot tell which.

use crate::bindings::tidelock::storage::directory as import;
use crate::{Body, ByteRange, Error};

pub use import::{Entry, FileInfo, Page, WriteOptions};

/// A directory that the operator granted.
///
/// Paths are relative and `/`-separated: see [`relative_path`](crate::ids::relative_path).
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    grant: &'static str,
}

impl Directory {
    /// The directory of `grants.directory.NAME`.
    pub const fn granted(name: &'static str) -> Self {
        Self { grant: name }
    }

    /// Writes a file. Returns its size in bytes. The file appears complete and durable, or not at all. Creates parents.
    pub async fn write(&self, path: &str, data: Body, options: WriteOptions) -> Result<u64, Error> {
        import::write(self.grant.into(), path.into(), data.into(), options).await
    }

    /// Returns a file, or a range of it. The metadata is that of the whole file.
    pub async fn read(&self, path: &str, range: Option<ByteRange>) -> Result<(FileInfo, Body), Error> {
        let file = import::read(self.grant.into(), path.into(), range).await?;
        Ok((file.info, file.body.into()))
    }

    /// Returns size and time of a file.
    pub async fn stat(&self, path: &str) -> Result<FileInfo, Error> {
        import::stat(self.grant.into(), path.into()).await
    }

    /// Removes a file. Succeeds if there is none.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        import::remove(self.grant.into(), path.into()).await
    }

    /// Entries in order of their names. The empty path is the directory itself.
    pub async fn list(&self, path: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        import::list_entries(self.grant.into(), path.into(), cursor, limit).await
    }
}
