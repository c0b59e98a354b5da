//! Applying a delta of the caller: `zstd --patch-from` output, or a sparse file of changes.
//!
//! The base is fetched and checked into a temporary file of the host's own, the change is applied to it, and the new
//! image is stored like any other, with its lineage.

use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;

use super::report::Stored;
use super::{Host, StoreOptions, data_dir};
use crate::snapshot::{FileSource, PatchLimits, Source, apply_sparse, apply_zstd};
use crate::types::{Body, Error, Result, SnapshotId, blocking};

/// A change against a base.
pub enum Delta {
    /// Output of `zstd --patch-from=BASE NEW`.
    Zstd(Box<dyn Read + Send>),
    /// A file of the new image's length with data where it changed and holes elsewhere, as Firecracker writes
    /// differences of guest memory. A copy that has lost its holes is not valid.
    Sparse(PathBuf),
}

impl Host {
    /// Applies a delta to a snapshot and stores the result with that snapshot as its base.
    ///
    /// # Errors
    /// `not-found` for an unknown base; `invalid` for a change that does not fit it; otherwise as [`Self::store`].
    pub async fn apply(&self, base: SnapshotId, delta: Delta, options: StoreOptions) -> Result<Stored> {
        let old = self.fetch_to_file(base).await?;
        let new = self.temporary_file()?;
        let (new, delta_bytes) = blocking(move || {
            let mut new = new;
            let bytes = patch(&old, delta, &mut new)?;
            new.rewind().map_err(|error| Error::io("the patched image", error))?;
            Ok((new, bytes))
        })
        .await?;
        let source = Source::File(FileSource::new(new, "the patched image")?);
        let mut stored = self.store_on_route(source, Some(base), &options).await?;
        stored.delta_bytes = Some(delta_bytes);
        Ok(stored)
    }

    async fn fetch_to_file(&self, id: SnapshotId) -> Result<File> {
        let file = self.temporary_file()?;
        let retrieved = self.retrieve(id, None).await?;
        // Before the bytes are fetched, and before this copy takes the room of everything else.
        let room = rustix::fs::fstatvfs(&file).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
        if room.is_ok_and(|room| room < retrieved.size) {
            return Err(Error::io("a temporary copy of the base", std::io::ErrorKind::StorageFull.into()));
        }
        write_out(retrieved.body, file).await
    }

    /// A file without a name: it is gone when it is closed, however the process ends.
    fn temporary_file(&self) -> Result<File> {
        let dir = self.inner.data_dir.join("tmp");
        let fail = |error| Error::io(format!("a temporary file in {}", dir.display()), error);
        data_dir::make(&dir).map_err(fail)?;
        tempfile::tempfile_in(&dir).map_err(fail)
    }
}

async fn write_out(mut body: Body, file: File) -> Result<File> {
    let mut file = file;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        file = blocking(move || {
            file.write_all(&chunk).map_err(|error| Error::io("a temporary copy of the base", error))?;
            Ok(file)
        })
        .await?;
    }
    file.rewind().map_err(|error| Error::io("a temporary copy of the base", error))?;
    Ok(file)
}

/// Gives the bytes of the change.
fn patch(old: &File, delta: Delta, new: &mut File) -> Result<u64> {
    match delta {
        Delta::Zstd(reader) => {
            let count = Arc::new(AtomicU64::new(0));
            let counting = Counting { reader, count: count.clone() };
            apply_zstd(old, counting, new, PatchLimits::default())?;
            Ok(count.load(Ordering::Relaxed))
        }
        Delta::Sparse(path) => {
            let fail = |error| Error::io(path.display(), error);
            let delta = File::open(&path).map_err(fail)?;
            if !delta.metadata().map_err(fail)?.is_file() {
                return Err(Error::invalid(format!("{} is not a file, so it cannot be sparse", path.display())));
            }
            Ok(apply_sparse(old, &delta, new)?.changed)
        }
    }
}

struct Counting {
    reader: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
