//! Requirements for every file of the repository.

use std::collections::BTreeMap;
use std::fs;

use super::{files, root};

/// The lines that a file may have.
const LINES: usize = 420;

/// Files that may be longer, with the reason.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn every_file_has_a_header_and_a_bounded_length() {
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

/// The page of guarantees names tests, and each of them exists.
#[test]
fn every_guarantee_has_its_test() {
    let root = root();
    let page = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(named.len() > 30, "the page names only {}", named.len());
    let sources: Vec<String> = ["host", "tests"]
        .iter()
        .flat_map(|folder| files(&root.join(folder)))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let missing: Vec<&&str> =
        named.iter().filter(|name| !sources.iter().any(|source| source.contains(&format!("fn {name}(")))).collect();
    assert!(missing.is_empty(), "no test has the name {missing:?}");
    // Each row of the tables of promises names at least one.
    let rows =
        page.lines().filter(|line| line.starts_with("| ") && !line.contains("---") && !line.contains("shown by"));
    for row in rows {
        assert!(row.rsplit('|').nth(1).is_some_and(|tests| tests.contains('`')), "no test in: {row}");
    }
}
