//! Building the host's command line, after the guests that it embeds.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::progress::{Progress, Step};
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

/// Builds the guests that the program embeds, then the program `tidelock`, and returns its path. What is up to date is not
/// built again.
pub fn binary(profile: Profile) -> Result<PathBuf> {
    guests::build_embedded()?;
    build(profile)
}

/// The steps of [`binary_in_steps`].
pub fn steps(profile: Profile) -> [Step; 2] {
    let (folder, seconds) = match profile {
        Profile::Dev => ("debug", 240),
        Profile::Release => ("release", 300),
    };
    [
        Step::once("building the adapters", 120, &guests::adapters_dir().join("fs.wasm")),
        Step::once("building tidelock", seconds, &run::root().join("target").join(folder).join("tidelock")),
    ]
}

/// [`binary`], as two steps of a task.
pub fn binary_in_steps(profile: Profile, progress: &mut Progress) -> Result<PathBuf> {
    progress.next();
    guests::build_embedded()?;
    progress.next();
    build(profile)
}

fn build(profile: Profile) -> Result<PathBuf> {
    let mut cargo = run::cargo("build");
    cargo.args(["--package", "tidelock-cli", "--bin", "tidelock", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    run::quiet_in_a_pipe(&mut cargo);
    say!("building tidelock ({})", shown(&cargo));
    // Stdout holds its messages for us.
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(&cargo), output.status);
    }
    let mut built = metadata::executables(&String::from_utf8_lossy(&output.stdout));
    built.remove("tidelock").context("cargo built tidelock and does not say where it is")
}
