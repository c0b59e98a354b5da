//! The `directory` capability on an NFSv3 export, without a mount: in user space, over TCP, with the rights of nobody
//! but the caller that the grant names.
//!
//! The guarantees are those of a local directory. A file is written in `.tmp` below the export, committed, and gets its
//! name by RENAME (by LINK, if it has to be absent), which servers do atomically and durably; `write.rs` and
//! `temporary.rs` say how a restart of the server, a lost reply and a writer's death are met. Two things are weaker, for
//! NFSv3 has no open files: who reads a file that is *removed* gets an error in the middle, and who reads one that is
//! *replaced* has the lease's time (15 minutes) to come to its end. Neither ever sees bytes of another file.
//!
//! The protocol is spoken here (`xdr.rs`, `rpc.rs`, `calls.rs`) rather than by a library: decision 0010 says why.
//! [`docs/backends.md`] has what an operator needs to know.
//!
//! [`docs/backends.md`]: https://github.com/tidelock/tidelock/blob/main/docs/backends.md

mod calls;
pub(in crate::capabilities) mod grant;
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

use futures::future::BoxFuture;

use self::grant::NfsGrant;
use self::session::Session;
use super::{Directory, File, FileInfo, Page, WriteOptions, check_path};
use crate::types::{Body, ByteRange, Result};

/// The files of an NFSv3 export. Cheap to clone; the connections are shared.
#[derive(Debug, Clone)]
pub struct NfsDirectory(Arc<Session>);

impl NfsDirectory {
    /// Connects to nothing yet: the first operation does.
    pub fn open(grant: NfsGrant) -> Self {
        Self(Arc::new(Session::new(grant)))
    }
}

impl Directory for NfsDirectory {
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            check_path(path)?;
            write::write(&self.0, path, data, options).await
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        Box::pin(async move {
            check_path(path)?;
            read::open(&self.0, path, range.unwrap_or_default()).await
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(async move {
            check_path(path)?;
            let (_, found) = self.0.file(path).await?;
            Ok(tree::info(&found))
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_path(path)?;
            self.0.unlink(path).await
        })
    }

    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            if !path.is_empty() {
                check_path(path)?;
            }
            self.0.list(path, cursor, limit).await
        })
    }

    fn collect(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(temporary::collect(&self.0))
    }
}
