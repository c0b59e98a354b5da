//! Detached signatures: the signed message, and the text of a signature.
//!
//! The signed message is not the component but its SHA-256 after a fixed prefix, so that no other program's message can
//! be mistaken for one, and so that a signer needs 32 bytes rather than the component. `docs/formats.md` has the
//! format.
//!
//! The text of a signature names its key. That lends it no trust, it only finds the key that is to be tried: a set of
//! signatures costs one check each, however many keys are trusted.

mod secret;

pub use secret::SecretKey;

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use crate::digest::ComponentDigest;
use tidelock_types::{Error, PublicKey, Result};

/// The prefix of the digest: 31 characters and a zero byte.
const DOMAIN: &[u8; 32] = b"tidelock component signature v1\0";

/// The most bytes that a file of signatures may have.
pub const MAX_SIGNATURE_BYTES: u64 = 16 << 10;

/// The maximum number of signatures of a component: each costs time, even from an untrusted key.
pub const MAX_SIGNATURES: usize = 32;

/// A signature of a component, and the key that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key.
    pub key: PublicKey,
    bytes: [u8; 64],
}

impl Signature {
    fn new(key: PublicKey, bytes: [u8; 64]) -> Self {
        Self { key, bytes }
    }

    /// Returns whether its key has signed the component with this digest.
    pub fn verifies(&self, component: ComponentDigest) -> bool {
        self.key.verifies(&message(component), &self.bytes)
    }
}

/// Returns the message that is signed for a component: 64 bytes.
fn message(component: ComponentDigest) -> [u8; 64] {
    let mut message = [0; 64];
    let (domain, digest) = message.split_at_mut(DOMAIN.len());
    domain.copy_from_slice(DOMAIN);
    digest.copy_from_slice(component.as_bytes());
    message
}

/// `ed25519:KEY:SIGNATURE`, both in base64.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, BASE64.encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid("not a signature").hint("write ed25519:KEY:SIGNATURE, as `tidelock adapter sign` does");
        let (key, signature) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bytes = BASE64.decode(signature.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self { key: key.parse().map_err(|_| wrong())?, bytes: bytes.ok_or_else(wrong)? })
    }
}

/// Parses the signatures of a file: one per line; empty lines and lines that begin with `#` are ignored. Duplicates
/// count once.
///
/// # Errors
/// `invalid`, naming the line; for more than [`MAX_SIGNATURES`]; for more than [`MAX_SIGNATURE_BYTES`].
pub fn parse_signatures(file: &[u8]) -> Result<Vec<Signature>> {
    if file.len() as u64 > MAX_SIGNATURE_BYTES {
        return Err(Error::invalid(format!("it has more than {MAX_SIGNATURE_BYTES} bytes")));
    }
    let text = std::str::from_utf8(file).map_err(|_| Error::invalid("it is not valid UTF-8"))?;
    let mut signatures = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let signature: Signature = line.parse().map_err(|error: Error| {
            let named = Error::invalid(format!("line {number}: {}", error.message()));
            named.hint(error.advice().unwrap_or_default())
        })?;
        if !signatures.contains(&signature) {
            signatures.push(signature);
        }
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(Error::invalid(format!("it has more than {MAX_SIGNATURES} signatures")));
    }
    Ok(signatures)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signature::SecretKey;

    /// To be checked with any other implementation: the secret key is 32 bytes of 1, the component is empty.
    #[test]
    fn the_documented_example() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats.md")).unwrap();
        let key = SecretKey::from_seed(&[1; 32]);
        let signature = key.sign(ComponentDigest::of(b""));
        assert!(signature.verifies(ComponentDigest::of(b"")) && !signature.verifies(ComponentDigest::of(b"x")));
        assert!(text.contains(&key.public().to_string()), "{}", key.public());
        assert!(text.contains(&signature.to_string()), "{signature}");
    }

    #[test]
    fn a_file_has_a_signature_on_a_line() {
        let [a, b] = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]).sign(ComponentDigest::of(b"x")));
        let parse = |text: String| parse_signatures(text.as_bytes());
        assert_eq!(parse(format!("# one\r\n\n  {a} \r\n{b}\n{a}")).unwrap(), [a.clone(), b]);
        assert_eq!(parse(String::new()).unwrap(), []);
        let error = parse(format!("{a}\n#\n{a} {a}\n")).unwrap_err();
        assert!(error.to_string().contains("line 3") && error.advice().is_some(), "{error}");
        assert!(parse_signatures(&[0xff]).is_err());
        let many: String = (0..40_u8)
            .map(|n| format!("{}\n", SecretKey::from_seed(&[n; 32]).sign(ComponentDigest::of(b""))))
            .collect();
        assert!(parse(many).unwrap_err().to_string().contains("more than 32"));
    }

    proptest! {
        #[test]
        fn a_printed_signature_can_be_parsed(seed: [u8; 32], component: Vec<u8>) {
            let signature = SecretKey::from_seed(&seed).sign(ComponentDigest::of(&component));
            prop_assert_eq!(&signature.to_string().parse::<Signature>().unwrap(), &signature);
            prop_assert!(signature.verifies(ComponentDigest::of(&component)));
        }

        #[test]
        fn no_bytes_make_the_reader_fall(file: Vec<u8>) {
            let _ = parse_signatures(&file);
        }

        /// Parsed signatures round-trip through their text.
        #[test]
        fn texts_close_to_signatures_are_read_or_refused(text in "(#[a-z]*\n|ed25519:[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{86}==\n|[ -~]{0,40}\n){0,6}") {
            if let Ok(signatures) = parse_signatures(text.as_bytes()) {
                let printed: String = signatures.iter().map(|one| format!("{one}\n")).collect();
                prop_assert_eq!(parse_signatures(printed.as_bytes()).unwrap(), signatures);
            }
        }
    }
}
