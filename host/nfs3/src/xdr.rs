//! The encoding of NFS (XDR, RFC 4506): big-endian words, and bytes with their length, filled up to words.
//!
//! A [`Decoder`] reads one record in memory. It takes slices of it and never allocates for a claimed length, so the cost
//! of a reply depends on the bytes received.

use bytes::{Buf, Bytes};

use tidelock_types::{Error, Result};

/// Writes values one behind the other.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Bytes with their length: names, handles.
    pub(super) fn opaque(self, bytes: &[u8]) -> Self {
        // Names and handles are short; data does not go this way.
        let mut this = self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        this.0.extend(bytes);
        this.0.resize(this.0.len() + padding(bytes.len()), 0);
        this
    }
}

/// The zero bytes that fill `len` bytes up to words.
pub(super) fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Reads values in order. Every method fails with `unavailable` if the record is too short.
#[derive(Debug, Clone)]
pub(super) struct Decoder(Bytes);

impl Decoder {
    pub(super) fn new(record: Bytes) -> Self {
        Self(record)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().map_err(|_| malformed())
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.0.try_get_u64().map_err(|_| malformed())
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed()),
        }
    }

    /// Bytes with their length, if there are at most `most`. Shares the record's memory: what is kept goes through
    /// [`tidelock_types::owned_if_sparse`].
    pub(super) fn opaque(&mut self, most: usize) -> Result<Bytes> {
        let len = self.u32()? as usize;
        if len > most {
            return Err(malformed());
        }
        let bytes = self.take(len)?;
        self.take(padding(len))?;
        Ok(bytes)
    }

    /// The bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    /// Ends a result. What follows it would be kept with every slice of the record.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed()) }
    }

    /// Takes `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes> {
        if len > self.0.len() {
            return Err(malformed());
        }
        Ok(self.0.split_to(len))
    }
}

/// Returns the error of a malformed reply.
pub(super) fn malformed() -> Error {
    Error::unavailable("the NFS server sent a malformed reply").hint("check that the port belongs to an NFSv3 server")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Encoder::default().u32(7).opaque(b"abcde").u64(1 << 40).opaque(b"").u32(1).0;
        assert_eq!(bytes.len(), 4 + 4 + 8 + 8 + 4 + 4);
        let mut decoder = Decoder::new(bytes.into());
        assert_eq!(decoder.u32().unwrap(), 7);
        assert_eq!(decoder.opaque(5).unwrap(), "abcde");
        assert_eq!(decoder.u64().unwrap(), 1 << 40);
        assert_eq!(decoder.opaque(5).unwrap(), "");
        assert!(decoder.flag().unwrap());
        assert!(decoder.u32().is_err());
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        for record in [&[0xff; 4][..], &[0, 0, 0, 9, 1, 2], &[0, 0, 0, 1, 1], &[0, 0]] {
            assert!(Decoder::new(Bytes::copy_from_slice(record)).opaque(usize::MAX).is_err(), "{record:?}");
        }
        assert!(Decoder::new(Bytes::from_static(&[0, 0, 0, 2, 1, 2, 0, 0])).opaque(1).is_err());
    }

    proptest! {
        #[test]
        fn any_record_is_read_or_refused(record: Vec<u8>) {
            let mut decoder = Decoder::new(record.into());
            let _ = decoder.flag();
            let _ = decoder.opaque(64);
            let _ = decoder.u64();
            let _ = decoder.take(1);
        }
    }
}
