//! CARs: blocks one after the other, each with its CID before it.
//!
//! ```text
//! varint ‖ header    the header: DAG-CBOR { "roots": [link, …], "version": 1 }
//! varint ‖ CID ‖ block, and so on
//! ```
//!
//! Lengths are bounded before memory is allocated for them. Each block is checked against its CID; which blocks are
//! needed is decided elsewhere, so the roots in the header are not used.
//!
//! The format: <https://ipld.io/specs/transport/car/carv1/>.

use tidelock_sdk::{Body, Error};

use crate::cid::Cid;
use crate::{MAX_BLOCK, Parsed, Sha256, cbor, varint};

/// The largest header: it has one root or none.
const MAX_HEADER: u64 = 4096;
/// The largest CID before a block.
const MAX_CID: u64 = 256;

/// Checks the header.
pub fn check_header(mut header: &[u8]) -> Parsed<()> {
    const OTHER: &str = "it is not a CAR of version 1";
    let entries = cbor::map(&mut header).map_err(|_| OTHER)?;
    let mut version = None;
    for _ in 0..entries {
        match cbor::text(&mut header)? {
            "roots" => {
                for _ in 0..cbor::list(&mut header)? {
                    cbor::link_bytes(&mut header)?;
                }
            }
            "version" => version = Some(cbor::number(&mut header)?),
            _ => return Err(OTHER),
        }
    }
    if version == Some(1) && header.is_empty() { Ok(()) } else { Err(OTHER) }
}

/// Splits a frame into CID and block. Fails if the block does not match the CID.
pub fn check_frame(mut frame: Vec<u8>, sha256: Sha256) -> Parsed<(Cid, Vec<u8>)> {
    let mut left = &frame[..];
    let cid = Cid::read(&mut left)?;
    if !cid.matches(left, sha256) {
        return Err("a block does not match its CID");
    }
    let start = frame.len() - left.len();
    frame.drain(..start);
    Ok((cid, frame))
}

/// A reader of a CAR.
#[derive(Debug)]
pub struct Car {
    bytes: Bytes,
    sha256: Sha256,
    begun: bool,
}

impl Car {
    /// Starts to read a CAR.
    pub fn new(body: Body, sha256: Sha256) -> Self {
        Self { bytes: Bytes { body: Some(body), held: Vec::new(), at: 0 }, sha256, begun: false }
    }

    /// Returns the next block, checked against its CID; `None` at the end. Fails with `corrupt` if this is not a CAR or a
    /// block does not match its CID, and with `unavailable` if the CAR is cut short.
    pub async fn next(&mut self) -> Result<Option<(Cid, Vec<u8>)>, Error> {
        if !self.begun {
            let header = self.bytes.frame(MAX_HEADER).await?.ok_or_else(|| Error::unavailable("the CAR is empty"))?;
            check_header(&header).map_err(bad)?;
            self.begun = true;
        }
        let Some(frame) = self.bytes.frame(MAX_BLOCK as u64 + MAX_CID).await? else { return Ok(None) };
        check_frame(frame, self.sha256).map(Some).map_err(bad)
    }
}

fn bad(why: &str) -> Error {
    Error::corrupt(["the CAR is damaged: ", why].concat())
}

/// The bytes of a reply, read in the amounts that are needed.
#[derive(Debug)]
struct Bytes {
    /// `None` once it has ended well.
    body: Option<Body>,
    held: Vec<u8>,
    at: usize,
}

impl Bytes {
    /// Returns received bytes that are not consumed yet; none only at the end.
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

    /// Returns the next varint-prefixed frame, of at most `most` bytes; `None` at the end.
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
        let length = varint::read(&mut &length[..]).map_err(bad)?;
        if length > most {
            return Err(bad(&["it has a frame of ", &length.to_string(), " bytes"].concat()));
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
    fn headers() -> [Vec<u8>; 2] {
        let mut with = vec![0xa2, 0x65];
        with.extend(b"roots\x81");
        cbor::write_link(&Cid::of_block(Codec::Raw, b"", sha256), &mut with);
        with.extend(b"\x67version\x01");
        [with, b"\xa2\x65roots\x80\x67version\x01".to_vec()]
    }

    #[test]
    fn headers_of_version_1_are_accepted() {
        for header in headers() {
            check_header(&header).unwrap();
            assert!(check_header(&header[..header.len() - 1]).is_err());
            assert!(check_header(&[&header[..header.len() - 1], &[2]].concat()).is_err(), "version 2");
        }
        assert!(check_header(b"\xa1\x67version\x02").is_err());
        assert!(check_header(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(check_header(b"").is_err());
    }

    #[test]
    fn a_block_has_to_match_its_cid() {
        let cid = Cid::of_block(Codec::Raw, b"block", sha256);
        let frame = [cid.to_bytes(), b"block".to_vec()].concat();
        assert_eq!(check_frame(frame.clone(), sha256), Ok((cid, b"block".to_vec())));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The hash does not cover the codec.
            assert!(check_frame(bad, sha256).is_err() || bit / 8 == 1, "bit {bit}");
        }
        assert!(check_frame(frame[..frame.len() - 1].to_vec(), sha256).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let _ = check_header(&bytes);
            let _ = check_frame(bytes, sha256);
        }
    }
}
