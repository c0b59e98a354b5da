//! CIDs: the names of blocks, which say what a block's bytes have to hash to.
//!
//! Taken are those in which files and our own lineage come: version 0 (`Qm…`), and version 1 in base32 (`b…`) or
//! base58 (`z…`), of the codecs raw, dag-pb and dag-cbor, hashed with SHA-256, or holding the block itself (`identity`,
//! at most 128 bytes, as Kubo has it). A text is taken in one form only, so that equal names are equal texts.

use std::fmt;

use crate::{Parsed, Sha256, varint};

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bytes as they are.
    Raw,
    /// A node of a file or a directory.
    DagPb,
    /// A node of ours.
    DagCbor,
}

impl Codec {
    fn of(code: u64) -> Parsed<Self> {
        match code {
            0x55 => Ok(Self::Raw),
            0x70 => Ok(Self::DagPb),
            0x71 => Ok(Self::DagCbor),
            _ => Err("its codec is none of raw, dag-pb and dag-cbor"),
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
            Self::DagCbor => 0x71,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Digest {
    Sha256([u8; 32]),
    Identity(Box<[u8]>),
}

/// SHA-256 among multihashes.
const SHA256: u64 = 0x12;
/// The block itself among multihashes.
const IDENTITY: u64 = 0x00;
/// The largest block that is its own name.
const MAX_IDENTITY: usize = 128;

/// SHA-256 of no bytes (FIPS 180-4).
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The name of a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cid {
    zero: bool,
    codec: Codec,
    digest: Digest,
}

impl Cid {
    /// The name of a block with this SHA-256, in version 1.
    pub fn of_digest(codec: Codec, sha256: [u8; 32]) -> Self {
        Self { zero: false, codec, digest: Digest::Sha256(sha256) }
    }

    /// The name of a block, in version 1.
    pub fn of_block(codec: Codec, block: &[u8], sha256: Sha256) -> Self {
        Self::of_digest(codec, sha256(block))
    }

    /// What the block is.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether a block has this name.
    pub fn names(&self, block: &[u8], sha256: Sha256) -> bool {
        match &self.digest {
            Digest::Sha256(expected) => sha256(block) == *expected,
            Digest::Identity(expected) => **expected == *block,
        }
    }

    /// The block, if it follows from the name. That of nothing does too, and has to: Kubo gives it to no peer reliably.
    pub fn holds(&self) -> Option<&[u8]> {
        match &self.digest {
            Digest::Sha256(digest) => (*digest == OF_NOTHING).then_some(&[]),
            Digest::Identity(block) => Some(block),
        }
    }

    /// Reads a name as people write it.
    pub fn parse(text: &str) -> Parsed<Self> {
        // Longer than any that holds 128 bytes.
        if text.len() > 300 {
            return Err("it is too long");
        }
        let bytes = match text.as_bytes() {
            [b'Q', b'm', ..] => {
                let bytes = base58_decode(text.as_bytes())?;
                if bytes.len() != 34 || !bytes.starts_with(&[0x12, 0x20]) {
                    return Err("it is not a CID");
                }
                bytes
            }
            [b'b', rest @ ..] => versioned(base32_decode(rest)?)?,
            [b'z', rest @ ..] => versioned(base58_decode(rest)?)?,
            _ => return Err("it is not a CID in base32 (`b…`) or base58 (`z…`, `Qm…`)"),
        };
        let mut left = &bytes[..];
        let cid = Self::take(&mut left)?;
        if left.is_empty() { Ok(cid) } else { Err("there is something behind the CID") }
    }

    /// Takes a name from the front of `bytes`.
    pub fn take(bytes: &mut &[u8]) -> Parsed<Self> {
        if let [0x12, 0x20, rest @ ..] = *bytes {
            let (digest, rest) = rest.split_first_chunk().ok_or("it ends within a CID")?;
            *bytes = rest;
            return Ok(Self { zero: true, codec: Codec::DagPb, digest: Digest::Sha256(*digest) });
        }
        if varint::take(bytes)? != 1 {
            return Err("the version of a CID is neither 0 nor 1");
        }
        let codec = Codec::of(varint::take(bytes)?)?;
        let hash = varint::take(bytes)?;
        let digest = varint::take_slice(bytes)?;
        let digest = match hash {
            SHA256 => Digest::Sha256(digest.try_into().map_err(|_| "a SHA-256 has 32 bytes")?),
            IDENTITY if digest.len() <= MAX_IDENTITY => Digest::Identity(digest.into()),
            IDENTITY => return Err("a CID holds more than 128 bytes"),
            _ => return Err("its hash is not SHA-256"),
        };
        Ok(Self { zero: false, codec, digest })
    }

    /// Reads a name that is all there is.
    pub fn of_bytes(mut bytes: &[u8]) -> Parsed<Self> {
        let cid = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(cid) } else { Err("there is something behind a CID") }
    }

    /// The bytes of the name.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36);
        if !self.zero {
            varint::put(1, &mut out);
            varint::put(self.codec.code(), &mut out);
        }
        let (hash, digest): (_, &[u8]) = match &self.digest {
            Digest::Sha256(digest) => (SHA256, digest),
            Digest::Identity(block) => (IDENTITY, block),
        };
        varint::put(hash, &mut out);
        varint::put(digest.len() as u64, &mut out);
        out.extend_from_slice(digest);
        out
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        if self.zero { f.write_str(&base58_encode(&bytes)) } else { write!(f, "b{}", base32_encode(&bytes)) }
    }
}

/// What a multibase prefix stands before. A version 0 may not stand there.
fn versioned(bytes: Vec<u8>) -> Parsed<Vec<u8>> {
    if bytes.starts_with(&[0x12, 0x20]) { Err("a CID of version 0 has no prefix") } else { Ok(bytes) }
}

/// RFC 4648 §6, in lower case, without padding.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bitcoin's.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

fn base32_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0u32, 0);
    let mut push = |five: u32| out.push(char::from(BASE32[(five & 31) as usize]));
    for &byte in bytes {
        (held, bits) = (held << 8 | u32::from(byte), bits + 8);
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    out
}

fn base32_decode(text: &[u8]) -> Parsed<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for &c in text {
        let five = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return Err("a character of it is not of base32"),
        };
        (held, bits) = (held << 5 | u32::from(five), bits + 5);
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // A whole last character, or bits in it that mean nothing, would be a second form of the same name.
    if bits >= 5 || held != 0 { Err("it is not whole base32") } else { Ok(out) }
}

fn base58_encode(bytes: &[u8]) -> String {
    let mut digits: Vec<u8> = Vec::new();
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).map(|_| 0);
    let digits = zeros.chain(digits.iter().rev().copied());
    digits.map(|digit| char::from(BASE58[usize::from(digit)])).collect()
}

fn base58_decode(text: &[u8]) -> Parsed<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    for c in text {
        let digit = BASE58.iter().position(|known| known == c).ok_or("a character of it is not of base58")?;
        // A place in an alphabet of 58.
        let mut carry = digit as u32;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push(carry as u8);
            carry >>= 8;
        }
    }
    bytes.extend(text.iter().take_while(|&&c| c == b'1').map(|_| 0));
    bytes.reverse();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::sha256;

    /// The empty raw block, the empty directory, and "hello world\n" as a file of version 0, as Kubo prints them.
    const EMPTY: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    const DIRECTORY: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    const HELLO: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    #[test]
    fn names_that_others_gave() {
        let empty = Cid::parse(EMPTY).unwrap();
        assert_eq!((empty.codec(), empty.to_string().as_str()), (Codec::Raw, EMPTY));
        assert_eq!(empty, Cid::of_block(Codec::Raw, b"", sha256));
        assert!(empty.names(b"", sha256) && !empty.names(b"x", sha256));
        assert_eq!((OF_NOTHING, empty.holds()), (sha256(b""), Some(&b""[..])));
        let directory = Cid::parse(DIRECTORY).unwrap();
        assert_eq!(directory, Cid::of_block(Codec::DagPb, b"\x0a\x02\x08\x01", sha256));
        let hello = Cid::parse(HELLO).unwrap();
        assert_eq!((hello.codec(), hello.to_string().as_str()), (Codec::DagPb, HELLO));
        assert!(hello.names(b"\x0a\x12\x08\x02\x12\x0chello world\n\x18\x0c", sha256));
        // Nothing at all, held by its name: what gateways are tried with.
        let nothing = Cid::parse("bafkqaaa").unwrap();
        assert_eq!((nothing.holds(), nothing.to_string().as_str()), (Some(&b""[..]), "bafkqaaa"));
        assert!(nothing.names(b"", sha256) && !nothing.names(b"x", sha256));
    }

    #[test]
    fn what_is_not_a_name() {
        for bad in [
            "",
            "b",
            "z",
            "Q",
            "Qm",
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5",
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5oo",
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff50",
            "../etc/passwd",
            "snap-0",
            "bafk",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/",
            "BAFKREIHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykua",
            "zQmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
        ] {
            assert!(Cid::parse(bad).is_err(), "{bad}");
        }
    }

    fn any_cid() -> impl Strategy<Value = Cid> {
        let codec = prop::sample::select(vec![Codec::Raw, Codec::DagPb, Codec::DagCbor]);
        let digest = prop_oneof![
            any::<[u8; 32]>().prop_map(Digest::Sha256),
            prop::collection::vec(any::<u8>(), 0..=MAX_IDENTITY).prop_map(|block| Digest::Identity(block.into())),
        ];
        let one = (codec, digest).prop_map(|(codec, digest)| Cid { zero: false, codec, digest });
        let zero = any::<[u8; 32]>().prop_map(|d| Cid { zero: true, codec: Codec::DagPb, digest: Digest::Sha256(d) });
        prop_oneof![one, zero]
    }

    proptest! {
        #[test]
        fn as_text_and_as_bytes_and_back(cid in any_cid(), rest: Vec<u8>) {
            prop_assert_eq!(&Cid::parse(&cid.to_string()).unwrap(), &cid);
            let bytes = [cid.to_bytes(), rest.clone()].concat();
            let mut left = &bytes[..];
            prop_assert_eq!(&Cid::take(&mut left).unwrap(), &cid);
            prop_assert_eq!(left, &rest[..]);
            let in_base58 = format!("z{}", base58_encode(&cid.to_bytes()));
            prop_assert_eq!(Cid::parse(&in_base58).is_ok(), !cid.zero);
        }

        #[test]
        fn any_text_is_borne(text in "\\PC{0,80}") {
            let _ = Cid::parse(&text);
        }

        /// What is taken has one form: nothing else means the same name.
        #[test]
        fn a_name_has_one_form(prefix in "[bz]", text in "[a-z2-7]{1,70}") {
            let text = prefix.clone() + &text;
            if let Ok(cid) = Cid::parse(&text) && prefix == "b" {
                prop_assert_eq!(cid.to_string(), text);
            }
        }

        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            let mut left = &bytes[..];
            if let Ok(cid) = Cid::take(&mut left) {
                prop_assert_eq!(&cid.to_bytes()[..], &bytes[..bytes.len() - left.len()]);
            }
            let _ = base58_decode(&bytes);
            let _ = base32_decode(&bytes);
        }
    }
}
