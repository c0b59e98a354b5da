//! What a hypervisor says has changed since the base: a bitmap of pages, or a list of ranges.
//!
//! | form | as given by |
//! | --- | --- |
//! | a bit for each page of 4 KiB, the lowest bit of each byte first; as many bytes as that needs, or up to the next multiple of 8 | `KVM_GET_DIRTY_LOG`, QEMU's and Firecracker's dirty bitmaps |
//! | lines `OFFSET LENGTH` in bytes, decimal or with `0x`; empty lines, and lines that begin with `#`, are left out | anything that can print |
//! | JSON: an array of objects with `start` (or `offset`) and `length`; one with `"dirty": false` is left out | QEMU's block dirty bitmaps, as `qemu-img map` and `nbdinfo` print them |
//!
//! A text is taken for a text, so a bitmap that consists of nothing but digits, spaces and line ends is not one.

use std::ops::Range;

use super::PAGE;
use crate::types::{Error, Result};

/// The most bytes of a list of ranges.
const MAX_LIST: usize = 64 << 20;

/// Returns the most bytes of what is given for an image of so many bytes.
pub fn max_dirty_bytes(size: u64) -> u64 {
    (bitmap_bytes(size).next_multiple_of(8)).max(MAX_LIST as u64)
}

/// The ranges of an image that may differ from its base: whole pages, in order, none touching another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirtyRanges(Vec<Range<u64>>);

impl DirtyRanges {
    /// Reads what is given for an image of `size` bytes.
    ///
    /// # Errors
    /// `invalid` for anything else than the forms above, for ranges past the end, and for a bitmap of another size.
    pub fn parse(given: &[u8], size: u64) -> Result<Self> {
        if given.is_empty() && size > 0 {
            // What failed to write it would otherwise say that nothing has changed.
            return Err(Error::invalid("the file of dirty ranges is empty").hint("write `[]` if nothing has changed"));
        }
        let text = given.trim_ascii_start();
        match text.first() {
            Some(b'[') => Self::of_json(text, size),
            _ if is_list(given) => Self::of_list(given, size),
            _ => Self::of_bitmap(given, size),
        }
    }

    /// From ranges in any order, within an image of `size` bytes.
    ///
    /// # Errors
    /// `invalid` for one that does not lie within the image.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>, size: u64) -> Result<Self> {
        let mut whole = Vec::new();
        for range in ranges {
            if range.start > range.end || range.end > size {
                let what =
                    format!("bytes {} to {} do not lie within the image of {size} bytes", range.start, range.end);
                return Err(Error::invalid(what));
            }
            if !range.is_empty() {
                let page = PAGE as u64;
                whole.push(range.start / page * page..range.end.next_multiple_of(page).min(size));
            }
        }
        whole.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(whole.len());
        for range in whole {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Ok(Self(merged))
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The number of bytes in them.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    fn of_bitmap(bitmap: &[u8], size: u64) -> Result<Self> {
        let least = bitmap_bytes(size);
        let given = bitmap.len() as u64;
        if given != least && given != least.next_multiple_of(8) {
            return Err(Error::invalid(format!(
                "the dirty pages are neither a list nor a bitmap of the image: {given} bytes, where {least} are a bit for each page"
            ))
            .hint("give a bitmap with a bit for each page of 4 KiB, lines `OFFSET LENGTH`, or a JSON array"));
        }
        let pages = size.div_ceil(PAGE as u64);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (at, byte) in (0u64..).step_by(8).zip(bitmap).filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let page = at + bit;
                if page >= pages {
                    return Err(Error::invalid("the bitmap of dirty pages has pages past the end of the image"));
                }
                let (start, end) = (page * PAGE as u64, ((page + 1) * PAGE as u64).min(size));
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ranges.push(start..end),
                }
            }
        }
        Ok(Self(ranges))
    }

    fn of_list(list: &[u8], size: u64) -> Result<Self> {
        let text = std::str::from_utf8(list).map_err(|_| Error::invalid("the list of dirty ranges is not text"))?;
        let wrong =
            |number: usize| Error::invalid(format!("line {} of the dirty ranges is not `OFFSET LENGTH`", number + 1));
        let mut ranges = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_ascii_whitespace().map(number);
            let (Some(Some(start)), Some(Some(len)), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong(at));
            };
            ranges.push(start..start.checked_add(len).ok_or_else(|| wrong(at))?);
        }
        Self::new(ranges, size)
    }

    fn of_json(text: &[u8], size: u64) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(alias = "offset")]
            start: u64,
            length: u64,
            dirty: Option<bool>,
        }
        let wrong = |error: serde_json::Error| Error::invalid(format!("the JSON of the dirty ranges: {error}"));
        let entries: Vec<Entry> = serde_json::from_slice(text).map_err(wrong)?;
        let ranges = entries.into_iter().filter(|entry| entry.dirty != Some(false));
        Self::new(ranges.map(|entry| entry.start..entry.start.saturating_add(entry.length)), size)
    }
}

fn bitmap_bytes(size: u64) -> u64 {
    size.div_ceil(PAGE as u64).div_ceil(8)
}

/// Whether what is given is lines of numbers.
fn is_list(given: &[u8]) -> bool {
    let digit = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X' | b' ' | b'\t' | b'\r' | b'\n');
    let mut lines = given.split(|byte| *byte == b'\n');
    lines.all(|line| line.trim_ascii_start().starts_with(b"#") || line.iter().all(|byte| digit(*byte)))
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 100 * 4096 + 1;

    fn parse(given: &[u8]) -> Result<Vec<Range<u64>>> {
        DirtyRanges::parse(given, SIZE).map(|dirty| dirty.0)
    }

    #[test]
    fn every_form_says_the_same() {
        let mut bitmap = vec![0; 13];
        bitmap[0] = 0b110;
        bitmap[12] = 0b10000;
        let expected = [4096..12288, 100 * 4096..SIZE];
        assert_eq!(parse(&bitmap).unwrap(), expected);
        bitmap.resize(16, 0);
        assert_eq!(parse(&bitmap).unwrap(), expected);
        assert_eq!(parse(b"# dirty\n0x1000 4096\r\n\n8192 1\n409600 1\n").unwrap(), expected);
        let json = br#" [{"start": 5000, "length": 7000, "dirty": true, "zero": false}, {"offset": 0, "length": 9, "dirty": false},
            {"offset": 409600, "length": 1}]"#;
        assert_eq!(parse(json).unwrap(), expected);
        assert_eq!(parse(b"# none\n").unwrap(), []);
        assert_eq!(parse(b"[]").unwrap(), []);
    }

    #[test]
    fn anything_else_is_refused() {
        let past = [0u8; 12].iter().copied().chain([0b100000]).collect::<Vec<_>>();
        for wrong in [
            &[][..],
            &[0; 12],
            &[0; 15],
            &[0; 17],
            &past,
            b"4096\n",
            b"0 1 2\n",
            b"0 409602\n",
            b"18446744073709551615 2\n",
            b"0xzz 1",
            b"[{\"start\": 0}]",
            b"[",
            b"[{\"start\": 0, \"length\": 18446744073709551615}]",
        ] {
            assert_eq!(parse(wrong).unwrap_err().kind().name(), "invalid", "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_whole_pages_in_order(given in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(dirty) = DirtyRanges::parse(&given, SIZE) {
                let ranges = dirty.as_slice();
                prop_assert!(ranges.iter().all(|range| range.start % 4096 == 0 && range.start < range.end && range.end <= SIZE));
                prop_assert!(ranges.windows(2).all(|two| two[0].end < two[1].start));
            }
        }

        #[test]
        fn ranges_cover_what_was_said(ranges in prop::collection::vec((0..SIZE, 0u64..20_000), 0..20)) {
            let said: Vec<_> = ranges.into_iter().map(|(start, len)| start..(start + len).min(SIZE)).collect();
            let dirty = DirtyRanges::new(said.clone(), SIZE).unwrap();
            for byte in (0..SIZE).step_by(1000) {
                let page = byte / 4096;
                let touched = said.iter().any(|range| {
                    !range.is_empty() && range.start / 4096 <= page && page <= (range.end - 1) / 4096
                });
                prop_assert_eq!(dirty.as_slice().iter().any(|range| range.contains(&byte)), touched);
            }
        }
    }
}
