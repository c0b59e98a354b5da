//! A lock file for each host that stores: the sign by which its death is known at once on this machine.
//!
//! A [`LockFile`] is a file in `data_dir/run` that is locked with `flock` as long as its host lives. The kernel takes the
//! lock away when the process ends, however it ends. So a file whose lock is free is that of a host that has ended, and
//! nobody has to wait for its lease to expire. A file that is locked, or is not there, says nothing: a process that was
//! stopped holds its lock, and a host on another machine has its file elsewhere. Process ids would not do: they are used
//! again, and a container sees others than its host.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::types::{Error, Platform, Result, durable};

/// The most files that a sweep holds open.
const AT_ONCE: usize = 256;

/// The lock file of this host, which shows that it lives. Dropping it removes the file. All of its functions block for
/// a moment.
#[derive(Debug)]
pub(super) struct LockFile {
    name: String,
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

/// The lock file of a host that has ended, locked, so that no other host removes it meanwhile.
#[derive(Debug)]
pub(super) struct DeadFile {
    pub(super) name: String,
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// Creates and locks a lock file in `directory`, which is made if it is not there. Waits for nothing but the disk and
    /// a sweep.
    ///
    /// # Errors
    /// What the operating system refuses; `unsupported` where files cannot be locked.
    pub(super) fn acquire(directory: &Path, platform: &Platform) -> Result<Self> {
        durable::make_dir(directory).map_err(|error| Error::io(directory.display(), error))?;
        loop {
            let mut random = [0; 16];
            platform.fill(&mut random)?;
            let name = data_encoding::HEXLOWER.encode(&random);
            let path = file_of(directory, &name);
            let fail = |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    Error::io(path.display(), error).hint("use a data directory on writable media")
                }
                _ => Error::io(path.display(), error),
            };
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
            file.lock().map_err(fail)?;
            // A sweep may have taken the file between its making and its locking; then the lock protects nothing.
            if is_same(&file, &path) {
                return Ok(Self { name, path, _file: file });
            }
        }
    }

    /// The host's name: lower-case hexadecimal digits.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the host of this name lives, for a host of a version without leases, of whose life nothing else
    /// tells. A failure to find out counts as alive: what is taken for dead is cleaned up, and cleaning up after the
    /// living destroys data.
    pub(super) fn is_alive(directory: &Path, name: &str) -> bool {
        match File::open(file_of(directory, name)) {
            // Shared, so that several who ask do not take each other for the owner.
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Some of the files of hosts that have ended; none if there are no more. A directory that is not there has none.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn dead(directory: &Path) -> Result<Vec<DeadFile>> {
        let fail = |error| Error::io(directory.display(), error);
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut dead = Vec::new();
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                dead.extend(lock_if_dead(path)?);
            }
            if dead.len() == AT_ONCE {
                break;
            }
        }
        Ok(dead)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While the lock is held, so that no other host can have taken this file over. If it fails, a sweep does it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl DeadFile {
    /// Removes the file, once nothing has to be known of its host any more.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|error| Error::io(self.path.display(), error))
    }
}

/// Locks the file of a host that has ended. As long as the lock is held, the file cannot be a living host's.
fn lock_if_dead(path: PathBuf) -> Result<Option<DeadFile>> {
    let fail = |error| Error::io(path.display(), error);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    let Some(name) = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned) else { return Ok(None) };
    Ok(is_same(&file, &path).then_some(DeadFile { name, path, _file: file }))
}

fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.lock"))
}

/// Returns whether the path still leads to the open file.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(directory: &Path) -> usize {
        let dead = LockFile::dead(directory).unwrap();
        dead.into_iter().map(|dead| dead.remove().unwrap()).count()
    }

    /// The kernel ends the life of a process that is killed: the lock goes with it, the file stays.
    #[test]
    fn a_killed_host_is_dead() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("feed.lock");
        // Without a fork, so that the lock is in the process that is killed and nowhere else.
        let mut holder = std::process::Command::new("flock")
            .arg("--no-fork")
            .arg(&path)
            .args(["sh", "-c", "echo locked; exec sleep 600"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert!(LockFile::is_alive(directory.path(), "feed"));
        assert_eq!(sweep(directory.path()), 0);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(!LockFile::is_alive(directory.path(), "feed"));
        assert!(path.exists());
        assert_eq!(LockFile::dead(directory.path()).unwrap()[0].name, "feed");
        assert_eq!(sweep(directory.path()), 1);
        assert!(!path.exists());
        assert_eq!(sweep(&directory.path().join("absent")), 0);
    }

    #[test]
    fn a_sweep_does_not_harm_hosts_that_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                for _ in 0..300 {
                    sweep(path);
                }
            });
            while !sweeper.is_finished() {
                let living = LockFile::acquire(path, &Platform::system()).unwrap();
                assert!(LockFile::is_alive(path, living.name()));
            }
        });
    }
}
