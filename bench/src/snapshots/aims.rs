//! The aims, as ratios of figures of one run: whether they are reached is told, never asserted.

use serde::Serialize;

use super::connector::HOT;
use super::peers::{XDELTA3, ZSTD};
use super::{Found, Row, deltas, of, own, series, sparse, whole};
use crate::stats::rounded;

/// One aim.
#[derive(Debug, Serialize)]
pub struct Aim {
    /// What is divided by what.
    pub what: String,
    /// What was found; absent if a figure is missing.
    pub found: Option<f64>,
    /// What is wanted.
    pub aim: f64,
    /// Whether it is to be at most that, and not at least.
    pub at_most: bool,
}

impl Aim {
    fn at_most(what: impl Into<String>, found: Option<f64>, aim: f64) -> Self {
        Self { what: what.into(), found: found.map(|found| rounded(found, 3)), aim, at_most: true }
    }

    fn at_least(what: impl Into<String>, found: Option<f64>, aim: f64) -> Self {
        Self { at_most: false, ..Self::at_most(what, found, aim) }
    }

    /// Whether it is reached, if that is known.
    pub fn reached(&self) -> Option<bool> {
        self.found.map(|found| if self.at_most { found <= self.aim } else { found >= self.aim })
    }
}

/// All aims for which the run has a case.
pub fn of_run(found: &Found) -> Vec<Aim> {
    let rows = &found.rows;
    let two = deltas::case(20);
    let mut aims = Vec::new();
    if own(rows, &two).is_some() {
        let by = |tool: &str, figure: fn(&Row) -> Option<f64>| ratio(own(rows, &two), of(rows, &two, tool), figure);
        aims.push(Aim::at_most("2 %: bytes / zstd --patch-from", by(ZSTD, bytes), 1.05));
        let hot =
            |tool: &str, figure: fn(&Row) -> Option<f64>| ratio(of(rows, &two, HOT), of(rows, &two, tool), figure);
        aims.push(Aim::at_least("2 %: rate of update, base hot / zstd --patch-from", hot(ZSTD, encode), 10.0));
        let comparison = hot(deltas::COMPARISON, seconds);
        aims.push(Aim::at_most("2 %: time of update, base hot / page comparison and BLAKE3", comparison, 2.0));
        aims.push(Aim::at_least("2 %: rate of restore / xdelta3", by(XDELTA3, restore), 4.0));
        aims.push(Aim::at_least("2 %: rate of restore, hot / xdelta3", hot(XDELTA3, restore), 4.0));
        aims.extend(["restic", "borg", "casync"].map(|peer| {
            let ratio = ratio(own(rows, deltas::WHOLE), of(rows, deltas::WHOLE, peer), encode);
            Aim::at_least(format!("whole: rate of store / {peer}"), ratio, 1.0)
        }));
    }
    if own(rows, series::TEN).is_some() {
        aims.extend(["restic", "borg", "casync"].map(|peer| {
            let ratio = ratio(own(rows, series::TEN), of(rows, series::TEN, peer), bytes);
            Aim::at_most(format!("ten versions: bytes / {peer}"), ratio, 1.0)
        }));
        let chain = ratio(own(rows, series::CHAIN), of(rows, series::CHAIN, series::STORED_WHOLE), restore_seconds);
        aims.push(Aim::at_most("chain of 32: time of restore / stored whole", chain, 1.3));
    }
    let [small, large] = sparse::SIZES.map(|gib| own(rows, &sparse::case(gib)));
    if small.is_some() {
        aims.push(Aim::at_most("--dirty: time with 16 GiB / 2 GiB", ratio(large, small, seconds), 1.5));
    }
    let mut sizes: Vec<u64> = found.peak.iter().map(|peak| peak.gib).collect();
    sizes.dedup();
    for gib in &sizes {
        let case = whole::case(*gib);
        for peer in [whole::CP, whole::CP_DURABLE] {
            let ratio = ratio(of(rows, &case, HOT), of(rows, &case, peer), restore);
            aims.push(Aim::at_least(format!("{gib} GiB: rate of retrieve, hot / {peer}"), ratio, 0.8));
        }
        aims.push(Aim::at_most(format!("{gib} GiB: peak memory, MiB"), found.peak_of(*gib), 300.0));
    }
    for reads in &found.reads {
        aims.push(Aim::at_most(format!("read_at, {}: p50, µs", reads.image), Some(reads.range_us.p50), 20.0));
        aims.push(Aim::at_most(format!("read_at, {}: p99, µs", reads.image), Some(reads.range_us.p99), 200.0));
    }
    if let (Some(few), Some(many)) = (found.catalogue.first(), found.catalogue.last()) {
        for (what, few_us, many_us) in
            [("store", few.store_us, many.store_us), ("stat", few.stat_us, many.stat_us), ("rm", few.rm_us, many.rm_us)]
        {
            let what = format!("{what} with {} snapshots / with {}", many.snapshots, few.snapshots);
            aims.push(Aim::at_most(what, divided(many_us, few_us), 1.5));
        }
    }
    if let Some(most) = found.files.iter().filter_map(|file| file.ratio).max_by(f64::total_cmp) {
        aims.push(Aim::at_most("files that are no memory: most bytes / zstd -3", Some(most), 1.01));
    }
    aims
}

fn bytes(row: &Row) -> Option<f64> {
    row.added_bytes.map(|bytes| bytes as f64)
}

fn encode(row: &Row) -> Option<f64> {
    row.encode
}

fn restore(row: &Row) -> Option<f64> {
    row.restore
}

fn seconds(row: &Row) -> Option<f64> {
    row.encode_seconds
}

fn restore_seconds(row: &Row) -> Option<f64> {
    row.restore_seconds
}

fn ratio(ours: Option<&Row>, theirs: Option<&Row>, figure: fn(&Row) -> Option<f64>) -> Option<f64> {
    divided(figure(ours?)?, figure(theirs?)?)
}

fn divided(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::connector::TIDELOCK;
    use crate::snapshots::tool::Added;

    #[test]
    fn an_aim_whose_peer_is_missing_is_not_known() {
        let case = deltas::case(20);
        let ours = Row::new(&case, TIDELOCK).stored(1 << 20, Added { bytes: 100, seconds: 0.1 });
        let hot = Row { tool: HOT, ..ours.clone() };
        let zstd = Row::new(&case, ZSTD).stored(1 << 20, Added { bytes: 50, seconds: 2.0 });
        let found =
            Found { rows: vec![ours, hot, zstd, Row::new(&case, XDELTA3).missing("why".into())], ..Found::default() };
        let aims = of_run(&found);
        let reached = |what: &str| aims.iter().find(|aim| aim.what.contains(what)).map(Aim::reached);
        assert_eq!(reached("bytes / zstd"), Some(Some(false)));
        assert_eq!(reached("rate of update"), Some(Some(true)));
        assert_eq!(reached("xdelta3"), Some(None));
        assert_eq!(reached("catalogue"), None);
    }
}
