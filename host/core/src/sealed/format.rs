//! The bytes of a sealed object; `docs/formats.md` has the same to the byte.
//!
//! A header of 64 bytes, then chunks of 64 KiB, the last one shorter, each with a tag of 16 bytes behind it. Every object has
//! a key of its own, derived from a key of the host and a random salt in the header, so that numbers of chunks serve as
//! nonces. The last chunk has another nonce than one in the middle, so that an object that was cut is known.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::types::{Error, Result};

/// What a sealed object begins with.
pub(super) const MAGIC: &[u8; 8] = b"TLSEAL1\n";
/// The bytes of a header.
pub(super) const HEADER: u64 = 64;
/// The bytes of the number of a key.
pub(super) const KEY_ID: usize = 8;
/// The bytes of a salt.
pub(super) const SALT: usize = 32;
/// The bytes of the checksum at the end of a header: the beginning of the BLAKE3 hash of what is before it.
const CHECKSUM: usize = 16;
/// The bytes of a chunk before it is sealed.
pub(super) const CHUNK: u64 = 64 << 10;
/// The bytes of a tag.
pub(super) const TAG: u64 = 16;
/// The bytes of a chunk that is sealed.
pub(super) const SEALED_CHUNK: u64 = CHUNK + TAG;

/// The header of a sealed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Which key of a host it is sealed with.
    pub(super) key: [u8; KEY_ID],
    pub(super) salt: [u8; SALT],
}

impl Header {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.salt);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM]);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// `corrupt` if it is none, or was changed.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::corrupt("the header of a sealed object is damaged");
        let bytes: &[u8; HEADER as usize] = bytes.try_into().map_err(|_| wrong())?;
        let (fields, checksum) = bytes.split_at(HEADER as usize - CHECKSUM);
        let (magic, fields_after) = fields.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (key, salt) = fields_after.split_first_chunk::<KEY_ID>().ok_or_else(wrong)?;
        if magic != MAGIC || checksum != &blake3::hash(fields).as_bytes()[..CHECKSUM] {
            return Err(wrong());
        }
        Ok(Self { key: *key, salt: salt.try_into().map_err(|_| wrong())? })
    }
}

/// The key of one object.
pub(super) struct ObjectKey(LessSafeKey);

impl ObjectKey {
    pub(super) fn new(bytes: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| Error::other("a key cannot be set up"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals a chunk in place, and puts its tag behind it. No two chunks of an object may have the same number.
    pub(super) fn seal(&self, number: u64, last: bool, chunk: &mut Vec<u8>, from: usize) -> Result<()> {
        let plain = chunk.get_mut(from..).unwrap_or_default();
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(number, last), Aad::empty(), plain)
            .map_err(|_| Error::other("a chunk cannot be sealed"))?;
        chunk.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens a chunk in place. `None` if it is not what was sealed under this number.
    pub(super) fn open<'a>(&self, number: u64, last: bool, chunk: &'a mut [u8]) -> Option<&'a [u8]> {
        self.0.open_in_place(nonce(number, last), Aad::empty(), chunk).ok().map(|plain| &*plain)
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[NONCE_LEN - 1] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// The bytes of a sealed object of `size` bytes. An empty one has a chunk too.
pub(super) fn sealed_size(size: u64) -> u64 {
    let tags = size.div_ceil(CHUNK).max(1).saturating_mul(TAG);
    size.saturating_add(tags).saturating_add(HEADER)
}

/// The bytes that are sealed in an object of `size` bytes; `None` if no sealed object has so many.
pub(super) fn opened_size(size: u64) -> Option<u64> {
    let chunks = size.checked_sub(HEADER)?;
    let opened = chunks.checked_sub(chunks.div_ceil(SEALED_CHUNK).max(1) * TAG)?;
    (sealed_size(opened) == size).then_some(opened)
}
