//! Parts of an object: half-open ranges of bytes.

use std::fmt;
use std::str::FromStr;

use super::{Error, Result};

/// Bytes from `start` (counted from 0) to just before `end`, or to the end of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// Just after the last byte; `None` means the end of the object.
    pub end: Option<u64>,
}

impl ByteRange {
    /// Clips the range to an object of `size` bytes and returns its first byte and its length.
    ///
    /// # Errors
    /// `invalid` if it begins beyond the end of the object or ends before it begins. A range that begins just at the
    /// end is empty, not an error.
    pub fn within(self, size: u64) -> Result<(u64, u64)> {
        let end = self.end.unwrap_or(size).min(size);
        if self.start > size {
            return Err(Error::invalid(format!("the range {self} begins past the end: there are {size} bytes")));
        }
        if self.end.is_some_and(|end| end < self.start) {
            return Err(Error::invalid(format!("the range {self} ends before it begins")));
        }
        Ok((self.start, end - self.start))
    }

    /// From a first byte and a length.
    pub fn of(start: u64, len: u64) -> Self {
        Self { start, end: Some(start.saturating_add(len)) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.start)?;
        match self.end {
            Some(end) => write!(f, "{end}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ByteRange {
    type Err = Error;

    /// `A..B` (without B), `A..` or `..B`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("`{}` is not a range", text.escape_debug()))
                .hint("write A..B (from byte A to just before byte B), A.. or ..B")
        };
        let number = |digits: &str| {
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                digits.parse::<u64>().map_err(|_| wrong())
            } else {
                Err(wrong())
            }
        };
        let (start, end) = text.split_once("..").ok_or_else(wrong)?;
        if start.is_empty() && end.is_empty() {
            return Err(wrong());
        }
        let range = Self {
            start: if start.is_empty() { 0 } else { number(start)? },
            end: if end.is_empty() { None } else { Some(number(end)?) },
        };
        match range.end {
            Some(end) if end < range.start => Err(Error::invalid(format!("the range {range} ends before it begins"))),
            _ => Ok(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms() {
        assert_eq!("3..7".parse::<ByteRange>().unwrap(), ByteRange { start: 3, end: Some(7) });
        assert_eq!("3..".parse::<ByteRange>().unwrap(), ByteRange { start: 3, end: None });
        assert_eq!("..7".parse::<ByteRange>().unwrap(), ByteRange { start: 0, end: Some(7) });
        for wrong in ["", "..", "7", "7..3", "a..b", "-1..2", "+1..2", "1...2", "1..2..3", "99999999999999999999.."] {
            assert!(wrong.parse::<ByteRange>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_clipped_range_lies_within_the_size(start in 0u64..100, end in proptest::option::of(0u64..100), size in 0u64..100) {
            let range = ByteRange { start, end };
            match range.within(size) {
                Ok((from, len)) => {
                    prop_assert!(from + len <= size);
                    prop_assert_eq!(from, start);
                    prop_assert_eq!(from + len, end.unwrap_or(size).min(size).max(start));
                }
                Err(_) => prop_assert!(start > size || end.is_some_and(|e| e < start)),
            }
        }
    }
}
