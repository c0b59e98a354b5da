//! Pages of a list that a backend gives only whole, and in any order.
//!
//! Nothing survives from one call to the next but the cursor. So the cursor carries what the next pages will show: one
//! reading of the list serves many pages, instead of one. It is bounded, so a list that is longer is read again, once for
//! every [`MOST`] entries.
//!
//! ```text
//! w+ID SIZE\nID SIZE        entries to come, and there is more behind them
//! w.ID SIZE                 entries to come, and no others
//! ID                        what comes behind this id is to be read
//! ```

use std::collections::BTreeMap;

use crate::Error;

/// The most entries that a cursor carries: some 1.5 MiB.
pub const MOST: usize = 20_000;

/// The first entries of a list behind a place in it, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upcoming {
    after: Option<String>,
    entries: BTreeMap<String, u64>,
    /// Whether the list goes on behind these.
    more: bool,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The list has to be read, and offered to this.
    Unread(Upcoming),
    /// These come next.
    Known(Upcoming),
}

impl Place {
    /// Parses a cursor. Fails with `invalid` if it is malformed.
    pub fn of(cursor: Option<String>) -> Result<Self, Error> {
        let Some(cursor) = cursor else { return Ok(Self::Unread(Upcoming::default())) };
        let (more, text) = match (cursor.strip_prefix("w+"), cursor.strip_prefix("w.")) {
            (Some(text), _) => (true, text),
            (_, Some(text)) => (false, text),
            _ => return Ok(Self::Unread(Upcoming { after: Some(cursor), ..Upcoming::default() })),
        };
        let entry = |line: &str| {
            let (id, size) = line.split_once(' ')?;
            Some((id.to_owned(), size.parse().ok()?))
        };
        let entries = text.lines().map(entry).collect::<Option<BTreeMap<_, _>>>();
        let entries = entries.ok_or_else(|| Error::invalid("the cursor is not one of this adapter"))?;
        Ok(Self::Known(Upcoming { after: None, entries, more }))
    }
}

impl Upcoming {
    /// Takes note of an entry of the list, in whatever order they come. The id has neither blanks nor line breaks.
    pub fn offer(&mut self, id: String, size: u64) {
        if self.after.as_ref().is_some_and(|after| id <= *after) {
            return;
        }
        self.entries.insert(id, size);
        if self.entries.len() > MOST {
            self.entries.pop_last();
            self.more = true;
        }
    }

    /// Takes a page off. Returns its entries, and the cursor of the next one.
    pub fn page(mut self, limit: usize) -> (Vec<(String, u64)>, Option<String>) {
        let mut page = Vec::new();
        while page.len() < limit
            && let Some(entry) = self.entries.pop_first()
        {
            page.push(entry);
        }
        let next = match page.last() {
            _ if !self.entries.is_empty() => {
                let lines: Vec<String> =
                    self.entries.iter().map(|(id, size)| [id, " ", &size.to_string()].concat()).collect();
                Some([if self.more { "w+" } else { "w." }, &lines.join("\n")].concat())
            }
            Some((last, _)) if self.more => Some(last.clone()),
            _ => None,
        };
        (page, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lists everything; returns the ids and how often the list was read.
    fn walk(ids: &[String], limit: usize) -> (Vec<String>, usize) {
        let (mut seen, mut cursor, mut readings) = (Vec::new(), None, 0);
        loop {
            let upcoming = match Place::of(cursor).unwrap() {
                Place::Known(upcoming) => upcoming,
                Place::Unread(mut upcoming) => {
                    readings += 1;
                    ids.iter().for_each(|id| upcoming.offer(id.clone(), id.len() as u64));
                    upcoming
                }
            };
            let (page, next) = upcoming.page(limit);
            assert!(page.len() <= limit);
            seen.extend(page.into_iter().map(|(id, size)| {
                assert_eq!(size, id.len() as u64);
                id
            }));
            cursor = next;
            if cursor.is_none() {
                return (seen, readings);
            }
        }
    }

    #[test]
    fn a_long_list_is_read_once_for_many_pages() {
        let mut ids: Vec<String> =
            (0..2 * MOST + 5).map(|n| format!("{:08x}", (n as u32).wrapping_mul(0x9e37_79b9))).collect();
        let (seen, readings) = walk(&ids, 500);
        ids.sort();
        assert_eq!((seen, readings), (ids, 3));
        assert_eq!(walk(&[], 7), (Vec::new(), 1));
    }

    #[test]
    fn malformed_cursors_are_refused() {
        for bad in ["w+x", "w.a b", "w.a 1\n\nb 2", "w+a -1"] {
            assert!(matches!(Place::of(Some(bad.into())), Err(Error::Invalid(_))), "{bad}");
        }
        assert!(matches!(Place::of(Some("bafy".into())), Ok(Place::Unread(_))));
    }

    proptest! {
        #[test]
        fn every_entry_once(ids in prop::collection::btree_set("[0-9a-v]{1,8}", 0..60), limit in 1_usize..9) {
            let shuffled: Vec<String> = ids.iter().rev().cloned().collect();
            prop_assert_eq!(walk(&shuffled, limit).0, ids.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_cursor_is_answered(cursor in ".{0,60}") {
            let _ = Place::of(Some(cursor));
        }
    }
}
