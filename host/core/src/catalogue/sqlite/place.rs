//! Where the file of a catalogue lies, and how it is opened there.
//!
//! Whatever can be read shall be readable. Two places do not let SQLite make its `-shm` and `-wal` files, which it needs even
//! to read:
//!
//! - **A full disk.** The file is opened in exclusive mode, which needs none but an empty one; others wait meanwhile. For what
//!   has to be written all the same, removals above all, there is a *reserve*: a file beside the catalogue that takes up room
//!   while there is plenty, and is given back by the first change that finds too little. Once there is room, the file is
//!   opened as usual, and a reserve is made again. Where not even one more file can be made, the reserve is one that can be
//!   spared; failing that, the file is read as on read-only media.
//! - **Read-only media**, and users who may only read: `read_only.rs`.
//!
//! The file and those beside it are for their owner alone, whatever the umask.

mod changes;
mod raises;
mod room;

pub(super) use changes::{once, transact};

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rustix::fs::{AtFlags, CWD, FileType, Mode, StatVfsMountFlags, accessat, mknodat, statvfs};
use rustix::io::Errno;

use super::mark::Mark;
use super::open_files::{Found, OpenFiles, give_up};
use super::paths::{beside, directory_of};
use super::read_only::{self, View};
use super::schema;
use crate::types::{Error, Platform, Result, durable};

/// The longest path that SQLite opens: 512 bytes, with what it adds for its own files.
const LONGEST: usize = 500;

/// How the file is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Normal,
    /// In exclusive mode, since there is no room for the files beside it.
    Tight,
    /// Without any change.
    ReadOnly,
    /// The same, since there is no room for any file.
    Full,
}

/// Where a catalogue is, and how it is open at the moment.
pub(super) struct Place {
    path: PathBuf,
    reserve: PathBuf,
    /// None in memory, where nothing can be put back.
    mark: Option<Mark>,
    raises: raises::Raises,
    /// How it is read, if it cannot be changed.
    view: Mutex<Option<View>>,
    /// What the connection for everything but leases has open.
    files: Mutex<OpenFiles>,
    platform: Platform,
    /// An [`Access`].
    access: AtomicU8,
}

impl Place {
    /// Opens a file, and makes it if there is none. Blocks.
    pub(super) fn open(path: &Path, platform: Platform) -> Result<(Self, Connection)> {
        let place = Self {
            path: path.to_owned(),
            reserve: beside(path, ".reserve"),
            mark: Some(Mark::of(path)),
            raises: Default::default(),
            view: Mutex::default(),
            files: Mutex::default(),
            platform,
            access: AtomicU8::new(0),
        };
        place.check_length()?;
        if path.exists() && (is_on_read_only_media(path) || is_denied(path)) {
            let connection = place.view(Access::ReadOnly)?;
            return Ok((place, connection));
        }
        place.make_private();
        let mut connection = match place.connect() {
            Err(_) if place.is_short() && path.exists() => place.view(Access::Full)?,
            connected => connected?,
        };
        if place.access() == Access::Normal {
            place.mark.iter().for_each(Mark::take_from_below);
            place.check(&mut connection)?;
            place.keep_reserve();
        }
        Ok((place, connection))
    }

    /// That of a catalogue without a file.
    #[cfg(test)]
    pub(super) fn in_memory(platform: Platform) -> Self {
        let (path, reserve, view) = (PathBuf::new(), PathBuf::new(), Mutex::default());
        let (files, raises) = Default::default();
        Self { path, reserve, view, files, mark: None, raises, platform, access: AtomicU8::new(0) }
    }

    /// Opens the file for changes, in exclusive mode if there is no room for more.
    fn connect(&self) -> Result<Connection> {
        let exclusive = || self.open_as(Access::Tight);
        match self.open_as(Access::Normal) {
            Err(_) if self.is_short() && self.path.exists() => exclusive().or_else(|error| {
                if !self.lacks_files() {
                    return Err(error);
                }
                self.give_back();
                exclusive()
            }),
            opened => opened,
        }
    }

    fn open_as(&self, access: Access) -> Result<Connection> {
        let open = if access == Access::Tight { schema::open_exclusive } else { schema::open };
        let (files, connection) = OpenFiles::open(&self.path, open)?;
        *lock(&self.files) = files;
        self.set(access);
        Ok(connection)
    }

    /// Opens the file for reading alone.
    fn view(&self, access: Access) -> Result<Connection> {
        let (view, connection) = View::open(&self.path)?;
        *lock(&self.view) = Some(view);
        self.set(access);
        Ok(connection)
    }

    /// Makes sure that the connection is to the file that the path names: opens that one if it is another.
    ///
    /// # Errors
    /// `unavailable` if the path names none, or if the files beside it are others; what opening the file meets.
    pub(super) fn follow(&self, connection: &mut Connection) -> Result<()> {
        match self.find() {
            Found::Same => Ok(()),
            Found::Another => {
                *connection = self.connect()?;
                tracing::warn!(path = %self.path.display(), "another catalogue was put in the place of this one; it is used from now on");
                self.check(connection)
            }
            other => {
                give_up(connection);
                Err(other.error(&self.path))
            }
        }
    }

    /// Makes sure that the path still names what a change was made in.
    ///
    /// # Errors
    /// `unavailable` otherwise.
    pub(super) fn check_found(&self) -> Result<()> {
        match self.find() {
            Found::Same => Ok(()),
            other => Err(other.error(&self.path).and("what was recorded just now is not in it, or may not be")),
        }
    }

    fn find(&self) -> Found {
        match self.access() {
            _ if self.mark.is_none() => Found::Same,
            // Each way of reading looks at the files itself.
            Access::ReadOnly | Access::Full => Found::Same,
            Access::Normal | Access::Tight => lock(&self.files).find(&self.path),
        }
    }

    /// The connection for leases, to the file that the path names.
    ///
    /// # Errors
    /// As [`Self::follow`]; `denied` where nothing can be changed, `unavailable` without any room.
    pub(super) fn leases<'a>(
        &self,
        main: &Mutex<Connection>,
        leases: &'a mut Option<(OpenFiles, Connection)>,
    ) -> Result<&'a mut Connection> {
        self.before_lease(main)?;
        if self.find() != Found::Same {
            self.follow(&mut lock(main)).inspect_err(|_| leases.iter().for_each(|(_, open)| give_up(open)))?;
        }
        let open = leases.take().filter(|(files, _)| files.find(&self.path) == Found::Same);
        let open = match open {
            Some(open) => open,
            None => OpenFiles::open(&self.path, schema::connect_for_leases)?,
        };
        Ok(&mut leases.insert(open).1)
    }

    /// Calls with a connection on what the file holds now.
    ///
    /// # Errors
    /// What the call meets; what opening the file anew does.
    pub(super) fn call<T>(
        &self,
        connection: &mut Connection,
        mut call: impl FnMut(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let mut view = lock(&self.view);
        match &mut *view {
            None => {
                drop(view);
                call(connection)
            }
            Some(view) => read_only::read(&self.path, view, connection, call),
        }
    }

    /// Opens the file as usual, once there is room for that.
    pub(super) fn relieve(&self, connection: &mut Connection) {
        if !matches!(self.access(), Access::Tight | Access::Full) || self.is_short() {
            return;
        }
        // The other one holds a lock that no two can have.
        let Ok(memory) = Connection::open_in_memory() else { return };
        let before = std::mem::replace(connection, memory);
        if self.access() == Access::Full {
            match self.open_as(Access::Normal) {
                Ok(open) => {
                    *connection = open;
                    *lock(&self.view) = None;
                }
                Err(_) => *connection = before,
            }
            return;
        }
        drop(before);
        match self.open_as(Access::Normal) {
            Ok(open) => *connection = open,
            Err(error) => {
                tracing::debug!(%error, "the catalogue is opened in exclusive mode again");
                if let Ok(open) = self.open_as(Access::Tight) {
                    *connection = open;
                }
            }
        }
    }

    /// Makes room for a change, and opens the file as usual if there is some.
    ///
    /// # Errors
    /// `denied` where nothing can be changed.
    pub(super) fn before_change(&self, connection: &mut Connection) -> Result<()> {
        self.check_writable()?;
        if self.is_short() {
            self.give_back();
        }
        self.relieve(connection);
        Ok(())
    }

    /// Makes sure that leases can have a connection of their own. The reserve is not for them: who takes a lease wants to
    /// store, and a full disk has no room for that.
    ///
    /// # Errors
    /// `denied` where nothing can be changed, `unavailable` without any room.
    fn before_lease(&self, main: &Mutex<Connection>) -> Result<()> {
        if matches!(self.access(), Access::Tight | Access::Full) {
            self.relieve(&mut lock(main));
        }
        self.check_writable()?;
        if self.access() == Access::Tight { Err(self.no_space()) } else { Ok(()) }
    }

    fn no_space(&self) -> Error {
        Error::unavailable(format!("there is no space left for the catalogue {}", self.path.display()))
            .hint("free some space in the data directory")
    }

    fn check_writable(&self) -> Result<()> {
        match self.access() {
            Access::Normal | Access::Tight => return Ok(()),
            Access::Full => return Err(self.no_space()),
            Access::ReadOnly => {}
        }
        Err(Error::denied(format!("the catalogue {} cannot be written to", self.path.display()))
            .hint("use a data directory on writable media; this one can be listed, verified and read from"))
    }

    fn access(&self) -> Access {
        match self.access.load(Ordering::Relaxed) {
            0 => Access::Normal,
            1 => Access::Tight,
            2 => Access::ReadOnly,
            _ => Access::Full,
        }
    }

    fn set(&self, access: Access) {
        self.access.store(access as u8, Ordering::Relaxed);
    }

    /// Refuses what SQLite would only say it cannot open.
    fn check_length(&self) -> Result<()> {
        let parent = directory_of(&self.path);
        let whole = parent.canonicalize().or_else(|_| std::path::absolute(parent)).unwrap_or_else(|_| parent.into());
        let len = whole.as_os_str().len() + 1 + self.path.file_name().map_or(0, |name| name.len());
        if len <= LONGEST {
            return Ok(());
        }
        Err(Error::invalid(format!("the path of the catalogue has {len} bytes, and {LONGEST} are the most"))
            .hint("configure a `data_dir` with a shorter path, or mount it at one"))
    }

    /// Makes the file, and narrows the mode of those that are there.
    fn make_private(&self) {
        let parent = directory_of(&self.path);
        // A failure shows when the file is opened.
        let _ = durable::make_dir(parent);
        // Without opening it: to close a file takes away all locks that this process has on it, SQLite's too.
        let _ = mknodat(CWD, &self.path, FileType::RegularFile, Mode::from_raw_mode(0o600), 0);
        for end in ["", "-wal", "-shm", "-journal"] {
            let path = beside(&self.path, end);
            if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.mode() & 0o077 != 0) {
                let _ = std::fs::set_permissions(&path, Permissions::from_mode(0o600));
            }
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether nobody can write there.
fn is_on_read_only_media(path: &Path) -> bool {
    statvfs(directory_of(path)).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns whether this user may not write to a file that is there; others may.
fn is_denied(path: &Path) -> bool {
    accessat(CWD, path, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wider_is_narrowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/c.sqlite");
        drop(Place::open(&path, Platform::system()).unwrap());
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (place, connection) = Place::open(&path, Platform::system()).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        for end in ["", "-wal", "-shm", ".reserve"] {
            assert_eq!(mode(&beside(&path, end)), 0o600, "{end}");
        }
        assert_eq!(mode(&dir.path().join("made")), 0o700);
        drop(place);
    }

    #[test]
    fn a_path_that_sqlite_cannot_open_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let deep = (0..3).fold(dir.path().to_owned(), |path, _| path.join("x".repeat(200)));
        let error = Place::open(&deep.join("c.sqlite"), Platform::system()).err().unwrap();
        assert!(error.message().contains("500 are the most") && error.advice().is_some(), "{error}");
    }

    /// The characters that a URI gives a meaning to.
    #[test]
    fn a_file_that_does_not_change_is_found_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a?b#c%41 é.sqlite");
        drop(Place::open(&path, Platform::system()).unwrap());
        let connection = schema::open_read_only(&path, true).unwrap().unwrap();
        assert!(connection.execute_batch("CREATE TABLE t (x)").is_err());
        assert!(!beside(&path, "-shm").exists());
        let exclusive = schema::open_exclusive(&path).unwrap();
        assert!(!beside(&path, "-shm").exists());
        drop(exclusive);
    }
}
