//! Varints of multiformats and protobuf: seven bits a byte, the lowest first.
//!
//! Accepts the shortest form only, so that every number, and every CID, has one form.

use crate::Parsed;

/// The most bytes of a 64-bit number.
pub const MAX_BYTES: usize = 10;

/// Reads a number from the front of `bytes`.
pub fn read(bytes: &mut &[u8]) -> Parsed<u64> {
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
                return Err("a number is not in its shortest form");
            }
            *bytes = bytes.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if bytes.len() < MAX_BYTES { "it ends inside a number" } else { "a number exceeds 64 bits" })
}

/// Reads a length and that many bytes.
pub fn read_slice<'a>(bytes: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let length = usize::try_from(read(bytes)?).map_err(|_| "a length exceeds the remaining bytes")?;
    let (slice, rest) = bytes.split_at_checked(length).ok_or("a length exceeds the remaining bytes")?;
    *bytes = rest;
    Ok(slice)
}

/// Appends a number.
pub fn write(mut value: u64, out: &mut Vec<u8>) {
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
    fn only_the_shortest_form_is_accepted() {
        for bad in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff; 10],
            &[0xff; 20],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        ] {
            assert!(read(&mut &bad[..]).is_err(), "{bad:?}");
        }
        assert!(read_slice(&mut &[3, 1, 2][..]).is_err());
        assert!(read_slice(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..]).is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            bytes.extend_from_slice(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!(read(&mut left), Ok(value));
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let mut left = &bytes[..];
            if let Ok(value) = read(&mut left) {
                let mut again = Vec::new();
                write(value, &mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - left.len()]);
            }
        }
    }
}
