//! Names: `SnapshotId` identifies bytes, `ObjectId` an object of a backend.
//!
//! The text of a `SnapshotId` is `tl1` and 52 characters of RFC 4648 base32 in lower case without padding: 256 bits,
//! followed by four zero bits that are checked, so that every id has exactly one text. How the 256 bits come about is
//! in `snapshot/identity.rs` and, to the byte, in `docs/formats.md`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

/// Lower-case RFC 4648 base32 without padding; trailing bits are checked.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The alphabet above is a constant and valid; the fallback cannot be reached.
    spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

const PREFIX: &str = "tl1";
const DIGITS: usize = 52;

/// The identity of a snapshot: equal ids mean equal bytes, whatever tier, backend, encoding or delta chain holds them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^tl1[a-z2-7]{52}$")]
pub struct SnapshotId([u8; 32]);

impl SnapshotId {
    /// The number of characters of the printed form.
    pub const TEXT_LEN: usize = PREFIX.len() + DIGITS;

    /// From the 32 bytes of the root digest.
    pub const fn from_bytes(root: [u8; 32]) -> Self {
        Self(root)
    }

    /// The 32 bytes of the root digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", BASE32.encode(&self.0)))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of an object in the encoding `pages`: a digest of its metadata, which has the digests of its frames. Equal
/// ids mean equal bytes. How it comes about is in `docs/formats.md`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId([u8; 32]);

impl PackId {
    /// From the 32 bytes of the digest.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a `SnapshotId`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a snapshot id: {reason}")]
pub struct InvalidId {
    text: String,
    reason: &'static str,
}

impl FromStr for SnapshotId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fail = |reason| {
            // A pasted novel should not be printed back whole.
            let shown = text.chars().take(80).collect::<String>().escape_debug().to_string();
            Err(InvalidId { text: shown, reason })
        };
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return fail("must begin with `tl1`");
        };
        if digits.len() != DIGITS {
            return fail("must have 52 characters after `tl1`");
        }
        match BASE32.decode(digits.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(root) => Ok(Self(root)),
            None => fail("has a character outside a-z and 2-7, or an invalid last character"),
        }
    }
}

impl From<InvalidId> for super::Error {
    fn from(error: InvalidId) -> Self {
        super::Error::invalid(error.to_string()).hint("run `tidelock ls` to list the snapshots")
    }
}

impl serde::Serialize for SnapshotId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The backend's own name for an object. At most 1024 bytes of UTF-8 without control characters, and not empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 1024)]
pub struct ObjectId(String);

impl ObjectId {
    /// The maximum length of an object id in bytes: that of an S3 key.
    pub const MAX_LEN: usize = 1024;

    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// `invalid` if it is empty, longer than [`Self::MAX_LEN`] or holds a control character.
    pub fn new(name: impl Into<String>) -> super::Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::MAX_LEN || name.chars().any(char::is_control) {
            return Err(super::Error::invalid(format!(
                "an object id must have 1 to {} bytes and no control characters; this one has {} bytes",
                Self::MAX_LEN,
                name.len()
            )));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bytes_are_one_to_one(root: [u8; 32]) {
            let id = SnapshotId::from_bytes(root);
            let text = id.to_string();
            prop_assert_eq!(text.len(), SnapshotId::TEXT_LEN);
            prop_assert_eq!(text.parse::<SnapshotId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_refused_or_prints_as_itself(text in "(tl1)?[a-z2-7]{51,53}|.*") {
            if let Ok(id) = text.parse::<SnapshotId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn object_ids_are_checked() {
        assert!(ObjectId::new("").is_err());
        assert!(ObjectId::new("a\nb").is_err());
        assert!(ObjectId::new("a".repeat(1025)).is_err());
        assert_eq!(ObjectId::new("ab/cd/x").unwrap().as_str(), "ab/cd/x");
    }
}
