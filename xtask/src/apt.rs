//! Debian's package manager: to install a system tool, and to read packages without installing them.
//!
//! [`program`] installs a missing tool if that needs no password, and otherwise prints the command to run.
//! [`Archive`] downloads and unpacks packages into a private folder: it changes nothing of the system and needs no root.
//! It uses the system's package lists as they are and, when those do not know a package or name a version that the
//! mirror no longer has, fetches its own lists.
//!
//! No package is pinned here by version or checksum, since a release's mirror keeps only its newest. What guarantees that
//! Debian built each is apt: a list is accepted only with a signature by a key that this system trusts, and a
//! package only with the SHA-256 in the list. [`Archive`] sets this in its options, regardless of the system's
//! configuration, so that a source without a signature is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{capture, run, works};
use crate::say;

/// The path of a program on PATH or in the system's administration folders, which ordinary users often lack on it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The path of `program`; installs Debian's `package`, which holds it, if it is not there. `why` says what it is for.
pub fn program(program: &str, package: &str, why: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    install(package, why)?;
    find(program).with_context(|| format!("the package {package} is installed but there is no program {program}"))
}

/// Installs a package on the system, as root or through a `sudo` that asks for no password.
pub fn install(package: &str, why: &str) -> Result<()> {
    let by_hand =
        format!("{package} is needed {why}; install it: `sudo apt-get install {package}` or your system's equivalent");
    if find("apt-get").is_none() {
        bail!(by_hand);
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !works(Command::new("sudo").args(["-n", "true"])) {
        bail!(by_hand);
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let wanted = ["install", "-qq", "-y", "--no-install-recommends", package];
    say!("installing the system package {package}, needed {why}");
    if !works(&mut apt(&wanted)) {
        run(&mut apt(&["update", "-qq"])).with_context(|| by_hand.clone())?;
        run(&mut apt(&wanted)).context(by_hand)?;
    }
    Ok(())
}

/// Without the second user that apt drops to, a download works as any user and into any folder. The others keep apt from
/// installing unsigned packages.
const OPTIONS: [&str; 8] = [
    "-o",
    "APT::Sandbox::User=root",
    "-o",
    "APT::Get::AllowUnauthenticated=false",
    "-o",
    "Acquire::AllowInsecureRepositories=false",
    "-o",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
];

/// Packages to read, not to install.
#[derive(Debug)]
pub struct Archive {
    options: Vec<String>,
    private: PathBuf,
}

impl Archive {
    /// On a system with `apt-get` and `dpkg`; `private` is a folder for lists of our own, made when they are needed.
    pub fn new(private: &Path) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg"] {
            if find(tool).is_none() {
                bail!("there is no `{tool}` here: this is not a Debian system");
            }
        }
        Ok(Self { options: OPTIONS.map(String::from).into(), private: private.to_path_buf() })
    }

    /// Returns whether the lists have an installable version of the package.
    pub fn knows(&self, package: &str) -> bool {
        capture(self.command("apt-cache").args(["policy", package])).is_ok_and(|text| has_candidate(&text))
    }

    /// Turns to lists of our own, fetched now from the mirrors that the system is configured for.
    pub fn refresh(&mut self) -> Result<()> {
        say!("fetching package lists of its own into {}", self.private.display());
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = self.private.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        self.options.truncate(OPTIONS.len());
        for (option, folder) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            self.options.extend(["-o".into(), format!("{option}={}", self.private.join(folder).display())]);
        }
        run(self.command("apt-get").args(["update", "-qq"]))
    }

    /// Returns the dependencies of a package, with all alternatives.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        Ok(dependencies(&capture(self.command("apt-cache").args(["depends", package]))?))
    }

    /// The libraries that the packages need, directly or not, and that the system does not have.
    pub fn missing_libraries(&self, packages: &[String]) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        command.args(["--no-replaces", "--no-enhances"]).args(packages);
        let text = capture(&mut command)?;
        let names = text.lines().filter(|line| line.starts_with("lib") && !line.ends_with("-dev"));
        let installed = |name: &str| works(Command::new("dpkg").args(["--status", name]));
        Ok(names.filter(|name| !packages.iter().any(|p| p == name) && !installed(name)).map(String::from).collect())
    }

    /// Downloads the packages and unpacks them under `root`.
    pub fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let folder = tempfile::tempdir_in(self.private.parent().unwrap_or(&self.private))?;
        run(self.command("apt-get").args(["download", "-qq"]).args(packages).current_dir(folder.path()))?;
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        for package in fs::read_dir(folder.path())? {
            run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(root))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Parsed below: not in the user's language.
        command.args(&self.options).env("LC_ALL", "C.UTF-8");
        command
    }
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate:")).any(|version| version.trim() != "(none)")
}

fn dependencies(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "));
    // A name in angle brackets is virtual: no package has it.
    lines.filter(|name| !name.starts_with('<')).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_list_of_relations() {
        let text = "libstd-rust-web-dev\n  Depends: libstd-rust-web-1.96\n |Depends: gcc\n  Depends: <libc-dev>\n    libc6-dev\n  Conflicts: <rustup>\n  Replaces: libstd-rust-dev\n";
        assert_eq!(dependencies(text), ["libstd-rust-web-1.96", "gcc"]);
    }

    #[test]
    fn a_package_without_a_version_is_unknown() {
        assert!(has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n"));
        assert!(!has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn programs_are_found_and_a_missing_one_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
