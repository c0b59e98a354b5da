//! The keys of a host, and what is derived from them.
//!
//! A key is 32 random bytes. BLAKE3 derives from it, each with a context of its own, the number that objects name it by, and
//! what the keys of objects and of labels are made from together with a salt.

use zeroize::{Zeroize as _, Zeroizing};

use super::format::{Header, KEY_ID, ObjectKey, SALT};
use crate::types::{Error, Result};

const FOR_NUMBER: &str = "tidelock 2026-11-28 sealed objects: the number of a key";
const FOR_OBJECTS: &str = "tidelock 2026-11-28 sealed objects: keys of objects";
const FOR_LABELS: &str = "tidelock 2026-11-28 sealed objects: keys of labels";

/// A key that objects are sealed with. Neither printed nor compared; cleared when it is dropped.
pub struct EncryptionKey {
    id: [u8; KEY_ID],
    objects: Zeroizing<[u8; 32]>,
    labels: Zeroizing<[u8; 32]>,
}

impl EncryptionKey {
    /// Reads a key: 64 hexadecimal digits, and white space around them.
    ///
    /// # Errors
    /// `invalid` for anything else. The message holds nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.trim().as_bytes();
        let mut key = Zeroizing::new([0; 32]);
        if data_encoding::HEXLOWER_PERMISSIVE.decode_len(digits.len()) != Ok(key.len())
            || data_encoding::HEXLOWER_PERMISSIVE.decode_mut(digits, &mut *key).is_err()
        {
            return Err(Error::invalid("an encryption key must have 64 hexadecimal digits")
                .hint("make one with `openssl rand -hex 32`"));
        }
        Ok(Self::new(&key))
    }

    fn new(key: &[u8; 32]) -> Self {
        let mut number = blake3::derive_key(FOR_NUMBER, key);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&number[..KEY_ID]);
        number.zeroize();
        Self {
            id,
            objects: Zeroizing::new(blake3::derive_key(FOR_OBJECTS, key)),
            labels: Zeroizing::new(blake3::derive_key(FOR_LABELS, key)),
        }
    }

    /// The number that objects name it by, as 16 hexadecimal digits. Says nothing of the key.
    pub fn id(&self) -> String {
        shown(&self.id)
    }
}

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptionKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

fn shown(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

/// The keys of a host: the one that new objects are sealed with, and earlier ones.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<EncryptionKey>,
}

impl Keyring {
    /// The keys; new objects are sealed with the first.
    pub fn new(keys: Vec<EncryptionKey>) -> Self {
        Self { keys }
    }

    /// The key that new objects are sealed with.
    pub fn first(&self) -> Option<&EncryptionKey> {
        self.keys.first()
    }

    /// The header of a new object. A salt must never have been used before.
    pub(super) fn header(&self, salt: [u8; SALT]) -> Result<Header> {
        let key = self.first().ok_or_else(|| Error::invalid("there is no encryption key"))?;
        Ok(Header { key: key.id, salt })
    }

    /// The key of an object.
    ///
    /// # Errors
    /// `denied`, with [`Error::missing_key`], if the key is not here that it names.
    pub(super) fn object_key(&self, header: &Header) -> Result<ObjectKey> {
        self.derived(header, |key| &key.objects)
    }

    /// The key of the labels of an object.
    ///
    /// # Errors
    /// As [`Self::object_key`].
    pub(super) fn label_key(&self, header: &Header) -> Result<ObjectKey> {
        self.derived(header, |key| &key.labels)
    }

    fn derived(&self, header: &Header, of: impl Fn(&EncryptionKey) -> &Zeroizing<[u8; 32]>) -> Result<ObjectKey> {
        let Some(key) = self.keys.iter().find(|key| key.id == header.key) else {
            return Err(Error::without_key(shown(&header.key)));
        };
        let derived = Zeroizing::new(*blake3::keyed_hash(of(key), &header.salt).as_bytes());
        ObjectKey::new(&derived)
    }
}
