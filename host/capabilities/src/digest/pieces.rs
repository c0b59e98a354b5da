//! Digests of pieces, several at once.
//!
//! Pieces are independent. So each MiB of them is a task on the blocking threads: a stream is digested on as many
//! processors as are free, while it passes, and does not block the runtime's threads. A few such tasks run at once;
//! then the stream waits for the first. Larger pieces are digested as their bytes pass. The tasks are jobs of the
//! operation's account, and the digests and the bytes of the tasks are charged to it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};

use super::{Algorithm, Hasher, MAX_PIECE_BYTES};
use tidelock_types::gather::{Collector, Gathered};
use tidelock_types::{Account, Charge, Error, Result, start_job};

/// The most bytes of a task.
const TASK: u64 = 1 << 20;
/// Maximum number of concurrent tasks.
const TASKS: usize = 3;

/// The pieces of a stream on its way.
pub(super) struct Pieces {
    algorithm: Algorithm,
    size: u64,
    /// The bytes so far.
    passed: u64,
    /// Of pieces that are larger than a task: all of them, as they come.
    large: Option<Sequence>,
    waiting: Collector,
    running: FuturesOrdered<BoxFuture<'static, Result<Vec<u8>>>>,
    account: Arc<dyn Account>,
    /// Those of all tasks that have ended.
    digests: Vec<u8>,
    /// The bytes of all digests so far.
    held: Charge,
}

impl Pieces {
    /// Creates digests of pieces of the given size. `invalid` for 0, and if the digests of `total` bytes would be too many.
    pub(super) fn new(algorithm: Algorithm, size: u64, total: u64, account: &Arc<dyn Account>) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid("the piece size is 0"));
        }
        let pieces = Self {
            algorithm,
            size,
            passed: 0,
            large: (size > TASK).then(|| Sequence::new(algorithm, size)),
            waiting: Collector::default(),
            running: FuturesOrdered::new(),
            account: account.clone(),
            digests: Vec::new(),
            held: Charge::bytes(account, 0).map_err(|exceeded| exceeded.error())?,
        };
        pieces.check(total.div_ceil(size))?;
        Ok(pieces)
    }

    /// Takes the next bytes.
    pub(super) async fn update(&mut self, mut bytes: Bytes) -> Result<()> {
        let before = self.passed / self.size;
        self.passed = self.passed.saturating_add(bytes.len() as u64);
        let pieces = self.passed / self.size;
        self.check(pieces)?;
        if pieces > before {
            let more = (pieces - before).saturating_mul(self.algorithm.digest_len() as u64);
            self.held.grow(more).map_err(|exceeded| exceeded.error())?;
        }
        if let Some(large) = &mut self.large {
            large.update(&bytes);
            return Ok(());
        }
        let task = TASK / self.size * self.size;
        while !bytes.is_empty() {
            let room = usize::try_from(task - self.waiting.size()).unwrap_or(usize::MAX);
            self.waiting.push(bytes.split_to(room.min(bytes.len())));
            if self.waiting.size() == task {
                self.begin().await?;
            }
        }
        Ok(())
    }

    /// The digests of all pieces, the last one of which may be shorter, and what is held for them.
    pub(super) async fn finish(mut self) -> Result<(Vec<u8>, Charge)> {
        if let Some(large) = self.large {
            return Ok((large.finish(), self.held));
        }
        while !self.running.is_empty() {
            self.take().await?;
        }
        self.digests.extend(digests(self.algorithm, self.size, &self.waiting.finish()));
        Ok((self.digests, self.held))
    }

    /// Starts a task with the gathered pieces.
    async fn begin(&mut self) -> Result<()> {
        if self.running.len() == TASKS {
            self.take().await?;
        }
        let (algorithm, size) = (self.algorithm, self.size);
        let bytes = std::mem::take(&mut self.waiting).finish();
        let held = Charge::bytes(&self.account, bytes.len).map_err(|exceeded| exceeded.error())?;
        let job = start_job(&self.account, move |_| {
            let _held = held;
            Ok(digests(algorithm, size, &bytes))
        });
        self.running.push_back(Box::pin(job.await?.done()));
        Ok(())
    }

    /// Waits for the first running task.
    async fn take(&mut self) -> Result<()> {
        if let Some(digests) = self.running.next().await {
            self.digests.extend(digests?);
        }
        Ok(())
    }

    /// `invalid` if there would be too many digests.
    fn check(&self, pieces: u64) -> Result<()> {
        if pieces.saturating_mul(self.algorithm.digest_len() as u64) > MAX_PIECE_BYTES as u64 {
            return Err(Error::invalid("the digests of the pieces exceed 64 MiB").hint("choose a larger piece size"));
        }
        Ok(())
    }
}

/// The digests of the pieces of these bytes.
fn digests(algorithm: Algorithm, size: u64, bytes: &Gathered) -> Vec<u8> {
    let mut pieces = Sequence::new(algorithm, size);
    bytes.chunks.iter().for_each(|chunk| pieces.update(chunk));
    pieces.finish()
}

/// Pieces that are digested one after the other.
struct Sequence {
    hasher: Hasher,
    size: u64,
    /// The bytes of the last piece so far.
    filled: u64,
    digests: Vec<u8>,
}

impl Sequence {
    fn new(algorithm: Algorithm, size: u64) -> Self {
        Self { hasher: Hasher::new(algorithm), size, filled: 0, digests: Vec::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.size - self.filled).unwrap_or(usize::MAX);
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(head);
            self.filled += head.len() as u64;
            if self.filled == self.size {
                self.hasher.finish_into(&mut self.digests);
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.hasher.finish_into(&mut self.digests);
        }
        self.digests
    }
}
