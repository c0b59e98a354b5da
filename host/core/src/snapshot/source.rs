//! Where images come from: files, block devices, pipes and standard input, as bodies that are hashed while they are
//! read.
//!
//! A body yields segments of 2 MiB. Each is read and hashed by a blocking thread, two at a time, while the previous one
//! is in transit, so that hashing adds no latency and at most three segments are in memory. The identity is
//! known when the last segment is yielded.
//!
//! Holes of a sparse file are not read: they are zeros, and a segment of zeros has a constant digest. So the cost of
//! identifying a sparse image of 1 TiB depends on its data.
//!
//! A file must not change while it is read. Size and modification time are compared before the last segment is yielded; a
//! change makes the body fail with `conflict`. The change time alone says little: a new mode, owner or link moves it, and so
//! does whoever writes and sets the modification time back, and one does not exclude the other. If it moved, the file is
//! read again and compared. Writes through a memory map that are not yet reflected in the times pass unseen, as do writes to a block
//! device: pause the machine first.
//!
//! Files whose size the kernel makes up (procfs, sysfs and their like; some FUSE mounts say 0) are streams: they end where
//! they end. A stream of no bytes is an error unless its reader allows it: nobody stores the output of a program that failed
//! as an image of nothing, by mistake, under the name of a good one.

mod checked;
mod file;
mod stream;
mod ticks;

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use tokio::sync::oneshot;

use super::Progress;
use super::identity::{Identity, identity_of};
use super::segment::SegmentDigest;
use crate::types::{Body, Error, ErrorKind, Result, blocking};

pub use checked::CheckedSource;
pub use file::FileSource;
pub use stream::StreamSource;

/// Segments that are read and hashed at the same time.
const AHEAD: usize = 2;

/// An image to be read.
pub enum Source {
    /// Can be read again from the start.
    File(FileSource),
    /// Can be read once.
    Stream(StreamSource),
    /// Known already, and read from where it is kept. Can be read again.
    Checked(CheckedSource),
}

impl Source {
    /// Opens a path. A regular file or a block device is a file; a pipe, a character device, or a file whose size means
    /// nothing is a stream. Opening a named pipe waits for its writer.
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
                    .hint("name a file; pipe an archive of the directory to store it"));
            }
            if kind.is_fifo() || kind.is_char_device() || (kind.is_file() && has_made_up_size(&file).map_err(fail)?) {
                let name = path.display().to_string();
                return Ok(Self::Stream(StreamSource::new(tokio::fs::File::from_std(file), name)));
            }
            FileSource::new(file, path).map(Self::File)
        })
        .await
    }

    /// Returns the source, of which it is known whether no bytes at all are an image. Waits for the first bytes of a stream.
    ///
    /// # Errors
    /// `invalid` for a stream without any, unless `allow_empty`; errors of reading.
    pub async fn checked(self, allow_empty: bool) -> Result<Self> {
        match self {
            Self::Stream(stream) if allow_empty => Ok(Self::Stream(stream.allow_empty())),
            Self::Stream(stream) => Ok(Self::Stream(stream.started().await?)),
            file => Ok(file),
        }
    }

    /// The number of bytes, if it is known beforehand.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File(file) => Some(file.size()),
            Self::Stream(stream) => stream.size(),
            Self::Checked(checked) => Some(checked.size()),
        }
    }

    /// The bytes, and their identity. See [`FileSource::read`] and [`StreamSource::read`].
    pub fn read(self, progress: Option<Progress>) -> (Body, Reading) {
        match self {
            Self::File(file) => file.read(progress),
            Self::Stream(stream) => stream.read(progress),
            Self::Checked(checked) => checked.read(progress),
        }
    }

    /// The identity alone: nothing is kept.
    ///
    /// # Errors
    /// Errors of reading; `conflict` if a file changed meanwhile.
    pub async fn identify(self, progress: Option<Progress>) -> Result<Identity> {
        match self {
            Self::File(file) => file.identify(progress).await,
            Self::Checked(checked) => Ok((**checked.identity()).clone()),
            Self::Stream(stream) => {
                let (mut body, reading) = stream.allow_empty().read(progress);
                while let Some(chunk) = body.next().await {
                    chunk?;
                }
                reading.identity().await
            }
        }
    }
}

/// Returns whether the size of a regular file means nothing: the kernel's own files, and those that say 0 and have bytes.
fn has_made_up_size(file: &File) -> std::io::Result<bool> {
    /// procfs, sysfs, cgroup2, debugfs, tracefs, securityfs: `linux/magic.h`.
    const MADE_UP: [u64; 6] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673];
    if rustix::fs::fstatfs(file).is_ok_and(|found| MADE_UP.contains(&(found.f_type as u64))) {
        return Ok(true);
    }
    Ok(file.metadata()?.len() == 0 && file.read_at(&mut [0], 0)? > 0)
}

/// The identity of the image at a path, see [`Source::identify`].
///
/// # Errors
/// As [`Source::open`] and [`Source::identify`].
pub async fn identify_file(path: impl Into<PathBuf>, progress: Option<Progress>) -> Result<Identity> {
    Source::open(path).await?.identify(progress).await
}

/// The identity of a body: known once its last segment has been yielded.
pub struct Reading {
    told: oneshot::Receiver<Result<Identity>>,
    /// What the bytes stand for, if they are not the image itself.
    holds: Option<Arc<Identity>>,
}

impl Reading {
    /// One that is told by whoever reads.
    pub(crate) fn pair() -> (oneshot::Sender<Result<Identity>>, Self) {
        let (tell, told) = oneshot::channel();
        (tell, Self::new(told))
    }

    fn new(told: oneshot::Receiver<Result<Identity>>) -> Self {
        Self { told, holds: None }
    }

    /// The same of bytes that hold this image in another encoding.
    #[must_use]
    pub fn holding(self, identity: Arc<Identity>) -> Self {
        Self { holds: Some(identity), ..self }
    }

    /// The identity of all bytes of the body, or of the image that they hold.
    ///
    /// # Errors
    /// The failure that ended the body; `cancelled` if the body was dropped before its end.
    pub async fn identity(self) -> Result<Identity> {
        let cancelled = |_| Err(Error::new(ErrorKind::Cancelled, "the image was not read to the end"));
        let read = self.told.await.unwrap_or_else(cancelled)?;
        Ok(self.holds.map_or(read, Arc::unwrap_or_clone))
    }
}

/// A segment that was read and hashed.
struct Piece {
    digest: SegmentDigest,
    bytes: Bytes,
}

/// Yields segments and, at the end, sets their identity.
struct Tee {
    read: BoxStream<'static, Result<Piece>>,
    file: Option<FileSource>,
    size: Option<u64>,
    progress: Option<Progress>,
    tell: Option<oneshot::Sender<Result<Identity>>>,
    digests: Vec<SegmentDigest>,
    len: u64,
}

impl Tee {
    fn start(
        read: impl Stream<Item = Result<Piece>> + Send + 'static,
        file: Option<FileSource>,
        size: Option<u64>,
        progress: Option<Progress>,
    ) -> (impl Stream<Item = Result<Bytes>> + Send + 'static, Reading) {
        let (tell, told) = oneshot::channel();
        let tee = Self { read: read.boxed(), file, size, progress, tell: Some(tell), digests: Vec::new(), len: 0 };
        let body = unfold(tee, |mut tee| async move { tee.next().await.map(|item| (item, tee)) });
        (body, Reading::new(told))
    }

    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self.read.next().await {
            Some(Ok(piece)) => {
                self.digests.push(piece.digest);
                self.len += piece.bytes.len() as u64;
                // A reader that knows the size may not poll for the end: conclude before the last segment is yielded.
                if self.size == Some(self.len)
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
        let identity = identity_of(self.len, std::mem::take(&mut self.digests));
        if let Some(file) = self.file.clone()
            && let Err(error) = file.check_unchanged(&identity).await
        {
            return Err(self.failed(error));
        }
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

fn cut_short() -> Error {
    Error::other("the read was interrupted: the runtime is shutting down")
}

#[cfg(test)]
mod tests;
