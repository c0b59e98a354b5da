//! Cargo's metadata of a workspace's packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run::{self, capture};

/// A package of a workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name in `Cargo.toml`.
    pub name: String,
    /// Where its `Cargo.toml` is.
    #[serde(default)]
    pub manifest_path: PathBuf,
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

/// The programs that a build with `--message-format=json` made, or found made already, by the name of their target.
pub fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        target: Option<Named>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let artifacts = messages.filter(|message| message.reason == "compiler-artifact");
    artifacts.filter_map(|message| Some((message.target?.name, message.executable?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_those_that_cargo_names() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null,"fresh":true}"#,
            "\n",
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"tidelock"},"executable":"/t/debug/tidelock"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("tidelock".to_owned(), "/t/debug/tidelock".into())].into());
        assert!(executables(r#"{"reason":"build-finished","success":true}"#).is_empty());
    }
}
