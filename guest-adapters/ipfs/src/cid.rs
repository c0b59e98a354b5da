//! CIDs: the hash of a block, and the codec of its contents.
//!
//! Accepts what files and the nodes of this adapter use: version 0 (`Qm…`), and version 1 in base32 (`b…`) or base58
//! (`z…`), with the codecs raw, dag-pb and dag-cbor, and a SHA-256 or the block itself (`identity`, at most 128 bytes, as
//! in Kubo). Bytes and texts have one form in each base, so equal texts are equal CIDs. ADR 18 says why the crate `cid`
//! is used in tests alone.

use std::fmt;

use data_encoding::BASE32_NOPAD;

use crate::{Parsed, Sha256, varint};

/// The format of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Plain bytes.
    Raw,
    /// A node of a file or a directory.
    DagPb,
    /// A node of this adapter: see `lineage.rs`.
    DagCbor,
}

impl Codec {
    fn of(code: u64) -> Parsed<Self> {
        match code {
            0x55 => Ok(Self::Raw),
            0x70 => Ok(Self::DagPb),
            0x71 => Ok(Self::DagCbor),
            _ => Err("its codec is not raw, dag-pb or dag-cbor"),
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

/// The hash of a block, or the block itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Multihash {
    Sha256([u8; 32]),
    Identity(Box<[u8]>),
}

/// The multihash code of SHA-256.
const SHA256: u64 = 0x12;
/// The multihash code of a block that is stored in its CID.
const IDENTITY: u64 = 0x00;
/// The largest block that a CID can hold.
const MAX_IDENTITY: usize = 128;

/// SHA-256 of no bytes (FIPS 180-4).
const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The content identifier of a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cid {
    v0: bool,
    codec: Codec,
    hash: Multihash,
}

impl Cid {
    /// Returns the CID, of version 1, of a block with this SHA-256.
    pub fn of_digest(codec: Codec, sha256: [u8; 32]) -> Self {
        Self { v0: false, codec, hash: Multihash::Sha256(sha256) }
    }

    /// Returns the CID, of version 1, of a block.
    pub fn of_block(codec: Codec, block: &[u8], sha256: Sha256) -> Self {
        Self::of_digest(codec, sha256(block))
    }

    /// Returns the format of the block.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns whether this is the CID of `block`.
    pub fn matches(&self, block: &[u8], sha256: Sha256) -> bool {
        match &self.hash {
            Multihash::Sha256(expected) => sha256(block) == *expected,
            Multihash::Identity(expected) => **expected == *block,
        }
    }

    /// Returns the block, if the CID determines it. This includes the empty block: Kubo does not reliably send it to peers.
    pub fn inline_block(&self) -> Option<&[u8]> {
        match &self.hash {
            Multihash::Sha256(digest) => (*digest == EMPTY_SHA256).then_some(&[]),
            Multihash::Identity(block) => Some(block),
        }
    }

    /// Parses a CID from text.
    pub fn parse(text: &str) -> Parsed<Self> {
        // A CID that holds 128 bytes is shorter.
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
        let cid = Self::read(&mut left)?;
        if left.is_empty() { Ok(cid) } else { Err("there are bytes after the CID") }
    }

    /// Reads a CID from the front of `bytes`.
    pub fn read(bytes: &mut &[u8]) -> Parsed<Self> {
        if let [0x12, 0x20, rest @ ..] = *bytes {
            let (digest, rest) = rest.split_first_chunk().ok_or("it ends inside a CID")?;
            *bytes = rest;
            return Ok(Self { v0: true, codec: Codec::DagPb, hash: Multihash::Sha256(*digest) });
        }
        if varint::read(bytes)? != 1 {
            return Err("the version of a CID is neither 0 nor 1");
        }
        let codec = Codec::of(varint::read(bytes)?)?;
        let code = varint::read(bytes)?;
        let digest = varint::read_slice(bytes)?;
        let hash = match code {
            SHA256 => Multihash::Sha256(digest.try_into().map_err(|_| "a SHA-256 has 32 bytes")?),
            IDENTITY if digest.len() <= MAX_IDENTITY => Multihash::Identity(digest.into()),
            IDENTITY => return Err("a CID holds more than 128 bytes"),
            _ => return Err("its hash is not SHA-256"),
        };
        Ok(Self { v0: false, codec, hash })
    }

    /// Parses bytes that are one CID and nothing else.
    pub fn of_bytes(mut bytes: &[u8]) -> Parsed<Self> {
        let cid = Self::read(&mut bytes)?;
        if bytes.is_empty() { Ok(cid) } else { Err("there are bytes after a CID") }
    }

    /// Returns the binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36);
        if !self.v0 {
            varint::write(1, &mut out);
            varint::write(self.codec.code(), &mut out);
        }
        let (code, digest): (_, &[u8]) = match &self.hash {
            Multihash::Sha256(digest) => (SHA256, digest),
            Multihash::Identity(block) => (IDENTITY, block),
        };
        varint::write(code, &mut out);
        varint::write(digest.len() as u64, &mut out);
        out.extend_from_slice(digest);
        out
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        if self.v0 { f.write_str(&bs58::encode(&bytes).into_string()) } else { write!(f, "b{}", base32_encode(&bytes)) }
    }
}

/// Fails with an error for a CID of version 0, which has no multibase prefix.
fn versioned(bytes: Vec<u8>) -> Parsed<Vec<u8>> {
    if bytes.starts_with(&[0x12, 0x20]) { Err("a CID of version 0 has no prefix") } else { Ok(bytes) }
}

/// Encodes base32 (RFC 4648 §6) in lower case, without padding.
fn base32_encode(bytes: &[u8]) -> String {
    let mut text = BASE32_NOPAD.encode(bytes);
    text.make_ascii_lowercase();
    text
}

/// Decodes the form that `base32_encode` writes, and no other.
fn base32_decode(text: &[u8]) -> Parsed<Vec<u8>> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Err("it has a character that is not base32");
    }
    // Superfluous characters, and unused bits that are not 0, are errors: they would be a second form of the same CID.
    BASE32_NOPAD.decode(&text.to_ascii_uppercase()).map_err(|_| "it is not base32")
}

/// Decodes base58 in Bitcoin's alphabet.
fn base58_decode(text: &[u8]) -> Parsed<Vec<u8>> {
    bs58::decode(text).into_vec().map_err(|_| "it has a character that is not base58")
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
    fn cids_printed_by_kubo() {
        let empty = Cid::parse(EMPTY).unwrap();
        assert_eq!((empty.codec(), empty.to_string().as_str()), (Codec::Raw, EMPTY));
        assert_eq!(empty, Cid::of_block(Codec::Raw, b"", sha256));
        assert!(empty.matches(b"", sha256) && !empty.matches(b"x", sha256));
        assert_eq!((EMPTY_SHA256, empty.inline_block()), (sha256(b""), Some(&b""[..])));
        let directory = Cid::parse(DIRECTORY).unwrap();
        assert_eq!(directory, Cid::of_block(Codec::DagPb, b"\x0a\x02\x08\x01", sha256));
        let hello = Cid::parse(HELLO).unwrap();
        assert_eq!((hello.codec(), hello.to_string().as_str()), (Codec::DagPb, HELLO));
        assert!(hello.matches(b"\x0a\x12\x08\x02\x12\x0chello world\n\x18\x0c", sha256));
        // The empty block as an identity CID, with which gateways are probed.
        let nothing = Cid::parse("bafkqaaa").unwrap();
        assert_eq!((nothing.inline_block(), nothing.to_string().as_str()), (Some(&b""[..]), "bafkqaaa"));
        assert!(nothing.matches(b"", sha256) && !nothing.matches(b"x", sha256));
    }

    #[test]
    fn malformed_cids_are_refused() {
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
        let hash = prop_oneof![
            any::<[u8; 32]>().prop_map(Multihash::Sha256),
            prop::collection::vec(any::<u8>(), 0..=MAX_IDENTITY).prop_map(|block| Multihash::Identity(block.into())),
        ];
        let v1 = (codec, hash).prop_map(|(codec, hash)| Cid { v0: false, codec, hash });
        let v0 = any::<[u8; 32]>().prop_map(|d| Cid { v0: true, codec: Codec::DagPb, hash: Multihash::Sha256(d) });
        prop_oneof![v1, v0]
    }

    proptest! {
        #[test]
        fn as_text_and_as_bytes_and_back(cid in any_cid(), rest: Vec<u8>) {
            prop_assert_eq!(&Cid::parse(&cid.to_string()).unwrap(), &cid);
            let bytes = [cid.to_bytes(), rest.clone()].concat();
            let mut left = &bytes[..];
            prop_assert_eq!(&Cid::read(&mut left).unwrap(), &cid);
            prop_assert_eq!(left, &rest[..]);
            let in_base58 = format!("z{}", bs58::encode(cid.to_bytes()).into_string());
            prop_assert_eq!(Cid::parse(&in_base58).is_ok(), !cid.v0);
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
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let mut left = &bytes[..];
            if let Ok(cid) = Cid::read(&mut left) {
                prop_assert_eq!(&cid.to_bytes()[..], &bytes[..bytes.len() - left.len()]);
            }
            let _ = base58_decode(&bytes);
            let _ = base32_decode(&bytes);
        }
    }
}
