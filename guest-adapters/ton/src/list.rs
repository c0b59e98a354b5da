//! Listing of the bags that this adapter has stored, page by page.
//!
//! The daemon returns all its bags at once, in changing order. So the whole list is read, one bag at a time, and the cursor
//! carries those of the next pages ([`tidelock_sdk::upcoming`]). The description of a bag tells whether this adapter stored
//! it, on any host.

use std::future::Future;

use serde::Deserialize;
use tidelock_sdk::upcoming::{Place, Upcoming};
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

/// Returns the page at a cursor. Reads the list only if the cursor does not carry the page.
pub async fn page<F: Future<Output = Result<Body, Error>>>(
    list: impl FnOnce() -> F,
    cursor: Option<String>,
    limit: u32,
) -> Result<InventoryPage, Error> {
    let upcoming = match Place::of(cursor)? {
        Place::Known(upcoming) => upcoming,
        Place::Unread(mut upcoming) => {
            let (mut body, mut splitter) = (list().await?, Splitter::default());
            while let Some(bytes) = body.next().await {
                splitter.feed(&bytes, &mut |bag| take(bag, &mut upcoming))?;
            }
            body.finish().await?;
            if splitter.depth != 0 {
                return Err(no_list());
            }
            upcoming
        }
    };
    let (page, next) = upcoming.page(limit.min(MAX_ENTRIES) as usize);
    let entry = |(id, size)| InventoryEntry { id, size, modified: None };
    Ok(InventoryPage { entries: page.into_iter().map(entry).collect(), next })
}

/// Takes note of a bag, if it is one of this adapter's.
fn take(bag: &[u8], upcoming: &mut Upcoming) -> Result<(), Error> {
    let Listed { bag_id, description, size, files_count, completed } =
        serde_json::from_slice(bag).map_err(|_| no_list())?;
    let id = BagId::parse(&bag_id).ok_or_else(no_list)?;
    if completed && files_count == 1 && is_ours(&description) {
        upcoming.offer(id.hex(), size);
    }
    Ok(())
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

    fn walk(text: &str, chunk: usize) -> Result<Vec<u8>, Error> {
        let Place::Unread(mut upcoming) = Place::of(None)? else { unreachable!("there is no cursor") };
        let mut splitter = Splitter::default();
        for bytes in text.as_bytes().chunks(chunk) {
            splitter.feed(bytes, &mut |bag| take(bag, &mut upcoming))?;
        }
        let (page, next) = upcoming.page(100);
        assert!(next.is_none());
        Ok(page.iter().map(|(id, _)| BagId::parse(id).unwrap().0[0]).collect())
    }

    #[test]
    fn foreign_bags_are_left_out() {
        let foreign = bag(2, r#"}],"tidelock \" {["#);
        let half = bag(3, "tidelock").replace(r#""completed":true"#, r#""completed":false"#);
        let text = format!(r#"{{"bags":[{},{foreign},{half}]}}"#, bag(1, "tidelock"));
        for chunk in [1, 7, 10_000] {
            assert_eq!(walk(&text, chunk).unwrap(), [1]);
        }
        assert_eq!(walk(r#"{"bags":null}"#, 100).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn malformed_lists_are_refused() {
        for bad in [r#"{"bags":[{}]}"#, r#"{"bags":[{"bag_id":"x"}]}"#, "]", &format!(r#"[[{{"{}"#, "x".repeat(70_000))]
        {
            assert!(walk(bad, 100).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(text in ".{0,200}", chunk in 1_usize..20) {
            let _ = walk(&text, chunk);
        }
    }
}
