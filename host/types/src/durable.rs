//! Directories that are there after a loss of power.

use std::fs::{DirBuilder, File};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a directory, with its parents, for its owner alone; one that is there is success. The names of those that it makes
/// are durable when it returns. Blocks.
///
/// # Errors
/// What the operating system says; `NotADirectory` if something else has the name.
pub fn make_dir(path: &Path) -> Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    let made = match make() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or(error)?;
            make_dir(parent)?;
            make()
        }
        made => made,
    };
    match made {
        Ok(()) => sync_parent(path),
        // As on read-only media, where the error is another one although it is there.
        Err(error) => match path.metadata() {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Error::from(ErrorKind::NotADirectory)),
            Err(_) => Err(error),
        },
    }
}

/// Makes the name of a file or directory durable.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Some file systems sync no directories, and where one may write one may not always read.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn parents_are_made_and_what_is_there_is_success() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        make_dir(&deep).unwrap();
        make_dir(&deep).unwrap();
        make_dir(&deep.join("..")).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(dir.path().join(made).metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert_eq!(make_dir(&dir.path().join("file")).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert!(make_dir(&dir.path().join("file/below")).is_err());
    }
}
