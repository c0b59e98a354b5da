//! The inventory against a tree in memory that lists as the host does.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

/// Files by path; directories follow from them, or are listed as empty ones. A host's page is at most `page` long.
struct Tree {
    files: BTreeSet<String>,
    empty: BTreeSet<String>,
    page: usize,
}

impl Lister for Tree {
    async fn list(&self, path: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        let root = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries = std::collections::BTreeMap::new();
        for file in self.files.iter().filter_map(|file| file.strip_prefix(&root)) {
            let (name, is_directory) = file.split_once('/').map_or((file, false), |(name, _)| (name, true));
            entries.insert(name, is_directory);
        }
        for directory in self.empty.iter().filter_map(|directory| directory.strip_prefix(&root)) {
            entries.insert(directory.split('/').next().unwrap(), true);
        }
        if entries.is_empty() && !self.empty.contains(path) {
            return Err(Error::not_found(path));
        }
        // A cursor that looks like a path, since nothing is promised of it.
        let after = cursor.map(|c| c.strip_prefix("after/").unwrap().to_owned());
        let rest = entries.into_iter().filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
        let mut rest: Vec<_> = rest.collect();
        let shown = self.page.min(limit as usize);
        let next = (rest.len() > shown).then(|| format!("after/{}", rest[shown - 1].0));
        rest.truncate(shown);
        let entry =
            |(name, is_directory): (&str, bool)| Entry { name: name.into(), is_directory, size: 1, modified: None };
        Ok(Page { entries: rest.into_iter().map(entry).collect(), next })
    }
}

/// Nothing here waits, so one poll is enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a tree in memory is never pending"),
    }
}

/// Every page to the end: ids in the order in which they came, and the number of pages.
fn all(tree: &Tree, settings: &Settings, limit: u32) -> (Vec<String>, usize) {
    let (mut ids, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = now(walk(tree, settings, cursor, limit)).unwrap();
        assert!(page.entries.len() <= limit as usize);
        ids.extend(page.entries.into_iter().map(|entry| entry.id));
        pages += 1;
        assert!(pages < 10_000, "the walk makes no progress");
        match page.next {
            Some(next) => cursor = Some(next),
            None => return (ids, pages),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each object comes once, whatever the sizes of pages, and nothing else comes.
    #[test]
    fn every_object_once(
        keys in prop::collection::btree_set("[a-z0-9-]{1,6}", 0..60),
        prefix in "(vm|a/b)?",
        flat: bool,
        page in 1usize..8,
        limit in 1u32..20,
    ) {
        let layout = if flat { Layout::Flat } else { Layout::FanOut };
        let settings = Settings { prefix: prefix.clone(), layout };
        let objects: BTreeSet<String> = keys.iter().map(|key| settings.path(key)).collect();
        let mut files = objects.clone();
        // Side files, and things that are not ours.
        files.extend(objects.iter().map(|path| format!("{path}.base")));
        files.extend(["README.txt", "lost+found/x", "Key/00/key"].map(|foreign| below(&prefix, foreign)));
        if !flat {
            files.extend(["00/notes.txt", "0g/00/key", "key"].map(|foreign| below(&prefix, foreign)));
        }
        let tree = Tree { files, empty: BTreeSet::new(), page };
        let (ids, _) = all(&tree, &settings, limit);
        prop_assert_eq!(ids.len(), objects.len());
        prop_assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), objects);
    }

    #[test]
    fn any_cursor_is_answered(cursor in "[0-9a-g/]{0,8}", flat: bool) {
        let tree = Tree { files: BTreeSet::new(), empty: BTreeSet::new(), page: 5 };
        let layout = if flat { Layout::Flat } else { Layout::FanOut };
        let settings = Settings { prefix: String::new(), layout };
        match now(walk(&tree, &settings, Some(cursor), 5)) {
            Ok(page) => prop_assert!(page.entries.is_empty() && page.next.is_none()),
            Err(error) => prop_assert!(matches!(error, Error::Invalid(_))),
        }
    }
}

#[test]
fn a_directory_that_is_not_there_holds_nothing() {
    let tree = Tree { files: BTreeSet::new(), empty: BTreeSet::new(), page: 5 };
    for layout in [Layout::Flat, Layout::FanOut] {
        assert_eq!(all(&tree, &Settings { prefix: "new".into(), layout }, 10), (Vec::new(), 1));
    }
}

#[test]
fn empty_directories_do_not_hold_a_call_for_long() {
    let leaf = |n: u32| format!("{:02x}/{:02x}", n / 256, n % 256);
    let empty = (0..4096).map(leaf).collect();
    let tree = Tree { files: BTreeSet::from(["0f/ff/last".to_owned()]), empty, page: 1000 };
    let (ids, pages) = all(&tree, &Settings { prefix: String::new(), layout: Layout::FanOut }, 10);
    assert_eq!(ids, ["0f/ff/last"]);
    assert!(pages > 1 && pages < 8, "{pages} pages");
}
