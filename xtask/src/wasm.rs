//! A rustc that can build guests: one with `std` for `wasm32-unknown-unknown`.
//!
//! Three ways, the first that works:
//!
//! 1. the active toolchain has the target;
//! 2. `rustup target add`, unless `RUSTUP_AUTO_INSTALL=0` forbids downloads by rustup;
//! 3. Debian's own compiler, unpacked into the cache directory ([`crate::debian`]).
//!
//! In the third case guests and host are built by different compilers. They share only WIT, so that
//! does no harm; it only means that guests must be built with [`Toolchain::cargo`], which selects the right rustc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::run::{self, capture};
use crate::{apt, cache, debian, say};

/// The target of every guest: no WASI, so that a guest imports nothing but what its world names.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A rustc for guests.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The folder of an unpacked compiler of our own, or nothing where the active toolchain does.
    prefix: Option<PathBuf>,
}

impl Toolchain {
    /// Finds or installs one. Found once a process.
    pub fn ensure() -> Result<Self> {
        static FOUND: OnceLock<Toolchain> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = find()?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    /// A `cargo` that builds guests with the right compiler. Flags and wrappers that the environment sets for the host
    /// (coverage, sanitizers) do not reach it.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = run::cargo(subcommand);
        self.environment(&mut command);
        command
    }

    /// Clippy for guests, with the arguments of `cargo clippy`; nothing where there is none for this compiler.
    pub fn clippy(&self) -> Option<Command> {
        let Some(prefix) = &self.prefix else {
            return run::works(Command::new("cargo").args(["clippy", "--version"])).then(|| self.cargo("clippy"));
        };
        let program = prefix.join("cargo-clippy");
        program.is_file().then(|| {
            let mut command = Command::new(program);
            command.arg("clippy").current_dir(run::root());
            self.environment(&mut command);
            command
        })
    }

    /// Empties a target directory that holds what another build of `std` compiled. Cargo does not notice that one: it knows
    /// compilers by their version, and the same version built twice gives libraries that do not fit each other.
    pub fn settle(&self, target: &Path) -> Result<()> {
        let mine = self.prefix.as_deref().map_or(Ok(String::new()), debian::std_identity)?;
        let stamp = target.join("std-identity");
        let compiled = target.join(TARGET);
        if compiled.exists() && !mine.is_empty() && std::fs::read_to_string(&stamp).unwrap_or_default() != mine {
            say!("the compiler for guests was installed anew: removing what its predecessor built");
            std::fs::remove_dir_all(&compiled).with_context(|| format!("cannot remove {}", compiled.display()))?;
        }
        cache::write_if_changed(&stamp, mine.as_bytes()).map(drop)
    }

    fn environment(&self, command: &mut Command) {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
        ] {
            command.env_remove(name);
        }
        if let Some(prefix) = &self.prefix {
            command.env("RUSTC", prefix.join("rustc"));
        }
    }
}

fn find() -> Result<Toolchain> {
    if active_has_target()? {
        return Ok(Toolchain { prefix: None });
    }
    let rustup = match rustup_add() {
        Ok(()) => return Ok(Toolchain { prefix: None }),
        Err(error) => error,
    };
    match debian::ensure() {
        Ok(prefix) => Ok(Toolchain { prefix: Some(prefix) }),
        Err(debian) => bail!(
            "there is no Rust compiler for {TARGET} here, and none could be installed.\n\
             - rustup: {rustup:#}\n\
             - Debian's rustc-web: {debian:#}\n\
             Run `rustup target add {TARGET}` (with rustup), or install your distribution's package of the Rust standard \
             library for {TARGET} (Fedora: rust-std-static-{TARGET}), then run this again."
        ),
    }
}

/// Returns whether the active toolchain has the target's standard library.
fn active_has_target() -> Result<bool> {
    let rustc = capture(Command::new("rustc").args(["--print", "sysroot"]).current_dir(run::root()));
    let sysroot = rustc.context("rustc does not run: install Rust (https://rustup.rs)")?;
    Ok(has_std(&Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib")))
}

fn has_std(lib: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(lib) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

fn rustup_add() -> Result<()> {
    if std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0") {
        bail!("RUSTUP_AUTO_INSTALL=0 forbids it to download");
    }
    if apt::find("rustup").is_none() {
        bail!("it is not installed");
    }
    say!("adding the target {TARGET} to the active Rust toolchain (rustup target add)");
    run::run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(run::root()))?;
    if !active_has_target()? {
        bail!("it added the target to another toolchain than the active one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_counts_only_with_its_standard_library() -> Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(!has_std(&dir.path().join("absent")));
        std::fs::write(dir.path().join("libcore-12ab.rlib"), "")?;
        assert!(!has_std(dir.path()));
        std::fs::write(dir.path().join("libstd-12ab.rlib"), "")?;
        assert!(has_std(dir.path()));
        Ok(())
    }
}
