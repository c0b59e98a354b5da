//! Numbers of seven bits a byte, the lowest first: multiformats' and protobuf's varints.
//!
//! Only the shortest form is taken: every number then has one form, and so has every CID.

use crate::Parsed;

/// The most bytes of a number of 64 bits.
pub const MAX_BYTES: usize = 10;

/// Takes a number from the front of `bytes`.
pub fn take(bytes: &mut &[u8]) -> Parsed<u64> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(MAX_BYTES) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if at == MAX_BYTES - 1 && bits > 1 {
            return Err("a number exceeds 64 bits");
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err("a number is longer than it needs to be");
            }
            *bytes = bytes.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if bytes.len() < MAX_BYTES { "it ends within a number" } else { "a number exceeds 64 bits" })
}

/// Takes a length and so many bytes.
pub fn take_slice<'a>(bytes: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let length = usize::try_from(take(bytes)?).map_err(|_| "a length exceeds what is there")?;
    let (slice, rest) = bytes.split_at_checked(length).ok_or("a length exceeds what is there")?;
    *bytes = rest;
    Ok(slice)
}

/// Appends a number.
pub fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shortest_form_is_taken() {
        for bad in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff; 10],
            &[0xff; 20],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        ] {
            assert!(take(&mut &bad[..]).is_err(), "{bad:?}");
        }
        assert!(take_slice(&mut &[3, 1, 2][..]).is_err());
        assert!(take_slice(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(value: u64, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            bytes.extend_from_slice(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!(take(&mut left), Ok(value));
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn anything_is_borne(bytes: Vec<u8>) {
            let mut left = &bytes[..];
            if let Ok(value) = take(&mut left) {
                let mut again = Vec::new();
                put(value, &mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - left.len()]);
            }
        }
    }
}
