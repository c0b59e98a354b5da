//! Temporary files, and distinguishing leftovers from those in use.
//!
//! A temporary file is locked (`flock`) from its creation to its end. The lock is released when its process ends,
//! however it ends; so a temporary file that can be locked is a leftover. Between creating and
//! locking, a gc could remove the file as a leftover; therefore the writer checks, once it has the lock,
//! whether its file still has a name, and starts over if not. Process ids or ages would be guesses instead.

use std::fs::File;
use std::io;
use std::sync::Arc;

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use tidelock_types::path::TEMPORARY;
use tidelock_types::{Error, Platform, Result};

/// Number of times that a writer starts over before it fails. gc runs rarely: twice is unlikely.
const ATTEMPTS: usize = 128;

/// The modes of what is made below a root, before the umask. The image of a machine's memory has its secrets in it: what is
/// made is for its owner alone, and for the group of a root whose set-group-ID bit says that a group shares it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes {
    pub(super) file: u32,
    pub(super) directory: u32,
}

impl Modes {
    /// Of what is made below this root.
    pub(super) fn below(root: &Dir) -> Self {
        let shared = root.dir_metadata().is_ok_and(|metadata| metadata.mode() & 0o2000 != 0);
        if shared { Self { file: 0o660, directory: 0o770 } } else { Self { file: 0o600, directory: 0o700 } }
    }

    /// Makes a directory below `root`.
    pub(super) fn make(self, root: &Dir, path: &str) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        root.create_dir_with(path, builder.mode(self.directory))
    }
}

/// A temporary file that is being written. Dropping it removes it, unless it got its name.
pub(super) struct Temporary {
    home: Arc<Dir>,
    name: String,
    file: Arc<File>,
    placed: bool,
}

/// Opens the directory of temporary files below a root, and makes it if need be.
pub(super) fn home(root: &Dir, modes: Modes) -> Result<Dir> {
    let failed = |error| Error::io("opening `.tmp`", error);
    match root.open_dir(TEMPORARY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map_err(failed),
    }
    match modes.make(root, TEMPORARY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("making `.tmp`", error)),
        _ => root.open_dir(TEMPORARY).map_err(failed),
    }
}

impl Temporary {
    /// Makes a new, empty one. Blocks.
    pub(super) fn create(home: &Arc<Dir>, mode: u32, platform: &Platform) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let mut random = [0u8; 16];
            platform.fill(&mut random)?;
            let name = data_encoding::HEXLOWER.encode(&random);
            let file = home
                .open_with(&name, OpenOptions::new().write(true).create_new(true).mode(mode))
                .map_err(|error| Error::io("making a temporary file", error))?
                .into_std();
            // From here on the drop removes it.
            let made = Self { home: Arc::clone(home), name, file: Arc::new(file), placed: false };
            match flock(&*made.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if made.has_a_name()? => return Ok(made),
                // A collector was faster.
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(Error::io("locking a temporary file", error.into())),
            }
        }
        Err(Error::unavailable("every new temporary file was removed by another process")
            .hint("check which other program removes files in the directory"))
    }

    fn has_a_name(&self) -> Result<bool> {
        let stat = rustix::fs::fstat(&*self.file).map_err(|error| Error::io("a temporary file", error.into()))?;
        Ok(stat.st_nlink > 0)
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Renames the file into a directory: atomically, and replacing an existing one unless `if_absent`. Blocks.
    ///
    /// # Errors
    /// `conflict` if the name is taken and `if_absent`; `invalid` if it is a directory's.
    pub(super) fn place(mut self, target: &Dir, name: &str, if_absent: bool) -> Result<()> {
        let result = if if_absent {
            rename_if_absent(&self.home, &self.name, target, name)
        } else {
            rustix::fs::renameat(&*self.home, &self.name, target, name)
        };
        match result {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(Errno::EXIST) if if_absent => Err(Error::conflict(format!("`{name}` already exists"))),
            Err(error) => Err(Error::io(format!("naming `{name}`"), error.into())),
        }
    }
}

/// `renameat2` with `RENAME_NOREPLACE`; where the file system does not support it, a hard link, which never replaces either.
fn rename_if_absent(home: &Dir, from: &str, target: &Dir, to: &str) -> std::result::Result<(), Errno> {
    match rustix::fs::renameat_with(home, from, target, to, rustix::fs::RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(home, from, target, to, rustix::fs::AtFlags::empty())?;
            // The file has its name; gc removes the other one.
            let _ = home.remove_file(from);
            Ok(())
        }
        other => other,
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // If this fails, the file becomes a leftover when its lock is released, and is removed.
            let _ = self.home.remove_file(&self.name);
        }
    }
}

/// Removes leftovers of dead writers, and returns their number. Blocks.
pub(super) fn gc(home: &Dir) -> Result<u64> {
    let mut removed = 0;
    for entry in home.entries().map_err(|error| Error::io("reading `.tmp`", error))? {
        let entry = entry.map_err(|error| Error::io("reading `.tmp`", error))?;
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Gone meanwhile, or not ours to open: leave it.
        let Ok(file) = entry.open_with(OpenOptions::new().write(true)) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && entry.remove_file().is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}
