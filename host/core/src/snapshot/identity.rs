//! From bytes to a `SnapshotId`: the top of the tree.
//!
//! The root is BLAKE3 in its key derivation mode over the length and the segment digests, so that a root can never be
//! mistaken for the digest of a file, and the length is part of the identity. The list of segment digests is kept in
//! the catalogue (16 bytes per MiB): with it, any segment can be verified alone, and an update only hashes
//! changed segments. Formats and test vectors: `docs/formats.md`.

use std::fmt;

use super::segment::{SEGMENT, SegmentDigest, SegmentHasher, segment_digest};
use crate::types::{Error, Result, SnapshotId};

/// The context string of the root. It names the format; another layout of the tree gets another string.
const ROOT_CONTEXT: &str = "tidelock 2026-11 snapshot root v1";

/// The digests of a snapshot's segments, in order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SegmentDigests(Vec<SegmentDigest>);

impl SegmentDigests {
    /// From digests in order.
    pub fn new(digests: Vec<SegmentDigest>) -> Self {
        Self(digests)
    }

    /// Creates a list from the bytes of [`Self::to_bytes`].
    ///
    /// # Errors
    /// `corrupt` if the number of bytes is not a multiple of 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (digests, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Error::corrupt(format!(
                "a list of segment digests has {} bytes, not a multiple of 32",
                bytes.len()
            )));
        }
        Ok(Self(digests.to_vec()))
    }

    /// The digests one after the other, 32 bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.as_flattened().to_vec()
    }

    /// The digests.
    pub fn as_slice(&self) -> &[SegmentDigest] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none, as for a snapshot of no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of the snapshot of `len` bytes that has these segments.
    ///
    /// # Errors
    /// `invalid` if a snapshot of that size has another number of segments.
    pub fn root(&self, len: u64) -> Result<SnapshotId> {
        if self.0.len() as u64 != len.div_ceil(SEGMENT as u64) {
            return Err(Error::invalid(format!("{} segment digests for a snapshot of {len} bytes", self.0.len())));
        }
        Ok(root_of(len, &self.0))
    }
}

fn root_of(len: u64, digests: &[SegmentDigest]) -> SnapshotId {
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
    hasher.update(&len.to_le_bytes());
    hasher.update(digests.as_flattened());
    SnapshotId::from_bytes(*hasher.finalize().as_bytes())
}

impl fmt::Debug for SegmentDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentDigests({})", self.0.len())
    }
}

/// The identity of a snapshot: id, length and segment digests, which always match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    id: SnapshotId,
    len: u64,
    segments: SegmentDigests,
}

impl Identity {
    /// From a length and digests that were computed here.
    ///
    /// # Errors
    /// `invalid` if a snapshot of that size has another number of segments.
    pub fn new(len: u64, segments: SegmentDigests) -> Result<Self> {
        Ok(Self { id: segments.root(len)?, len, segments })
    }

    /// Creates an identity from stored parts, which must match the id.
    ///
    /// # Errors
    /// `corrupt` if they do not.
    pub fn from_parts(id: SnapshotId, len: u64, segments: SegmentDigests) -> Result<Self> {
        match Self::new(len, segments) {
            Ok(identity) if identity.id == id => Ok(identity),
            _ => Err(Error::corrupt(format!("the recorded length and segment digests do not match {id}"))
                .hint("retrieve the whole snapshot, which can still be verified: the catalogue is damaged")),
        }
    }

    /// The id.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The number of logical bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The digests of the segments.
    pub fn segments(&self) -> &SegmentDigests {
        &self.segments
    }

    /// Gives up the digests.
    pub fn into_segments(self) -> SegmentDigests {
        self.segments
    }

    /// The bytes of segment `number`: [`SEGMENT`], or fewer for the last.
    pub(super) fn segment_len(&self, number: u64) -> u64 {
        self.len.saturating_sub(number.saturating_mul(SEGMENT as u64)).min(SEGMENT as u64)
    }
}

/// Computes an identity from bytes that come in chunks of any size. Needs no memory beyond the digests.
#[derive(Default)]
pub struct Identifier {
    done: Vec<SegmentDigest>,
    current: SegmentHasher,
    len: u64,
}

impl Identifier {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.current.len() == 0 && bytes.len() >= SEGMENT {
                let (segment, rest) = bytes.split_at(SEGMENT);
                self.done.push(segment_digest(segment));
                bytes = rest;
                continue;
            }
            let (some, rest) = bytes.split_at(bytes.len().min(SEGMENT - self.current.len()));
            self.current.update(some);
            bytes = rest;
            if self.current.len() == SEGMENT {
                self.done.push(std::mem::take(&mut self.current).finish());
            }
        }
    }

    /// The identity of all bytes taken.
    pub fn finish(mut self) -> Identity {
        if self.current.len() > 0 {
            self.done.push(self.current.finish());
        }
        identity_of(self.len, self.done)
    }
}

/// For digests that were counted along with the length, so that the two fit by construction.
pub(super) fn identity_of(len: u64, digests: Vec<SegmentDigest>) -> Identity {
    debug_assert_eq!(digests.len() as u64, len.div_ceil(SEGMENT as u64));
    Identity { id: root_of(len, &digests), len, segments: SegmentDigests(digests) }
}

#[cfg(test)]
mod tests;
