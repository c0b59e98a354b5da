//! Servers (and tools) that are Python packages: a virtual environment in the cache, and its interpreter.
//!
//! Packages come from PyPI with the digest of every file (`--require-hashes`), as wheels only, so that installing
//! them runs none of their code. A server runs with the interpreter's own file as its program and not with the
//! environment's link to it (or a shim), since [`super::daemon`] identifies a process by its executable; packages
//! of the system or the user are not in its path.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{capture, run};
use crate::{apt, cache, say};

/// An interpreter, and packages for it.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter's own file.
    pub program: PathBuf,
    packages: PathBuf,
}

impl Python {
    /// The packages of a list with digests, installed into the cache under `name` if they are not there. `what` and `why`
    /// are for people: `moto 5.2.5`, `to stand in for Amazon's archive`.
    pub fn with(name: &str, what: &str, why: &str, requirements: &str) -> Result<Self> {
        let found = apt::program("python3", "python3-venv", why)?;
        let ask = "import os, sys; print(os.path.realpath(sys.executable)); print('%d.%d' % sys.version_info[:2])";
        let said = capture(Command::new(found).args(["-c", ask]))?;
        let (program, version) = said.trim().split_once('\n').context("python3 does not say what it is")?;
        // Wheels fit one version of the interpreter.
        let entry = format!("{name}-python{version}");
        let entry = cache::install(&entry, &format!("{what} from PyPI"), |partial| {
            let venv = partial.join("venv");
            cache::empty_dir(&venv)?;
            make_environment(program, &venv, why)?;
            let list = partial.join("requirements.txt");
            std::fs::write(&list, requirements).with_context(|| format!("cannot write {}", list.display()))?;
            let mut pip = Command::new(venv.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            run(pip.args(["--only-binary", ":all:", "--require-hashes", "--requirement"]).arg(list))
        })?;
        let packages = entry.join("venv/lib").join(format!("python{version}")).join("site-packages");
        Ok(Self { program: program.into(), packages })
    }

    /// The arguments that run a piece of code with these packages and the standard library alone.
    pub fn arguments(&self, code: &str) -> Vec<String> {
        let path = serde_json::Value::from(self.packages.to_string_lossy());
        ["-I".into(), "-S".into(), "-c".into(), format!("import sys; sys.path.insert(0, {path}); {code}")].into()
    }
}

fn make_environment(program: &str, venv: &Path, why: &str) -> Result<()> {
    let make = || run(Command::new(program).args(["-m", "venv"]).arg(venv));
    make().or_else(|error| {
        say!("this Python makes no virtual environment ({error:#})");
        apt::install("python3-venv", why)?;
        cache::empty_dir(venv)?;
        make()
    })
}
