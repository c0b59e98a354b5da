//! A hot image into a file: cloned where the file system can share the bytes, else copied by all processors, each segment
//! proven on the way. A clone is proven by reading it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;

use super::Image;
use crate::config::HOT;
use crate::connector::hot::HotView;
use crate::snapshot::pages::{self, FileImage};
use crate::snapshot::{Identity, Progress, SEGMENT, SegmentDigest, ZERO_SEGMENT};
use crate::types::holes::data_runs;
use crate::types::{ByteRange, Error, Result, blocking};

/// Bytes that are read, proven and written in one step: they stay in the processor's cache.
const STEP: usize = 256 << 10;

/// How an image came into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedOut {
    /// The backend that it came from.
    pub source: String,
    /// Whether the file shares its bytes with the hot tier.
    pub cloned: bool,
}

impl Image {
    /// Writes the image into an empty file that is open for reading and writing, if it is hot: then this is faster than
    /// [`Self::stream`]. Zeros become holes. Every byte is proven; what is damaged comes from another placement. Returns `None`
    /// if it is not hot; nothing is written then.
    ///
    /// # Errors
    /// Errors of writing; as [`Self::stream`]. What the file holds is undefined then.
    pub async fn copy_out(&self, file: File, progress: Option<Progress>) -> Result<Option<CopiedOut>> {
        let host = self.host().clone();
        let Some(view) = host.hot_view(self.id()).await.unwrap_or_default() else { return Ok(None) };
        let (file, reading, writing) = (Arc::new(file), view.clone(), progress.clone());
        let to = file.clone();
        let (cloned, damaged) = blocking(move || copy(&reading, &to, writing.as_ref())).await?;
        let Some(first) = damaged.first() else {
            return Ok(Some(CopiedOut { source: HOT.to_owned(), cloned }));
        };
        let at = first.saturating_mul(SEGMENT as u64);
        if view.whole_file().is_some() {
            let error = Error::corrupt(format!("segment {first} of the hot image differs from the stored one"));
            host.examine_failure(&view.placement, &view.identity, at, error.on_backend(HOT).during("retrieve")).await;
        }
        // Of a pack, what follows finds out which object is at fault.
        for number in damaged {
            self.copy_segment(number, file.clone()).await?;
        }
        Ok(Some(CopiedOut { source: HOT.to_owned(), cloned }))
    }

    /// Writes a segment from whichever placement has it.
    async fn copy_segment(&self, number: u64, file: Arc<File>) -> Result<()> {
        let start = number * SEGMENT as u64;
        let len = self.size().saturating_sub(start).min(SEGMENT as u64);
        let mut body = self.stream(Some(ByteRange::of(start, len))).await?.body;
        let mut at = start;
        while let Some(chunk) = body.next().await {
            let (chunk, file) = (chunk?, file.clone());
            let len = chunk.len() as u64;
            blocking(move || file.write_all_at(&chunk, at).map_err(failed)).await?;
            at += len;
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing the image", error)
}

/// Copies or clones what is right. Returns whether the file is a clone, and the segments that are wrong.
fn copy(view: &HotView, to: &File, progress: Option<&Progress>) -> Result<(bool, Vec<u64>)> {
    let size = view.identity.size();
    let cloned = view.whole_file().is_some_and(|from| rustix::fs::ioctl_ficlone(to, from).is_ok());
    let clone;
    let from: &dyn pages::Image = if cloned {
        clone = FileImage::new(to.try_clone().map_err(failed)?, size, "the clone of a hot image");
        // One of another length is no clone of this image; what is wrong with its bytes is found below.
        if to.metadata().map_err(failed)?.len() != size {
            to.set_len(size).map_err(failed)?;
        }
        &clone
    } else {
        to.set_len(size).map_err(failed)?;
        view
    };
    let work = Work {
        identity: &view.identity,
        from,
        to: (!cloned).then_some(to),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        damaged: Mutex::default(),
        writing: Mutex::default(),
        progress,
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get).min(16);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Error::other("a thread that copies ended early")))
        })
    })?;
    let mut damaged = work.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
    damaged.sort_unstable();
    Ok((cloned, damaged))
}

struct Work<'a> {
    identity: &'a Identity,
    from: &'a dyn pages::Image,
    /// Where to; `None`: what is there is to be proven alone.
    to: Option<&'a File>,
    next: AtomicU64,
    done: AtomicU64,
    damaged: Mutex<Vec<u64>>,
    writing: Mutex<()>,
    progress: Option<&'a Progress>,
}

impl Work<'_> {
    fn run(&self) -> Result<()> {
        let mut buffer = vec![0; STEP];
        let digests = self.identity.segments().as_slice();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(expected) = usize::try_from(number).ok().and_then(|number| digests.get(number)) else {
                return Ok(());
            };
            let start = number * SEGMENT as u64;
            let len = self.identity.size().saturating_sub(start).min(SEGMENT as u64) as usize;
            let hole = len == SEGMENT && *expected == ZERO_SEGMENT;
            // Nothing is written for zeros. Those of a clone are looked at where they are no hole.
            let read = !hole || (self.to.is_none() && self.from.next_data(start, start + len as u64)?.is_some());
            if read && self.digest(start, len, &mut buffer)? != Some(*expected) {
                self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
            let done = self.done.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
            if let Some(progress) = self.progress {
                progress(done);
            }
        }
    }

    /// Copies a segment, and returns its digest; `None` if it cannot be read. What is wrong is written all the same: it is
    /// written over later.
    fn digest(&self, start: u64, len: usize, buffer: &mut [u8]) -> Result<Option<SegmentDigest>> {
        let mut hasher = blake3::Hasher::new();
        for step in (0..len).step_by(STEP) {
            let bytes = &mut buffer[..STEP.min(len - step)];
            let at = start + step as u64;
            if self.from.read_at(bytes, at).is_err() {
                return Ok(None);
            }
            hasher.update(bytes);
            if let Some(to) = self.to {
                // One thread at a time can write to a file; others would wait for it in the kernel, and busily.
                let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                write(to, bytes, at)?;
            }
        }
        Ok(Some(*hasher.finalize().as_bytes()))
    }
}

/// Writes what is not zeros.
fn write(to: &File, bytes: &[u8], start: u64) -> Result<()> {
    for run in data_runs(bytes, start) {
        to.write_all_at(&bytes[run.clone()], start + run.start as u64).map_err(failed)?;
    }
    Ok(())
}
