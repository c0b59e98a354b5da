//! Writing: temporary file, bytes, COMMIT, name.
//!
//! Bytes are written in batches. The pieces of a batch are sent unstable, several at once, and committed together. A
//! server that may have lost them (it restarted) returns another verifier, and then the batch, which is still in memory,
//! is written again. The next batch is gathered meanwhile: two are in memory, and a slow server throttles the source. A
//! file of one piece is written stable, without a COMMIT.
//!
//! Zeros are not sent: they become holes, where the server's file system has any. If the file ends in zeros, its last byte
//! is written, which gives it its length.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

use super::object::{Handle, Kind};
use super::session::Session;
use super::temporary::{HEARTBEAT, Temporary};
use tidelock_types::files::WriteOptions;
use tidelock_types::gather::{Gathered, Gatherer};
use tidelock_types::holes::data_runs;
use tidelock_types::{Body, Error, Result};

/// Bytes that are committed together.
const BATCH: u64 = 8 << 20;
/// Concurrent pieces of a batch.
const AT_ONCE: usize = 4;
/// Maximum number of writes of a batch.
const ATTEMPTS: usize = 5;

/// The most bytes that are held for a file of `size` bytes that is written, if that is known: the batch on its way to the
/// server, and the one that is gathered.
pub(super) fn holds(size: Option<u64>) -> u64 {
    size.unwrap_or(u64::MAX).min(2 * BATCH)
}

/// Writes a file at a checked path and gives its size. Dropping the future removes the temporary file.
pub(super) async fn write(session: &Arc<Session>, path: &str, data: Body, options: WriteOptions) -> Result<u64> {
    let data = tidelock_types::files::sized(data, options)?;
    refuse_early(session, path, options).await?;
    let temporary = Temporary::create(session).await?;
    match fill(session, &temporary, data).await {
        Ok(size) => temporary.place(path, size, options.if_absent).await.map(|()| size),
        Err(error) => {
            temporary.discard().await;
            Err(error)
        }
    }
}

/// Fails early for errors that are known before any byte is read. The decision is made again when the file is renamed.
async fn refuse_early(session: &Session, path: &str, options: WriteOptions) -> Result<()> {
    match session.named(path).await? {
        Some((_, found)) if found.kind == Kind::Directory => Err(Error::invalid(format!("`{path}` is a directory"))),
        Some(_) if options.if_absent => Err(Error::conflict(format!("`{path}` already exists"))),
        _ => Ok(()),
    }
}

async fn fill(session: &Arc<Session>, temporary: &Temporary, data: Body) -> Result<u64> {
    let most = session.found().await?.write as usize;
    let mut source = Gatherer::new(data);
    let (mut offset, mut written) = (0, 0);
    let mut renewed = Instant::now();
    let (mut batch, mut last) = gather(&mut source, temporary).await?;
    while !last {
        let writing = durably(session, &temporary.file, offset, &batch, most);
        let (end, next) = futures::future::try_join(writing, gather(&mut source, temporary)).await?;
        if let Some(end) = end {
            (written, renewed) = (end, Instant::now());
        } else if renewed.elapsed() >= HEARTBEAT {
            // A long run of zeros sends nothing, and the lease runs on.
            temporary.renew().await?;
            renewed = Instant::now();
        }
        offset += batch.len;
        (batch, last) = next;
    }
    written = durably(session, &temporary.file, offset, &batch, most).await?.unwrap_or(written);
    let size = offset + batch.len;
    if written < size {
        piece(session, &temporary.file, size - 1, vec![Bytes::from_static(&[0])], true).await?;
    }
    Ok(size)
}

/// The next batch. A source that lets us wait does not cost us the file.
async fn gather(source: &mut Gatherer, temporary: &Temporary) -> Result<(Gathered, bool)> {
    let mut next = std::pin::pin!(source.next(BATCH));
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut next).await {
            Ok(next) => return next,
            Err(_) => temporary.renew().await?,
        }
    }
}

/// Writes a batch at its place, and returns when the server has made it safe: where the last byte that was written ends,
/// if there was one that is not zero.
async fn durably(session: &Session, file: &Handle, offset: u64, batch: &Gathered, most: usize) -> Result<Option<u64>> {
    let failed = |fault: super::status::Fault| fault.of("writing a temporary file");
    for _ in 0..ATTEMPTS {
        let single = batch.len <= most as u64;
        let pieces = pieces(&batch.chunks, offset, most);
        let Some((from, data)) = pieces.last() else { return Ok(None) };
        let end = Some(from + data.iter().map(|part| part.len() as u64).sum::<u64>());
        let writes = pieces.into_iter().map(|(from, data)| piece(session, file, from, data, single));
        let written: Vec<Pledge> = futures::stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await?;
        if written.iter().all(|pledge| pledge.durable) {
            return Ok(end);
        }
        // At most `BATCH`.
        let verifier = session.commit(file, offset, batch.len as u32).await.map_err(failed)?;
        if written.iter().all(|pledge| pledge.durable || pledge.verifier == Some(verifier)) {
            return Ok(end);
        }
        tracing::debug!(offset, "the NFS server restarted before committing a batch; writing it again");
    }
    Err(Error::unavailable("the NFS server keeps restarting before it commits"))
}

/// The server's promise about a piece.
struct Pledge {
    durable: bool,
    /// `None` if it restarted between two parts of the piece.
    verifier: Option<u64>,
}

/// Writes one piece, in as many calls as the server makes of it.
async fn piece(
    session: &Session,
    file: &Handle,
    mut offset: u64,
    mut data: Vec<Bytes>,
    durable: bool,
) -> Result<Pledge> {
    let mut pledge: Option<Pledge> = None;
    while !data.is_empty() {
        let written = session.write(file, offset, data.clone(), durable).await;
        let written = written.map_err(|fault| fault.of("writing a temporary file"))?;
        offset += u64::from(written.count);
        advance(&mut data, written.count as usize);
        let same = pledge.as_ref().is_none_or(|before| before.verifier == Some(written.verifier));
        pledge = Some(Pledge {
            durable: written.durable && pledge.is_none_or(|before| before.durable),
            verifier: same.then_some(written.verifier),
        });
    }
    Ok(pledge.unwrap_or(Pledge { durable: true, verifier: None }))
}

/// Takes away the first bytes.
fn advance(data: &mut Vec<Bytes>, mut count: usize) {
    let whole = data.iter().take_while(|chunk| {
        let taken = chunk.len() <= count;
        if taken {
            count -= chunk.len();
        }
        taken
    });
    let whole = whole.count();
    data.drain(..whole);
    if let Some(first) = data.first_mut() {
        *first = first.slice(count..);
    }
}

/// Chunks from an offset on, in pieces of at most `most` bytes, each with where it begins, without runs of zeros. Nothing
/// is copied.
fn pieces(chunks: &[Bytes], mut offset: u64, most: usize) -> Vec<(u64, Vec<Bytes>)> {
    let mut pieces: Vec<(u64, Vec<Bytes>)> = Vec::new();
    let (mut room, mut end) = (0, None);
    for chunk in chunks {
        for run in data_runs(chunk, offset) {
            let mut at = offset + run.start as u64;
            if end != Some(at) {
                room = 0;
            }
            let mut data = chunk.slice(run);
            while !data.is_empty() {
                if room == 0 {
                    pieces.push((at, Vec::new()));
                    room = most;
                }
                let part = data.split_to(data.len().min(room));
                room -= part.len();
                at += part.len() as u64;
                if let Some((_, piece)) = pieces.last_mut() {
                    piece.push(part);
                }
            }
            end = Some(at);
        }
        offset += chunk.len() as u64;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Pieces have their offsets, fit, and together are the input; removing a part of one keeps the rest.
        #[test]
        fn nothing_is_lost(lens in proptest::collection::vec(0usize..50, 0..9), most in 1usize..40, taken in 0usize..40) {
            let mut counter = 0u8;
            let chunks: Vec<Bytes> = lens.iter().map(|len| (0..*len).map(|_| { counter = counter.wrapping_add(7); counter }).collect()).collect();
            let whole = chunks.concat();
            // What is not sent is zero.
            let mut seen = vec![0; whole.len()];
            for (offset, mut piece) in pieces(&chunks, 100, most) {
                let bytes = piece.concat();
                prop_assert!(offset >= 100 && !bytes.is_empty() && bytes.len() <= most);
                let taken = taken.min(bytes.len());
                advance(&mut piece, taken);
                prop_assert_eq!(piece.concat(), &bytes[taken..]);
                prop_assert!(piece.iter().all(|chunk| !chunk.is_empty()));
                let from = offset as usize - 100;
                seen[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            prop_assert_eq!(seen, whole);
        }
    }
}
