//! `cargo xtask conformance`: runs the suite of all adapters (`tests/conformance`) and prints a row for each adapter
//! and case.
//!
//! The suite writes the result of each case to a file; its own output goes to stderr. On a terminal, a table
//! shows how many passed, and every case that did not; with `--json`, every row. Cases that do not apply to an adapter
//! (its medium has no such fault, or it does not declare the feature) have no row: they are listed apart, with the reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::backends::Kind;
use crate::languages::Language;
use crate::run::{self, shown};
use crate::{guests, say, skip};

/// Names the file that the suite appends rows to.
pub const ROWS: &str = "TIDELOCK_CONFORMANCE_ROWS";
/// Names a component that is tested in place of the adapters that travel in the program.
pub const COMPONENT: &str = "TIDELOCK_CONFORMANCE_COMPONENT";

/// The part of the suite to run, and how to print the results.
#[derive(Debug, Default)]
pub struct Options {
    /// Only this adapter.
    pub adapter: Option<String>,
    /// This component, on a folder, in place of the adapters that there are.
    pub component: Option<std::path::PathBuf>,
    /// An object on stdout instead of a table.
    pub json: bool,
}

/// The result of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    adapter: String,
    case: String,
    /// `passed`, `failed` or `skipped`.
    result: String,
    why: Option<String>,
}

/// A server that took part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Server {
    name: String,
    version: String,
    /// Whether it is what people run, rather than a stand-in for it.
    real: bool,
}

/// A case that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LeftOut {
    adapter: String,
    case: String,
    why: String,
}

/// A run of the suite. What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    rows: Vec<Row>,
    servers: Vec<Server>,
    left_out: Vec<LeftOut>,
}

/// A line of the suite's file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Row(Row),
    LeftOut { adapter: String, case: String, left_out: String },
    Server { server: String, version: String, real: bool },
}

/// Runs the suite. An error if a case failed, if none ran, or on a build server if one was skipped.
pub fn run(options: &Options) -> Result<()> {
    let on_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    guests::ensure()?;
    let on_a_folder = options.component.is_some();
    for kind in Kind::ALL {
        if !on_a_folder && options.adapter.as_deref().is_none_or(|adapter| kind.serves(adapter)) {
            kind.install()?;
        }
    }
    for language in Language::ALL {
        let wanted = options.adapter.as_deref().is_none_or(|adapter| adapter == language.component());
        if !on_a_folder && wanted && language.why_not().is_none() {
            language.build()?;
        }
    }
    let notes = tempfile::tempdir().context("no temporary folder")?;
    let file = notes.path().join("rows");
    let mut cargo = run::cargo("test");
    // Of the whole workspace, so that dependencies are those of `cargo xtask test`.
    cargo.args(["--workspace", "--test", "conformance"]);
    if let Some(adapter) = &options.adapter {
        cargo.args(["--", &format!("{adapter}::")]);
    }
    if let Some(component) = &options.component {
        let component = component.canonicalize().with_context(|| format!("there is no {}", component.display()))?;
        cargo.env(COMPONENT, component);
    }
    cargo.env(ROWS, &file);
    if on_ci {
        cargo.env(skip::NO_SKIPS, "1");
    }
    say!("running the suite ({})", shown(&cargo));
    let status = cargo.stdin(Stdio::null()).stdout(std::io::stderr()).status().context("cannot start cargo")?;
    let report = Report::read(&file, options.adapter.as_deref())?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).context("cannot print JSON")?);
    } else {
        print!("{}", report.table());
    }
    report.verdict(status.success(), on_ci)
}

impl Report {
    fn read(file: &Path, adapter: Option<&str>) -> Result<Self> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut report = Self::default();
        for line in text.lines() {
            match serde_json::from_str(line).with_context(|| format!("the suite printed an invalid row: {line}"))? {
                Line::Row(row) => report.rows.push(row),
                Line::LeftOut { adapter, case, left_out: why } => report.left_out.push(LeftOut { adapter, case, why }),
                Line::Server { server: name, version, real } => report.servers.push(Server { name, version, real }),
            }
        }
        report.left_out.retain(|left_out| adapter.is_none_or(|adapter| left_out.adapter == adapter));
        report.rows.sort_by(|a, b| (&a.adapter, &a.case).cmp(&(&b.adapter, &b.case)));
        report.servers.sort();
        report.servers.dedup();
        Ok(report)
    }

    fn count(&self, result: &str) -> usize {
        self.rows.iter().filter(|row| row.result == result).count()
    }

    /// A line for each adapter, then every case that did not pass, then what was left out.
    fn table(&self) -> String {
        let mut adapters: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for row in &self.rows {
            let column = ["passed", "failed", "skipped"].iter().position(|result| *result == row.result);
            adapters.entry(&row.adapter).or_default()[column.unwrap_or(1)] += 1;
        }
        for left_out in &self.left_out {
            adapters.entry(&left_out.adapter).or_default()[3] += 1;
        }
        let mut text =
            format!("{:<14} {:>7} {:>7} {:>7} {:>9}\n", "adapter", "passed", "failed", "skipped", "left out");
        for (adapter, [passed, failed, skipped, left_out]) in adapters {
            text += &format!("{adapter:<14} {passed:>7} {failed:>7} {skipped:>7} {left_out:>9}\n");
        }
        for server in &self.servers {
            let stand_in = if server.real { "" } else { ", a stand-in" };
            text += &format!("server: {} {}{stand_in}\n", server.name, server.version);
        }
        for row in self.rows.iter().filter(|row| row.result != "passed") {
            let why = row.why.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
            text += &format!("{}: {}::{}: {why}\n", row.result, row.adapter, row.case);
        }
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for left_out in &self.left_out {
            reasons.entry((&left_out.adapter, &left_out.why)).or_default().push(&left_out.case);
        }
        for ((adapter, why), cases) in reasons {
            text += &format!("left out: {adapter}: {why}: {}\n", cases.join(", "));
        }
        text
    }

    fn verdict(&self, ended_well: bool, on_ci: bool) -> Result<()> {
        let (failed, skipped) = (self.count("failed"), self.count("skipped"));
        if failed > 0 {
            bail!("{failed} of {} cases failed", self.rows.len());
        }
        if self.rows.is_empty() {
            bail!("no case ran: is there such an adapter, and did the suite compile?");
        }
        if on_ci && skipped > 0 {
            bail!("{skipped} cases were skipped, and with CI=true none may be");
        }
        if !ended_well {
            bail!("the suite failed; see its output");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, adapter: Option<&str>) -> Result<Report> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("rows");
        std::fs::write(&file, text)?;
        Report::read(&file, adapter)
    }

    const LINES: &str = r#"{"adapter":"fs","case":"fault_429","left_out":"no network"}
{"server":"moto","version":"5","real":false}
{"adapter":"s3","case":"size_1","result":"failed","why":"short\nsecond line"}
{"adapter":"fs","case":"size_1","result":"passed","why":null}
{"adapter":"nfs","case":"size_1","result":"skipped","why":"no root"}
"#;

    #[test]
    fn rows_are_counted_and_what_is_left_out_is_none() -> Result<()> {
        let report = report(LINES, None)?;
        assert_eq!((report.count("passed"), report.count("failed"), report.count("skipped")), (1, 1, 1));
        let table = report.table();
        for line in [
            "failed: s3::size_1: short\n",
            "skipped: nfs::size_1: no root\n",
            "server: moto 5, a stand-in\n",
            "left out: fs: no network: fault_429\n",
        ] {
            assert!(table.contains(line), "{line}: {table}");
        }
        let object = serde_json::to_value(&report)?;
        assert_eq!(object["rows"][0], serde_json::json!({"adapter":"fs","case":"size_1","result":"passed","why":null}));
        assert_eq!(object["servers"][0], serde_json::json!({"name":"moto","version":"5","real":false}));
        assert!(self::report(LINES, Some("s3"))?.left_out.is_empty());
        Ok(())
    }

    #[test]
    fn nothing_but_success_is_one() -> Result<()> {
        let passed = r#"{"adapter":"fs","case":"a","result":"passed","why":null}"#;
        let skipped = r#"{"adapter":"fs","case":"b","result":"skipped","why":"x"}"#;
        assert!(report(passed, None)?.verdict(true, true).is_ok());
        assert!(report(passed, None)?.verdict(false, true).is_err());
        assert!(report(skipped, None)?.verdict(true, false).is_ok());
        assert!(report(skipped, None)?.verdict(true, true).is_err());
        assert!(report("", None)?.verdict(true, false).is_err());
        assert!(report(LINES, None)?.verdict(true, false).is_err());
        assert!(report("nonsense", None).is_err());
        Ok(())
    }
}
