//! Versions of one image in a row: ten by every contestant, and a chain of 32 that is restored beside the same image stored
//! whole.

use std::fs;

use anyhow::Result;

use super::connector::{TIDELOCK, Tidelock};
use super::peers::{Programs, XDELTA3};
use super::ram::{self, Numbers, PAGE};
use super::tool::{Added, Tool as _};
use super::{Contest, Plan, Row, Version, first, report, restore};
use crate::stats::median;

/// The case of the first versions, all together.
pub const TEN: &str = "ten versions, 2 % dirty each";
/// The case of the last version.
pub const CHAIN: &str = "the last of a chain of 32";
/// What rows call the same image, stored whole.
pub const STORED_WHOLE: &str = "tidelock, stored whole";

const SEED: u64 = 3;
const VERSIONS: usize = 10;
const DEPTH: usize = 32;

/// Measures images of half the plan's size.
pub fn run(plan: &Plan, programs: &Programs, note: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let size = plan.bytes() / 2;
    let dir = plan.folder(size * 12)?;
    let (mut previous, mut current) = (dir.path().join("a"), dir.path().join("b"));
    ram::write(&current, size, SEED)?;
    let mut contest = Contest::new(plan, programs, dir.path(), 1, note)?;
    // What each has added in all versions, or why one failed.
    let mut sums: Vec<Row> = Vec::new();
    let mut add = |rows: Vec<Row>| {
        for row in rows.into_iter().filter(|row| row.tool != XDELTA3) {
            match sums.iter_mut().find(|sum| sum.tool == row.tool) {
                Some(sum) => sum.add(&row),
                None => sums.push(row),
            }
        }
    };
    let name = |number: usize| format!("v{number}");
    add(contest.hold("version 1", first(&name(1), &current), false)?);
    let pages = size / PAGE as u64;
    // A base and the depth above it.
    for number in 2..=DEPTH + 1 {
        std::mem::swap(&mut previous, &mut current);
        fs::copy(&previous, &current)?;
        let mut numbers = Numbers::new(SEED + number as u64);
        ram::change(&current, &ram::pick(SEED, pages, (pages / 50).max(1), &mut numbers), &mut numbers)?;
        let (base, name) = (name(number - 1), name(number));
        let version = Version { name: &name, image: &current, base: Some((&base, &previous)) };
        if number <= VERSIONS {
            add(contest.hold(&format!("version {number}"), version, false)?);
        } else {
            contest.tidelock.store(version)?;
        }
    }
    let total = size * VERSIONS as u64;
    let mut rows: Vec<Row> = sums.into_iter().map(|sum| sum.summed(total)).collect();

    let last = name(DEPTH + 1);
    let mut whole = Tidelock::new(&plan.program, &super::tool::folder(dir.path(), "whole")?, 1)?;
    let added = whole.store(first(&last, &current))?;
    let (mut chain_times, mut whole_times) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.max(1) {
        chain_times.push(restore(&mut contest.tidelock, first(&last, &current), dir.path())?);
        whole_times.push(restore(&mut whole, first(&last, &current), dir.path())?);
    }
    rows.push(Row::new(CHAIN, TIDELOCK).restored(size, median(&chain_times)));
    rows.push(Row::new(CHAIN, STORED_WHOLE).stored(size, added).restored(size, median(&whole_times)));
    rows.iter().for_each(|row| note(&report::line(row)));
    Ok(rows)
}

impl Row {
    /// Adds what the next version took.
    fn add(&mut self, next: &Row) {
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        self.added_bytes = self.added_bytes.zip(next.added_bytes).map(|(a, b)| a + b);
        self.beside_bytes = self.beside_bytes.zip(next.beside_bytes).map(|(a, b)| a + b);
        self.encode_seconds = sum(self.encode_seconds, next.encode_seconds);
        self.missing = self.missing.take().or_else(|| next.missing.clone());
    }

    /// All versions together, of so many bytes.
    fn summed(self, total: u64) -> Self {
        let mut row = Row::new(TEN, self.tool);
        if let (Some(bytes), Some(seconds)) = (self.added_bytes, self.encode_seconds) {
            row = row.stored(total, Added { bytes, seconds });
        }
        Row { beside_bytes: self.beside_bytes, missing: self.missing, ..row }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_failed_leaves_no_sum() {
        let added = Added { bytes: 10, seconds: 1.0 };
        let mut sum = Row::new("version 1", "x").stored(1 << 20, added);
        sum.add(&Row::new("version 2", "x").stored(1 << 20, added));
        let whole = sum.clone().summed(2 << 20);
        assert_eq!((whole.added_bytes, whole.encode), (Some(20), Some(1.0)));
        sum.add(&Row::new("version 3", "x").missing("it failed".into()));
        let part = sum.summed(3 << 20);
        assert_eq!((part.added_bytes, part.encode, part.missing.as_deref()), (None, None, Some("it failed")));
    }
}
