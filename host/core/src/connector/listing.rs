//! The end of a listing: an adapter that lists for ever, or more than the caller expects, is stopped.
//!
//! What an adapter says is not believed. A listing that comes back to where it was is recognised by its cursors and by the
//! names with which its pages begin, of which one each is kept (Brent's algorithm): whatever returns is met within three
//! times the length of the circle. One that goes on with ever new names cannot be told from a large one, so the caller
//! says how many objects there may be. Pages that bring nothing are bounded, and the bytes of names where they are kept.

use crate::types::{Error, InventoryPage, Result};

/// The objects of one listing, unless the caller says how many there may be.
pub const MOST_LISTED: u64 = 10_000_000;
/// The bytes of their names where they are kept, for each object that there may be: more than ours have.
const NAME_BYTES: u64 = 80;
/// Pages that bring nothing, one after the other.
const MAX_BARREN: u32 = 100_000;

/// How far a listing has come.
pub(super) struct Listing<'a> {
    backend: &'a str,
    operation: &'static str,
    most: u64,
    most_name_bytes: Option<u64>,
    objects: u64,
    name_bytes: u64,
    barren: u32,
    cursors: Recurrence,
    beginnings: Recurrence,
}

impl<'a> Listing<'a> {
    /// Of at most so many objects; `None` is [`MOST_LISTED`].
    pub(super) fn of(backend: &'a str, operation: &'static str, most: Option<u64>) -> Self {
        Self {
            backend,
            operation,
            most: most.unwrap_or(MOST_LISTED),
            most_name_bytes: None,
            objects: 0,
            name_bytes: 0,
            barren: 0,
            cursors: Recurrence::default(),
            beginnings: Recurrence::default(),
        }
    }

    /// The same, for a caller that keeps the names.
    pub(super) fn kept(mut self) -> Self {
        self.most_name_bytes = Some(self.most.saturating_mul(NAME_BYTES));
        self
    }

    /// How many objects were listed so far.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// Takes note of a page, before its names are kept, and fails if the listing should have ended by now.
    ///
    /// # Errors
    /// `corrupt`, on the backend and during the operation.
    pub(super) fn page(&mut self, page: &InventoryPage) -> Result<()> {
        self.objects = self.objects.saturating_add(page.entries.len() as u64);
        let names = page.entries.iter().map(|entry| entry.id.as_str().len() as u64);
        self.name_bytes = self.name_bytes.saturating_add(names.sum());
        self.barren = if page.entries.is_empty() { self.barren + 1 } else { 0 };
        let first = page.entries.first().map(|entry| entry.id.as_str());
        // Both have to take note.
        let met = [
            page.next.as_deref().is_some_and(|next| self.cursors.meets(next)),
            first.is_some_and(|first| self.beginnings.meets(first)),
        ];
        if met.contains(&true) || self.barren > MAX_BARREN {
            return Err(self.cyclic());
        }
        let raise =
            "if the backend does hold so many, raise `--max-objects`; otherwise its server or its adapter invents them";
        if self.objects > self.most {
            return Err(self.wrong(&format!("has more than {} objects", self.most)).hint(raise));
        }
        match self.most_name_bytes {
            Some(most) if self.name_bytes > most => {
                Err(self.wrong(&format!("has names of more than {most} bytes")).hint(raise))
            }
            _ => Ok(()),
        }
    }

    /// The error of a listing that does not come forward.
    pub(super) fn cyclic(&self) -> Error {
        self.wrong("is cyclic")
            .hint("its server or its adapter does not come to an end: run it again, and tell the adapter's author")
    }

    fn wrong(&self, why: &str) -> Error {
        Error::corrupt(format!("the adapter's listing {why}")).on_backend(self.backend).during(self.operation)
    }
}

/// Recognises a sequence that has come into a circle.
#[derive(Debug, Default)]
struct Recurrence {
    kept: Option<String>,
    /// How many came, and after how many the kept one is replaced.
    count: u64,
    next: u64,
}

impl Recurrence {
    /// Returns whether this one was there before. Sees a circle when it has been gone round once more at the latest.
    fn meets(&mut self, text: &str) -> bool {
        if self.kept.as_deref() == Some(text) {
            return true;
        }
        self.count += 1;
        if self.count >= self.next {
            self.kept = Some(text.to_owned());
            self.next = self.count.saturating_mul(2);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{InventoryEntry, ObjectId};

    fn page(names: &[String], next: &str) -> InventoryPage {
        let entry = |name: &String| InventoryEntry { id: ObjectId::new(name).unwrap(), size: 1, modified: None };
        InventoryPage { entries: names.iter().map(entry).collect(), next: Some(next.to_owned()) }
    }

    /// How many pages a listing gets that goes on like this.
    fn pages(mut listing: Listing<'_>, mut make: impl FnMut(u64) -> InventoryPage) -> (u64, String) {
        for number in 0..1_000_000 {
            if let Err(error) = listing.page(&make(number)) {
                assert_eq!((error.backend(), error.operation()), (Some("b"), Some("gc")));
                assert!(error.advice().is_some());
                return (number, error.to_string());
            }
        }
        panic!("it goes on for ever");
    }

    fn names(page: u64) -> Vec<String> {
        (0..10).map(|number| format!("object-{page}-{number}")).collect()
    }

    #[test]
    fn new_names_are_bounded_in_number_and_where_they_are_kept_in_bytes() {
        let new = |number: u64| page(&names(number), &number.to_string());
        let (many, says) = pages(Listing::of("b", "gc", Some(1000)), new);
        assert!(many == 100 && says.contains("more than 1000 objects"), "{many} {says}");
        let long = |number: u64| page(&[format!("{number:0500}")], &number.to_string());
        let (many, says) = pages(Listing::of("b", "gc", Some(1000)).kept(), long);
        assert!(many == 160 && says.contains("names of more than 80000 bytes"), "{many} {says}");
        assert_eq!(pages(Listing::of("b", "gc", Some(1000)), long).0, 1000);
        assert_eq!(Listing::of("b", "gc", None).most, MOST_LISTED);
    }

    #[test]
    fn whatever_returns_is_met_soon() {
        for circle in [1, 2, 7, 100] {
            for before in [0, 1, 50] {
                let at = |number: u64| if number < before { number } else { before + (number - before) % circle };
                let soon = 3 * (before + circle) + 1;
                // The cursor alone, with new names; and the names alone, with new cursors.
                let (many, says) = pages(Listing::of("b", "gc", None), |n| page(&names(n), &at(n).to_string()));
                assert!(many <= soon && says.contains("is cyclic"), "{many} of {circle} after {before}: {says}");
                let (many, says) = pages(Listing::of("b", "gc", None), |n| page(&names(at(n)), &n.to_string()));
                assert!(many <= soon && says.contains("is cyclic"), "{many} of {circle} after {before}: {says}");
            }
        }
        let empty = |number: u64| page(&[], &number.to_string());
        assert_eq!(pages(Listing::of("b", "gc", None), empty).0, u64::from(MAX_BARREN));
    }
}
