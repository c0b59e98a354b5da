//! Room that is reserved before something takes it: for what will be on this machine alone, and in the hot tier. It is reserved
//! under a lease, in the catalogue, so that a bound holds for all processes together.
//!
//! What is at risk waits for backends, and one that takes nothing keeps it waiting. So no backend holds more than it leaves free,
//! where others have to have some as well: one that is stuck comes to half, and two come to a third each.

use std::collections::BTreeMap;

/// A route, as far as its pushes are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskRoute {
    /// Its backends in order, without the hot tier.
    pub backends: Vec<String>,
    /// How many of them take a copy.
    pub copies: usize,
    /// Whether its stores wait for this machine alone.
    pub local: bool,
}

/// How much may be acknowledged and on this machine alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskBound {
    /// The most bytes of all routes together.
    pub most: u64,
    /// The configured routes by name.
    pub routes: BTreeMap<String, RiskRoute>,
}

/// Bytes that are at risk, or are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRisk {
    /// The routes, with line breaks between.
    pub route: String,
    /// The copies that are wanted, if there is one route.
    pub copies: Option<usize>,
    /// The backends that have one.
    pub there: Vec<String>,
    /// How many bytes.
    pub bytes: u64,
}

/// What came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// It has this number.
    Room(u64),
    /// So many bytes are in its way: those of all routes, or those that one of its backends holds.
    Full(u64),
}

impl RiskBound {
    /// The backends that such bytes wait for: of each route the first that lack a copy. Those of a route that is not configured
    /// wait for one without a name.
    fn waits_for<'a>(&'a self, route: &'a str, copies: Option<usize>, there: &[String]) -> Vec<&'a str> {
        let mut found = Vec::new();
        for name in route.split('\n') {
            let Some(route) = self.routes.get(name) else { continue };
            let lacking = route.backends.iter().filter(|backend| !there.contains(backend));
            let missing = copies.unwrap_or(route.copies).saturating_sub(there.len()).max(1);
            for backend in lacking.take(missing) {
                if !found.contains(&backend.as_str()) {
                    found.push(backend.as_str());
                }
            }
        }
        if found.is_empty() {
            found.push("");
        }
        found
    }

    /// The backends that new bytes of a route wait for, each with whether others have to have room beside it: there is a route of
    /// this kind that does not wait for it.
    fn of_new<'a>(&'a self, route: &'a str) -> Vec<(&'a str, bool)> {
        let beside = |backend: &str| {
            let mut others = self.routes.iter().filter(|(_, other)| other.local);
            others.any(|(name, _)| !self.waits_for(name, None, &[]).contains(&backend))
        };
        self.waits_for(route, None, &[]).into_iter().map(|backend| (backend, beside(backend))).collect()
    }

    /// The most bytes that one image of a route may have.
    pub fn largest(&self, route: &str) -> u64 {
        match self.of_new(route).iter().any(|(_, beside)| *beside) {
            true => self.most / 2,
            false => self.most,
        }
    }

    /// Returns whether so many more bytes may be at risk beside these, whatever they wait for.
    pub(super) fn is_free(&self, bytes: u64, all: u64) -> bool {
        all.saturating_add(bytes).saturating_mul(2) <= self.most
    }

    /// Returns what is in the way of so many more bytes of a route, if something is.
    pub(super) fn in_the_way(&self, route: &str, bytes: u64, held: &[AtRisk]) -> Option<u64> {
        let all = held.iter().fold(0, |sum: u64, one| sum.saturating_add(one.bytes));
        let Some(free) = self.most.checked_sub(all.saturating_add(bytes)) else { return Some(all) };
        for (backend, beside) in self.of_new(route) {
            let waits = |one: &&AtRisk| self.waits_for(&one.route, one.copies, &one.there).contains(&backend);
            let holds = held.iter().filter(waits).fold(0, |sum: u64, one| sum.saturating_add(one.bytes));
            if beside && holds.saturating_add(bytes) > free {
                return Some(holds);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(routes: &[(&str, &[&str], usize)]) -> RiskBound {
        let route = |(name, backends, copies): &(&str, &[&str], usize)| {
            let backends = backends.iter().map(|&name| name.to_owned()).collect();
            ((*name).to_owned(), RiskRoute { backends, copies: *copies, local: true })
        };
        RiskBound { most: 8, routes: routes.iter().map(route).collect() }
    }

    fn held(route: &str, there: &[&str], bytes: u64) -> AtRisk {
        let there = there.iter().map(|&name| name.to_owned()).collect();
        AtRisk { route: route.to_owned(), copies: None, there, bytes }
    }

    #[test]
    fn no_backend_holds_more_than_it_leaves_free() {
        let two = bound(&[("default", &["b"], 1), ("far", &["cloud", "b"], 1)]);
        assert_eq!((two.largest("far"), two.in_the_way("far", 4, &[])), (4, None));
        assert_eq!(two.in_the_way("far", 5, &[]), Some(0));
        let stuck = [held("far", &[], 4)];
        assert_eq!(two.in_the_way("far", 1, &stuck), Some(4));
        // What waits for `cloud` is not what `b` holds.
        assert_eq!(two.in_the_way("default", 2, &stuck), None);
        assert_eq!(two.in_the_way("default", 3, &stuck), Some(0));
        assert_eq!(two.in_the_way("default", 5, &stuck), Some(4));
        // A route that is gone, and one on which there is nothing to wait for.
        assert_eq!(two.in_the_way("default", 4, &[held("gone", &[], 4)]), Some(0));
        assert_eq!(two.in_the_way("default", 2, &[held("gone", &[], 4)]), None);
    }

    #[test]
    fn a_backend_that_all_wait_for_may_hold_everything() {
        let one = bound(&[("default", &["a", "b"], 1), ("other", &["a"], 1)]);
        assert_eq!((one.largest("default"), one.in_the_way("default", 8, &[])), (8, None));
        assert_eq!(one.in_the_way("other", 4, &[held("default", &[], 4)]), None);
        assert_eq!(one.in_the_way("other", 5, &[held("default", &[], 4)]), Some(4));
    }

    #[test]
    fn what_has_a_copy_waits_for_the_others() {
        let both = bound(&[("default", &["a", "b", "c"], 2), ("other", &["c"], 1), ("third", &["a"], 1)]);
        assert_eq!(both.waits_for("default", None, &[]), ["a", "b"]);
        assert_eq!(both.waits_for("default", None, &["b".into()]), ["a"]);
        assert_eq!(both.waits_for("default", Some(3), &["b".into()]), ["a", "c"]);
        assert_eq!(both.waits_for("other\nthird", None, &[]), ["c", "a"]);
        // `b` is stuck: what waits for it is not what `a` holds.
        let stuck = [held("default", &["a"], 3)];
        assert_eq!(both.in_the_way("third", 2, &stuck), None);
        assert_eq!(both.in_the_way("default", 2, &stuck), Some(3));
    }
}
