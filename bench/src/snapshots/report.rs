//! The output: tables for people, one object for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};
use xtask::run::size;

use super::{Found, Row, aims, whole};
use crate::report::machine;

impl Found {
    /// The most memory that any process had with an image of so many GiB.
    pub fn peak_of(&self, gib: u64) -> Option<f64> {
        self.peak.iter().filter(|peak| peak.gib == gib).map(|peak| peak.peak_mib).max_by(f64::total_cmp)
    }

    /// The object: the figures under names that do not change, then all that they come from.
    pub fn object(&self) -> Value {
        let largest = self.peak.iter().map(|peak| peak.gib).max();
        let slowest = self.reads.iter().max_by(|a, b| a.range_us.p50.total_cmp(&b.range_us.p50));
        json!({
            "rows": self.rows,
            "peak_mib": largest.and_then(|gib| self.peak_of(gib)),
            "range_us": slowest.map(|reads| reads.range_us),
            "catalogue": self.catalogue,
            "aims": aims::of_run(self),
            "peak": self.peak,
            "reads": self.reads,
            "files": self.files,
            "versions": self.versions,
            "profile": profile(),
            "machine": machine(),
        })
    }

    /// The tables.
    pub fn tables(&self) -> String {
        let mut text = format!("profile {}; {}\n", profile(), self.versions.join("; "));
        let mut case = "";
        for row in &self.rows {
            if row.case != case {
                case = &row.case;
                let _ = writeln!(text, "\n{case:<36}{:>14}{:>12}{:>12}   MiB/s", "added", "encode", "restore");
            }
            text += &cells(row.tool, row);
        }
        if !self.peak.is_empty() {
            let _ = writeln!(text, "\n{:<36}{:>14}{:>16}", "peak memory, MiB", "", "without files");
        }
        for peak in &self.peak {
            let whole::Peak { gib, command, peak_mib, anonymous_mib } = peak;
            let _ = writeln!(text, "  {:<34}{peak_mib:>14.1}{anonymous_mib:>16.1}", format!("{gib} GiB, {command}"));
        }
        if !self.reads.is_empty() {
            text += "\n4 KiB at random places, µs: p50 / p99\n";
        }
        for reads in &self.reads {
            let [ours, file] = [reads.range_us, reads.file_us].map(|q| format!("{:.1} / {:.1}", q.p50, q.p99));
            let _ = writeln!(
                text,
                "  {:<22}{ours:>20}, by the kernel from the file {file}; {} reads",
                reads.image, reads.reads
            );
        }
        if !self.catalogue.is_empty() {
            let _ = writeln!(text, "\n{:>12} snapshots{:>12}{:>12}{:>12}   µs, p50", "", "store", "stat", "rm");
        }
        for row in &self.catalogue {
            let _ = writeln!(text, "{:>22}{:>12}{:>12}{:>12}", row.snapshots, row.store_us, row.stat_us, row.rm_us);
        }
        if !self.files.is_empty() {
            let _ = writeln!(text, "\n{:<38}{:>12}{:>14}{:>14}{:>9}", "files", "size", "stored", "zstd -3", "ratio");
        }
        for file in &self.files {
            let bytes =
                [file.size, file.stored_bytes, file.zstd_bytes].map(|bytes| bytes.map(size).unwrap_or_default());
            let ratio = file.ratio.map(|ratio| format!("{ratio:.4}")).unwrap_or_default();
            let why = file.missing.as_ref().map(|why| format!("  missing: {why}")).unwrap_or_default();
            let [size, stored, zstd] = bytes;
            let _ = writeln!(text, "  {:<36}{size:>12}{stored:>14}{zstd:>14}{ratio:>9}{why}", file.kind);
        }
        text += "\naims\n";
        for aim in aims::of_run(self) {
            let found = aim.found.map_or("missing".to_owned(), |found| format!("{found:.3}"));
            let bound = format!("{} {}", if aim.at_most { "≤" } else { "≥" }, aim.aim);
            let missed = if aim.reached() == Some(false) { "  missed" } else { "" };
            let _ = writeln!(text, "  {:<58}{found:>10}   {bound}{missed}", aim.what);
        }
        text
    }
}

/// A row on one line, as it comes.
pub fn line(row: &Row) -> String {
    format!("{:<28}{}", row.case, cells(row.tool, row).trim_end())
}

fn cells(tool: &str, row: &Row) -> String {
    let added = row.added_bytes.map(size).unwrap_or_default();
    let [encode, restore] =
        [row.encode, row.restore].map(|rate| rate.map(|rate| format!("{rate:.0}")).unwrap_or_default());
    let why = row.missing.as_ref().map(|why| format!("   missing: {why}")).unwrap_or_default();
    let line = format!("  {tool:<34}{added:>14}{encode:>12}{restore:>12}{why}");
    format!("{}\n", line.trim_end())
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_keys_are_there_whatever_was_left_out() {
        let object = Found::default().object();
        for key in ["rows", "peak_mib", "range_us", "catalogue"] {
            assert!(object.get(key).is_some(), "{key}");
        }
        let row = serde_json::to_value(Row::new("a", "b").missing("why".into())).unwrap_or_default();
        for key in ["case", "tool", "added_bytes", "encode", "restore", "missing"] {
            assert!(row.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_missing_contestant_is_told_with_the_reason() {
        let rows = vec![Row::new("a case", "restic").missing("no such package".into())];
        let text = Found { rows, ..Found::default() }.tables();
        assert!(text.contains("missing: no such package"), "{text}");
    }
}
