//! Node programs: servers of this repository and tools from npm, their sources and their packages in the cache.
//!
//! Packages come from npm as `package-lock.json` names them, each by its digest, and none of their install scripts is
//! run. A server runs with Node's own file as its program, since [`super::daemon`] knows a process by the file that it
//! runs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{capture, run};
use crate::{apt, cache, say};

/// The release of Node that the packages need.
const NEEDED: u32 = 20;

/// An interpreter, and the folder of an installed program.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Node's own file.
    pub node: PathBuf,
    /// The program's sources with their packages.
    pub dir: PathBuf,
}

/// Why nothing can be installed here, if that is so.
pub fn why_not() -> Option<String> {
    if apt::find("node").is_none() || apt::find("npm").is_none() {
        return Some(format!("there is no Node with npm here: install Node {NEEDED} or newer"));
    }
    let said = ask("process.versions.node").unwrap_or_default();
    let major: Option<u32> = said.split('.').next().and_then(|text| text.parse().ok());
    major.is_none_or(|major| major < NEEDED).then(|| format!("Node here is {said:?}, and {NEEDED} or newer is needed"))
}

/// The program of these files (names and contents, `package.json` and `package-lock.json` among them), installed under
/// `name` if it is not there. `what` is for people.
pub fn install(name: &str, what: &str, files: &[(&str, &str)]) -> Result<Installed> {
    let dir = cache::install(&format!("{name}-{}", cache::digest(files)), what, |partial| {
        say!("installing {what} from npm");
        for (file, text) in files {
            std::fs::write(partial.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        let mut npm = Command::new(apt::find("npm").context("there is no `npm`")?);
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(partial);
        run(&mut npm)
    })?;
    Ok(Installed { node: ask("process.execPath")?.into(), dir })
}

/// The version that Node reports.
fn ask(expression: &str) -> Result<String> {
    let node = apt::find("node").context("there is no `node`")?;
    Ok(capture(Command::new(node).args(["-p", expression]))?.trim().to_owned())
}
