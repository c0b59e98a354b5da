//! What is compared: something that stores versions of an image and gives them back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use xtask::run::capture;

/// An image on its way into a store.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// The name under which it can be restored.
    pub name: &'a str,
    /// Its bytes.
    pub image: &'a Path,
    /// The name and the bytes of the version before, which is stored already.
    pub base: Option<(&'a str, &'a Path)>,
}

/// What storing one took.
#[derive(Debug, Clone, Copy)]
pub struct Added {
    /// What the store has more than before, by the lengths of its files.
    pub bytes: u64,
    /// The duration of the whole command.
    pub seconds: f64,
}

/// One contestant with an empty store of its own.
pub trait Tool {
    /// What rows call it.
    fn name(&self) -> &'static str;

    /// Whether it can store an image without a base.
    fn stores_whole(&self) -> bool {
        true
    }

    /// Stores a version.
    fn store(&mut self, version: Version<'_>) -> Result<Added>;

    /// Restores a version into the folder `into`, which is empty. Returns where it is and how long the command took.
    fn restore(&mut self, version: Version<'_>, into: &Path) -> Result<(PathBuf, f64)>;
}

/// Runs a command to its end. Returns what it printed and how long it took, in seconds.
pub fn timed(command: &mut Command) -> Result<(String, f64)> {
    let began = Instant::now();
    let printed = capture(command)?;
    Ok((printed, began.elapsed().as_secs_f64()))
}

/// The bytes of all files below a folder, by their lengths.
pub fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Makes a folder below another one, and returns it.
pub fn folder(parent: &Path, name: &str) -> Result<PathBuf> {
    let path = parent.join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_bytes_of_all_its_files() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("a"), [0; 10])?;
        fs::write(folder(dir.path(), "b")?.join("c"), [0; 7])?;
        assert_eq!(bytes_in(dir.path())?, 17);
        Ok(())
    }
}
