//! Building the host's command line, after the guests that it embeds.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::run::{self, shown};
use crate::{guests, metadata, say};

/// How the host is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests: quick to build.
    Dev,
    /// For users and measurements.
    Release,
}

/// Builds the guests, then the program `tidelock`, and gives its path. What is up to date is not built again.
pub fn binary(profile: Profile) -> Result<PathBuf> {
    guests::ensure()?;
    let mut cargo = run::cargo("build");
    cargo.args(["--package", "tidelock-cli", "--bin", "tidelock", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    say!("building tidelock ({})", shown(&cargo));
    // Cargo says on stderr what it compiles; stdout holds its messages for us.
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(&cargo), output.status);
    }
    let mut built = metadata::executables(&String::from_utf8_lossy(&output.stdout));
    built.remove("tidelock").context("cargo built tidelock and does not say where it is")
}
