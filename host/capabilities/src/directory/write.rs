//! Writing: temporary file, bytes, fsync, name, fsync of the directory.
//!
//! Chunks are gathered into batches of a MiB and written at their offset on a blocking thread while the next ones are
//! gathered: one batch in flight, one being filled, so that a slow disk throttles the source and memory stays small.
//! Every few MiB, writeback is started.
//!
//! Zeros are not written: a sparse image is a sparse object, and takes the room of its data.

use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::WriteOptions;
use super::inner::{DirectoryInner, sync};
use super::temporary::Temporary;
use tidelock_types::gather::Gatherer;
use tidelock_types::holes::data_runs;
use tidelock_types::path::split;
use tidelock_types::{Account, Body, Error, Job, Result, Stop, job, start_job};

/// Bytes of one write to the disk.
const BATCH: u64 = 1 << 20;
/// After this many bytes writeback is started, so that less is left to wait for at the end. A multiple of the batch.
const BEHIND: u64 = 8 << 20;

/// The most bytes that are held for a file of `size` bytes that is written, if that is known: the batch on its way to the
/// disk, and the one that is gathered.
pub(super) fn holds(size: Option<u64>) -> u64 {
    size.unwrap_or(u64::MAX).min(2 * BATCH)
}

/// Writes a file at a checked path and returns its size. Dropping the future removes the temporary file.
pub(super) async fn write(
    inner: &Arc<DirectoryInner>,
    account: &Arc<dyn Account>,
    path: String,
    data: Body,
    options: WriteOptions,
) -> Result<u64> {
    let data = super::sized(data, options)?;
    let opening = Arc::clone(inner);
    let (path, temporary) = job(account, move |_| {
        refuse_early(&opening, &path, options)?;
        let made = Temporary::create(&opening.home()?, opening.modes.file, &opening.platform)?;
        Ok((path, made))
    })
    .await?;
    let size = fill(&temporary, account, data).await?;
    let inner = Arc::clone(inner);
    job(account, move |stop| {
        // The last bytes may be a hole.
        temporary.file().set_len(size).map_err(|error| Error::io("writing a temporary file", error))?;
        temporary.file().sync_all().map_err(|error| Error::io(format!("making `{path}` durable"), error))?;
        let parent = inner.open_parent(&path, stop)?;
        let (_, name) = split(&path);
        temporary.place(&parent, name, options.if_absent)?;
        sync(&parent).map_err(|error| Error::io(format!("making the name `{path}` durable"), error))?;
        inner.check_place()
    })
    .await?;
    Ok(size)
}

/// Fails early for errors that are known before any byte is read. The decision is made again when the file is renamed.
fn refuse_early(inner: &DirectoryInner, path: &str, options: WriteOptions) -> Result<()> {
    match inner.root.metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(Error::invalid(format!("`{path}` is a directory"))),
        Ok(_) if options.if_absent => Err(Error::conflict(format!("`{path}` already exists"))),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("`{path}`"), error)),
    }
}

async fn fill(temporary: &Temporary, account: &Arc<dyn Account>, data: Body) -> Result<u64> {
    let mut source = Gatherer::new(data);
    let mut offset = 0;
    let mut running: Option<Job<()>> = None;
    loop {
        let (batch, last) = source.next(BATCH).await?;
        finish(running.take()).await?;
        if batch.len > 0 {
            let file = Arc::clone(temporary.file());
            let len = batch.len;
            let write = move |_: &Stop| {
                write_all_at(&file, &batch.chunks, offset).map_err(|error| Error::io("writing a temporary file", error))
            };
            running = Some(start_job(account, write).await?);
            offset += len;
        }
        if last {
            finish(running).await?;
            return Ok(offset);
        }
    }
}

fn write_all_at(file: &std::fs::File, chunks: &[Bytes], mut offset: u64) -> io::Result<()> {
    for chunk in chunks {
        for run in data_runs(chunk, offset) {
            file.write_all_at(&chunk[run.clone()], offset + run.start as u64)?;
        }
        offset += chunk.len() as u64;
    }
    if offset.is_multiple_of(BEHIND) {
        write_behind(file, offset - BEHIND);
    }
    Ok(())
}

/// Starts writeback of the last bytes, as Linux does when they are not needed soon (`mm/fadvise.c`). It
/// drops clean pages from memory, and just-written ones are not clean. Advice only: without
/// effect, making the file durable takes longer.
fn write_behind(file: &std::fs::File, from: u64) {
    let _ = rustix::fs::fadvise(file, from, NonZeroU64::new(BEHIND), rustix::fs::Advice::DontNeed);
}

async fn finish(running: Option<Job<()>>) -> Result<()> {
    match running {
        None => Ok(()),
        Some(running) => running.done().await,
    }
}
