//! The checks before the tests: format, lints, documentation, licences, frozen interfaces.
//!
//! Guests are a workspace of their own with a compiler of their own, so most checks run twice.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{self, cargo, quiet_in_a_pipe, run};
use crate::wasm::{TARGET, Toolchain};
use crate::{guests, say, tools, wit};

/// A check: its name in the summary, and what does it.
pub type Check = (&'static str, fn() -> Result<()>);

/// All of them, in the order in which a mistake is cheapest to learn of.
pub const ALL: [Check; 6] = [
    ("format", format),
    ("frozen WIT", frozen_wit),
    ("licences and sources", deny),
    ("lints of guests", guest_lints),
    ("lints", lints),
    ("documentation", documentation),
];

fn format() -> Result<()> {
    tools::component("fmt")?;
    run(cargo("fmt").args(["--all", "--check"]))?;
    run(on_guests(&mut cargo("fmt")).args(["--all", "--check"]))
}

fn lints() -> Result<()> {
    tools::component("clippy")?;
    run(quiet_in_a_pipe(&mut cargo("clippy")).args(["--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Clippy as the guests' own compiler sees them; without one, that compiler's warnings.
fn guest_lints() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    if let Some(mut clippy) = toolchain.clippy() {
        let clippy =
            on_guests(quiet_in_a_pipe(&mut clippy)).args(["--workspace", "--target", TARGET, "--", "-D", "warnings"]);
        return run(clippy);
    }
    say!("the compiler that builds guests here has no clippy: its own warnings are checked instead");
    let mut check = toolchain.cargo("check");
    run(on_guests(quiet_in_a_pipe(&mut check)).args(["--workspace", "--target", TARGET]).env("RUSTFLAGS", "-Dwarnings"))
}

fn documentation() -> Result<()> {
    run(quiet_in_a_pipe(&mut cargo("doc")).args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn deny() -> Result<()> {
    let program = tools::cargo_deny()?;
    for manifest in [run::root().join("Cargo.toml"), guests::manifest()] {
        // Duplicate versions are a warning to look at when dependencies change, not at every run.
        let mut deny = Command::new(&program);
        deny.arg("--log-level=error").arg("--manifest-path").arg(manifest);
        deny.arg("--config").arg(run::root().join("deny.toml")).args(["check", "bans", "licenses", "sources"]);
        run(deny.current_dir(run::root()))?;
    }
    Ok(())
}

fn frozen_wit() -> Result<()> {
    match wit::check(&run::root())?.as_slice() {
        [] => say!("no version of the WIT package is frozen yet"),
        versions => say!("frozen WIT versions are as they were: {}", versions.join(", ")),
    }
    if !run::root().join("wit/types.wit").exists() {
        bail!("there is no wit/types.wit");
    }
    Ok(())
}

/// Turns a Cargo command to the guests' workspace and target directory.
pub fn on_guests(cargo: &mut Command) -> &mut Command {
    cargo.arg("--manifest-path").arg(guests::manifest());
    cargo.env("CARGO_TARGET_DIR", guests::target_dir())
}
