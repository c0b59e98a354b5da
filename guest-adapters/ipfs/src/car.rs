//! CARs: blocks one after the other, each with its name before it.
//!
//! ```text
//! varint ‖ head      the head: DAG-CBOR { "roots": [link, …], "version": 1 }
//! varint ‖ CID ‖ block, and so on
//! ```
//!
//! A length is a claim: it is bounded before room is made for what it announces. Which blocks there have to be is not
//! decided here, only that each has its name; so it does not matter what the head says of roots.
//!
//! The format: <https://ipld.io/specs/transport/car/carv1/>.

use tidelock_sdk::{Body, Error};

use crate::cid::Cid;
use crate::{MAX_BLOCK, Parsed, Sha256, cbor, varint};

/// The largest head: its roots are one or none.
const MAX_HEAD: u64 = 4096;
/// The largest CID before a block.
const MAX_CID: u64 = 256;

/// Checks the head.
pub fn check_head(mut head: &[u8]) -> Parsed<()> {
    const OTHER: &str = "it is not a CAR of version 1";
    let entries = cbor::map(&mut head).map_err(|_| OTHER)?;
    let mut version = None;
    for _ in 0..entries {
        match cbor::text(&mut head)? {
            "roots" => {
                for _ in 0..cbor::list(&mut head)? {
                    cbor::link_bytes(&mut head)?;
                }
            }
            "version" => version = Some(cbor::number(&mut head)?),
            _ => return Err(OTHER),
        }
    }
    if version == Some(1) && head.is_empty() { Ok(()) } else { Err(OTHER) }
}

/// Divides a frame into name and block, and checks that they belong together.
pub fn check_frame(mut frame: Vec<u8>, sha256: Sha256) -> Parsed<(Cid, Vec<u8>)> {
    let mut left = &frame[..];
    let cid = Cid::take(&mut left)?;
    if !cid.names(left, sha256) {
        return Err("a block is not what its name says");
    }
    let start = frame.len() - left.len();
    frame.drain(..start);
    Ok((cid, frame))
}

/// A CAR that is being read.
#[derive(Debug)]
pub struct Car {
    bytes: Bytes,
    sha256: Sha256,
    begun: bool,
}

impl Car {
    /// A CAR that nothing has been read of.
    pub fn new(body: Body, sha256: Sha256) -> Self {
        Self { bytes: Bytes { body: Some(body), held: Vec::new(), at: 0 }, sha256, begun: false }
    }

    /// The next block, which has its name; `None` at the end. `corrupt` for what is no CAR, or a block that is not what its
    /// name says; `unavailable` if it breaks off.
    pub async fn next(&mut self) -> Result<Option<(Cid, Vec<u8>)>, Error> {
        if !self.begun {
            let head = self.bytes.frame(MAX_HEAD).await?.ok_or_else(|| Error::unavailable("the CAR is empty"))?;
            check_head(&head).map_err(bad)?;
            self.begun = true;
        }
        let Some(frame) = self.bytes.frame(MAX_BLOCK as u64 + MAX_CID).await? else { return Ok(None) };
        check_frame(frame, self.sha256).map(Some).map_err(bad)
    }
}

fn bad(why: &str) -> Error {
    Error::corrupt(["the CAR that came is damaged: ", why].concat())
}

/// The bytes of a reply, taken in the amounts that are needed.
#[derive(Debug)]
struct Bytes {
    /// `None` once its end has been seen, and was a good one.
    body: Option<Body>,
    held: Vec<u8>,
    at: usize,
}

impl Bytes {
    /// What has come and not been taken; nothing only at the end.
    async fn some(&mut self) -> Result<&[u8], Error> {
        if self.at == self.held.len() {
            (self.held, self.at) = (Vec::new(), 0);
            if let Some(mut body) = self.body.take() {
                match body.next().await {
                    Some(bytes) => (self.held, self.body) = (bytes, Some(body)),
                    None => body.finish().await?,
                }
            }
        }
        Ok(self.held.get(self.at..).unwrap_or_default())
    }

    /// What a varint announces, if it is at most `most` bytes; `None` at the end.
    async fn frame(&mut self, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let mut length = Vec::with_capacity(varint::MAX_BYTES);
        loop {
            match self.some().await?.first() {
                Some(byte) => length.push(*byte),
                None if length.is_empty() => return Ok(None),
                None => return Err(cut()),
            }
            self.at += 1;
            if length.last().is_some_and(|byte| byte & 0x80 == 0) || length.len() == varint::MAX_BYTES {
                break;
            }
        }
        let length = varint::take(&mut &length[..]).map_err(bad)?;
        if length > most {
            return Err(bad(&["it announces a block of ", &length.to_string(), " bytes"].concat()));
        }
        // Bounded above.
        let length = length as usize;
        let mut frame = Vec::with_capacity(length);
        while frame.len() < length {
            let some = self.some().await?;
            if some.is_empty() {
                return Err(cut());
            }
            let taken = some.len().min(length - frame.len());
            frame.extend_from_slice(some.get(..taken).unwrap_or_default());
            self.at += taken;
        }
        Ok(Some(frame))
    }
}

fn cut() -> Error {
    Error::unavailable("the CAR ended in the middle of a block")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cid::Codec;
    use crate::testing::sha256;

    /// `{"roots": [empty raw block], "version": 1}`, and the same without roots.
    fn heads() -> [Vec<u8>; 2] {
        let mut with = vec![0xa2, 0x65];
        with.extend(b"roots\x81");
        cbor::put_link(&Cid::of_block(Codec::Raw, b"", sha256), &mut with);
        with.extend(b"\x67version\x01");
        [with, b"\xa2\x65roots\x80\x67version\x01".to_vec()]
    }

    #[test]
    fn heads_of_version_1_are_taken() {
        for head in heads() {
            check_head(&head).unwrap();
            assert!(check_head(&head[..head.len() - 1]).is_err());
            assert!(check_head(&[&head[..head.len() - 1], &[2]].concat()).is_err(), "version 2");
        }
        assert!(check_head(b"\xa1\x67version\x02").is_err());
        assert!(check_head(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(check_head(b"").is_err());
    }

    #[test]
    fn a_block_has_to_have_its_name() {
        let cid = Cid::of_block(Codec::Raw, b"block", sha256);
        let frame = [cid.to_bytes(), b"block".to_vec()].concat();
        assert_eq!(check_frame(frame.clone(), sha256), Ok((cid, b"block".to_vec())));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Only the codec is no part of the hash; a name that differs in it is another one.
            assert!(check_frame(bad, sha256).is_err() || bit / 8 == 1, "bit {bit}");
        }
        assert!(check_frame(frame[..frame.len() - 1].to_vec(), sha256).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_borne(bytes: Vec<u8>) {
            let _ = check_head(&bytes);
            let _ = check_frame(bytes, sha256);
        }
    }
}
