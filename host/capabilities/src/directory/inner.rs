//! What a local directory is: its files, and what keeps them durable. Blocks, as all calls of the system do.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use cap_std::fs::{Dir, Metadata};

use super::names::Names;
use super::{Entry, FileInfo, LIST_LIMIT, Page, temporary};
use tidelock_types::path::{parents, split};
use tidelock_types::{Error, ErrorKind, Platform, Result, Stop};

pub(super) struct DirectoryInner {
    pub(super) root: Dir,
    /// Where it was opened.
    path: PathBuf,
    /// The directory of temporary files, once it is open.
    home: OnceLock<Arc<Dir>>,
    pub(super) modes: temporary::Modes,
    /// Held for writing while directories are created and made durable, for reading while one is opened to write into it:
    /// no file is created in a directory that a crash could remove.
    making: RwLock<()>,
    /// For listings.
    names: Names,
    pub(super) platform: Platform,
}

impl DirectoryInner {
    pub(super) fn below(root: Dir, path: PathBuf, platform: Platform) -> Self {
        let (home, modes) = (OnceLock::new(), temporary::Modes::below(&root));
        Self { root, path, home, modes, making: RwLock::new(()), names: Names::default(), platform }
    }

    /// Returns the directory of temporary files, which is made if it is not there. Blocks.
    pub(super) fn home(&self) -> Result<Arc<Dir>> {
        if let Some(home) = self.home.get() {
            return Ok(Arc::clone(home));
        }
        let home = Arc::new(temporary::home(&self.root, self.modes)?);
        Ok(Arc::clone(self.home.get_or_init(|| home)))
    }

    /// Opens the directory of a checked path to put something into it, and makes it if need be. Blocks.
    pub(super) fn open_parent(&self, path: &str, stop: &Stop) -> Result<Dir> {
        let (parent, _) = split(path);
        let opened = {
            let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
            self.open_dir(parent)
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parents(path, stop)?;
                self.open_dir(parent).map_err(|error| Error::io(format!("opening `{parent}`"), error))
            }
            other => other.map_err(|error| Error::io(format!("opening `{parent}`"), error)),
        }
    }

    fn make_parents(&self, path: &str, stop: &Stop) -> Result<()> {
        let _making = self.making.write().unwrap_or_else(PoisonError::into_inner);
        for directory in parents(path) {
            stop.check()?;
            match self.modes.make(&self.root, directory) {
                // Also where another process has made it, which may not have come to this yet.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("making the directory `{directory}`"), error));
                }
                _ => {
                    let (above, _) = split(directory);
                    self.open_dir(above)
                        .and_then(|above| sync(&above))
                        .map_err(|error| Error::io(format!("making `{directory}` durable"), error))?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether it is this directory. One that cannot be asked is.
    pub(super) fn is(&self, device: u64, inode: u64) -> bool {
        rustix::fs::fstat(&self.root).map_or(true, |open| (open.st_dev, open.st_ino) == (device, inode))
    }

    /// Returns whether the directory itself was removed: then a missing name means nothing.
    pub(super) fn is_gone(&self) -> bool {
        rustix::fs::fstat(&self.root).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Makes sure that the path of the grant still leads here: who opens it next must find what is acknowledged now. Blocks.
    ///
    /// # Errors
    /// `unavailable` if it leads elsewhere.
    pub(super) fn check_place(&self) -> Result<()> {
        if self.is_gone() {
            return Err(gone());
        }
        let elsewhere = match (rustix::fs::fstat(&self.root), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(there)) => (open.st_dev, open.st_ino) != (there.dev(), there.ino()),
            (_, Err(error)) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
            // It cannot be told.
            (Err(_), Ok(_)) => false,
        };
        match elsewhere {
            false => Ok(()),
            true => Err(Error::unavailable(format!("`{}` is not the directory that was opened", self.path.display()))
                .hint("mount it or move it back; what begins from now on uses the one that is there")),
        }
    }

    /// The result of an operation that says what is there, or changes it: it counts where the directory is in its place.
    pub(super) fn in_place<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(_) => self.check_place().and(outcome),
            Err(error) if *error.kind() == ErrorKind::NotFound => Err(self.check_place().err().unwrap_or(error)),
            failed => failed,
        }
    }

    /// Maps the result of an operation. A file not found in a removed directory may still exist.
    pub(super) fn present<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Err(error) if *error.kind() == ErrorKind::NotFound && self.is_gone() => Err(gone()),
            other => other,
        }
    }

    fn open_dir(&self, path: &str) -> io::Result<Dir> {
        if path.is_empty() { self.root.try_clone() } else { self.root.open_dir(path) }
    }

    pub(super) fn stat(&self, path: &str) -> Result<FileInfo> {
        let metadata = self.root.metadata(path).map_err(|error| Error::io(format!("`{path}`"), error))?;
        info_of_file(path, &metadata)
    }

    pub(super) fn remove(&self, path: &str) -> Result<()> {
        match self.root.remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if self.is_gone() { Err(gone()) } else { Ok(()) };
            }
            // Linux returns EISDIR, POSIX specifies EPERM.
            Err(error) => {
                let directory = self.root.symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
                return Err(match directory {
                    true => Error::invalid(format!("`{path}` is a directory")),
                    false => Error::io(format!("removing `{path}`"), error),
                });
            }
        }
        let (parent, _) = split(path);
        self.open_dir(parent)
            .and_then(|parent| sync(&parent))
            .map_err(|error| Error::io(format!("making the removal of `{path}` durable"), error))
    }

    pub(super) fn list(&self, path: &str, cursor: Option<&str>, limit: u32, stop: &Stop) -> Result<Page> {
        let failed = |error| Error::io(format!("listing `{path}`"), error);
        let directory = self.open_dir(path).map_err(failed)?;
        let limit = limit.clamp(1, LIST_LIMIT) as usize;
        let (names, more) = self.names.page(&directory, path, cursor, limit, &|| stop.is_asked()).map_err(failed)?;
        let next = if more { names.last().cloned() } else { None };
        let wanted = names.into_iter().take_while(|_| !stop.is_asked());
        let entries = wanted.filter_map(|name| entry(&directory, name)).collect();
        stop.check()?;
        Ok(Page { entries, next })
    }
}

/// The failure of everything in a directory that was removed itself.
pub(super) fn gone() -> Error {
    Error::unavailable("the directory itself was removed").hint("restore it")
}

/// An entry that is a file or a directory (a link counts as its target, if that is inside).
fn entry(directory: &Dir, name: String) -> Option<Entry> {
    let metadata = directory.metadata(&name).ok()?;
    let is_directory = metadata.is_dir();
    (is_directory || metadata.is_file()).then(|| Entry {
        name,
        is_directory,
        size: if is_directory { 0 } else { metadata.len() },
        modified: modified(&metadata),
    })
}

/// Returns the metadata of a path that must be a file.
pub(super) fn info_of_file(path: &str, metadata: &Metadata) -> Result<FileInfo> {
    if metadata.is_dir() {
        return Err(Error::invalid(format!("`{path}` is a directory")));
    }
    if !metadata.is_file() {
        return Err(Error::invalid(format!("`{path}` is neither a file nor a directory")));
    }
    Ok(FileInfo { size: metadata.len(), modified: modified(metadata) })
}

fn modified(metadata: &Metadata) -> Option<u64> {
    let time = metadata.modified().ok()?.into_std();
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Makes the names in a directory durable.
pub(super) fn sync(directory: &Dir) -> io::Result<()> {
    // cap-std opens directories with O_PATH, which cannot be synced: open it once more, for reading.
    let readable = rustix::fs::openat(
        directory,
        ".",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok(rustix::fs::fsync(readable)?)
}
