//! Digests at native speed, of values and of bytes on their way.
//!
//! [`tap`] lets a body pass unchanged and digests it meanwhile, so that an adapter gets the SHA-256 of a gigabyte without
//! one byte of it in its own memory. Pieces (BitTorrent-like bags, parts of an upload) are digested along with the whole
//! in the same pass.

mod pieces;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use hmac::{KeyInit, Mac};
use sha2::Digest as _;
use tokio::sync::oneshot;

use pieces::Pieces;
use tidelock_types::{Account, Body, Charge, Error, Passing, Result, Stage};

/// The most bytes that the digests of all pieces together may take: 64 MiB, which is 2,097,152 SHA-256 digests (256 GiB in
/// pieces of 128 KiB).
pub const MAX_PIECE_BYTES: usize = 64 << 20;

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256: 32 bytes.
    Sha256,
    /// SHA-512: 64 bytes.
    Sha512,
    /// BLAKE3: 32 bytes.
    Blake3,
}

impl Algorithm {
    /// The bytes of one digest.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digests to compute of a passing stream.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the whole and of each piece.
    pub algorithm: Algorithm,
    /// Whether there is to be a digest of the whole. With pieces too, that is the work twice.
    pub whole: bool,
    /// Also a digest of each piece of this many bytes (the last may be shorter).
    pub piece_size: Option<u64>,
    /// Bytes that are digested before the stream's own, and count for pieces; they are not passed on.
    pub prefix: Bytes,
}

/// The result of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The bytes that passed, without the prefix.
    pub size: u64,
    /// Of prefix and stream together; empty if it was not requested.
    pub whole: Vec<u8>,
    /// One after the other; empty without a piece size. No bytes at all make no piece.
    pub pieces: Vec<u8>,
}

/// SHA-256 of a value.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(data).into()
}

/// HMAC with SHA-256 of a value (RFC 2104); a key of any length.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    // A key of the block's own length is always valid; a longer one is hashed first and a shorter one padded, as
    // the RFC requires, so that there is no failure to handle.
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut mac = hmac::Hmac::<sha2::Sha256>::new(&block.into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// Lets a body pass and digests it. The future resolves after the body has ended (`Ok`), failed (the same error), or was
/// dropped unread (`cancelled`).
///
/// # Errors
/// `invalid` for a piece size of 0, or one so small that the digests of a body of known size exceed
/// [`MAX_PIECE_BYTES`]. A body of unknown size that exceeds them ends in the same error. `limit` if the account does not
/// have the bytes that are held.
pub fn tap(data: Body, plan: Plan, account: &Arc<dyn Account>) -> Result<(Body, BoxFuture<'static, Result<Digests>>)> {
    let state = Box::new(Tap::new(&plan, data.remaining(), account)?);
    let held = Charge::bytes(account, plan.prefix.len() as u64).map_err(|exceeded| exceeded.error())?;
    let (sender, receiver) = oneshot::channel();
    let running = Running { state, prefix: Some((plan.prefix, held)), sender };
    let digests = async move {
        let found = receiver.await.unwrap_or_else(|_| {
            Err(Error::new(tidelock_types::ErrorKind::Cancelled, "the stream was dropped before its digest was known"))
        });
        found.map(|Found { digests, held }| {
            drop(held);
            digests
        })
    };
    Ok((data.through(Tapping { running: Some(running), work: None }), Box::pin(digests)))
}

/// A tap as a stage of a body, so that taps which lie in each other do not take stack.
struct Tapping {
    /// `None` while it works, and after the end.
    running: Option<Running>,
    work: Option<BoxFuture<'static, (Option<Running>, Passing)>>,
}

struct Running {
    state: Box<Tap>,
    /// What is digested before the first bytes.
    prefix: Option<(Bytes, Charge)>,
    sender: oneshot::Sender<Result<Found>>,
}

impl Stage for Tapping {
    fn take(&mut self, passing: Passing) {
        self.work = Some(match self.running.take() {
            Some(running) => Box::pin(running.pass(passing)),
            None => Box::pin(std::future::ready((None, passing))),
        });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Passing> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let (running, passing) = ready!(work.as_mut().poll(cx));
        (self.running, self.work) = (running, None);
        Poll::Ready(passing)
    }
}

impl Running {
    /// Digests what passes.
    async fn pass(mut self, passing: Passing) -> (Option<Self>, Passing) {
        let digested = async {
            let chunk = passing.transpose()?;
            if let Some((prefix, _held)) = self.prefix.take() {
                self.state.update(prefix).await?;
            }
            if let Some(chunk) = &chunk {
                self.state.pass(chunk.clone()).await?;
            }
            Ok(chunk)
        };
        let failed = match digested.await {
            Ok(Some(chunk)) => return (Some(self), Some(Ok(chunk))),
            Ok(None) => match self.state.finish().await {
                Ok(found) => {
                    let _ = self.sender.send(Ok(found));
                    return (None, None);
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        (None, Some(Err(told(self.sender, failed))))
    }
}

/// Digests that are not taken yet, which are held for the operation.
struct Found {
    digests: Digests,
    held: Option<Charge>,
}

/// Sends the result to the other end of a tap.
fn told(other: oneshot::Sender<Result<Found>>, error: Error) -> Error {
    let _ = other.send(Err(error.duplicate()));
    error
}

enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    fn finish_into(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Sha256(hasher) => out.extend_from_slice(&hasher.finalize_reset()),
            Self::Sha512(hasher) => out.extend_from_slice(&hasher.finalize_reset()),
            Self::Blake3(hasher) => {
                out.extend_from_slice(hasher.finalize().as_bytes());
                hasher.reset();
            }
        }
    }
}

/// The digests of a stream so far.
struct Tap {
    whole: Option<Hasher>,
    pieces: Option<Pieces>,
    size: u64,
}

impl Tap {
    fn new(plan: &Plan, size: Option<u64>, account: &Arc<dyn Account>) -> Result<Self> {
        let total = size.unwrap_or(0).saturating_add(plan.prefix.len() as u64);
        let pieces = plan.piece_size.map(|piece| Pieces::new(plan.algorithm, piece, total, account)).transpose()?;
        Ok(Self { whole: plan.whole.then(|| Hasher::new(plan.algorithm)), pieces, size: 0 })
    }

    async fn update(&mut self, bytes: Bytes) -> Result<()> {
        if let Some(whole) = &mut self.whole {
            whole.update(&bytes);
        }
        match &mut self.pieces {
            Some(pieces) => pieces.update(bytes).await,
            None => Ok(()),
        }
    }

    /// Takes the stream's next bytes.
    async fn pass(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        self.update(bytes).await
    }

    async fn finish(self) -> Result<Found> {
        let mut whole = Vec::new();
        if let Some(mut hasher) = self.whole {
            hasher.finish_into(&mut whole);
        }
        let (pieces, held) = match self.pieces {
            Some(pieces) => pieces.finish().await.map(|(pieces, held)| (pieces, Some(held)))?,
            None => (Vec::new(), None),
        };
        Ok(Found { digests: Digests { size: self.size, whole, pieces }, held })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use tidelock_types::{ErrorKind, Unlimited};

    fn tap(data: Body, plan: Plan) -> Result<(Body, BoxFuture<'static, Result<Digests>>)> {
        let account: Arc<dyn Account> = Arc::new(Unlimited::default());
        super::tap(data, plan, &account)
    }

    fn plan(algorithm: Algorithm, piece_size: Option<u64>, prefix: &'static str) -> Plan {
        Plan { algorithm, whole: true, piece_size, prefix: Bytes::from_static(prefix.as_bytes()) }
    }

    /// FIPS 180-4's example "abc", and test cases 2 and 6 of RFC 4231.
    #[test]
    fn known_values() {
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let mac = hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&mac), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[tokio::test]
    async fn failures_reach_the_digest() {
        let chunks = [Ok(Bytes::from_static(b"abc")), Err(Error::corrupt("bad disk"))];
        let (body, digests) =
            tap(Body::new(futures::stream::iter(chunks), None), plan(Algorithm::Blake3, None, "")).unwrap();
        assert!(body.collect(100).await.is_err());
        assert_eq!(digests.await.unwrap_err().to_string(), "bad disk");

        let (body, digests) = tap(Body::from_bytes("abc"), plan(Algorithm::Sha256, None, "")).unwrap();
        drop(body);
        assert_eq!(*digests.await.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn pieces_are_bounded() {
        assert!(tap(Body::from_bytes("abc"), plan(Algorithm::Sha256, Some(0), "")).is_err());
        let endless = |size| Body::new(futures::stream::repeat_with(|| Ok(Bytes::from(vec![0; 1 << 20]))), size);
        assert!(tap(endless(Some(1 << 40)), plan(Algorithm::Sha256, Some(1), "")).is_err());
        let (mut body, digests) = tap(endless(None), plan(Algorithm::Sha256, Some(1), "")).unwrap();
        let mut passed = 0u64;
        while let Some(Ok(chunk)) = body.next().await {
            passed += chunk.len() as u64;
        }
        assert!(passed <= (MAX_PIECE_BYTES / 32) as u64);
        assert_eq!(*digests.await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    /// However many taps lie in each other, they take no stack: neither when they are polled nor when they are dropped.
    #[test]
    fn taps_in_taps_take_no_stack() {
        let on_a_small_stack = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (taps, piece) in [(tidelock_types::limits::TAPS, Some(4096)), (5000, None)] {
                let tapped = || {
                    let chunks = (0..5).map(|_| Ok(Bytes::from(vec![1; 10_000])));
                    let body = Body::new(futures::stream::iter(chunks), Some(50_000));
                    (0..taps).fold((body, Vec::new()), |(body, mut all), _| {
                        let (body, digests) = tap(body, plan(Algorithm::Blake3, piece, "")).unwrap();
                        all.push(digests);
                        (body, all)
                    })
                };
                let (body, digests) = tapped();
                assert_eq!(runtime.block_on(body.collect(50_000)).unwrap().len(), 50_000);
                let expected = blake3::hash(&vec![1; 50_000]);
                for digests in digests {
                    assert_eq!(runtime.block_on(digests).unwrap().whole, expected.as_bytes());
                }
                drop(tapped());
            }
        };
        let small = std::thread::Builder::new().stack_size(256 << 10).spawn(on_a_small_stack);
        small.unwrap().join().unwrap();
    }

    /// Pieces within a task, as large as one, and larger; several tasks, and a rest.
    #[tokio::test]
    async fn many_pieces_of_much() {
        let data: Bytes = (0..5u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        for size in [300_000usize, 1 << 20, (1 << 20) + 1, 2 << 20, 6 << 20] {
            let chunks: Vec<_> = data.chunks(77_777).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let body = Body::new(futures::stream::iter(chunks), Some(data.len() as u64));
            let (body, digests) = tap(body, plan(Algorithm::Blake3, Some(size as u64), "abc")).unwrap();
            assert_eq!(body.collect(data.len()).await.unwrap(), data);
            let all = [b"abc", &data[..]].concat();
            let expected: Vec<u8> = all.chunks(size).flat_map(|piece| *blake3::hash(piece).as_bytes()).collect();
            assert!(digests.await.unwrap().pieces == expected, "pieces of {size}");
        }
    }

    proptest! {
        /// However the stream is split into chunks, pieces and whole are those of prefix and stream together.
        #[test]
        fn pieces_and_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            piece in 1u64..50,
            whole: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let data = chunks.concat();
            let body = Body::new(futures::stream::iter(chunks.into_iter().map(|c| Ok(c.into()))), None);
            let (body, digests) = tap(body, Plan { whole, ..plan(Algorithm::Sha512, Some(piece), "prefix") }).unwrap();
            let passed = runtime.block_on(body.collect(1000)).unwrap();
            prop_assert_eq!(&passed[..], &data[..]);
            let digests = runtime.block_on(digests).unwrap();
            let all = [b"prefix".as_slice(), &data].concat();
            prop_assert_eq!(digests.size, data.len() as u64);
            let expected = if whole { sha2::Sha512::digest(&all).to_vec() } else { Vec::new() };
            prop_assert_eq!(digests.whole, expected);
            let pieces: Vec<u8> = all.chunks(piece as usize).flat_map(|p| sha2::Sha512::digest(p).to_vec()).collect();
            prop_assert_eq!(digests.pieces, pieces);
        }
    }
}
