//! Rows for `cargo xtask conformance`: it passes a file in the environment, and the result of each case is appended, as a
//! line of JSON. Without it, only the harness prints.

use std::any::Any;
use std::fs::File;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::place::Server;

/// Names the file.
const ROWS: &str = xtask::conformance::ROWS;

/// What became of a case.
pub fn row(adapter: &str, case: &str, result: &str, why: Option<&str>) {
    append(&json!({ "adapter": adapter, "case": case, "result": result, "why": why }));
}

/// A case that cannot be asked.
pub fn left_out(adapter: &str, case: &str, why: &str) {
    append(&json!({ "adapter": adapter, "case": case, "left_out": why }));
}

/// A server that takes part.
pub fn server(server: &Server) {
    append(&json!({ "server": server.name, "version": server.version, "real": server.real }));
}

/// What a panic said.
pub fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked without a word").to_owned()
}

/// With one write, so that lines of several threads do not mix.
fn append(line: &Value) {
    let Some(path) = std::env::var_os(ROWS) else { return };
    let written = File::options().create(true).append(true).open(&path).and_then(|mut f| writeln_whole(&mut f, line));
    if let Err(error) = written {
        eprintln!("cannot append to {} ({ROWS}): {error}", path.display());
    }
}

fn writeln_whole(file: &mut File, line: &Value) -> std::io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
}
