//! Announcements of tests: that one was skipped and why, and which real servers ran.
//!
//! libtest has no way to report these, so `cargo xtask test` passes a file in the environment and tests append lines to it
//! (`name: why`, `name version`); the summary counts them. Without it, they go to stderr.

use std::fs::File;
use std::io::Write;

/// Names the file that skipped tests are appended to.
pub const SKIPS: &str = "TIDELOCK_SKIPS";
/// Names the file that real servers are appended to.
pub const SERVERS: &str = "TIDELOCK_SERVERS";
/// `1` makes a skipped test a failed one.
pub const NO_SKIPS: &str = "TIDELOCK_NO_SKIPS";

/// Says that the calling test cannot run here and why; the test returns after it.
///
/// # Panics
///
/// With `TIDELOCK_NO_SKIPS=1`, so that the test fails: where everything can be had, nothing may be left out.
#[allow(clippy::panic)] // It fails a test.
pub fn skip(name: &str, why: &str) {
    if std::env::var_os(NO_SKIPS).is_some_and(|value| value == "1") {
        panic!("{name} would be skipped, and {NO_SKIPS}=1 forbids it: {why}");
    }
    eprintln!("skipped {name}: {why}");
    announce(SKIPS, &format!("{name}: {why}"));
}

/// Says that a real server takes part in the tests.
pub fn server(name: &str, version: &str) {
    announce(SERVERS, &format!("{name} {version}"));
}

/// Appends one line with one write, so that lines of several processes do not mix.
fn announce(variable: &str, line: &str) {
    let Some(path) = std::env::var_os(variable) else { return };
    let line = format!("{}\n", line.replace('\n', " "));
    let written = File::options().create(true).append(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot append to {} ({variable}): {error}", path.display());
    }
}
