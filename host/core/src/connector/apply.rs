//! Applying a delta of the caller: `zstd --patch-from` output, or a sparse file of changes.
//!
//! The base is fetched and checked into a temporary file of the host's own, the change is applied to it, and the new
//! image is stored like any other, with its lineage.
//!
//! A delta that comes as a body is received into such a file first: while its sender is slow, it holds neither a thread
//! nor a place. Memory for windows is bounded for all such deltas of a host together.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::change::Change;
use super::report::Stored;
use super::{Host, StoreOptions, disk_room};
use crate::snapshot::pages::FileImage;
use crate::snapshot::{FileSource, HEAD, Identifier, PatchLimits, apply_sparse, apply_zstd, window_of};
use crate::types::{Body, Error, ErrorKind, Result, SnapshotId, blocking, durable};

/// The windows of all deltas that are applied at once out of bodies: as much as the largest one may have.
const WINDOWS: u64 = 2 << 30;

/// The unit in which windows are counted; each delta takes at least one, so that at most 16 are applied at once.
const WINDOW_UNIT: u64 = 128 << 20;

/// What errors call the copy of a base.
const COPY_OF_BASE: &str = "a temporary copy of the base";

/// A change against a base.
pub enum Delta {
    /// Output of `zstd --patch-from=BASE NEW`. It is read on a thread for blocking work, which waits for it.
    Zstd(Box<dyn Read + Send>),
    /// The same as a body, which is received before it is applied.
    ZstdBody(Body),
    /// A file of the new image's length with data where it changed and holes elsewhere, as Firecracker writes
    /// differences of guest memory. A copy that has lost its holes is not valid.
    Sparse(PathBuf),
}

/// Asked for bytes before an apply takes them, on disk or in memory. An error ends the apply.
pub type Room = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// Places for applies, counted in units of window.
pub(super) struct ApplyPlaces(Arc<Semaphore>);

impl Default for ApplyPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new((WINDOWS / WINDOW_UNIT) as usize)))
    }
}

impl ApplyPlaces {
    /// Waits until there is memory for the window.
    async fn take(&self, window: u64) -> Result<OwnedSemaphorePermit> {
        let units = window.clamp(1, WINDOWS).div_ceil(WINDOW_UNIT) as u32;
        let permit = self.0.clone().acquire_many_owned(units).await;
        permit.map_err(|_| Error::new(ErrorKind::Cancelled, "the host is stopping"))
    }
}

impl Host {
    /// Applies a delta to a snapshot and stores the result with that snapshot as its base.
    ///
    /// # Errors
    /// `not-found` for an unknown base; `invalid` for a change that does not fit it; otherwise as [`Self::store`].
    pub async fn apply(&self, base: SnapshotId, delta: Delta, options: StoreOptions) -> Result<Stored> {
        self.apply_within(base, delta, options, Arc::new(|_| Ok(()))).await
    }

    /// Applies a delta as [`Self::apply`] does, and asks `room` for the bytes that this takes beside those of the delta,
    /// before it takes them: those of the copy of the base, of the window of a delta that comes as a body, and of the new
    /// image as it is written.
    ///
    /// # Errors
    /// As [`Self::apply`], and those of `room`.
    pub async fn apply_within(
        &self,
        base: SnapshotId,
        delta: Delta,
        options: StoreOptions,
        room: Room,
    ) -> Result<Stored> {
        let (delta, window) = match delta {
            Delta::ZstdBody(body) => {
                let file = self.write_out(body, "a temporary copy of the delta").await?;
                let window = window_of_file(&file)?;
                room(window)?;
                (Delta::Zstd(Box::new(file)), Some(window))
            }
            other => (other, None),
        };
        let old = self.fetch_to_file(base, &room).await?;
        let new = Staged { file: self.temporary_file()?, len: 0, written: Identifier::new(), room };
        let place = match window {
            Some(window) => Some(self.inner.apply_places.take(window).await?),
            None => None,
        };
        let kept = old.try_clone().map_err(|error| Error::io(COPY_OF_BASE, error))?;
        let proven = FileSource::own(
            old.try_clone().map_err(|error| Error::io(COPY_OF_BASE, error))?,
            COPY_OF_BASE,
            Some(base),
        )?;
        let (source, delta_bytes) = blocking(move || {
            // For as long as the work runs, also when nothing waits for it.
            let _place = place;
            let mut new = new;
            let bytes = patch(&old, delta, &mut new)?;
            Ok((new.finish()?, bytes))
        })
        .await?;
        let pack = match options.raw {
            true => None,
            false => {
                let what = "a temporary copy of the base";
                let size = kept.metadata().map_err(|error| Error::io(what, error))?.len();
                self.change_of(base, Some(Arc::new(FileImage::new(kept, size, what))), &source, None, &options).await?
            }
        };
        // What was taken from the copy is the base's only if the disk gives back what was written.
        proven.identify(None).await?;
        let change = Change { base: Some(base), pack: pack.as_ref(), ..Change::default() };
        let (mut stored, _) = self.store_change(source, change, &options).await?;
        stored.delta_bytes = Some(delta_bytes);
        Ok(stored)
    }

    async fn fetch_to_file(&self, id: SnapshotId, room: &Room) -> Result<File> {
        let file = self.temporary_file()?;
        let retrieved = self.retrieve(id, None).await?;
        room(retrieved.size)?;
        // Before the bytes are fetched, and before this copy takes the room of everything else.
        disk_room::check(&file, retrieved.size).map_err(|error| Error::io(COPY_OF_BASE, error))?;
        write_to(retrieved.body, file, COPY_OF_BASE).await
    }

    /// A body in such a file.
    pub(super) async fn write_out(&self, body: Body, what: &'static str) -> Result<File> {
        self.write_at_most(body, u64::MAX, what).await
    }

    /// As [`Self::write_out`], of a body that must not have more than so many bytes.
    ///
    /// # Errors
    /// `corrupt` if it has more.
    pub(super) async fn write_at_most(&self, body: Body, most: u64, what: &'static str) -> Result<File> {
        let mut left = most;
        let bounded = body.map(move |chunk| {
            let chunk = chunk?;
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| Error::corrupt(format!("there are more than the {most} bytes that were stored")))?;
            Ok(chunk)
        });
        write_to(Body::new(bounded, None), self.temporary_file()?, what).await
    }

    /// Makes a file without a name in the data directory, for bytes on their way: it is gone when it is closed, however the
    /// process ends. Waits for the disk.
    ///
    /// # Errors
    /// Those of the system.
    pub fn temporary_file(&self) -> Result<File> {
        let dir = self.inner.data_dir.join("tmp");
        let fail = |error| Error::io(format!("a temporary file in {}", dir.display()), error);
        durable::make_dir(&dir).map_err(fail)?;
        tempfile::tempfile_in(&dir).map_err(fail)
    }
}

async fn write_to(mut body: Body, file: File, what: &'static str) -> Result<File> {
    let mut file = file;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        file = blocking(move || {
            let write = disk_room::check(&file, chunk.len() as u64).and_then(|()| file.write_all(&chunk));
            write.map_err(|error| Error::io(what, error))?;
            Ok(file)
        })
        .await?;
    }
    file.rewind().map_err(|error| Error::io(what, error))?;
    Ok(file)
}

/// Returns the window of a delta; 0 if it is none, which the decoder tells.
fn window_of_file(delta: &File) -> Result<u64> {
    let mut head = [0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match delta.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(some) => len += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("a temporary copy of the delta", error)),
        }
    }
    Ok(window_of(&head[..len]).unwrap_or(0))
}

/// The new image while it is written. Takes room before it grows, and leaves holes where whole pieces are zeros.
struct Staged {
    file: File,
    len: u64,
    written: Identifier,
    room: Room,
}

impl Staged {
    /// The image, which is compared whenever it is read with what was written, where that passed through memory.
    fn finish(mut self) -> Result<FileSource> {
        let fail = |error| Error::io("the patched image", error);
        if self.len > 0 {
            // What ends in a hole.
            self.file.set_len(self.len).map_err(fail)?;
        }
        self.file.rewind().map_err(fail)?;
        let written = self.written.finish();
        FileSource::own(self.file, "the patched image", Some(written.id()).filter(|_| self.len > 0))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.room)(bytes.len() as u64).map_err(io::Error::other)?;
        if bytes.iter().all(|byte| *byte == 0) {
            self.file.seek(SeekFrom::Current(bytes.len() as i64))?;
        } else {
            disk_room::check(&self.file, bytes.len() as u64)?;
            self.file.write_all(bytes)?;
        }
        self.written.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the bytes of the change.
fn patch(old: &File, delta: Delta, new: &mut Staged) -> Result<u64> {
    match delta {
        Delta::ZstdBody(_) => Err(Error::other("a delta has to be received before it is applied")),
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
            // Bytes of a delta that is written to meanwhile would be those of an image that never was.
            let unchanged = FileSource::settled(delta.try_clone().map_err(fail)?, &path)?;
            (new.room)(old.metadata().map_err(fail)?.len())?;
            let applied = apply_sparse(old, &delta, &mut new.file)?;
            unchanged.check_untouched()?;
            Ok(applied.changed)
        }
    }
}

struct Counting {
    reader: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_delta_that_changes_while_it_is_applied_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("delta");
        let mut old = tempfile::tempfile().unwrap();
        old.write_all(&[1; 1 << 16]).unwrap();
        let apply = |change: fn(&std::path::Path)| {
            std::fs::write(&path, vec![2; 1 << 16]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Asked once the delta is open.
            let room: Room = Arc::new({
                let path = path.clone();
                move |_| {
                    change(&path);
                    Ok(())
                }
            });
            let mut new = Staged { file: tempfile::tempfile().unwrap(), len: 0, written: Identifier::new(), room };
            patch(&old, Delta::Sparse(path.clone()), &mut new)
        };
        assert_eq!(apply(|_| ()).unwrap(), 1 << 16);
        let error = apply(|path| {
            let before = std::fs::metadata(path).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"x", 5).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        })
        .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    }
}
