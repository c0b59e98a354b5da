//! The numbers of which the columns of a pack consist: LEB128 in the shortest form.

use super::layout::damaged;
use crate::types::{Error, Result};

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads numbers one after the other.
pub(super) struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next number, which is at most `most`.
    pub(super) fn number(&mut self, most: u64) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                if (byte == 0 && shift > 0) || number > most {
                    break;
                }
                return Ok(number);
            }
        }
        Err(damaged("the metadata of the pack has a number that is wrong"))
    }

    /// The next number, which is at most `most`.
    pub(super) fn small(&mut self, most: u32) -> Result<u32> {
        Ok(self.number(u64::from(most))? as u32)
    }

    /// The number of items that follow: at most `most`, and no more than bytes are left for them.
    pub(super) fn count(&mut self, most: u64) -> Result<usize> {
        let count = self.number(most)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(damaged("the metadata of the pack is shorter than it says")),
        }
    }

    /// As [`Self::count`], of items of which so many are left.
    pub(super) fn items(&mut self, most: u64, left: &mut u32) -> Result<usize> {
        let count = self.count(most)?;
        let after = u32::try_from(count).ok().and_then(|count| left.checked_sub(count));
        *left = after.ok_or_else(|| Error::unsupported("the metadata of the pack exceeds the limit"))?;
        Ok(count)
    }

    /// `count` numbers, each at most `most`.
    pub(super) fn list(&mut self, count: usize, most: u32) -> Result<Vec<u32>> {
        (0..count).map(|_| self.small(most)).collect()
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(damaged("the metadata of the pack is longer than it says")) }
    }
}

/// A distance as a number without sign.
pub(super) fn zigzag(distance: i64) -> u64 {
    ((distance << 1) ^ (distance >> 63)) as u64
}

/// The distance that [`zigzag`] wrote.
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_is_one_form_of_a_number() {
        let read = |bytes: &[u8]| Columns::new(bytes).number(u64::MAX);
        assert_eq!(read(&[0]).unwrap(), 0);
        assert_eq!(read(&[0x80, 1]).unwrap(), 128);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).unwrap(), u64::MAX);
        for wrong in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0x81, 0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x82, 0],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, distance in -(1i64 << 62)..1 << 62) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put(&mut bytes, zigzag(distance));
            let mut columns = Columns::new(&bytes);
            prop_assert_eq!(columns.number(number).unwrap(), number);
            prop_assert_eq!(unzigzag(columns.number(u64::MAX).unwrap()), distance);
            columns.end().unwrap();
            if number > 0 {
                prop_assert!(Columns::new(&bytes).number(number - 1).is_err());
            }
        }
    }
}
