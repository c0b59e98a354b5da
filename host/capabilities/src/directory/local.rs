//! The `directory` capability on a local file system.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};
use futures::future::BoxFuture;

use super::names::{self, Names};
use super::{Directory, Entry, File, FileInfo, LIST_LIMIT, Page, WriteOptions, read, temporary, write};
use crate::grant::DirectoryGrant;
use tidelock_types::path::{check_path, parents, split};
use tidelock_types::{Account, Body, ByteRange, Error, ErrorKind, Platform, Result, Stop, Unlimited, blocking, job};

/// The files below one directory of a local file system. Cheap to clone.
#[derive(Clone)]
pub struct LocalDirectory {
    inner: Arc<DirectoryInner>,
    /// Of the operation that uses it.
    account: Arc<dyn Account>,
}

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

impl LocalDirectory {
    /// Opens a directory, creates it (with its parents) if it does not exist, and removes leftovers. Blocks briefly. What is
    /// there can be read also where nothing can be written: on read-only media, and on a full disk.
    ///
    /// What is made here, the directory too, is for its owner alone, whatever the umask; below a directory with the
    /// set-group-ID bit it is for the group as well, as far as the umask lets it.
    ///
    /// # Errors
    /// `invalid` for an invalid grant or one that names a file; `denied` or `unavailable` for errors of the system.
    pub fn open(grant: &DirectoryGrant) -> Result<Self> {
        Self::open_with(grant, Platform::system())
    }

    /// As [`Self::open`], with the caller's random numbers.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(grant: &DirectoryGrant, platform: Platform) -> Result<Self> {
        grant.validate()?;
        let shown = grant.path.display();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&grant.path).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists => Error::invalid(format!("`{shown}` is not a directory")),
                _ => Error::io(format!("making the directory `{shown}`"), error),
            }
        })?;
        let root = Dir::open_ambient_dir(&grant.path, ambient_authority())
            .map_err(|error| Error::io(format!("opening the directory `{shown}`"), error))?;
        let modes = temporary::Modes::below(&root);
        let home = OnceLock::new();
        let path = std::path::absolute(&grant.path).map_err(|error| Error::io(format!("`{shown}`"), error))?;
        let (making, names) = (RwLock::new(()), Names::default());
        let inner = DirectoryInner { root, path, home, modes, making, names, platform };
        match inner.home() {
            Ok(home) => drop(temporary::gc(&home)?),
            // Readers need none, and a writer gets an error.
            Err(error) => tracing::debug!(%error, "no temporary files can be made"),
        }
        Ok(Self { inner: Arc::new(inner), account: Arc::new(Unlimited::default()) })
    }
}

impl DirectoryInner {
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
                Ok(()) => {
                    let (above, _) = split(directory);
                    self.open_dir(above)
                        .and_then(|above| sync(&above))
                        .map_err(|error| Error::io(format!("making `{directory}` durable"), error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(format!("making the directory `{directory}`"), error)),
            }
        }
        Ok(())
    }

    /// Returns whether the directory itself was removed: then a missing name means nothing.
    fn is_gone(&self) -> bool {
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
                .hint("move the directory back, or restart to use the one that is there now")),
        }
    }

    /// The result of an operation that says what is there, or changes it: it counts where the directory is in its place.
    fn in_place<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(_) => self.check_place().and(outcome),
            Err(error) if *error.kind() == ErrorKind::NotFound => Err(self.check_place().err().unwrap_or(error)),
            failed => failed,
        }
    }

    /// Maps the result of an operation. A file not found in a removed directory may still exist.
    fn present<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Err(error) if *error.kind() == ErrorKind::NotFound && self.is_gone() => Err(gone()),
            other => other,
        }
    }

    fn open_dir(&self, path: &str) -> io::Result<Dir> {
        if path.is_empty() { self.root.try_clone() } else { self.root.open_dir(path) }
    }

    fn stat(&self, path: &str) -> Result<FileInfo> {
        let metadata = self.root.metadata(path).map_err(|error| Error::io(format!("`{path}`"), error))?;
        info_of_file(path, &metadata)
    }

    fn remove(&self, path: &str) -> Result<()> {
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

    fn list(&self, path: &str, cursor: Option<&str>, limit: u32, stop: &Stop) -> Result<Page> {
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

fn gone() -> Error {
    Error::unavailable("the directory itself was removed").hint("restore it, and restart")
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

impl Directory for LocalDirectory {
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            check_path(path)?;
            self.inner.present(write::write(&self.inner, &self.account, path.to_owned(), data, options).await)
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        Box::pin(async move {
            check_path(path)?;
            let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
            let account = Arc::clone(&self.account);
            let open =
                move |_: &Stop| inner.present(read::open(&inner.root, &path, range.unwrap_or_default(), account));
            job(&self.account, open).await
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(async move {
            check_path(path)?;
            let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
            job(&self.account, move |_| inner.in_place(inner.stat(&path))).await
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_path(path)?;
            let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
            job(&self.account, move |_| inner.in_place(inner.remove(&path))).await
        })
    }

    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            if !path.is_empty() {
                check_path(path)?;
            }
            let (inner, path, cursor) = (Arc::clone(&self.inner), path.to_owned(), cursor.map(str::to_owned));
            job(&self.account, move |stop| {
                // The kernel lists nothing in a directory that was removed.
                inner.in_place(inner.list(&path, cursor.as_deref(), limit, stop))
            })
            .await
        })
    }

    fn write_holds(&self, size: Option<u64>) -> u64 {
        write::holds(size)
    }

    fn open_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn read_holds(&self, len: Option<u64>) -> u64 {
        read::holds(len)
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        names::page_holds(limit)
    }

    fn for_operation(&self, account: &Arc<dyn Account>) -> Option<Arc<dyn Directory>> {
        Some(Arc::new(Self { inner: Arc::clone(&self.inner), account: Arc::clone(account) }))
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || temporary::gc(&*inner.home()?)))
    }
}

impl std::fmt::Debug for LocalDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalDirectory").field(&self.inner.root).finish()
    }
}
