//! The data directory: for its owner alone, whatever the umask, and readable where nothing can be written.
//!
//! A directory that an earlier version made for everybody is narrowed, with what is ours in it. One that holds other things
//! too, as the current directory may, stays open to whom it was; our files in it do not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::types::{Error, Result, durable};

/// Directories of ours that are narrowed. Not that of compiled code: if others can write to it, it must not be used, and
/// the engine says so.
const OURS: [&str; 8] = ["run", "adapters", "tmp", "objects", "catalogue.mark", "page-digests", "sketches", "hot"];
/// The engine's.
const COMPILED: &str = "compiled";
/// How the names of the catalogue's files begin.
const CATALOGUE: &str = "catalogue.sqlite";

/// Makes the directory, or narrows it.
///
/// # Errors
/// What the operating system refuses.
pub(super) fn open(dir: &Path) -> Result<()> {
    durable::make_dir(dir).map_err(|error| Error::io(format!("data_dir {}", dir.display()), error))?;
    for name in OURS {
        narrow(&dir.join(name));
    }
    if holds_only_ours(dir) {
        narrow(dir);
    }
    Ok(())
}

fn holds_only_ours(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(CATALOGUE) || name == COMPILED || OURS.contains(&&*name)
    })
}

/// Takes a directory of ours from everybody else, unless a group shares it: the set-group-ID bit says so.
fn narrow(dir: &Path) {
    let Ok(found) = std::fs::symlink_metadata(dir) else { return };
    if !found.is_dir() || found.mode() & 0o2000 != 0 || found.mode() & 0o077 == 0 {
        return;
    }
    // On read-only media, or if it is another's, it stays as it is.
    if std::fs::set_permissions(dir, std::fs::Permissions::from_mode(found.mode() & 0o700)).is_ok() {
        tracing::info!(path = %dir.display(), "other users can no longer enter this directory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_ours_is_narrowed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let (own, mixed) = (temp.path().join("a/own"), temp.path().join("mixed"));
        open(&own).unwrap();
        assert_eq!((mode(&own), mode(&temp.path().join("a"))), (0o700, 0o700));
        for (dir, other) in [(&own, None), (&mixed, Some("other"))] {
            for name in OURS.into_iter().chain([COMPILED]).chain(other) {
                std::fs::create_dir_all(dir.join(name)).unwrap();
                std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            open(dir).unwrap();
            assert_eq!([mode(&dir.join("run")), mode(&dir.join("objects"))], [0o700, 0o700]);
        }
        assert_eq!(mode(&own), 0o700);
        assert_eq!((mode(&mixed), mode(&mixed.join("other"))), (0o755, 0o755));
        std::fs::set_permissions(own.join("objects"), std::fs::Permissions::from_mode(0o2770)).unwrap();
        open(&own).unwrap();
        assert_eq!(mode(&own.join("objects")), 0o2770, "a group shares it");
    }
}
