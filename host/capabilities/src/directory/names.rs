//! The names in a local directory, in order, page by page.
//!
//! A file system returns names unordered, so the next names after a cursor are known only once all are read. Reading
//! all of them for every page would make a listing of *n* names cost *n*²; keeping them all would cost memory. So the
//! names of many pages are kept from one reading, [`AHEAD`] of them at most, for the listing that continues there. A
//! million names in one directory are read 16 times rather than a thousand times.
//!
//! Only the latest reading of this capability is kept, for all its users: a new listing reads again, so
//! it never returns names that are older than its start. And only one reading at a time looks for more than its page:
//! what is read ahead is charged to no operation, and is bounded for all of them together.

use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use cap_std::fs::Dir;

use tidelock_types::files::LIST_LIMIT;
use tidelock_types::path::TEMPORARY;

/// Names that are kept for the pages to come: 16 MiB if all are as long as can be.
const AHEAD: usize = 1 << 16;

/// The longest name of a local file system.
const LONGEST_NAME: u64 = 255;

/// The most bytes that are held for a page of so many entries: the names and the entries. The names that are read ahead are
/// the capability's, and no operation's.
pub(super) fn page_holds(limit: u32) -> u64 {
    2 * (LONGEST_NAME + 128) * u64::from(limit.clamp(1, LIST_LIMIT))
}

/// Names that were read and not yet returned.
#[derive(Default)]
pub(super) struct Names {
    kept: Mutex<Option<Rest>>,
    /// Held by the reading that reads ahead.
    ahead: Mutex<()>,
}

struct Rest {
    path: String,
    /// The last name that was returned.
    after: String,
    /// The names after it, least last.
    names: Vec<String>,
    /// Whether there are more beyond these.
    more: bool,
}

impl Names {
    /// At most `limit` (not 0) names of the directory, which is at `path`, beyond a cursor; and whether there are more.
    /// Temporary files and names that are not UTF-8 are passed over.
    pub(super) fn page(
        &self,
        directory: &Dir,
        path: &str,
        cursor: Option<&str>,
        limit: usize,
        stop: &dyn Fn() -> bool,
    ) -> std::io::Result<(Vec<String>, bool)> {
        let kept = cursor.and_then(|cursor| self.take(path, cursor, limit));
        let mut rest = match kept {
            Some(rest) => rest,
            None => {
                let reads_ahead = self.ahead.try_lock();
                let most = if reads_ahead.is_ok() { limit.saturating_add(AHEAD) } else { limit };
                read(directory, path, cursor, most, stop)?
            }
        };
        let page = rest.names.split_off(rest.names.len().saturating_sub(limit));
        let page: Vec<String> = page.into_iter().rev().collect();
        let more = rest.more || !rest.names.is_empty();
        if let Some(last) = page.last().filter(|_| !rest.names.is_empty()) {
            rest.after.clone_from(last);
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
        Ok((page, more))
    }

    /// Returns the kept names for this cursor, if they fill a page.
    fn take(&self, path: &str, cursor: &str, limit: usize) -> Option<Rest> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|rest| rest.path == path && rest.after == cursor)
            .filter(|rest| rest.names.len() >= limit || !rest.more)
    }
}

fn read(
    directory: &Dir,
    path: &str,
    cursor: Option<&str>,
    most: usize,
    stop: &dyn Fn() -> bool,
) -> std::io::Result<Rest> {
    let mut least = BinaryHeap::new();
    let mut more = false;
    for entry in directory.entries()? {
        if stop() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with(TEMPORARY) || cursor.is_some_and(|cursor| name.as_str() <= cursor) {
            continue;
        }
        least.push(name);
        if least.len() > most {
            least.pop();
            more = true;
        }
    }
    let mut names = least.into_sorted_vec();
    names.reverse();
    Ok(Rest { path: path.to_owned(), after: String::new(), names, more })
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    fn folder(names: impl Iterator<Item = String>) -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        names.for_each(|name| drop(std::fs::File::create(dir.path().join(name)).unwrap()));
        let opened = Dir::open_ambient_dir(dir.path(), ambient_authority()).unwrap();
        (dir, opened)
    }

    /// All pages, and the cost of a page besides the first: whether the directory was read again.
    fn all(names: &Names, dir: &Dir, limit: usize) -> Vec<String> {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let (page, more) = names.page(dir, "d", cursor.as_deref(), limit, &|| false).unwrap();
            assert!(page.len() <= limit);
            cursor = page.last().cloned();
            seen.extend(page);
            if !more {
                return seen;
            }
        }
    }

    #[test]
    fn every_name_once_and_in_order_whatever_the_pages() {
        let (_keep, dir) =
            folder((0..500).map(|n| format!("n{:03}", n * 7 % 500)).chain([".tmp".into(), ".tmp1".into()]));
        let expected: Vec<_> = (0..500).map(|n| format!("n{n:03}")).collect();
        for limit in [1, 2, 250, 499, 500, 501, 1000] {
            assert_eq!(all(&Names::default(), &dir, limit), expected, "{limit}");
        }
        assert!(all(&Names::default(), &folder(std::iter::empty()).1, 10).is_empty());
    }

    /// More names than are kept: the end of the kept ones is not the end of the directory.
    #[test]
    fn beyond_what_is_kept_the_directory_is_read_again() {
        let count = AHEAD + 2_500;
        let (_keep, dir) = folder((0..count).map(|n| format!("{n:06}")));
        let expected: Vec<_> = (0..count).map(|n| format!("{n:06}")).collect();
        assert_eq!(all(&Names::default(), &dir, 1000), expected);
    }

    /// Many that list at once hold one read-ahead together, and each of them its page.
    #[test]
    fn one_reading_at_a_time_reads_ahead() {
        let (_keep, dir) = folder((0..50).map(|n| format!("{n:02}")));
        let names = Names::default();
        let kept = || names.kept.lock().unwrap().as_ref().map(|rest| rest.names.len());
        let reads = names.ahead.lock().unwrap();
        let expected: Vec<_> = (0..50).map(|n| format!("{n:02}")).collect();
        assert_eq!(all(&names, &dir, 7), expected);
        assert_eq!(kept(), None);
        drop(reads);
        names.page(&dir, "d", None, 7, &|| false).unwrap();
        assert_eq!(kept(), Some(43));
    }

    #[test]
    fn a_new_listing_has_new_names_and_listings_are_independent() {
        let (keep, dir) = folder((0..10).map(|n| format!("{n}")));
        let names = Names::default();
        let page = |cursor: Option<&str>, limit| names.page(&dir, "d", cursor, limit, &|| false).unwrap().0;
        assert_eq!(page(None, 3), ["0", "1", "2"]);
        std::fs::File::create(keep.path().join("10")).unwrap();
        assert_eq!(page(None, 3), ["0", "1", "10"], "a new listing has it");
        assert_eq!(page(Some("2"), 2), ["3", "4"], "a cursor that nothing was kept for");
        assert_eq!(page(Some("4"), 2), ["5", "6"]);
        assert_eq!(page(Some("4"), 2), ["5", "6"], "the same page once more");
        assert_eq!(names.page(&dir, "other", Some("6"), 2, &|| false).unwrap(), (vec!["7".into(), "8".into()], true));
        assert_eq!(names.page(&dir, "d", Some("8"), 2, &|| false).unwrap(), (vec!["9".into()], false));
    }
}
