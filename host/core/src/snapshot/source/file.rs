//! Files and block devices: read by offset, by several threads, as often as is wanted; holes are not read.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::super::extents::next_data;
use super::super::pages::FileImage;
use super::super::segment::{SEGMENT, SegmentDigest, ZERO_SEGMENT, segment_digest};
use super::ticks::{TICK, hide_writes};
use super::{AHEAD, Identity, Piece, Progress, Reading, Tee, cut_short, identity_of};
use crate::types::{Body, Error, Result, SnapshotId, blocking};

/// The content of a hole, allocated once.
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| vec![0; SEGMENT].into());

/// A regular file or a block device.
#[derive(Clone)]
pub struct FileSource {
    file: Arc<File>,
    path: Arc<Path>,
    stamp: Stamp,
    /// Whether it can be written to without a trace in its stamp, since it was stamped just now.
    may_hide: bool,
    /// What the file was at some time since it was opened, once that is known.
    was: Arc<Mutex<Option<SnapshotId>>>,
    /// What this program has written into it, if it did.
    written: Option<Arc<Written>>,
}

/// What was written into a file of this program.
struct Written {
    id: SnapshotId,
    /// Whether something else was read out of it.
    damaged: AtomicBool,
}

/// Metadata that reveals changes of a file.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    /// Absent for a device, whose times mean nothing.
    file: Option<FileStamp>,
}

/// Of a regular file.
#[derive(Clone, PartialEq, Eq)]
struct FileStamp {
    /// Seconds and nanoseconds: when bytes were written, unless it was set.
    modified: [i64; 2],
    /// When anything changed. Nobody can set it.
    changed: [i64; 2],
}

impl Stamp {
    fn of(file: &File, meta: &Metadata, path: &Path) -> Result<Self> {
        let fail = |error| Error::io(path.display(), error);
        if meta.file_type().is_block_device() {
            let size = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(|errno| fail(errno.into()))?;
            return Ok(Self { size, file: None });
        }
        let file =
            FileStamp { modified: [meta.mtime(), meta.mtime_nsec()], changed: [meta.ctime(), meta.ctime_nsec()] };
        Ok(Self { size: meta.len(), file: Some(file) })
    }
}

/// What two stamps of a file say about its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Same,
    /// Its bytes may have changed. Something did, and a new mode or link may be all of it, or a writer's work as well. Or
    /// nothing shows, and a write need not have shown.
    Unclear,
}

impl FileSource {
    /// An open file, with its path for errors.
    ///
    /// # Errors
    /// `invalid` if it is neither a regular file nor a block device.
    pub fn new(file: File, path: impl Into<PathBuf>) -> Result<Self> {
        let path: Arc<Path> = path.into().into();
        let opened = SystemTime::now();
        let meta = file.metadata().map_err(|error| Error::io(path.display(), error))?;
        let kind = meta.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::invalid(format!("{} is neither a file nor a block device", path.display())));
        }
        let stamp = Stamp::of(&file, &meta, &path)?;
        let may_hide = stamp.file.is_some() && hide_writes(&file, &meta, opened);
        Ok(Self { file: Arc::new(file), path, stamp, may_hide, was: Arc::default(), written: None })
    }

    /// A file without a name that this program has written, and nobody else can write to. `written` is the identity of the
    /// bytes as they were in memory, if it is known: whoever reads others out of it fails with `conflict`, as if it had changed. The disk is
    /// not believed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn own(file: File, path: impl Into<PathBuf>, written: Option<SnapshotId>) -> Result<Self> {
        let written = written.map(|id| Arc::new(Written { id, damaged: AtomicBool::new(false) }));
        Ok(Self { may_hide: false, written, ..Self::new(file, path)? })
    }

    /// Returns whether other bytes were read out of a file of this program than it has written.
    pub(crate) fn is_damaged(&self) -> bool {
        self.written.as_ref().is_some_and(|written| written.damaged.load(Ordering::Relaxed))
    }

    /// A file for [`Self::check_untouched`]. Blocks, for some seconds, until every write from now on has a time of its own.
    ///
    /// # Errors
    /// As [`Self::new`]; `conflict` if the file changes meanwhile.
    pub(crate) fn settled(file: File, path: impl Into<PathBuf>) -> Result<Self> {
        let this = Self::new(file, path)?;
        if !this.may_hide {
            return Ok(this);
        }
        // Whatever its clock says, it has moved on by then.
        std::thread::sleep(TICK);
        let settled = Self { may_hide: false, ..this };
        settled.check_untouched()?;
        Ok(settled)
    }

    /// The same file, to be read in any order.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn image(&self) -> Result<FileImage> {
        let file = self.file.try_clone().map_err(|error| Error::io(self.name(), error))?;
        Ok(FileImage::new(file, self.size(), self.name().to_string()))
    }

    /// Returns whether it is a block device, whose times say nothing of its bytes.
    pub fn is_device(&self) -> bool {
        self.stamp.file.is_none()
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The bytes that it takes at the most if its holes are kept: those that its file system has given it.
    pub(crate) fn allocated(&self) -> u64 {
        let about = self.file.metadata().ok().filter(Metadata::is_file);
        about.map_or(self.size(), |about| about.blocks().saturating_mul(512).min(self.size()))
    }

    /// Returns the bytes in segments, and their identity. Can be called again. Runs on a Tokio runtime; a body that
    /// is not polled reads at most two segments ahead.
    pub fn read(&self, progress: Option<Progress>) -> (Body, Reading) {
        let this = self.clone();
        let read = stream::iter(0..self.size().div_ceil(SEGMENT as u64))
            .map(move |number| {
                let this = this.clone();
                blocking(move || this.segment(number))
            })
            .buffered(AHEAD);
        let (body, reading) = Tee::start(read, Some(self.clone()), Some(self.size()), progress);
        (Body::new(body, Some(self.size())), reading)
    }

    /// The identity alone: two threads hash the data, holes are skipped.
    ///
    /// # Errors
    /// Errors of reading; `conflict` if the file changed meanwhile.
    pub async fn identify(&self, progress: Option<Progress>) -> Result<Identity> {
        let identity = self.hash(progress.clone()).await?;
        self.check_unchanged(&identity).await?;
        if let Some(progress) = &progress {
            progress(self.size());
        }
        Ok(identity)
    }

    async fn hash(&self, progress: Option<Progress>) -> Result<Identity> {
        let size = self.size();
        let too_large = |_| Error::invalid(format!("{} is too large for this machine", self.path.display()));
        let count = usize::try_from(size.div_ceil(SEGMENT as u64)).map_err(too_large)?;
        let mut digests = vec![ZERO_SEGMENT; count];
        if let (Some(last), partial @ 1..) = (digests.last_mut(), size % SEGMENT as u64) {
            // For a hole at the end that does not fill a segment: the constant is not its digest.
            *last = segment_digest(&vec![0; partial as usize]);
        }
        let work = Arc::new(Work { source: self.clone(), next: Mutex::new(0), done: AtomicU64::new(0), progress });
        let workers = (0..AHEAD).map(|_| {
            let work = work.clone();
            let (tell, told) = oneshot::channel();
            spawn_blocking(move || {
                let hashed = work.run(&|| tell.is_closed());
                // The receiver is gone: the caller gave up.
                let _ = tell.send(hashed);
            });
            told
        });
        for hashed in futures::future::join_all(workers).await {
            for (number, digest) in hashed.map_err(|error| cut_short().with_source(error))?? {
                digests[number] = digest;
            }
        }
        Ok(identity_of(size, digests))
    }

    /// Fails unless what was read is what the file was at some time since it was opened. Reads it once more if anything
    /// about it has changed, or if a change need not show (`ticks.rs`), unless an earlier reading was the same.
    pub(crate) async fn check_unchanged(&self, read: &Identity) -> Result<()> {
        if let Some(written) = self.written.as_ref().filter(|written| written.id != read.id()) {
            written.damaged.store(true, Ordering::Relaxed);
            return Err(Error::conflict(format!(
                "{} was damaged: other bytes are read than were written",
                self.name()
            ))
            .hint("check the disk of the data directory"));
        }
        if self.compare_now().await? == Judgement::Unclear && *self.was() != Some(read.id()) {
            if self.hash(None).await?.id() != read.id() {
                return Err(self.changed("it was written to"));
            }
            self.compare_now().await?;
        }
        *self.was() = Some(read.id());
        Ok(())
    }

    fn was(&self) -> MutexGuard<'_, Option<SnapshotId>> {
        self.was.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if anything about the file has changed since it was opened: for who reads it in another way. Blocks.
    ///
    /// # Errors
    /// `conflict` if it changed; errors of the file system.
    pub(crate) fn check_untouched(&self) -> Result<()> {
        match self.compare()? {
            Judgement::Same => Ok(()),
            Judgement::Unclear => Err(self.changed("something about it did, its mode or its bytes")),
        }
    }

    async fn compare_now(&self) -> Result<Judgement> {
        let this = self.clone();
        blocking(move || this.compare()).await
    }

    /// Segment `number`, hashed. A hole is not read.
    fn segment(&self, number: u64) -> Result<Piece> {
        let start = number * SEGMENT as u64;
        let end = (start + SEGMENT as u64).min(self.size());
        // At most a segment.
        let len = (end - start) as usize;
        if len == SEGMENT && next_data(&self.file, start, end, &self.name())?.is_none() {
            return Ok(Piece { digest: ZERO_SEGMENT, bytes: ZEROS.clone() });
        }
        let mut bytes = Vec::with_capacity(len);
        self.fill(&mut bytes, start, len)?;
        Ok(Piece { digest: segment_digest(&bytes), bytes: bytes.into() })
    }

    /// Replaces the content of `bytes` by `len` bytes from `start`.
    fn fill(&self, bytes: &mut Vec<u8>, start: u64, len: usize) -> Result<()> {
        bytes.clear();
        bytes.reserve_exact(len);
        while bytes.len() < len {
            let at = start + bytes.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(bytes), at) {
                Ok(0) => return Err(self.changed(&format!("it ends at byte {at}"))),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io(format!("reading {} at byte {at}", self.name()), errno.into())),
            }
        }
        // A vector may have more capacity than requested.
        bytes.truncate(len);
        Ok(())
    }

    /// Compares the file with what was opened. Fails if it was written to.
    fn compare(&self) -> Result<Judgement> {
        let meta = self.file.metadata().map_err(|error| Error::io(self.name(), error))?;
        let now = Stamp::of(&self.file, &meta, &self.path)?;
        if now.size != self.stamp.size {
            return Err(self.changed(&format!("it had {} bytes and has {}", self.stamp.size, now.size)));
        }
        let (Some(before), Some(now)) = (&self.stamp.file, &now.file) else { return Ok(Judgement::Same) };
        if now.modified != before.modified {
            return Err(self.changed("it was written to"));
        }
        // Some file systems know the size of a file only when it is read.
        let more = rustix::io::pread(&*self.file, &mut [0; 1], self.stamp.size);
        if more.is_ok_and(|more| more > 0) {
            return Err(self.changed("it goes on after its size"));
        }
        Ok(if now.changed == before.changed && !self.may_hide { Judgement::Same } else { Judgement::Unclear })
    }

    fn changed(&self, how: &str) -> Error {
        Error::conflict(format!("{} changed while it was being read: {how}", self.name()))
            .hint("pause the machine that uses the image, or store a copy")
    }

    fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("path", &self.path).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// A file that is being identified.
struct Work {
    source: FileSource,
    /// Where the next run is to be looked for.
    next: Mutex<u64>,
    done: AtomicU64,
    progress: Option<Progress>,
}

impl Work {
    /// Hashes runs until there are no more, or the receiver is gone.
    fn run(&self, unwanted: &dyn Fn() -> bool) -> Result<Vec<(usize, SegmentDigest)>> {
        let mut hashed = Vec::new();
        let mut bytes = Vec::new();
        while let Some(run) = self.next_run()? {
            for number in run {
                if unwanted() {
                    return Ok(hashed);
                }
                let start = number * SEGMENT as u64;
                let len = (self.source.size() - start).min(SEGMENT as u64);
                self.source.fill(&mut bytes, start, len as usize)?;
                // Below the number of digests, which is a `usize`.
                hashed.push((number as usize, segment_digest(&bytes)));
                let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
                if let Some(progress) = &self.progress {
                    progress(done);
                }
            }
        }
        Ok(hashed)
    }

    /// Some segments with data, next to each other.
    fn next_run(&self) -> Result<Option<Range<u64>>> {
        /// Enough that looking for holes costs nothing, few enough that two threads end together.
        const MAX: u64 = 8;
        let segment = SEGMENT as u64;
        let size = self.source.size();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let from = *next;
        let Some(data) = next_data(&self.source.file, from, size, &self.source.name())? else {
            self.done.fetch_add(size.saturating_sub(from), Ordering::Relaxed);
            *next = size;
            return Ok(None);
        };
        let first = data.start / segment;
        let last = data.end.div_ceil(segment).min(first + MAX);
        self.done.fetch_add((first * segment).saturating_sub(from), Ordering::Relaxed);
        *next = (last * segment).min(size);
        Ok(Some(first..last))
    }
}
