//! Liveness of hosts: a lock file for each running one.
//!
//! An [`Owner`] is a file in a directory (`data_dir/run`) that is locked with `flock` while the host lives. The
//! kernel releases the lock when the process ends, however it ends, so an intent whose owner's file is gone or can be
//! locked is a leftover. Process ids would not do: they are reused, and differ between a container and its host.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::types::{Error, Result};

/// A sign of life. Dropping it ends the life: intents under this name are stale from then on.
#[derive(Debug)]
pub struct Owner {
    name: String,
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Owner {
    /// Makes a sign of life in `directory`, which is made if it is not there. Waits for nothing but the disk.
    ///
    /// # Errors
    /// Errors of the operating system; `unsupported` if files cannot be locked.
    pub fn acquire(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|error| Error::io(directory.display(), error))?;
        loop {
            let mut random = [0; 16];
            getrandom::fill(&mut random)
                .map_err(|error| Error::unavailable("cannot get random numbers").with_source(error))?;
            let name = data_encoding::HEXLOWER.encode(&random);
            let path = file_of(directory, &name);
            let fail = |error| Error::io(path.display(), error);
            let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(fail)?;
            file.lock().map_err(fail)?;
            // A sweep may have taken the file between its making and its locking; then the lock protects nothing.
            if is_same(&file, &path) {
                return Ok(Self { name, path, _file: file });
            }
        }
    }

    /// The name to put into intents: lower-case hexadecimal digits.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the owner of this name lives. A failed check counts as alive: leftovers of dead owners are removed,
    /// and removing those of a living one destroys data.
    pub fn is_alive(directory: &Path, name: &str) -> bool {
        match File::open(file_of(directory, name)) {
            // Shared, so that concurrent checks do not mistake each other for the owner.
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Removes the files of owners that do not live. Gives how many there were.
    ///
    /// # Errors
    /// Errors of the operating system; a missing directory is not one.
    pub fn sweep(directory: &Path) -> Result<usize> {
        let fail = |error| Error::io(directory.display(), error);
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(fail(error)),
        };
        let mut swept = 0;
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|extension| extension == "lock") && remove_if_dead(&path)? {
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // While the lock is held, so that no other process can take over the file. If it fails, a sweep removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a lock file while its lock is held, so that its owner cannot come to life in between unnoticed.
fn remove_if_dead(path: &Path) -> Result<bool> {
    let fail = |error| Error::io(path.display(), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fail(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    if !is_same(&file, path) {
        return Ok(false);
    }
    std::fs::remove_file(path).map_err(fail)?;
    Ok(true)
}

fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.lock"))
}

/// Whether the path still leads to the open file.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}
