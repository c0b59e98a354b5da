//! Digests of pieces, several at once.
//!
//! Pieces do not depend on each other. So a MiB of them is a task of its own on the blocking threads: a stream is digested
//! on as many processors as are free, while it passes, and holds up nobody else on the runtime's threads. A few such tasks
//! may be under way; then the stream waits for the first. Pieces that are larger are digested as their bytes pass. What a
//! task takes is told to whoever counts the time of an operation, since it is none of the threads that are seen there.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::task::JoinHandle;

use super::{Algorithm, Hasher, MOST_PIECE_BYTES, Spent};
use crate::capabilities::gather::{Collector, Gathered};
use crate::types::{Error, Result};

/// The most bytes of a task.
const TASK: u64 = 1 << 20;
/// Tasks that may be under way.
const TASKS: usize = 3;

/// The pieces of a stream on its way.
pub(super) struct Pieces {
    algorithm: Algorithm,
    size: u64,
    large: Option<Large>,
    waiting: Collector,
    running: FuturesOrdered<JoinHandle<(Vec<u8>, Duration)>>,
    spent: Spent,
    /// Those of all tasks that have ended.
    digests: Vec<u8>,
    /// The bytes that the digests of all whole pieces so far have or will have.
    claimed: u64,
}

/// A piece that is larger than a task.
struct Large {
    hasher: Hasher,
    filled: u64,
}

impl Pieces {
    /// Pieces of so many bytes. `invalid` for 0, and if the digests of `total` bytes would be too many.
    pub(super) fn new(algorithm: Algorithm, size: u64, total: u64, spent: Spent) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid("a piece size of 0"));
        }
        let large = (size > TASK).then(|| Large { hasher: Hasher::new(algorithm), filled: 0 });
        let pieces = Self {
            algorithm,
            size,
            large,
            waiting: Collector::default(),
            running: FuturesOrdered::new(),
            spent,
            digests: Vec::new(),
            claimed: 0,
        };
        pieces.check(total.div_ceil(size))?;
        Ok(pieces)
    }

    /// Takes the next bytes.
    pub(super) async fn update(&mut self, mut bytes: Bytes) -> Result<()> {
        let unit = if self.large.is_some() { self.size } else { TASK / self.size * self.size };
        while !bytes.is_empty() {
            let filled = self.large.as_ref().map_or(self.waiting.len(), |large| large.filled);
            let room = usize::try_from(unit - filled).unwrap_or(usize::MAX);
            let head = bytes.split_to(room.min(bytes.len()));
            let full = head.len() == room;
            match &mut self.large {
                Some(large) => {
                    large.hasher.update(&head);
                    large.filled += head.len() as u64;
                    if full {
                        large.filled = 0;
                        self.claim(1)?;
                        if let Some(large) = &mut self.large {
                            large.hasher.finish_into(&mut self.digests);
                        }
                    }
                }
                None => {
                    self.waiting.push(head);
                    if full {
                        self.claim(unit / self.size)?;
                        self.begin().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The digests of all pieces, the last one of which may be shorter.
    pub(super) async fn finish(mut self) -> Result<Vec<u8>> {
        while !self.running.is_empty() {
            self.take().await?;
        }
        match &mut self.large {
            Some(large) if large.filled > 0 => large.hasher.finish_into(&mut self.digests),
            _ => self.digests.extend(digests(self.algorithm, self.size, &self.waiting.finish())),
        }
        Ok(self.digests)
    }

    /// Begins a task with what waits for one.
    async fn begin(&mut self) -> Result<()> {
        if self.running.len() == TASKS {
            self.take().await?;
        }
        let (algorithm, size) = (self.algorithm, self.size);
        let bytes = std::mem::take(&mut self.waiting).finish();
        self.running.push_back(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            (digests(algorithm, size, &bytes), began.elapsed())
        }));
        Ok(())
    }

    /// Waits for the first task that is under way.
    async fn take(&mut self) -> Result<()> {
        match self.running.next().await {
            Some(Ok((digests, time))) => {
                self.digests.extend(digests);
                (self.spent)(time);
            }
            Some(Err(error)) => return Err(Error::other(format!("a digest was cut off: {error}"))),
            None => {}
        }
        Ok(())
    }

    fn claim(&mut self, pieces: u64) -> Result<()> {
        self.check(pieces)?;
        self.claimed += pieces * self.algorithm.digest_len() as u64;
        Ok(())
    }

    /// `invalid` if so many more pieces would be too many.
    fn check(&self, pieces: u64) -> Result<()> {
        let more = pieces.saturating_mul(self.algorithm.digest_len() as u64);
        if self.claimed.saturating_add(more) > MOST_PIECE_BYTES as u64 {
            return Err(
                Error::invalid("the digests of so many pieces exceed 64 MiB").hint("choose a larger piece size")
            );
        }
        Ok(())
    }
}

/// The digests of the pieces of these bytes, one after the other.
fn digests(algorithm: Algorithm, size: u64, bytes: &Gathered) -> Vec<u8> {
    let (mut hasher, mut filled, mut out) = (Hasher::new(algorithm), 0, Vec::new());
    for chunk in &bytes.chunks {
        let mut chunk = &chunk[..];
        while !chunk.is_empty() {
            let room = usize::try_from(size - filled).unwrap_or(usize::MAX);
            let (head, rest) = chunk.split_at(room.min(chunk.len()));
            hasher.update(head);
            filled += head.len() as u64;
            if filled == size {
                hasher.finish_into(&mut out);
                filled = 0;
            }
            chunk = rest;
        }
    }
    if filled > 0 {
        hasher.finish_into(&mut out);
    }
    out
}
