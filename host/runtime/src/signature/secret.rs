//! Secret keys, for signing. A host that only runs adapters never has one.
//!
//! Never printed: only [`SecretKey::to_text`] returns it, for its file, and that text is wiped when it is
//! dropped, like the key itself.

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::{Signature, message};
use crate::digest::ComponentDigest;
use tidelock_types::{Error, PublicKey, Result};

/// The prefix of a secret key's text.
const PREFIX: &str = "ed25519-secret:";

/// A signing key. Wiped from memory when it is dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new one, from the operating system's random bytes.
    ///
    /// # Errors
    /// `unavailable` if there are none.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|error| Error::unavailable(format!("cannot get random bytes for a key: {error}")))?;
        Ok(Self::from_seed(&seed))
    }

    /// From the 32 bytes that RFC 8032 calls the private key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads the text of [`Self::to_text`]: the first line that is neither empty nor a comment.
    ///
    /// # Errors
    /// `invalid`, without any of the content.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let digits = lines.next().and_then(|line| line.strip_prefix(PREFIX));
        let mut seed = Zeroizing::new([0_u8; 32]);
        // Decoded in place of a vector that would be left behind in memory.
        let mut decoded = Zeroizing::new([0_u8; 33]);
        let read = digits.filter(|digits| digits.len() == 44).and_then(|digits| {
            BASE64.decode_mut(digits.as_bytes(), decoded.as_mut_slice()).ok().filter(|read| *read == seed.len())
        });
        if read.is_none() || lines.next().is_some() {
            return Err(Error::invalid("the file does not contain exactly one secret key")
                .hint("create one with `tidelock adapter keygen FILE`"));
        }
        seed.copy_from_slice(&decoded[..32]);
        Ok(Self::from_seed(&seed))
    }

    /// The text that a file keeps: `ed25519-secret:` and 32 bytes in base64.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(PREFIX);
        BASE64.encode_append(self.0.as_bytes(), &mut text);
        text
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_signing(&self.0)
    }

    /// Signs the component with this digest.
    pub fn sign(&self, component: ComponentDigest) -> Signature {
        Signature::new(self.public(), self.0.sign(&message(component)).to_bytes())
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey(*** of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_printed() {
        let key = SecretKey::generate().unwrap();
        let text = key.to_text();
        let file = format!("# a key\n\n{}\n", text.as_str());
        assert_eq!(SecretKey::from_text(&file).unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains(&text[PREFIX.len()..]));
    }

    #[test]
    fn an_invalid_key_is_not_in_its_error() {
        let text = SecretKey::generate().unwrap().to_text();
        let twice = format!("{0}\n{0}\n", text.as_str());
        for wrong in ["", "# nothing", "hush", "ed25519-secret:hush", &text[..text.len() - 1], &twice] {
            let error = SecretKey::from_text(wrong).unwrap_err();
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
        // A seed of 33 bytes.
        let long = format!("{PREFIX}{}", BASE64.encode(&[7; 33]));
        assert!(SecretKey::from_text(&long).is_err());
    }
}
