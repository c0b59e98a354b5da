//! Where pages lie: runs of pages, each nowhere or in a pack.

use super::columns::{Columns, put, unzigzag, zigzag};
use super::layout::damaged;
use crate::types::Result;

/// Where a page, or the first page of a run, lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In no pack. A page of a snapshot is zeros, and a page without prefix has none.
    Nowhere,
    /// Among the stored pages of a pack.
    Stored {
        /// The pack: 0 is the one that has this map, others are its sources.
        source: u8,
        /// The stored page.
        page: u32,
    },
}

impl Place {
    /// The place so many pages further in the same run.
    pub(super) fn plus(self, pages: u32) -> Self {
        match self {
            Self::Nowhere => Self::Nowhere,
            Self::Stored { source, page } => Self::Stored { source, page: page.saturating_add(pages) },
        }
    }
}

/// Pages that follow each other, in the map and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: u32,
    /// The number of pages: at least 1.
    pub len: u32,
    /// Where the first page lies; the others follow.
    pub place: Place,
}

/// A place for each of a number of pages, as few runs as there can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map {
    runs: Vec<Run>,
    pages: u32,
}

impl Map {
    /// The number of pages.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The runs, in order and without gaps.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Where a page lies; nowhere past the end.
    pub fn at(&self, page: u32) -> Place {
        self.parts(page, 1).next().map_or(Place::Nowhere, |run| run.place)
    }

    /// The runs of `len` pages from `first`, cut to these, as far as the map has them.
    pub fn parts(&self, first: u32, len: u32) -> impl Iterator<Item = Run> + '_ {
        let end = first.saturating_add(len).min(self.pages);
        let from = self.runs.partition_point(|run| run.first + run.len <= first);
        self.runs[from..].iter().take_while(move |run| run.first < end).map(move |run| {
            let skipped = first.saturating_sub(run.first);
            let start = run.first + skipped;
            Run { first: start, len: (run.first + run.len).min(end) - start, place: run.place.plus(skipped) }
        })
    }

    /// Appends pages. The caller keeps their number below `u32::MAX`.
    pub(super) fn push(&mut self, len: u32, place: Place) {
        if len == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.place.plus(last.len) == place => last.len += len,
            _ => self.runs.push(Run { first: self.pages, len, place }),
        }
        self.pages += len;
    }

    /// The same map with other numbers for the sources.
    pub(super) fn renumbered(&self, number: impl Fn(u8) -> u8) -> Self {
        let mut map = Self::default();
        for run in &self.runs {
            map.push(
                run.len,
                match run.place {
                    Place::Nowhere => Place::Nowhere,
                    Place::Stored { source, page } => Place::Stored { source: number(source), page },
                },
            );
        }
        map
    }

    /// Appends the columns of this map.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, self.runs.len() as u64);
        for run in &self.runs {
            put(out, u64::from(run.len));
        }
        for run in &self.runs {
            put(out, kind(run.place));
        }
        let mut expected = [0i64; 256];
        for run in &self.runs {
            if let Place::Stored { source, page } = run.place {
                let expected = &mut expected[usize::from(source)];
                put(out, zigzag(i64::from(page) - *expected));
                *expected = i64::from(page) + i64::from(run.len);
            }
        }
    }

    /// Reads the columns of a map of `pages` pages, of at most so many `items`. `stored` has the stored pages of each source, by
    /// number.
    pub(super) fn read(columns: &mut Columns<'_>, pages: u32, stored: &[u32], items: &mut u32) -> Result<Self> {
        let count = columns.items(u64::from(pages), items)?;
        let lengths = columns.list(count, pages)?;
        let kinds = columns.list(count, stored.len() as u32)?;
        let mut map = Self { runs: Vec::with_capacity(count), pages: 0 };
        let mut expected = [0i64; 256];
        for (len, kind) in lengths.into_iter().zip(kinds) {
            if len == 0 || len > pages - map.pages {
                return Err(damaged("the map of the pack has other pages than its snapshot"));
            }
            let place = match kind.checked_sub(1) {
                None => Place::Nowhere,
                Some(source) => {
                    let expected = &mut expected[source as usize];
                    let start = expected.checked_add(unzigzag(columns.number(u64::from(u32::MAX) * 2 + 1)?));
                    let start = start.and_then(|start| u32::try_from(start).ok());
                    let most = stored[source as usize];
                    let Some(page) = start.filter(|page| page.checked_add(len).is_some_and(|end| end <= most)) else {
                        return Err(damaged("the map of the pack leads outside of a source"));
                    };
                    *expected = i64::from(page) + i64::from(len);
                    Place::Stored { source: source as u8, page }
                }
            };
            let runs = map.runs.len();
            map.push(len, place);
            if map.runs.len() == runs {
                return Err(damaged("the map of the pack has two runs for one"));
            }
        }
        if map.pages != pages {
            return Err(damaged("the map of the pack has other pages than its snapshot"));
        }
        Ok(map)
    }
}

fn kind(place: Place) -> u64 {
    match place {
        Place::Nowhere => 0,
        Place::Stored { source, .. } => 1 + u64::from(source),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORED: [u32; 3] = [1000, 70_000, u32::MAX];

    fn maps() -> impl Strategy<Value = Map> {
        let run = (1u32..40, 0u8..4, any::<u32>());
        prop::collection::vec(run, 0..40).prop_map(|runs| {
            let mut map = Map::default();
            for (len, kind, page) in runs {
                map.push(
                    len,
                    match kind {
                        0 => Place::Nowhere,
                        kind => {
                            let source = kind - 1;
                            Place::Stored { source, page: page % (STORED[usize::from(source)] - len) }
                        }
                    },
                );
            }
            map
        })
    }

    fn columns(map: &Map) -> Vec<u8> {
        let mut out = Vec::new();
        map.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn maps_come_back(map in maps()) {
            let bytes = columns(&map);
            let mut read = Columns::new(&bytes);
            prop_assert_eq!(&Map::read(&mut read, map.pages(), &STORED, &mut 40).unwrap(), &map);
            read.end().unwrap();
            if let Some(mut fewer) = (map.runs().len() as u32).checked_sub(1) {
                prop_assert!(Map::read(&mut Columns::new(&bytes), map.pages(), &STORED, &mut fewer).is_err());
            }
            prop_assert!(Map::read(&mut Columns::new(&bytes), map.pages() + 1, &STORED, &mut 40).is_err());
        }

        #[test]
        fn any_bytes_are_a_map_in_its_one_form_or_none(bytes in prop::collection::vec(0u8..12, 0..24), pages in 0u32..30) {
            if let Ok(map) = Map::read(&mut Columns::new(&bytes), pages, &STORED, &mut 40) {
                prop_assert_eq!(map.pages(), pages);
                prop_assert!(bytes.starts_with(&columns(&map)));
            }
        }

        #[test]
        fn parts_are_the_pages_one_by_one(map in maps(), first in 0u32..900, len in 0u32..300) {
            let single: Vec<Place> = map
                .runs()
                .iter()
                .flat_map(|run| (0..run.len).map(move |at| run.place.plus(at)))
                .collect();
            let expected: Vec<(u32, Place)> = single
                .iter()
                .enumerate()
                .map(|(page, place)| (page as u32, *place))
                .filter(|(page, _)| *page >= first && *page < first + len)
                .collect();
            let found: Vec<(u32, Place)> = map
                .parts(first, len)
                .flat_map(|run| (0..run.len).map(move |at| (run.first + at, run.place.plus(at))))
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(map.at(first), single.get(first as usize).copied().unwrap_or(Place::Nowhere));
        }
    }
}
