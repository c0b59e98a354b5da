//! Frozen versions of the WIT package, and the check that they never change.
//!
//! An adapter is built against one version of the package and must load for as long as the host supports that version.
//! So a released version is copied to `wit/frozen/VERSION/` with a file of checksums, and three things are checked: the
//! copy has those checksums; the checksums are the ones that were committed first; and `wit/` itself, as long as it
//! still names that version, is the same as the copy. A change of the package is a new version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::run::{capture, works};

/// The file of checksums, in the format of `sha256sum`.
const SUMS: &str = "SHA256SUMS";

/// Checks every frozen version of the repository at `root` and returns their numbers.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let versions = frozen(root)?;
    for version in &versions {
        let dir = root.join("wit/frozen").join(version);
        check_sums(&dir)?;
    }
    check_history(root)?;
    let (current, files) = (current_version(root)?, wit_files(&root.join("wit"))?);
    if versions.contains(&current) {
        let copy = wit_files(&root.join("wit/frozen").join(&current))?;
        if let Some(name) = differing(&files, &copy) {
            bail!(
                "wit/{name} differs from the frozen version {current}. A frozen version never changes: undo the change, or \
                 give the package a new version in wit/types.wit and support both (host/runtime/src/wit/)"
            );
        }
    }
    Ok(versions)
}

/// Copies the package to `wit/frozen/VERSION/`. Refuses if that version is frozen already.
pub fn freeze(root: &Path) -> Result<PathBuf> {
    let version = current_version(root)?;
    let home = root.join("wit/frozen");
    let dir = home.join(&version);
    if dir.exists() {
        bail!(
            "version {version} is frozen already ({}): give the package a new version in wit/types.wit",
            dir.display()
        );
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    // Whole or not at all.
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(&home)?;
    let mut sums = String::new();
    for (name, contents) in wit_files(&root.join("wit"))? {
        sums += &format!("{}  {name}\n", sha256(&contents));
        fs::write(partial.path().join(&name), contents)?;
    }
    fs::write(partial.path().join(SUMS), sums)?;
    let partial = partial.keep();
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&partial, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn frozen(root: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(root.join("wit/frozen")) else { return Ok(Vec::new()) };
    let mut versions = Vec::new();
    for entry in entries {
        versions.push(entry?.file_name().to_string_lossy().into_owned());
    }
    versions.sort();
    Ok(versions)
}

/// The version of the package that wit/ holds.
fn current_version(root: &Path) -> Result<String> {
    let file = root.join("wit/types.wit");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let declaration = text.lines().find_map(|line| line.trim().strip_prefix("package ")?.strip_suffix(';'));
    let version = declaration.and_then(|name| name.split_once('@')).map(|(_, version)| version.trim());
    let is_version = |v: &&str| !v.is_empty() && v.chars().all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c));
    Ok(version
        .filter(is_version)
        .with_context(|| format!("{} declares no package version", file.display()))?
        .to_string())
}

/// The `.wit` files of a folder by name.
fn wit_files(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(files)
}

fn check_sums(dir: &Path) -> Result<()> {
    let file = dir.join(SUMS);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (sum, name) = line.split_once("  ").with_context(|| format!("{} is damaged", file.display()))?;
        sums.insert(name.to_string(), sum.to_string());
    }
    let files = wit_files(dir)?.into_iter().map(|(name, contents)| (name, sha256(&contents))).collect();
    match differing(&files, &sums) {
        Some(name) => {
            bail!("{} does not match {SUMS}. A frozen version never changes: undo that", dir.join(name).display())
        }
        None => Ok(()),
    }
}

/// The first name whose contents differ or that only one of the two has.
fn differing<T: PartialEq>(a: &BTreeMap<String, T>, b: &BTreeMap<String, T>) -> Option<String> {
    a.keys().chain(b.keys()).find(|name| a.get(*name) != b.get(*name)).cloned()
}

/// That no committed file of checksums was changed or removed since. Where git or the history is missing, there is
/// nothing to compare with and this passes.
fn check_history(root: &Path) -> Result<()> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(args);
        command
    };
    if !works(&mut git(&["rev-parse", "--verify", "--quiet", "HEAD"])) {
        return Ok(());
    }
    // The path is relative to where git runs, which need not be the top of its work tree.
    let log = capture(&mut git(&["log", "--format=", "--name-only", "--relative", "--", "wit/frozen/*/SHA256SUMS"]))?;
    let mut commits: BTreeMap<&str, u32> = BTreeMap::new();
    for path in log.lines().filter(|line| !line.is_empty()) {
        *commits.entry(path).or_default() += 1;
    }
    for (path, commits) in commits {
        if commits > 1 {
            bail!("{path} was changed after it was committed: a frozen version never changes");
        }
        if !works(&mut git(&["diff", "--quiet", "HEAD", "--", path])) {
            bail!("{path} is not as it was committed: a frozen version never changes");
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;

    fn package(version: &str) -> Result<tempfile::TempDir> {
        let root = tempfile::tempdir()?;
        fs::create_dir(root.path().join("wit"))?;
        fs::write(
            root.path().join("wit/types.wit"),
            format!("/// Words.\npackage a:b@{version};\ninterface t {{}}\n"),
        )?;
        fs::write(root.path().join("wit/worlds.wit"), "world w {}\n")?;
        Ok(root)
    }

    #[test]
    fn nothing_frozen_is_sound() -> Result<()> {
        let root = package("0.1.0")?;
        assert!(check(root.path())?.is_empty());
        Ok(())
    }

    #[test]
    fn a_version_is_frozen_once_and_a_change_is_found() -> Result<()> {
        let root = package("0.1.0")?;
        let dir = freeze(root.path())?;
        assert_eq!(dir, root.path().join("wit/frozen/0.1.0"));
        assert_eq!(check(root.path())?, ["0.1.0"]);
        assert!(freeze(root.path()).unwrap_err().to_string().contains("frozen already"));
        run(Command::new("sha256sum").args(["--quiet", "-c", SUMS]).current_dir(&dir))?;

        fs::write(root.path().join("wit/worlds.wit"), "world w { import t; }\n")?;
        assert!(check(root.path()).unwrap_err().to_string().contains("wit/worlds.wit differs"));
        fs::write(root.path().join("wit/types.wit"), "package a:b@0.2.0;\n")?;
        check(root.path())?;

        fs::write(dir.join("more.wit"), "")?;
        assert!(check(root.path()).unwrap_err().to_string().contains("more.wit does not match"));
        Ok(())
    }

    #[test]
    fn checksums_that_were_committed_stay() -> Result<()> {
        let root = package("0.1.0")?;
        let git = |args: &[&str]| {
            let who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"];
            run(Command::new("git").arg("-C").arg(root.path()).args(who).args(args))
        };
        git(&["init", "-q"])?;
        let dir = freeze(root.path())?;
        check(root.path())?;
        git(&["add", "."])?;
        git(&["commit", "-qm", "freeze"])?;
        check(root.path())?;
        // Both at once, so that the sums match.
        fs::remove_dir_all(&dir)?;
        fs::write(root.path().join("wit/worlds.wit"), "world w { import t; }\n")?;
        freeze(root.path())?;
        assert!(check(root.path()).unwrap_err().to_string().contains("not as it was committed"));
        git(&["commit", "-qam", "refreeze"])?;
        assert!(check(root.path()).unwrap_err().to_string().contains("was changed after it was committed"));
        Ok(())
    }

    #[test]
    fn a_package_without_a_version_is_an_error() -> Result<()> {
        let root = package("0.1.0")?;
        fs::write(root.path().join("wit/types.wit"), "package a:b;\n")?;
        assert!(check(root.path()).unwrap_err().to_string().contains("declares no package version"));
        Ok(())
    }
}
