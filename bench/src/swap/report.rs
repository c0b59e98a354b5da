//! The output of `bench swap`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::restart::Restart;
use crate::report::machine;
use crate::stats::Quantiles;

/// One operation on one backend.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which backend.
    pub backend: &'static str,
    /// Which operation.
    pub operation: &'static str,
    /// How many, in both kinds of windows.
    pub operations: usize,
    /// Without swaps.
    pub quiet_ms: Quantiles,
    /// With swaps.
    pub swaps_ms: Quantiles,
    /// The p99 with swaps to the one without.
    pub p99_ratio: f64,
}

/// A swap without load, up to the publication.
#[derive(Debug, Serialize)]
pub struct Changes {
    /// The median.
    pub ms: f64,
    /// The median of the stage `compile` in it.
    pub compile_ms: f64,
    /// The slowest.
    pub most_ms: f64,
}

/// The first operation on a new generation, of a client that asks as soon as the swap is over.
#[derive(Debug, Serialize)]
pub struct FirstOperation {
    /// The first one.
    pub first_ms: Quantiles,
    /// Those after it.
    pub later_ms: Quantiles,
    /// The first one less the median of those after it, swap by swap.
    pub added_ms: Quantiles,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// All that counted.
    pub operations: u64,
    /// Swaps under load.
    pub swaps: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Images that came back wrong.
    pub wrong: u64,
    /// p99 of all operations with swaps to those without.
    pub p99_ratio: f64,
    /// From the publication to the beginning of the first operation on the new generation: when a client next asks.
    pub first_on_new_ms: Quantiles,
    /// What the swap itself adds to that operation, without load.
    pub first_operation: FirstOperation,
    /// Memory after all swaps to memory after the first 50.
    pub memory_ratio: f64,
    /// Both, in MiB.
    pub memory_mib: [f64; 2],
    /// By backend and operation.
    pub rows: Vec<Row>,
    /// The first failures in words.
    pub failures: Vec<String>,
    /// A component that was never compiled.
    pub cold: Changes,
    /// The same ones from the cache.
    pub cached: Changes,
    /// The program restarted instead.
    pub restart: Option<Restart>,
}

impl Found {
    /// The object: the figures under names that do not change, then what they come from.
    pub fn object(&self) -> Value {
        let mut object = json!(self);
        if let Some(object) = object.as_object_mut() {
            object.insert("machine".to_owned(), machine());
        }
        object
    }

    /// The tables.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} operations, {} swaps under load: {} failed, {} wrong\n\n{:<20}{:>10}{:>22}{:>22}{:>10}\n",
            self.operations,
            self.swaps,
            self.failed,
            self.wrong,
            "ms: p50 / p99",
            "",
            "without swaps",
            "with swaps",
            "p99 ratio"
        );
        for row in &self.rows {
            let [quiet, swaps] = [row.quiet_ms, row.swaps_ms].map(|q| format!("{:.2} / {:.2}", q.p50, q.p99));
            let _ = writeln!(
                text,
                "  {:<8}{:<10}{:>10}{quiet:>22}{swaps:>22}{:>10.3}",
                row.backend, row.operation, row.operations, row.p99_ratio
            );
        }
        let first = self.first_on_new_ms;
        let _ = writeln!(text, "\n  p99 of all with swaps to without: {:.3}; aim at most 1.5", self.p99_ratio);
        let _ = writeln!(text, "  a client next asks after: p50 {} ms, p99 {} ms; aim 1 and 10", first.p50, first.p99);
        let FirstOperation { first_ms, later_ms, added_ms } = &self.first_operation;
        let _ = writeln!(
            text,
            "  first operation at once after a swap: p50 {} ms, p99 {} ms; later ones {} and {}; the swap adds {} and {}",
            first_ms.p50, first_ms.p99, later_ms.p50, later_ms.p99, added_ms.p50, added_ms.p99
        );
        let [early, late] = self.memory_mib;
        let _ = writeln!(
            text,
            "  memory: {early} MiB after 50 swaps, {late} after {}: {:.3}; aim at most 1.1",
            self.swaps, self.memory_ratio
        );
        for (name, changes) in [("cold", &self.cold), ("from the cache", &self.cached)] {
            let _ = writeln!(
                text,
                "  a swap, {name}: {} ms up to the publication (compile {}), at most {}",
                changes.ms, changes.compile_ms, changes.most_ms
            );
        }
        if let Some(restart) = &self.restart {
            let _ = writeln!(
                text,
                "  restarting the program instead, {} times: {} operations failed, {} ms without an answer (median; most {})",
                restart.restarts, restart.failed, restart.gap_ms, restart.most_ms
            );
        }
        self.failures.iter().for_each(|failure| {
            let _ = writeln!(text, "  failed: {failure}");
        });
        text
    }
}
