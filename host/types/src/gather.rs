//! Chunks gathered into batches (for a disk) or parts (for a bucket) without copying them together.
//!
//! Large chunks are kept as they are: who made them sees to it that there is little else in memory behind them
//! ([`owned_if_sparse`](super::owned_if_sparse)). Small ones are copied into blocks, since a list of a million chunks of ten bytes
//! would weigh more than the bytes.

use bytes::{Bytes, BytesMut};
use futures::stream::StreamExt;

use super::{Body, Result};

/// Chunks below this are copied.
const SMALL: usize = 16 << 10;
/// Into blocks of this.
const BLOCK: usize = 128 << 10;

/// Bytes in several pieces, in order.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The pieces.
    pub chunks: Vec<Bytes>,
    /// Their bytes together.
    pub len: u64,
}

/// Takes a body apart into pieces of chosen lengths.
pub struct Gatherer {
    body: Body,
    /// Bytes taken from the body that belong to the next piece.
    rest: Option<Bytes>,
}

impl Gatherer {
    /// Takes pieces from this body.
    pub fn new(body: Body) -> Self {
        Self { body, rest: None }
    }

    /// The next `len` bytes, or all that are left, and whether the body has ended. Looks one chunk ahead for that.
    ///
    /// # Errors
    /// The error that the body ends with.
    pub async fn next(&mut self, len: u64) -> Result<(Gathered, bool)> {
        let mut piece = Collector::default();
        loop {
            let mut chunk = match self.rest.take() {
                Some(rest) => rest,
                None => match self.body.next().await.transpose()? {
                    Some(chunk) => chunk,
                    None => return Ok((piece.finish(), true)),
                },
            };
            let room = usize::try_from(len - piece.size()).unwrap_or(usize::MAX);
            if room == 0 {
                self.rest = Some(chunk);
                return Ok((piece.finish(), false));
            }
            if chunk.len() > room {
                self.rest = Some(chunk.split_off(room));
            }
            piece.push(chunk);
        }
    }
}

/// Puts chunks together without copying the large ones.
#[derive(Default)]
pub struct Collector {
    done: Gathered,
    block: BytesMut,
}

impl Collector {
    /// Adds a chunk at the end.
    pub fn push(&mut self, chunk: Bytes) {
        self.done.len += chunk.len() as u64;
        if chunk.len() >= SMALL {
            self.close_block();
            self.done.chunks.push(chunk);
            return;
        }
        if self.block.capacity() - self.block.len() < chunk.len() {
            self.close_block();
            self.block = BytesMut::with_capacity(BLOCK);
        }
        self.block.extend_from_slice(&chunk);
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            self.done.chunks.push(self.block.split().freeze());
        }
    }

    /// The bytes so far.
    pub fn size(&self) -> u64 {
        self.done.len
    }

    /// The bytes that were added, in order.
    pub fn finish(mut self) -> Gathered {
        self.close_block();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Pieces have the requested lengths, and together are the input.
        #[test]
        fn nothing_is_lost(chunks in proptest::collection::vec(0usize..40_000, 0..12), len in 1u64..70_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut counter = 0u8;
            let chunks: Vec<Bytes> = chunks.into_iter().map(|n| (0..n).map(|_| { counter = counter.wrapping_add(7); counter }).collect()).collect();
            let whole: Vec<u8> = chunks.concat();
            let mut gatherer = Gatherer::new(Body::new(futures::stream::iter(chunks.into_iter().map(Ok)), None));
            let mut seen = Vec::new();
            loop {
                let (piece, last) = runtime.block_on(gatherer.next(len)).unwrap();
                let bytes = piece.chunks.concat();
                prop_assert_eq!(bytes.len() as u64, piece.len);
                prop_assert!(last || piece.len == len);
                seen.extend(bytes);
                if last { break; }
            }
            prop_assert_eq!(seen, whole);
        }
    }

    #[tokio::test]
    async fn small_chunks_become_blocks() {
        let tiny = futures::stream::iter((0..100_000).map(|_| Ok(Bytes::from_static(b"0123456789"))));
        let (piece, last) = Gatherer::new(Body::new(tiny, None)).next(u64::MAX).await.unwrap();
        assert!(last);
        assert_eq!(piece.len, 1_000_000);
        assert!(piece.chunks.len() < 10, "{}", piece.chunks.len());
    }
}
