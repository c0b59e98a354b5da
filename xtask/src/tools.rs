//! Cargo subcommands for the checks, installed if they are missing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{self, run, works};
use crate::{cache, say};

/// The version of cargo-deny. A release's rules differ from the next one's, so it is pinned.
const CARGO_DENY: &str = "0.20.2";

/// cargo-deny, built from crates.io into the cache. Without optimisation that takes a minute instead of five, and it
/// runs for seconds.
pub fn cargo_deny() -> Result<PathBuf> {
    let entry = cache::install(&format!("cargo-deny-{CARGO_DENY}"), &format!("cargo-deny {CARGO_DENY}"), |partial| {
        say!("building cargo-deny from crates.io (a minute or two)");
        let build = partial.join("build");
        let mut cargo = run::cargo("install");
        run::quiet_in_a_pipe(&mut cargo)
            .args(["--locked", "--debug", &format!("cargo-deny@{CARGO_DENY}"), "--root"])
            .arg(partial);
        cargo.arg("--target-dir").arg(&build).env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("RUSTFLAGS");
        run(&mut cargo)?;
        Ok(std::fs::remove_dir_all(&build)?)
    })?;
    Ok(entry.join("bin/cargo-deny"))
}

/// Makes sure that `cargo NAME` works, where `NAME` is a component of the Rust toolchain (`fmt`, `clippy`).
pub fn component(name: &str) -> Result<()> {
    if works(run::cargo(name).arg("--version")) {
        return Ok(());
    }
    let component = if name == "fmt" { "rustfmt" } else { name };
    let by_hand = format!(
        "`cargo {name}` is missing: run `rustup component add {component}` or install your distribution's package"
    );
    if std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0") {
        bail!("{by_hand} (RUSTUP_AUTO_INSTALL=0 forbids to do it here)");
    }
    say!("adding {component} to the active Rust toolchain (rustup component add)");
    if !works(Command::new("rustup").args(["component", "add", component]).current_dir(run::root())) {
        bail!(by_hand);
    }
    Ok(())
}
