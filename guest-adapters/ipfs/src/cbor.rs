//! The subset of DAG-CBOR that the nodes of this adapter and the header of a CAR use.
//!
//! Accepts the canonical form only: numbers in their shortest form, definite lengths. Nothing nests, so there is no depth
//! to bound. Lengths are checked against the remaining bytes, and nothing is allocated for them.
//!
//! The format: <https://ipld.io/specs/codecs/dag-cbor/spec/>.

use crate::Parsed;
use crate::cid::Cid;

// Major types: the upper three bits of an item.
const NUMBER: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// The tag of a link.
const LINK: u64 = 42;

/// Reads the head of an item of this major type. Returns its argument.
fn head(kind: u8, bytes: &mut &[u8]) -> Parsed<u64> {
    const CUT: &str = "it ends inside an item";
    let (&first, rest) = bytes.split_first().ok_or(CUT)?;
    if first >> 5 != kind {
        return Err("an item has another type than expected");
    }
    let (value, least, rest) = match first & 31 {
        small @ 0..=23 => (u64::from(small), 0, rest),
        24 => {
            let ([value], rest) = rest.split_first_chunk().ok_or(CUT)?;
            (u64::from(*value), 24, rest)
        }
        25 => {
            let (value, rest) = rest.split_first_chunk().ok_or(CUT)?;
            (u64::from(u16::from_be_bytes(*value)), 1 << 8, rest)
        }
        26 => {
            let (value, rest) = rest.split_first_chunk().ok_or(CUT)?;
            (u64::from(u32::from_be_bytes(*value)), 1 << 16, rest)
        }
        27 => {
            let (value, rest) = rest.split_first_chunk().ok_or(CUT)?;
            (u64::from_be_bytes(*value), 1 << 32, rest)
        }
        _ => return Err("an item has no definite length"),
    };
    if value < least {
        return Err("a number is not in its shortest form");
    }
    *bytes = rest;
    Ok(value)
}

/// Reads an unsigned number.
pub fn number(bytes: &mut &[u8]) -> Parsed<u64> {
    head(NUMBER, bytes)
}

/// Reads a text.
pub fn text<'a>(bytes: &mut &'a [u8]) -> Parsed<&'a str> {
    std::str::from_utf8(slice(TEXT, bytes)?).map_err(|_| "a text is not UTF-8")
}

/// Reads the head of a list. Returns the number of its items.
pub fn list(bytes: &mut &[u8]) -> Parsed<u64> {
    head(LIST, bytes)
}

/// Reads the head of a map. Returns the number of its entries.
pub fn map(bytes: &mut &[u8]) -> Parsed<u64> {
    head(MAP, bytes)
}

/// Reads a link. Returns the bytes of its CID, unparsed.
pub fn link_bytes<'a>(bytes: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    if head(TAG, bytes)? != LINK {
        return Err("a tag is not the tag of a link");
    }
    slice(BYTES, bytes)?.strip_prefix(&[0]).ok_or("a link does not begin with 0")
}

/// Reads a link.
pub fn link(bytes: &mut &[u8]) -> Parsed<Cid> {
    Cid::of_bytes(link_bytes(bytes)?)
}

fn slice<'a>(kind: u8, bytes: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let length = usize::try_from(head(kind, bytes)?).map_err(|_| "a length exceeds the remaining bytes")?;
    let (slice, rest) = bytes.split_at_checked(length).ok_or("a length exceeds the remaining bytes")?;
    *bytes = rest;
    Ok(slice)
}

fn write_head(kind: u8, value: u64, out: &mut Vec<u8>) {
    let kind = kind << 5;
    match value {
        0..=23 => out.push(kind | value as u8),
        24..=0xff => out.extend([kind | 24, value as u8]),
        0x100..=0xffff => {
            out.push(kind | 25);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(kind | 26);
            out.extend((value as u32).to_be_bytes());
        }
        _ => {
            out.push(kind | 27);
            out.extend(value.to_be_bytes());
        }
    }
}

/// Appends the head of a map with this number of entries.
pub fn write_map(entries: u64, out: &mut Vec<u8>) {
    write_head(MAP, entries, out);
}

/// Appends a number.
pub fn write_number(value: u64, out: &mut Vec<u8>) {
    write_head(NUMBER, value, out);
}

/// Appends a text.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a link.
pub fn write_link(cid: &Cid, out: &mut Vec<u8>) {
    let bytes = cid.to_bytes();
    write_head(TAG, LINK, out);
    write_head(BYTES, bytes.len() as u64 + 1, out);
    out.push(0);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shortest_form_is_accepted() {
        for bad in [
            &[][..],
            &[0x18],
            &[0x18, 23],
            &[0x19, 0, 255],
            &[0x1a, 0, 0, 255, 255],
            &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            &[0x1f],
            &[0x60],
        ] {
            assert!(number(&mut &bad[..]).is_err(), "{bad:?}");
        }
        assert!(text(&mut &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..]).is_err());
        assert!(text(&mut &[0x61, 0xff][..]).is_err());
        assert!(link(&mut &[0xd8, 41, 0x41, 0][..]).is_err());
        assert!(link(&mut &[0xd8, 42, 0x40][..]).is_err());
    }

    proptest! {
        #[test]
        fn values_round_trip(value: u64, word in ".{0,300}") {
            let mut bytes = Vec::new();
            write_number(value, &mut bytes);
            write_text(&word, &mut bytes);
            write_map(value, &mut bytes);
            let mut left = &bytes[..];
            prop_assert_eq!(number(&mut left), Ok(value));
            prop_assert_eq!(text(&mut left), Ok(&word[..]));
            prop_assert_eq!(map(&mut left), Ok(value));
            prop_assert!(left.is_empty());
        }

        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let _ = (number(&mut &bytes[..]), text(&mut &bytes[..]), link(&mut &bytes[..]), list(&mut &bytes[..]), map(&mut &bytes[..]));
        }
    }
}
