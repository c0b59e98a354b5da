//! The jobs that were passed over, since they may not be begun now.
//!
//! How many there are is for others to choose: a backend that stalls has as many as were stored on its routes. So a search goes on
//! where the last one ended, as long as what held those before is so still, and looks at what was enqueued since. What has changed
//! among them otherwise, such as a job that was woken, is found once that was remembered for long enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{Between, Choice};

/// How long jobs are not looked at again, in seconds; and one more for so many, so that looks take a small part of the time.
const KEPT: u64 = 10;
const ONE_MORE: u64 = 10_000;
/// Fewer are looked at each time.
const FEW: u64 = 256;

/// A place in the order of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) copies: u64,
    pub(super) attempts: u64,
    pub(super) created: u64,
    pub(super) seq: u64,
}

/// A job that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) key: Key,
    /// The backend that it writes to; `""` for none.
    pub(super) target: String,
    /// Those that it may read from.
    pub(super) sources: Vec<String>,
    /// Whether it is a version that waits for its base.
    pub(super) waits: bool,
}

impl Seen {
    fn between(&self, source: &str) -> Between {
        Between { source: source.to_owned(), target: self.target.clone() }
    }

    /// Where it would go on, if that is between two of these backends.
    fn places(&self) -> Vec<Between> {
        match self.sources.is_empty() {
            true => vec![self.between(&self.target)],
            false => self.sources.iter().map(|source| self.between(source)).collect(),
        }
    }

    /// Where it goes on, if it may be begun.
    pub(super) fn fits(&self, choice: &Choice) -> Option<Between> {
        if self.waits || choice.without.contains(&self.key.seq) {
            return None;
        }
        self.places().into_iter().find(|place| !choice.not_between.iter().any(|other| other.is_same(place)))
    }
}

/// The jobs up to a place in the order, none of which may be begun while what held them is so.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    since: u64,
    routes: BTreeMap<String, Vec<String>>,
    up_to: Key,
    count: u64,
    /// Jobs that came later were not looked at.
    newest: u64,
    not_between: Vec<Between>,
    without: BTreeSet<u64>,
    /// Whether one that is not held by the choice came after them.
    ended: bool,
}

impl Passed {
    pub(super) fn begin(choice: &Choice, now: u64) -> Self {
        let (routes, not_between, without) = (choice.routes.clone(), Vec::new(), BTreeSet::new());
        Self { since: now, routes, up_to: Key::default(), count: 0, newest: 0, not_between, without, ended: false }
    }

    /// Returns whether these still may not be begun.
    pub(super) fn holds(&self, choice: &Choice, now: u64) -> bool {
        let is_held = |place: &Between| choice.not_between.iter().any(|other| other.is_same(place));
        self.count >= FEW
            && now.abs_diff(self.since) < KEPT + self.count / ONE_MORE
            && self.routes == choice.routes
            && self.not_between.iter().all(is_held)
            && self.without.iter().all(|job| choice.without.contains(job))
    }

    /// The parts to be looked at: those that came after a job, up to a place in the order; and all after that.
    pub(super) fn parts(&mut self) -> Vec<(Option<u64>, Key)> {
        self.ended = false;
        match self.count {
            0 => vec![(None, Key::default())],
            _ => vec![(Some(self.newest), self.up_to), (None, self.up_to)],
        }
    }

    /// Those from here on are looked at again.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Passes over one: the next in the order, or one that came later.
    pub(super) fn pass(&mut self, seen: &Seen, is_newer: bool, choice: &Choice) {
        // It is found again as soon as its base is there.
        self.ended |= seen.waits;
        if self.ended {
            return;
        }
        if choice.without.contains(&seen.key.seq) {
            self.without.insert(seen.key.seq);
        } else {
            for place in seen.places() {
                if !self.not_between.iter().any(|other| other.is_same(&place)) {
                    self.not_between.push(place);
                }
            }
        }
        self.newest = self.newest.max(seen.key.seq);
        if !is_newer {
            self.up_to = self.up_to.max(seen.key);
            self.count += 1;
        }
    }
}
