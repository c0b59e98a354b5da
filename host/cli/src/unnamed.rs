//! Files that have no name until they are complete.
//!
//! `O_TMPFILE` makes a file in a directory's file system without a name, and the kernel takes it away when the process ends,
//! however it ends. Where a file system has no such files (NFS, FAT), the file has a name that begins with `.tidelock-`; it
//! is locked while it is written, so that the next file that is made in the directory takes those away whose writers were
//! killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use tempfile::{Builder, TempPath};

/// Of files that are being written.
const PREFIX: &str = ".tidelock-";
const SUFFIX: &str = ".partial";
/// A named file without a lock that is younger may be one that is about to be locked.
const YOUNG: Duration = Duration::from_secs(600);

/// A new file, empty at first and for its owner alone. Dropping it removes it.
pub(super) struct Unnamed {
    file: File,
    /// Where it has a name all the same.
    named: Option<TempPath>,
}

impl Unnamed {
    /// Makes one that can take the place of `path`. Blocks.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn beside(path: &Path) -> io::Result<Self> {
        let directory = directory_of(path);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match open(directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => {
                let file = File::from(file);
                // It gets its name by way of procfs.
                if fs::symlink_metadata(through_proc(&file)).is_ok() {
                    return Ok(Self { file, named: None });
                }
            }
            // The system cannot do it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
        remove_leftovers(directory);
        let made = Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(directory).map_err(system_error)?;
        let (file, path) = made.into_parts();
        // Without locks nothing is ever taken for a leftover.
        let _ = file.try_lock();
        Ok(Self { file, named: Some(path) })
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Links the file under its name, durably, and replaces a file of that name.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn place(self, path: &Path) -> io::Result<()> {
        let directory = directory_of(path);
        let named = match self.named {
            Some(named) => named,
            // A link replaces nothing, a renaming does.
            None => link_beside(&self.file, directory)?,
        };
        named.persist(path).map_err(|refused| refused.error)?;
        File::open(directory)?.sync_all()
    }
}

/// Links a file without a name under a temporary one.
fn link_beside(file: &File, directory: &Path) -> io::Result<TempPath> {
    let from = through_proc(file);
    let named = Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .make_in(directory, |to| linkat(CWD, &from, CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from));
    named.map(tempfile::NamedTempFile::into_temp_path).map_err(system_error)
}

fn through_proc(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Removes the named files of writers that were killed. Nobody waits for it, and nothing depends on it.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name: OsString = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && name.as_encoded_bytes().ends_with(SUFFIX.as_bytes());
        if !ours {
            continue;
        }
        // Not through a link, and without waiting for a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let Ok(file) = File::options().write(true).custom_flags(flags).open(entry.path()) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        let old = metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG);
        if metadata.is_file() && old && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the system's error, without the name of the temporary file.
fn system_error(error: io::Error) -> io::Error {
    error.raw_os_error().map_or(error, io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_killed_writers_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, old: bool| {
            let file = File::create(dir.path().join(name)).unwrap();
            if old {
                file.set_modified(std::time::SystemTime::now() - 2 * YOUNG).unwrap();
            }
            file
        };
        make(".tidelock-a.partial", true);
        make(".tidelock-b.partial", false);
        make("image.partial", true);
        let living = make(".tidelock-c.partial", true);
        living.lock().unwrap();
        remove_leftovers(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".tidelock-b.partial", ".tidelock-c.partial", "image.partial"]);
    }
}
