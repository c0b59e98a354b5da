//! Where images come from: files, block devices, pipes and standard input, as bodies that are hashed while they are
//! read.
//!
//! A body hands on segments of 2 MiB. Each is read and hashed by a blocking thread, two at a time, while the one before
//! is on its way, so that hashing costs no time of its own and at most three segments are in memory. The identity is
//! there when the last segment is handed on.
//!
//! Holes of a sparse file are not read: they are zeros, and a segment of zeros has a constant digest. So the identity
//! of a sparse image of 1 TiB costs what its data costs.
//!
//! A file must not change while it is read. Size, modification and change time are compared before the last segment is
//! handed on; a change makes the body fail with `conflict`. Writes through a memory map that the kernel has not yet
//! noted in the times pass unseen, as do writes to a block device: pause the machine first.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Progress;
use super::extents::next_data;
use super::identity::{Identity, identity_of};
use super::segment::{Digest, SEGMENT, ZERO_SEGMENT, segment_digest};
use crate::types::{Body, Error, Result};

/// Segments that are read and hashed at the same time.
const AHEAD: usize = 2;

/// What a hole reads as, once for all.
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| vec![0; SEGMENT].into());

/// An image to be read.
pub enum Source {
    /// Can be read again from the start.
    File(FileSource),
    /// Can be read once.
    Stream(StreamSource),
}

impl Source {
    /// Opens a path. A regular file or a block device is a file; a pipe or a character device is a stream. Opening a
    /// named pipe waits for its writer.
    ///
    /// # Errors
    /// `not-found`, `denied`; `invalid` for a directory or a socket. The message names the path.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(move || {
            let fail = |error| Error::io(path.display(), error);
            let file = File::open(&path).map_err(fail)?;
            let kind = file.metadata().map_err(fail)?.file_type();
            if kind.is_dir() {
                return Err(Error::invalid(format!("{} is a directory", path.display()))
                    .hint("give the file of an image; an archive of a directory can be stored through a pipe"));
            }
            if kind.is_fifo() || kind.is_char_device() {
                let name = path.display().to_string();
                return Ok(Self::Stream(StreamSource::new(tokio::fs::File::from_std(file), name)));
            }
            FileSource::new(file, path).map(Self::File)
        })
        .await
    }

    /// The number of bytes, if it is known beforehand.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File(file) => Some(file.size()),
            Self::Stream(_) => None,
        }
    }

    /// The bytes, and what they turn out to be. See [`FileSource::read`] and [`StreamSource::read`].
    pub fn read(self, progress: Option<Progress>) -> (Body, Reading) {
        match self {
            Self::File(file) => file.read(progress),
            Self::Stream(stream) => stream.read(progress),
        }
    }

    /// The identity alone: nothing is kept.
    ///
    /// # Errors
    /// What reading meets; `conflict` if a file changed meanwhile.
    pub async fn identify(self, progress: Option<Progress>) -> Result<Identity> {
        match self {
            Self::File(file) => file.identify(progress).await,
            Self::Stream(stream) => {
                let (mut body, reading) = stream.read(progress);
                while let Some(chunk) = body.next().await {
                    chunk?;
                }
                reading.identity().await
            }
        }
    }
}

/// The identity of the image at a path, see [`Source::identify`].
///
/// # Errors
/// As [`Source::open`] and [`Source::identify`].
pub async fn identify_file(path: impl Into<PathBuf>, progress: Option<Progress>) -> Result<Identity> {
    Source::open(path).await?.identify(progress).await
}

/// What a body turned out to be: known once its last segment has been handed on.
pub struct Reading(oneshot::Receiver<Result<Identity>>);

impl Reading {
    /// The identity of all bytes of the body.
    ///
    /// # Errors
    /// The failure that ended the body; `cancelled` if the body was dropped before its end.
    pub async fn identity(self) -> Result<Identity> {
        self.0.await.unwrap_or_else(|_| {
            Err(Error::new(crate::types::ErrorKind::Cancelled, "the image was not read to its end"))
        })
    }
}

/// A regular file or a block device.
#[derive(Clone)]
pub struct FileSource {
    file: Arc<File>,
    path: Arc<Path>,
    stamp: Stamp,
}

/// What tells that a file was changed.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    /// Modification and change time in seconds and nanoseconds; absent for a device, whose times say nothing.
    times: Option<[i64; 4]>,
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Result<Self> {
        let fail = |error| Error::io(path.display(), error);
        let meta = file.metadata().map_err(fail)?;
        if meta.file_type().is_block_device() {
            let size = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(|errno| fail(errno.into()))?;
            return Ok(Self { size, times: None });
        }
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Ok(Self { size: meta.len(), times: Some(times) })
    }
}

impl FileSource {
    /// An open file, with the path that errors shall name.
    ///
    /// # Errors
    /// `invalid` if it is neither a regular file nor a block device.
    pub fn new(file: File, path: impl Into<PathBuf>) -> Result<Self> {
        let path: Arc<Path> = path.into().into();
        let kind = file.metadata().map_err(|error| Error::io(path.display(), error))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::invalid(format!("{} is neither a file nor a block device", path.display())));
        }
        let stamp = Stamp::of(&file, &path)?;
        Ok(Self { file: Arc::new(file), path, stamp })
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The bytes, in segments, and what they turn out to be. May be called again. Runs on a Tokio runtime; a body that
    /// is not polled reads at most two segments ahead.
    pub fn read(&self, progress: Option<Progress>) -> (Body, Reading) {
        let this = self.clone();
        let read = stream::iter(0..self.size().div_ceil(SEGMENT as u64))
            .map(move |number| {
                let this = this.clone();
                blocking(move || this.segment(number))
            })
            .buffered(AHEAD);
        let (body, reading) = Tee::start(read, Some(self.clone()), progress);
        (Body::new(body, Some(self.size())), reading)
    }

    /// The identity alone: two threads hash the data, holes are skipped.
    ///
    /// # Errors
    /// What reading meets; `conflict` if the file changed meanwhile.
    pub async fn identify(&self, progress: Option<Progress>) -> Result<Identity> {
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
                // Nobody waits any more: the caller gave up.
                let _ = tell.send(hashed);
            });
            told
        });
        for hashed in futures::future::join_all(workers).await {
            for (number, digest) in hashed.map_err(|error| cut_short().with_source(error))?? {
                digests[number] = digest;
            }
        }
        let this = self.clone();
        blocking(move || this.unchanged()).await?;
        if let Some(progress) = &work.progress {
            progress(size);
        }
        Ok(identity_of(size, digests))
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

    /// Replaces what is in `bytes` by `len` bytes from `start`.
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
        // A vector may have more room than was asked for.
        bytes.truncate(len);
        Ok(())
    }

    fn unchanged(&self) -> Result<()> {
        let now = Stamp::of(&self.file, &self.path)?;
        if now == self.stamp {
            return Ok(());
        }
        Err(self.changed(&if now.size == self.stamp.size {
            "it was written to".to_owned()
        } else {
            format!("it had {} bytes and has {}", self.stamp.size, now.size)
        }))
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
    /// Hashes runs until there are no more, or nobody wants to know.
    fn run(&self, unwanted: &dyn Fn() -> bool) -> Result<Vec<(usize, Digest)>> {
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
        const MOST: u64 = 8;
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
        let last = data.end.div_ceil(segment).min(first + MOST);
        self.done.fetch_add((first * segment).saturating_sub(from), Ordering::Relaxed);
        *next = (last * segment).min(size);
        Ok(Some(first..last))
    }
}

/// Bytes that can be read once, of unknown number.
pub struct StreamSource {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    name: String,
}

impl StreamSource {
    /// A reader, with the name that errors shall use, for example `standard input`.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, name: impl Into<String>) -> Self {
        Self { reader: Box::new(reader), name: name.into() }
    }

    /// The bytes, in segments, and what they turn out to be. Runs on a Tokio runtime.
    pub fn read(self, progress: Option<Progress>) -> (Body, Reading) {
        let filled = stream::unfold(Some(self), |source| async move {
            let mut source = source?;
            match source.segment().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) if bytes.len() < SEGMENT => Some((Ok(bytes), None)),
                Ok(bytes) => Some((Ok(bytes), Some(source))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let hashed = filled
            .map(|bytes: Result<Bytes>| async move {
                let bytes = bytes?;
                blocking(move || Ok(Piece { digest: segment_digest(&bytes), bytes })).await
            })
            .buffered(AHEAD);
        let (body, reading) = Tee::start(hashed, None, progress);
        (Body::new(body, None), reading)
    }

    /// The next segment; short or empty at the end.
    async fn segment(&mut self) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(SEGMENT);
        while bytes.len() < SEGMENT {
            let room = SEGMENT - bytes.len();
            let read = self.reader.read_buf(&mut (&mut bytes).limit(room)).await;
            if read.map_err(|error| Error::io(format!("reading {}", self.name), error))? == 0 {
                break;
            }
        }
        Ok(bytes.freeze())
    }
}

/// A segment that was read and hashed.
struct Piece {
    digest: Digest,
    bytes: Bytes,
}

/// Hands on segments and tells, at the end, what they were.
struct Tee {
    read: BoxStream<'static, Result<Piece>>,
    file: Option<FileSource>,
    progress: Option<Progress>,
    tell: Option<oneshot::Sender<Result<Identity>>>,
    digests: Vec<Digest>,
    len: u64,
}

impl Tee {
    fn start(
        read: impl Stream<Item = Result<Piece>> + Send + 'static,
        file: Option<FileSource>,
        progress: Option<Progress>,
    ) -> (impl Stream<Item = Result<Bytes>> + Send + 'static, Reading) {
        let (tell, told) = oneshot::channel();
        let tee = Self { read: read.boxed(), file, progress, tell: Some(tell), digests: Vec::new(), len: 0 };
        let body = stream::unfold(tee, |mut tee| async move { tee.next().await.map(|item| (item, tee)) });
        (body, Reading(told))
    }

    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self.read.next().await {
            Some(Ok(piece)) => {
                self.digests.push(piece.digest);
                self.len += piece.bytes.len() as u64;
                // A reader that knows the size may not ask for the end: conclude before the last segment goes out.
                if self.file.as_ref().is_some_and(|file| file.size() == self.len)
                    && let Err(error) = self.conclude().await
                {
                    return Some(Err(error));
                }
                if let Some(progress) = &self.progress {
                    progress(self.len);
                }
                Some(Ok(piece.bytes))
            }
            Some(Err(error)) => Some(Err(self.failed(error))),
            None => self.conclude().await.err().map(Err),
        }
    }

    async fn conclude(&mut self) -> Result<()> {
        if self.tell.is_none() {
            return Ok(());
        }
        if let Some(file) = self.file.clone()
            && let Err(error) = blocking(move || file.unchanged()).await
        {
            return Err(self.failed(error));
        }
        let identity = identity_of(self.len, std::mem::take(&mut self.digests));
        if let Some(tell) = self.tell.take() {
            // Not everybody asks.
            let _ = tell.send(Ok(identity));
        }
        Ok(())
    }

    fn failed(&mut self, error: Error) -> Error {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(Err(error.duplicate()));
        }
        error
    }
}

/// Runs on a thread that may wait.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(job).await.map_err(|error| cut_short().with_source(error))?
}

fn cut_short() -> Error {
    Error::other("reading was cut short: the runtime is shutting down")
}

#[cfg(test)]
mod tests;
