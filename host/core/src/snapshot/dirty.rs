//! What a hypervisor says has changed since the base: a bitmap of pages, or a list of ranges.
//!
//! | form | as given by |
//! | --- | --- |
//! | [`DirtyFormat::Bitmap`]: a bit for each page of 4 KiB, the lowest bit of each byte first; as many bytes as that needs, or up to the next multiple of 8 | `KVM_GET_DIRTY_LOG`, QEMU's and Firecracker's dirty bitmaps |
//! | [`DirtyFormat::Ranges`]: lines `OFFSET LENGTH` in bytes, decimal or with `0x`; empty lines, and lines that begin with `#`, are left out | anything that can print |
//! | [`DirtyFormat::Json`]: an array of objects with `start` (or `offset`) and `length`; one with `"dirty": false` is left out | QEMU's block dirty bitmaps, as `qemu-img map` and `nbdinfo` print them |
//!
//! The form is not guessed where two fit: what has the length of a bitmap is one, and if it is text as well, the caller has to
//! name the form. Taking one for the other would leave changes out of what is stored.

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

/// The form in which dirty ranges are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirtyFormat {
    /// A bit for each page.
    Bitmap,
    /// Lines `OFFSET LENGTH`.
    Ranges,
    /// A JSON array of objects.
    Json,
}

impl DirtyFormat {
    /// The form that this has, for an image of `size` bytes.
    ///
    /// # Errors
    /// `invalid` if two forms fit, or none.
    pub fn of(given: &[u8], size: u64) -> Result<Self> {
        let fits = is_bitmap_of(given.len() as u64, size);
        match (fits, is_text(given)) {
            (true, true) if !given.is_empty() => {
                let what = format!("the dirty pages may be a bitmap and may be text: they have {} bytes", given.len());
                Err(Error::invalid(what).hint("name the form: `--dirty-format bitmap`, `ranges` or `json`"))
            }
            (true, _) => Ok(Self::Bitmap),
            (false, true) if given.trim_ascii_start().starts_with(b"[") => Ok(Self::Json),
            (false, true) => Ok(Self::Ranges),
            (false, false) => Err(no_bitmap(given.len() as u64, size)),
        }
    }
}

impl DirtyRanges {
    /// Reads what is given for an image of `size` bytes, in the form that it turns out to have.
    ///
    /// # Errors
    /// `invalid` for anything else than the forms above, for ranges past the end, for a bitmap of another size, and for what
    /// may have two forms: [`Self::parse_as`] reads that.
    pub fn parse(given: &[u8], size: u64) -> Result<Self> {
        refuse_empty(given, size)?;
        Self::parse_as(DirtyFormat::of(given, size)?, given, size)
    }

    /// Reads what is given in this form for an image of `size` bytes.
    ///
    /// # Errors
    /// Those of the form's own function.
    pub fn parse_as(format: DirtyFormat, given: &[u8], size: u64) -> Result<Self> {
        match format {
            DirtyFormat::Bitmap => Self::from_bitmap(given, size),
            DirtyFormat::Ranges => Self::from_ranges(given, size),
            DirtyFormat::Json => Self::from_json(given, size),
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

    /// From a bit for each page of an image of `size` bytes.
    ///
    /// # Errors
    /// `invalid` for a bitmap of another size, and for pages past the end.
    pub fn from_bitmap(bitmap: &[u8], size: u64) -> Result<Self> {
        if !is_bitmap_of(bitmap.len() as u64, size) {
            return Err(no_bitmap(bitmap.len() as u64, size));
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

    /// From lines `OFFSET LENGTH`, for an image of `size` bytes.
    ///
    /// # Errors
    /// `invalid` for other lines, for ranges past the end, and if there is no line with a range: what failed to write them would
    /// otherwise say that nothing has changed.
    pub fn from_ranges(list: &[u8], size: u64) -> Result<Self> {
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
        if ranges.is_empty() && size > 0 {
            return Err(Error::invalid("the list of dirty ranges has no range").hint(NOTHING));
        }
        Self::new(ranges, size)
    }

    /// From a JSON array of objects, for an image of `size` bytes; `[]` says that nothing has changed.
    ///
    /// # Errors
    /// `invalid` for anything else, and for ranges past the end.
    pub fn from_json(text: &[u8], size: u64) -> Result<Self> {
        /// With `start`, an `offset` beside it is where the bytes lie in the file of the image: `qemu-img map`.
        #[derive(serde::Deserialize)]
        struct Entry {
            start: Option<u64>,
            offset: Option<u64>,
            length: u64,
            dirty: Option<bool>,
        }
        refuse_empty(text, size)?;
        let wrong = |error: serde_json::Error| Error::invalid(format!("the JSON of the dirty ranges: {error}"));
        let entries: Vec<Entry> = serde_json::from_slice(text).map_err(wrong)?;
        let mut ranges = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.dirty != Some(false)) {
            let Some(start) = entry.start.or(entry.offset) else {
                return Err(Error::invalid("the JSON of the dirty ranges: an entry has neither `start` nor `offset`"));
            };
            ranges.push(start..start.saturating_add(entry.length));
        }
        Self::new(ranges, size)
    }
}

/// How to say that nothing has changed.
const NOTHING: &str = "write `[]` if nothing has changed";

/// What failed to write it would otherwise say that nothing has changed.
fn refuse_empty(given: &[u8], size: u64) -> Result<()> {
    match given.is_empty() && size > 0 {
        true => Err(Error::invalid("the file of dirty ranges is empty").hint(NOTHING)),
        false => Ok(()),
    }
}

fn is_bitmap_of(len: u64, size: u64) -> bool {
    let least = bitmap_bytes(size);
    len == least || len == least.next_multiple_of(8)
}

fn no_bitmap(given: u64, size: u64) -> Error {
    let least = bitmap_bytes(size);
    Error::invalid(format!(
        "the dirty pages are neither a list nor a bitmap of the image: {given} bytes, where {least} are a bit for each page"
    ))
    .hint("give a bitmap with a bit for each page of 4 KiB, lines `OFFSET LENGTH`, or a JSON array")
}

fn bitmap_bytes(size: u64) -> u64 {
    size.div_ceil(PAGE as u64).div_ceil(8)
}

/// Returns whether what is given can be a text: also one with mistakes, which must not become a bitmap by them.
fn is_text(given: &[u8]) -> bool {
    let printable = |character: char| !character.is_control() || matches!(character, '\t' | '\r' | '\n');
    std::str::from_utf8(given).is_ok_and(|text| text.chars().all(printable))
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
        assert_eq!(parse(b"[]").unwrap(), []);
    }

    #[test]
    fn a_bitmap_is_not_taken_for_a_text_nor_a_text_for_a_bitmap() {
        // Comments, blanks and a bracket, by their first bytes: 13 bytes are a bitmap of the image.
        for (first, pages) in
            [(&b"#"[..], &[0, 1, 5][..]), (b"\n", &[1, 3]), (b"[", &[0, 1, 3, 4, 6]), (b" #", &[5, 8, 9, 13])]
        {
            let mut bitmap = first.to_vec();
            bitmap.resize(13, 0);
            let dirty = DirtyRanges::parse(&bitmap, SIZE).unwrap();
            let expected = pages.iter().map(|page| page * 4096..(page + 1) * 4096);
            assert_eq!(dirty, DirtyRanges::new(expected, SIZE).unwrap(), "{first:?}");
        }
        // What may be both is neither, until it is named.
        for both in [
            &b"4096 4096\n   "[..],
            b"             ",
            b"#############",
            b"\n\n\n\n\n\n\n\n\n\n\n\n\n",
            b"[            ",
            b"4096 4O96    ",
        ] {
            let error = parse(both).unwrap_err();
            assert!(
                both.len() == 13 && error.advice().is_some_and(|advice| advice.contains("--dirty-format")),
                "{error}"
            );
        }
        let page = 4096..8192;
        assert_eq!(DirtyRanges::from_ranges(b"4096 4096\n   ", SIZE).unwrap().as_slice(), std::slice::from_ref(&page));
        assert_eq!(DirtyRanges::from_json(b"[]           ", SIZE).unwrap().as_slice(), []);
        // 0x20 in each byte: one page of eight. The last one is past the end.
        assert!(DirtyRanges::from_bitmap(b"             ", SIZE).is_err());
        assert_eq!(DirtyRanges::from_bitmap(b"            \n", 104 * 4096).unwrap().as_slice().len(), 14);
    }

    #[test]
    fn what_names_no_range_does_not_say_that_nothing_has_changed() {
        for nothing in [&b""[..], b"\n", b"# none\n", b" \t\r\n\n", b"# one\n\n# two"] {
            let told = [DirtyRanges::parse(nothing, SIZE), DirtyRanges::from_ranges(nothing, SIZE)];
            for error in told.map(Result::unwrap_err) {
                assert!(error.advice().is_some_and(|advice| advice.contains("`[]`")), "{nothing:?}: {error}");
            }
        }
        assert_eq!(DirtyRanges::from_ranges(b"0 0", SIZE).unwrap().as_slice(), []);
        assert_eq!(DirtyRanges::parse(b"", 0).unwrap().as_slice(), []);
    }

    #[test]
    fn of_two_places_the_one_in_the_image_counts() {
        let map = br#"[{ "start": 4096, "length": 4096, "depth": 0, "present": true, "zero": false, "data": true, "offset": 327680},
            {"length": 1, "offset": 0, "start": 12288}]"#;
        assert_eq!(parse(map).unwrap(), [4096..8192, 12288..16384]);
        assert!(parse(br#"[{"length": 1, "dirty": true}]"#).is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        let past = [0u8; 12].iter().copied().chain([0b100000]).collect::<Vec<_>>();
        for wrong in [
            &[][..],
            &[0; 12],
            b"\xff\xff\xff 4096 4096\n",
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
