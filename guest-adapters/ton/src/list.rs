//! Listing of the bags that this adapter has stored, page by page.
//!
//! The daemon returns all its bags at once, in changing order. So each page reads the whole list, one bag at a time, and
//! keeps the first ids after the cursor, in the order of ids: the memory is that of one page. The description of a bag
//! tells whether this adapter stored it, on any host.

use std::collections::BTreeMap;

use serde::Deserialize;
use tidelock_sdk::{Body, Error, InventoryEntry, InventoryPage};

use crate::bag::{BagId, is_ours};

/// The most bytes of one bag in the list.
const MAX_BAG: usize = 64 << 10;
/// The most entries of a page.
const MAX_ENTRIES: u32 = 10_000;

/// A bag in the list.
#[derive(Debug, Deserialize)]
struct Listed {
    bag_id: String,
    description: String,
    size: u64,
    files_count: u64,
    completed: bool,
}

/// Reads the list in the body. Returns the page after `cursor`.
pub async fn page(mut list: Body, cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
    let after = cursor.map(|cursor| BagId::parse(&cursor).ok_or_else(malformed)).transpose()?;
    let mut page = Page { after, limit: limit.min(MAX_ENTRIES) as usize, found: BTreeMap::new(), more: false };
    let mut splitter = Splitter::default();
    while let Some(bytes) = list.next().await {
        splitter.feed(&bytes, &mut |bag| page.take(bag))?;
    }
    list.finish().await?;
    if splitter.depth != 0 { Err(no_list()) } else { Ok(page.finish()) }
}

struct Page {
    after: Option<BagId>,
    limit: usize,
    found: BTreeMap<BagId, u64>,
    more: bool,
}

impl Page {
    fn take(&mut self, bag: &[u8]) -> Result<(), Error> {
        let Listed { bag_id, description, size, files_count, completed } =
            serde_json::from_slice(bag).map_err(|_| no_list())?;
        let id = BagId::parse(&bag_id).ok_or_else(no_list)?;
        if completed && files_count == 1 && is_ours(&description) && self.after.is_none_or(|after| id > after) {
            self.found.insert(id, size);
        }
        if self.found.len() > self.limit {
            self.found.pop_last();
            self.more = true;
        }
        Ok(())
    }

    fn finish(self) -> InventoryPage {
        let next = self.found.last_key_value().filter(|_| self.more).map(|(id, _)| id.hex());
        let entry = |(id, size): (BagId, u64)| InventoryEntry { id: id.hex(), size, modified: None };
        InventoryPage { entries: self.found.into_iter().map(entry).collect(), next }
    }
}

/// Splits `{"bags":[{…},{…}]}` into its bags, from chunks of any size.
#[derive(Debug, Default)]
struct Splitter {
    depth: u32,
    string: bool,
    escaped: bool,
    bag: Vec<u8>,
}

impl Splitter {
    /// The number of open brackets and braces inside a bag, its own included.
    const WITHIN: u32 = 3;

    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        for &byte in bytes {
            let was_within = self.depth >= Self::WITHIN;
            self.step(byte)?;
            let is_within = self.depth >= Self::WITHIN;
            if was_within || is_within {
                if self.bag.len() >= MAX_BAG {
                    return Err(no_list());
                }
                self.bag.push(byte);
            }
            if was_within && !is_within {
                each(&self.bag)?;
                self.bag.clear();
            }
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), Error> {
        match (self.string, byte) {
            (true, _) if self.escaped => self.escaped = false,
            (true, b'\\') => self.escaped = true,
            (_, b'"') => self.string = !self.string,
            (false, b'{' | b'[') => self.depth = self.depth.saturating_add(1),
            (false, b'}' | b']') => self.depth = self.depth.checked_sub(1).ok_or_else(no_list)?,
            _ => {}
        }
        Ok(())
    }
}

fn no_list() -> Error {
    Error::other("the list of bags of the storage daemon is not one of its API")
}

fn malformed() -> Error {
    Error::invalid("the cursor is not one of this adapter")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bag(id: u8, description: &str) -> String {
        let id = BagId([id; 32]).hex();
        serde_json::json!({
            "bag_id": id, "description": description, "downloaded": 5, "size": 5, "header_size": 60, "peers": 0,
            "files_count": 1, "dir_name": "", "completed": true, "header_loaded": true, "info_loaded": true,
        })
        .to_string()
    }

    fn walk(text: &str, chunk: usize, after: Option<u8>, limit: usize) -> Result<(Vec<u8>, bool), Error> {
        let after = after.map(|id| BagId([id; 32]));
        let mut page = Page { after, limit, found: BTreeMap::new(), more: false };
        let mut splitter = Splitter::default();
        for bytes in text.as_bytes().chunks(chunk) {
            splitter.feed(bytes, &mut |bag| page.take(bag))?;
        }
        let page = page.finish();
        Ok((page.entries.iter().map(|entry| BagId::parse(&entry.id).unwrap().0[0]).collect(), page.next.is_some()))
    }

    #[test]
    fn foreign_bags_are_left_out() {
        let foreign = bag(2, r#"}],"tidelock \" {["#);
        let half = bag(3, "tidelock").replace(r#""completed":true"#, r#""completed":false"#);
        let text = format!(r#"{{"bags":[{},{foreign},{half}]}}"#, bag(1, "tidelock"));
        for chunk in [1, 7, 10_000] {
            assert_eq!(walk(&text, chunk, None, 10).unwrap(), (vec![1], false));
        }
        assert_eq!(walk(r#"{"bags":null}"#, 100, None, 10).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for bad in [r#"{"bags":[{}]}"#, r#"{"bags":[{"bag_id":"x"}]}"#, "]", &format!(r#"[[{{"{}"#, "x".repeat(70_000))]
        {
            assert!(walk(bad, 100, None, 10).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Each bag comes once, in whatever order the daemon gives them each time.
        #[test]
        fn every_bag_once(ids in prop::collection::btree_set(any::<u8>(), 0..40), limit in 1_usize..9, seed in any::<u64>()) {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let mut order: Vec<u8> = ids.iter().copied().collect();
                order.sort_by_key(|id| (u64::from(*id) * 0x9e37_79b9).wrapping_mul(seed | 1) >> 7 & 0xff);
                let bags: Vec<_> = order.iter().map(|id| bag(*id, "tidelock")).collect();
                let (found, more) = walk(&format!(r#"{{"bags":[{}]}}"#, bags.join(",")), 64, cursor, limit).unwrap();
                prop_assert!(found.len() <= limit);
                cursor = found.last().copied();
                seen.extend(found);
                if !more { break }
            }
            prop_assert_eq!(seen, ids.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_answered(text in ".{0,200}", chunk in 1_usize..20) {
            let _ = walk(&text, chunk, None, 5);
        }
    }
}
