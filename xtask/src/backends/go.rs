//! Servers that are Go programs: built from their modules into the cache.
//!
//! A folder of this repository has a `go.mod` that requires the version, and the `go.sum` with the digest
//! of every module in it; Go accepts no others. (`go install PATH@VERSION` would pin one module and none of its
//! dependencies, and fails if a proxy returns no lists of versions.) No C compiler is used.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{capture, run};
use crate::{apt, cache, say};

/// The release of Go that the modules here say they need: Kubo asks for the latest.
const NEEDED: (u32, u32, u32) = (1, 26, 5);

/// A program as it is built.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name in the cache and of its file.
    pub name: &'static str,
    /// For people: `tonutils-storage 1.4.1`.
    pub what: &'static str,
    /// The module: names and contents of its files, `go.mod` and `go.sum` among them.
    pub files: &'static [(&'static str, &'static str)],
    /// The package to build: `.`, or one that it requires.
    pub package: &'static str,
}

/// Why nothing can be built here, if that is so.
pub fn why_not() -> Option<String> {
    let needed = format!("{}.{}.{}", NEEDED.0, NEEDED.1, NEEDED.2);
    let Some(go) = apt::find("go") else {
        return Some(format!("there is no Go here: install Go {needed} or newer"));
    };
    // What is there, and not what it would fetch.
    let said = capture(Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local")).unwrap_or_default();
    let found = version(said.trim());
    found
        .is_none_or(|found| found < NEEDED)
        .then(|| format!("Go here is {:?}, and {needed} or newer is needed", said.trim()))
}

/// The numbers of `go1.26.8`; a release candidate (`go1.27rc1`) is as good as its release.
fn version(said: &str) -> Option<(u32, u32, u32)> {
    let mut parts = said.strip_prefix("go")?.split('.');
    let mut next = || parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
    Some((next()?, next()?, next().unwrap_or(0)))
}

/// The program's file, built if it is not there.
pub fn build(program: &Program) -> Result<PathBuf> {
    let Program { name, what, files, package } = *program;
    let entry = format!("{name}-{}", cache::digest(files));
    let entry = cache::install(&entry, what, |partial| {
        say!("building {what} from its Go modules (half a minute to some minutes, and up to 4 GB in Go's caches)");
        let module = partial.join("module");
        cache::empty_dir(&module)?;
        for (file, text) in files {
            std::fs::write(module.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        let mut go = Command::new(apt::find("go").context("there is no `go`")?);
        go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o"]);
        go.arg(partial.join(name)).arg(package).current_dir(&module);
        // Neither another release of Go nor a workspace around this folder has a say.
        go.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("CGO_ENABLED", "0").env_remove("GOFLAGS");
        run(&mut go)?;
        Ok(std::fs::remove_dir_all(&module)?)
    })?;
    Ok(entry.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("go1.26.8"), Some((1, 26, 8)));
        assert_eq!(version("go1.27rc1"), Some((1, 27, 0)));
        assert_eq!(version("go1.27rc1 X:jsonv2"), Some((1, 27, 0)));
        assert!(version("go1.9").is_some_and(|found| found < NEEDED));
        assert!(version("go1.26.4") < Some(NEEDED) && version("go1.26.5") >= Some(NEEDED));
        assert_eq!(version("devel"), None);
    }
}
