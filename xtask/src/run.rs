//! Running programs and reporting on them.
//!
//! All output of a task goes to stderr, including that of its programs, so that stdout has only
//! results and `--json` can be piped. A program that fails becomes an error with the command line, the
//! directory and the exit status.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Says on stderr what a task is doing.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { eprintln!("xtask: {}", format_args!($($arg)*)) };
}

/// The repository's root: the folder that holds `xtask/`.
///
/// Cargo passes the folder of the package to what it runs. That goes before the folder of this crate at build time:
/// checkouts that share a target directory share the built program too.
pub fn root() -> PathBuf {
    let told = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let there = told.as_deref().and_then(Path::parent).filter(|root| root.join("xtask/Cargo.toml").is_file());
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    there.or(built.parent()).unwrap_or(built).to_path_buf()
}

/// A `cargo` of the active toolchain, run at the repository's root.
pub fn cargo(subcommand: &str) -> Command {
    // Cargo names itself to what it runs: that one, not whichever comes first on PATH.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(root());
    // Cargo's variables about our own package are removed: build scripts that read them (ring's does)
    // would run again, and all that depends on them, each time that another package asks.
    for (name, _) in std::env::vars_os() {
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|part| name.to_string_lossy().starts_with(part));
        if told {
            command.env_remove(name);
        }
    }
    command
}

/// Makes a `cargo` command draw its progress bar on a terminal, and print only errors elsewhere: it would print a line
/// for each of hundreds of crates.
pub fn quiet_in_a_pipe(cargo: &mut Command) -> &mut Command {
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    cargo
}

/// The command as a user would type it, for messages.
pub fn shown(command: &Command) -> String {
    let quote = |part: &OsStr| {
        let part = part.to_string_lossy();
        let needs_no_quotes = !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "/._-=+:,@%".contains(c));
        if needs_no_quotes { part.into_owned() } else { format!("'{}'", part.replace('\'', r"'\''")) }
    };
    // The toolchain's own cargo has a long path, and `cargo` is what a user types.
    let program = command.get_program();
    let program =
        Some(OsStr::new("cargo")).filter(|cargo| Path::new(program).file_name() == Some(cargo)).unwrap_or(program);
    std::iter::once(program).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs to the end; what the program prints on stdout goes to our stderr. Fails unless it ends with status 0.
pub fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}){}", place(command));
    }
    Ok(())
}

/// Runs to the end and returns what it printed on stdout. Fails unless it ends with status 0, with its stderr.
pub fn capture(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}){}: {}", output.status, place(command), said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// Returns whether the program can be started and ends with status 0; its output is dropped.
pub fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A duration for people: `0.4 s`, `12.3 s`, `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 100 { format!("{:.1} s", time.as_secs_f64()) } else { format!("{} min {:02} s", whole / 60, whole % 60) }
}

/// A number of bytes for people, in binary units.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

fn place(command: &Command) -> String {
    command.get_current_dir().map(|dir| format!(" in {}", dir.display())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_command_and_its_output() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo no such thing >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3") && error.ends_with("no such thing"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = format!("{:#}", run(&mut Command::new("/no/such/program")).unwrap_err());
        assert!(error.contains("cannot start `/no/such/program`"), "{error}");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1 << 30), "1.0 GiB");
        assert_eq!(seconds(Duration::from_millis(400)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
