//! Requirements for every file of the repository.

use std::collections::BTreeMap;
use std::fs;

use super::{files, root};

/// The lines that a file may have.
const LINES: usize = 420;

/// Files that may be longer, with the reason.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn every_file_says_what_it_is_for_and_fits_the_eye() {
    let root = root();
    let folders = ["host", "tests", "xtask", "bench", "examples", "fuzz", "guest-adapters"];
    let mut wrong = BTreeMap::new();
    for path in folders.iter().flat_map(|folder| files(&root.join(folder))) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            wrong.insert(name.clone(), "does not begin with `//!`, which says what it is for".to_string());
        }
        let lines = text.lines().count();
        if lines > LINES && !LONGER.iter().any(|(longer, _)| *longer == name) {
            wrong.insert(name, format!("has {lines} lines; {LINES} are the most"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
