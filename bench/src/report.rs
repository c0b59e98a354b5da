//! The output of a benchmark: a table for people, one object for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::overhead::{Overhead, Quantiles};
use crate::peak::Peaks;
use crate::transfer::{Direction, Transfer};

/// Everything that `bench sandbox` finds. A part that was left out is absent.
#[derive(Debug, Default, Serialize)]
pub struct Sandbox {
    /// Large objects over S3.
    pub transfer: Option<Transfer>,
    /// Small objects.
    pub overhead: Option<Overhead>,
    /// Peak memory.
    pub peak: Option<Peaks>,
}

impl Sandbox {
    /// The object: the figures under names that do not change, then all that they come from.
    pub fn object(&self) -> Value {
        let transfer = self.transfer.as_ref();
        json!({
            "put_ratio": transfer.map(|transfer| transfer.put.ratio),
            "get_ratio": transfer.map(|transfer| transfer.get.ratio),
            "overhead_us": self.overhead.as_ref().map(|overhead| overhead.added),
            "engine_us": self.overhead.as_ref().map(|overhead| overhead.engine),
            "peak_mib": self.peak.as_ref().map(|peak| json!({"fs": peak.of("fs"), "s3": peak.of("s3")})),
            "guest_bytes": transfer.map(|transfer| transfer.guest_bytes),
            "machine": machine(),
            "transfer": self.transfer,
            "overhead": self.overhead,
            "peak": self.peak,
        })
    }

    /// The tables.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        if let Some(transfer) = &self.transfer {
            let place = if transfer.in_memory { "memory" } else { "disk" };
            let _ = writeln!(
                text,
                "256 MiB over S3 (SeaweedFS, data in {place}), {} and {} rounds: median (slowest to fastest)\n",
                transfer.rounds[0], transfer.rounds[1]
            );
            text += &direction("store", &transfer.put);
            text += &direction("retrieve", &transfer.get);
            let _ = writeln!(text, "bytes through guest memory: {}\n", transfer.guest_bytes);
        }
        if let Some(overhead) = &self.overhead {
            text += &small(overhead);
        }
        if let Some(peak) = &self.peak {
            text += &memory(peak);
        }
        text
    }
}

fn direction(name: &str, direction: &Direction) -> String {
    let mut text = format!("{name:<28}{:>8}{:>16}{:>9}   adapter / this\n", "MiB/s", "", "CPU ms");
    for row in &direction.rows {
        let range = format!("({} to {})", row.range[0], row.range[1]);
        let _ =
            writeln!(text, "  {:<26}{:>8}{range:>16}{:>9}   {:.3}", row.who, row.mib_s, row.cpu_ms, row.adapter_ratio);
    }
    let _ = writeln!(text, "  adapter to its faster peer ({}): {:.3}; aim 0.95\n", direction.peer, direction.ratio);
    text
}

fn small(overhead: &Overhead) -> String {
    let mut text = format!(
        "4 KiB objects, {} of each operation in memory, µs: p50 / p99\n\n{:<20}{:>18}{:>18}{:>18}\n",
        overhead.operations, "", "adapter", "direct", "added"
    );
    for row in &overhead.rows {
        let cells = [row.adapter, row.direct, row.added].map(|q| format!("{:.1} / {:.1}", q.p50, q.p99));
        let [adapter, direct, added] = cells;
        let _ = writeln!(text, "  {:<8}{:<10}{adapter:>18}{direct:>18}{added:>18}", row.directory, row.operation);
    }
    let Quantiles { p50, p99 } = overhead.added;
    let _ = writeln!(text, "  added at most: p50 {p50:.1}, p99 {p99:.1}; aim p50 < 100");
    for (export, Quantiles { p50, p99 }) in [("describe", overhead.engine), ("refused stat", overhead.engine_async)] {
        let _ = writeln!(text, "  the engine alone, {export}: p50 {p50:.1}, p99 {p99:.1}");
    }
    let Quantiles { p50, p99 } = overhead.ratio;
    let _ = writeln!(text, "  added to store and retrieve / engine: p50 {p50:.2}, p99 {p99:.2}; aim 1.5 and 2\n");
    text
}

fn memory(peak: &Peaks) -> String {
    let mut text = format!("peak memory of the program, MiB\n\n{:<20}", "");
    for gib in &peak.gib {
        let _ = write!(text, "{:>12}", format!("{gib} GiB"));
    }
    text.push('\n');
    for first in peak.rows.iter().filter(|row| Some(&row.gib) == peak.gib.first()) {
        let _ = write!(text, "  {:<8}{:<10}", first.backend, first.command);
        let alike = peak.rows.iter().filter(|row| row.backend == first.backend && row.command == first.command);
        for row in alike {
            let _ = write!(text, "{:>12.1}", row.peak_mib);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "  aim < 256, and the same for both sizes");
    text
}

/// Cores and memory of this machine.
pub fn machine() -> Value {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = crate::place::field(&text, "MemTotal:").unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({"cores": cores, "memory_gib": crate::stats::rounded(memory as f64 / crate::GIB as f64, 1)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_keys_are_there_whatever_was_left_out() {
        let object = Sandbox::default().object();
        for key in ["put_ratio", "get_ratio", "overhead_us", "engine_us", "peak_mib", "guest_bytes"] {
            assert!(object.get(key).is_some_and(Value::is_null), "{key}");
        }
        assert!(object["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
    }
}
