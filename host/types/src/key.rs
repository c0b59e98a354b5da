//! Public keys, with which an operator selects trusted components.
//!
//! A key is Ed25519's (RFC 8032). Its text is `ed25519:` and the 32 bytes in base64 with padding (RFC 4648, section 4):
//! one text for a key, fit for a configuration, a command line and an HTTP header.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ed25519_dalek::VerifyingKey;

use super::{Error, Result};

/// The prefix of a key's text.
const PREFIX: &str = "ed25519:";

/// A public key that can verify: a point of the curve that is not one of the few of small order, under which one
/// signature would fit every message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// `invalid` if they are not a key, or a weak one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if key.is_weak() => Err(Error::invalid("it is a weak key")),
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(Error::invalid("it is not an Ed25519 key")),
        }
    }

    /// The public half of a key that signs.
    pub fn from_signing(key: &ed25519_dalek::SigningKey) -> Self {
        Self(key.verifying_key())
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Returns whether `signature` is valid for `message`, by the strict rules (no point of small order, `s` reduced): a
    /// signature that passes here passes in every implementation, and cannot be modified into another valid one.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", BASE64.encode(self.as_bytes())))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "write \"ed25519:\" and 44 characters, as `tidelock adapter keygen` prints it";
        let bytes = text.strip_prefix(PREFIX).and_then(|digits| BASE64.decode(digits.as_bytes()).ok());
        match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(bytes) => Self::from_bytes(&bytes).map_err(|error| error.hint(hint)),
            // The text may be a secret key: do not repeat it.
            None => Err(Error::invalid("not a public key").hint(hint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1: the empty message.
    const KEY: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1,
        0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn signature() -> [u8; 64] {
        data_encoding::HEXLOWER.decode(SIGNATURE.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_standard_s_own_vector_passes_and_nothing_near_it() {
        let key = PublicKey::from_bytes(&KEY).unwrap();
        assert!(key.verifies(b"", &signature()));
        assert!(!key.verifies(b"x", &signature()));
        for at in [0, 31, 32, 63] {
            let mut other = signature();
            other[at] ^= 1;
            assert!(!key.verifies(b"", &other), "byte {at}");
        }
        // The same signature with the group's order added to `s`: lax verifiers take it for another valid one.
        let order = data_encoding::HEXLOWER
            .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .unwrap();
        let mut lax = signature();
        let mut carry = 0_u16;
        for (byte, add) in lax[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(!key.verifies(b"", &lax));
    }

    #[test]
    fn a_key_has_one_text() {
        let key = PublicKey::from_bytes(&KEY).unwrap();
        let text = key.to_string();
        assert_eq!(text, "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(text.parse::<PublicKey>().unwrap(), key);
        for wrong in ["", "ed25519:", &text[8..], text.trim_end_matches('='), &text.replace("Ro=", "Rp=")] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn weak_keys_are_refused_and_texts_are_not_repeated() {
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one] {
            assert!(PublicKey::from_bytes(&weak).unwrap_err().to_string().contains("weak"), "{weak:?}");
        }
        let error = "ed25519-secret:hush".parse::<PublicKey>().unwrap_err();
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}
