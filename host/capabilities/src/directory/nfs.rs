//! The `directory` capability on an NFSv3 export: the client of `tidelock-nfs3` as a [`Directory`].

use futures::future::BoxFuture;
pub use tidelock_nfs3::NfsDirectory;
use tidelock_types::{Body, ByteRange, Result};

use super::{Directory, File, FileInfo, Page, WriteOptions};

// These calls resolve to the client's inherent methods of the same names, which take precedence.
impl Directory for NfsDirectory {
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.write(path, data, options))
    }

    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        Box::pin(self.read(path, range))
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(self.stat(path))
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.remove(path))
    }

    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(self.list_entries(path, cursor, limit))
    }

    fn write_holds(&self, size: Option<u64>) -> u64 {
        self.write_holds(size)
    }

    fn open_holds(&self, len: Option<u64>) -> u64 {
        self.open_holds(len)
    }

    fn read_holds(&self, len: Option<u64>) -> u64 {
        self.read_holds(len)
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        self.listing_holds(limit)
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.gc())
    }
}
