//! Digests at native speed, of values and of bytes on their way.
//!
//! [`tap`] lets a body pass unchanged and digests it meanwhile, so that an adapter gets the SHA-256 of a gigabyte without
//! one byte of it in its own memory. Pieces (BitTorrent-like bags, parts of an upload) are digested along with the whole
//! in the same pass.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use hmac::{KeyInit, Mac};
use sha2::Digest as _;
use tokio::sync::oneshot;

use crate::types::{Body, Error, Result};

/// The most bytes that the digests of all pieces together may take: 64 MiB, which is 2,097,152 SHA-256 digests (256 GiB in
/// pieces of 128 KiB).
pub const MOST_PIECE_BYTES: usize = 64 << 20;

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

/// What to compute of a passing stream.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the whole and of each piece.
    pub algorithm: Algorithm,
    /// Also a digest of each piece of this many bytes (the last may be shorter).
    pub piece_size: Option<u64>,
    /// Bytes that are digested before the stream's own, and count for pieces; they are not passed on.
    pub prefix: Bytes,
}

/// What came of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The bytes that passed, without the prefix.
    pub size: u64,
    /// Of prefix and stream together.
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
    // A key of the block's own length cannot be refused; a longer one is hashed first and a shorter one padded, as
    // the RFC says, so that there is no failure to handle.
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
/// [`MOST_PIECE_BYTES`]. A body of unknown size that exceeds them ends in the same error.
pub fn tap(data: Body, plan: Plan) -> Result<(Body, BoxFuture<'static, Result<Digests>>)> {
    let size = data.remaining();
    let state = Tap::new(&plan, size)?;
    let (sender, receiver) = oneshot::channel();
    let passing = futures::stream::unfold(Some((data, state, sender)), |running| async move {
        let (mut data, mut state, sender) = running?;
        match data.next().await {
            Some(Ok(chunk)) => match state.update(&chunk) {
                Ok(()) => {
                    state.size += chunk.len() as u64;
                    Some((Ok(chunk), Some((data, state, sender))))
                }
                Err(error) => {
                    let _ = sender.send(Err(error.duplicate()));
                    Some((Err(error), None))
                }
            },
            Some(Err(error)) => {
                let _ = sender.send(Err(error.duplicate()));
                Some((Err(error), None))
            }
            None => {
                let _ = sender.send(Ok(state.finish()));
                None
            }
        }
    });
    let digests = async move {
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(crate::types::ErrorKind::Cancelled, "the stream was dropped before its digest was known"))
        })
    };
    Ok((Body::new(passing, size), Box::pin(digests)))
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

struct Pieces {
    hasher: Hasher,
    size: u64,
    filled: u64,
    digests: Vec<u8>,
    digest_len: usize,
}

struct Tap {
    whole: Hasher,
    pieces: Option<Pieces>,
    size: u64,
}

impl Tap {
    fn new(plan: &Plan, size: Option<u64>) -> Result<Self> {
        let digest_len = plan.algorithm.digest_len();
        let pieces = match plan.piece_size {
            None => None,
            Some(0) => return Err(Error::invalid("a piece size of 0")),
            Some(piece) => {
                let total = size.unwrap_or(0).saturating_add(plan.prefix.len() as u64);
                if total.div_ceil(piece).saturating_mul(digest_len as u64) > MOST_PIECE_BYTES as u64 {
                    return Err(too_many_pieces());
                }
                let hasher = Hasher::new(plan.algorithm);
                Some(Pieces { hasher, size: piece, filled: 0, digests: Vec::new(), digest_len })
            }
        };
        let mut tap = Self { whole: Hasher::new(plan.algorithm), pieces, size: 0 };
        tap.update(&plan.prefix)?;
        Ok(tap)
    }

    fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.whole.update(bytes);
        match &mut self.pieces {
            Some(pieces) => pieces.update(bytes),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Digests {
        let mut whole = Vec::new();
        self.whole.finish_into(&mut whole);
        let pieces = self.pieces.map(Pieces::finish).unwrap_or_default();
        Digests { size: self.size, whole, pieces }
    }
}

impl Pieces {
    fn update(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.size - self.filled).unwrap_or(usize::MAX);
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(head);
            self.filled += head.len() as u64;
            if self.filled == self.size {
                if self.digests.len() + self.digest_len > MOST_PIECE_BYTES {
                    return Err(too_many_pieces());
                }
                self.hasher.finish_into(&mut self.digests);
                self.filled = 0;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.hasher.finish_into(&mut self.digests);
        }
        self.digests
    }
}

fn too_many_pieces() -> Error {
    Error::invalid("the digests of so many pieces exceed 64 MiB").hint("choose a larger piece size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ErrorKind;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn plan(algorithm: Algorithm, piece_size: Option<u64>, prefix: &'static str) -> Plan {
        Plan { algorithm, piece_size, prefix: Bytes::from_static(prefix.as_bytes()) }
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
        assert!(passed <= (MOST_PIECE_BYTES / 32) as u64);
        assert_eq!(*digests.await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    proptest! {
        /// However the stream is cut into chunks, pieces and whole are those of prefix and stream together.
        #[test]
        fn pieces_and_whole(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8), piece in 1u64..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let data = chunks.concat();
            let body = Body::new(futures::stream::iter(chunks.into_iter().map(|c| Ok(c.into()))), None);
            let (body, digests) = tap(body, plan(Algorithm::Sha512, Some(piece), "prefix")).unwrap();
            let passed = runtime.block_on(body.collect(1000)).unwrap();
            prop_assert_eq!(&passed[..], &data[..]);
            let digests = runtime.block_on(digests).unwrap();
            let all = [b"prefix".as_slice(), &data].concat();
            prop_assert_eq!(digests.size, data.len() as u64);
            prop_assert_eq!(digests.whole, sha2::Sha512::digest(&all).to_vec());
            let pieces: Vec<u8> = all.chunks(piece as usize).flat_map(|p| sha2::Sha512::digest(p).to_vec()).collect();
            prop_assert_eq!(digests.pieces, pieces);
        }
    }
}
