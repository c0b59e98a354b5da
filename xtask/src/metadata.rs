//! What Cargo says about a workspace's packages.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run::{self, capture};

/// A package of a workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name in `Cargo.toml`.
    pub name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Package {
    /// The names of its targets of one kind: `bin`, `cdylib`.
    pub fn targets(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(move |target| target.kind.iter().any(|k| k == kind)).map(|t| t.name.as_str())
    }
}

/// The packages of the workspace that `manifest` is the root of.
pub fn packages(manifest: &Path) -> Result<Vec<Package>> {
    let mut cargo = run::cargo("metadata");
    cargo.args(["--no-deps", "--format-version=1", "--quiet", "--manifest-path"]).arg(manifest);
    parse(&capture(&mut cargo)?)
}

/// The packages in the output of `cargo metadata`.
pub fn parse(metadata: &str) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let metadata: Metadata = serde_json::from_str(metadata).context("cannot read what `cargo metadata` printed")?;
    Ok(metadata.packages)
}
