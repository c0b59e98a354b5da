//! Bytes that the host holds for a guest of synchronous functions: the resource `body` of `tidelock:storage/bodies`.
//!
//! Such a guest cannot pass on a stream. It has a handle instead, and reads through it in chunks or passes it on whole:
//! then it is the host's own body again ([`BodyHandle::into_body`]), and its bytes do not enter guest memory.
//!
//! **Bounds.** A guest that puts bytes into the host has it hold memory, so these count as the guest's own (`memory`),
//! and every piece of every body counts as a handle (`handles`), also when pieces have been put together: else a body
//! of a million empty pieces would cost nothing. Pieces lie in one flat list, since a body of bodies of bodies would
//! recurse as deep as a guest likes. A chunk is copied into the guest once, at most [`CHUNK`] bytes at a time.
//!
//! **Ends.** A body that ended with an error returns it on every further read. A guest that reads past it never sees an
//! end, and passing it on passes the error on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;

use tidelock_types::{Body, Error, Result};

/// The most bytes that are copied into or out of a guest at once.
pub(super) const CHUNK: usize = 1 << 20;

/// The bodies that the host holds for a guest at one moment.
#[derive(Default)]
pub(super) struct BodyCharges {
    pieces: AtomicUsize,
    bytes: AtomicU64,
}

impl BodyCharges {
    /// The pieces of all bodies.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.load(Ordering::Relaxed)
    }

    /// The bytes that came from the guest.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The charge of one piece; refunded when it is dropped.
pub(super) struct BodyPiece {
    charges: Arc<BodyCharges>,
    bytes: u64,
}

impl BodyPiece {
    /// A piece with the guest's own bytes.
    pub(super) fn new(charges: &Arc<BodyCharges>, bytes: u64) -> Self {
        charges.pieces.fetch_add(1, Ordering::Relaxed);
        charges.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { charges: charges.clone(), bytes }
    }
}

impl Drop for BodyPiece {
    fn drop(&mut self) {
        self.charges.pieces.fetch_sub(1, Ordering::Relaxed);
        self.charges.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The source of bytes, which decides how reading them is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The object that is being stored.
    Input,
    /// A reply or a file.
    Reply,
    /// The guest.
    Guest,
}

struct Piece {
    body: Body,
    /// The rest of a chunk that was larger than the requested length.
    rest: Bytes,
    origin: Origin,
    _charge: BodyPiece,
}

impl Piece {
    fn size(&self) -> Option<u64> {
        Some(self.body.remaining()?.saturating_add(self.rest.len() as u64))
    }

    fn into_body(self) -> Body {
        self.body.unread(self.rest)
    }
}

/// A body that the host holds for a guest.
pub struct BodyHandle {
    pieces: VecDeque<Piece>,
    /// The error with which it ended.
    broken: Option<Error>,
}

impl BodyHandle {
    /// A body of the host's, or one of bytes that a guest gave.
    pub(super) fn new(body: Body, origin: Origin, charge: BodyPiece) -> Self {
        Self { pieces: [Piece { body, rest: Bytes::new(), origin, _charge: charge }].into(), broken: None }
    }

    /// Several bodies in order. Those after a failed one are unreachable, and are dropped.
    pub(super) fn concat(parts: Vec<BodyHandle>) -> Self {
        let mut all = Self { pieces: VecDeque::new(), broken: None };
        for part in parts {
            if all.broken.is_none() {
                all.pieces.extend(part.pieces);
                all.broken = part.broken;
            }
        }
        all
    }

    /// The bytes still to come, if that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self.broken {
            Some(_) => None,
            None => self.pieces.iter().map(Piece::size).try_fold(0_u64, |sum, size| Some(sum.saturating_add(size?))),
        }
    }

    /// The next bytes, at most `most` and at most [`CHUNK`], and where they come from. None only at the end.
    ///
    /// # Errors
    /// The error with which the body ended, each time.
    pub(super) async fn read(&mut self, most: usize) -> Result<Option<(Bytes, Origin)>> {
        while let Some(piece) = self.pieces.front_mut() {
            if piece.rest.is_empty() {
                match piece.body.next().await {
                    Some(Ok(chunk)) => piece.rest = chunk,
                    Some(Err(error)) => {
                        self.pieces.clear();
                        self.broken = Some(error);
                        break;
                    }
                    None => {
                        self.pieces.pop_front();
                        continue;
                    }
                }
            }
            let count = piece.rest.len().min(most).min(CHUNK);
            return Ok(Some((piece.rest.split_to(count), piece.origin)));
        }
        self.broken.as_ref().map_or(Ok(None), |error| Err(error.duplicate()))
    }

    /// The body itself. One that came from the host and was not touched is the very one that it was.
    pub(super) fn into_body(self) -> Body {
        let mut parts: Vec<Body> = self.pieces.into_iter().map(Piece::into_body).collect();
        if let Some(error) = self.broken {
            parts.push(Body::new(futures::stream::iter([Err(error)]), None));
        }
        match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => only,
            (Some(last), false) => {
                parts.push(last);
                Body::concat(parts)
            }
            (None, _) => Body::from_bytes(Bytes::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(charges: &Arc<BodyCharges>, chunks: Vec<Result<Bytes>>, size: Option<u64>) -> BodyHandle {
        let body = Body::new(futures::stream::iter(chunks), size);
        BodyHandle::new(body, Origin::Reply, BodyPiece::new(charges, 0))
    }

    fn bytes(text: &'static str) -> Result<Bytes> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    async fn text(bodies: &mut BodyHandle, most: usize) -> Result<String> {
        let read = bodies.read(most).await?.map(|(bytes, _)| bytes).unwrap_or_default();
        Ok(String::from_utf8_lossy(&read).into_owned())
    }

    #[tokio::test]
    async fn a_partly_read_body_continues_where_it_stopped() {
        let charges = Arc::default();
        let mut one = bodies(&charges, vec![bytes("abcdef"), bytes("gh")], Some(8));
        assert_eq!(text(&mut one, 2).await.unwrap(), "ab");
        let mut all = BodyHandle::concat(vec![one, bodies(&charges, vec![bytes("ij")], Some(2))]);
        assert_eq!((all.size(), charges.pieces()), (Some(8), 2));
        assert_eq!(text(&mut all, 100).await.unwrap(), "cdef");
        assert_eq!(all.into_body().collect(100).await.unwrap(), "ghij");
        assert_eq!(charges.pieces(), 0, "nothing is held any more");
    }

    #[tokio::test]
    async fn a_break_is_never_an_end() {
        let charges = Arc::default();
        let broken = || bodies(&charges, vec![bytes("ab"), Err(Error::unavailable("gone"))], None);
        let mut read = broken();
        assert_eq!(text(&mut read, 100).await.unwrap(), "ab");
        for _ in 0..3 {
            assert_eq!(text(&mut read, 100).await.unwrap_err().message(), "gone");
        }
        let mut after = BodyHandle::concat(vec![read, bodies(&charges, vec![bytes("x")], Some(1))]);
        assert_eq!((after.size(), text(&mut after, 1).await.unwrap_err().message()), (None, "gone"));
        assert_eq!(after.into_body().collect(100).await.unwrap_err().message(), "gone");
        // One that is shorter than its announced size.
        let mut short = bodies(&charges, vec![bytes("ab")], Some(3));
        text(&mut short, 100).await.unwrap();
        assert!(text(&mut short, 100).await.is_err() && text(&mut short, 100).await.is_err());
    }

    #[tokio::test]
    async fn the_end_is_empty_and_so_is_nothing() {
        let charges = Arc::default();
        let mut none = BodyHandle::concat(vec![bodies(&charges, vec![], Some(0)), bodies(&charges, vec![], None)]);
        assert_eq!(text(&mut none, 5).await.unwrap(), "");
        assert_eq!(none.size(), Some(0), "what has ended is known");
        assert_eq!(BodyHandle::concat(Vec::new()).into_body().collect(0).await.unwrap(), "");
    }
}
