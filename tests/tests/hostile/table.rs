//! `docs/security.md` has a table of limits, each with its key and with the attacks that try to break it. Every key of the
//! configuration is in it, and every attack that it names exists.

use std::collections::BTreeSet;
use std::path::Path;

use tidelock::types::limits::{LIMITS, limit_rows};

/// The functions in files of tests of the host's crates, and in modules of tests: limits that no adapter can reach are tested there.
fn tests_of_the_host() -> BTreeSet<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![own.join("../host"), own.join("tests")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let functions =
                    text.lines().filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "));
                names.extend(functions.filter_map(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}

pub fn is_true(attacks: &[String]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, limits) = text.split_once("\n## Limits\n").ok_or("there is no section of limits")?;
    let limits = limits.split("\n## ").next().unwrap_or_default();
    let mut keys = BTreeSet::new();
    for row in limits.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let named = quoted(cells[cells.len() - 1]);
        if cells.len() != 5 || named.is_empty() {
            return Err(format!("a limit has a key, a default, what it bounds, how, and its attacks: {row}"));
        }
        keys.extend(quoted(cells[0]));
    }
    let known: BTreeSet<String> = LIMITS.iter().map(|key| (*key).to_owned()).collect();
    let of_engine: BTreeSet<String> =
        limit_rows().into_iter().filter(|row| row.of_engine).map(|row| row.key.to_owned()).collect();
    if let Some(wrong) = known.union(&of_engine).cloned().collect::<BTreeSet<_>>().symmetric_difference(&keys).next() {
        return Err(format!("`{wrong}` is in the table or in the configuration, not in both"));
    }
    // What looks like the name of an attack, wherever it stands, is one.
    let rows = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| quoted(line.rsplit('|').nth(1).unwrap_or_default()));
    let attacks: BTreeSet<&str> = attacks.iter().map(String::as_str).chain(["secrets_stay_in_the_host"]).collect();
    let mentioned: BTreeSet<String> =
        rows.filter(|word| word.contains('_') && !LIMITS.contains(&word.as_str())).collect();
    let tests = tests_of_the_host();
    if let Some(unknown) = mentioned.iter().find(|name| !attacks.contains(name.as_str()) && !tests.contains(*name)) {
        return Err(format!("there is no attack `{unknown}`"));
    }
    match attacks.iter().find(|name| !mentioned.contains(**name)) {
        Some(unmentioned) => Err(format!("the attack `{unmentioned}` is not in the documentation")),
        None => Ok(()),
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(String::from).collect()
}
