//! Room for changes on a disk that is full: the reserve, and how much room there is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

use super::Place;
use crate::catalogue::sqlite::paths::directory_of;
use crate::types::Error;

/// Bytes of the reserve: some hundred removals.
const RESERVE: u64 = 1 << 20;
/// Less room than this is too little for a change.
const SHORT: u64 = RESERVE / 4;
/// The reserve is made where there is this much.
const PLENTY: u64 = 4 * RESERVE;

/// Fewer files than this that can be made are too few: SQLite's two, and one for a new mark.
const FEW_FILES: u64 = 3;

impl Place {
    /// Gives the reserve back for the next change, if this one has met a full disk: a quota does not show beforehand.
    pub(in crate::catalogue::sqlite) fn after_failure(&self, error: &Error) {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
        if cause.and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::DiskFull) {
            self.give_back();
        }
    }

    pub(super) fn give_back(&self) {
        if std::fs::remove_file(&self.reserve).is_ok() {
            tracing::warn!(path = %self.path.display(), "the disk of the catalogue is full; its reserve was given back");
        }
    }

    /// Returns whether there is too little room for a change.
    pub(super) fn is_short(&self) -> bool {
        self.room().is_some_and(|room| room < SHORT)
    }

    /// Bytes that this process may still use, where the file system says so.
    fn room(&self) -> Option<u64> {
        let found = statvfs(directory_of(&self.path)).ok()?;
        Some(if has_no_files(&found) { 0 } else { found.f_bavail.saturating_mul(found.f_frsize) })
    }

    /// Returns whether the file system has nothing left to make files of, however much room it has.
    pub(super) fn lacks_files(&self) -> bool {
        statvfs(directory_of(&self.path)).is_ok_and(|found| has_no_files(&found))
    }

    /// Makes the reserve where there is plenty of room.
    pub(super) fn keep_reserve(&self) {
        if self.reserve.exists() || self.room().is_none_or(|room| room < PLENTY) {
            return;
        }
        let make = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.reserve)?;
            fill(&file)
        };
        match make() {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                tracing::debug!(%error, "there is no reserve for a full disk");
                let _ = std::fs::remove_file(&self.reserve);
            }
            Ok(()) => {}
        }
    }
}

fn has_no_files(found: &StatVfs) -> bool {
    found.f_files > 0 && found.f_favail < FEW_FILES
}

/// Takes up the room of the reserve.
fn fill(file: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    match fallocate(file, FallocateFlags::empty(), 0, RESERVE) {
        // No zeros: some file systems would keep nothing.
        Err(_) => file.write_all_at(&vec![1; RESERVE as usize], 0),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::types::Platform;

    #[test]
    fn a_reserve_is_kept_where_there_is_room_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sqlite");
        let (place, mut connection) = Place::open(&path, Platform::system()).unwrap();
        let kept = std::fs::metadata(&place.reserve).unwrap();
        assert!(kept.len() == RESERVE && kept.blocks() * 512 >= RESERVE);
        place.before_change(&mut connection).unwrap();
        assert!(place.reserve.exists(), "there is room without it");
        place.give_back();
        assert!(!place.reserve.exists());
        drop(connection);
        Place::open(&path, Platform::system()).unwrap();
        assert!(place.reserve.exists());
    }
}
