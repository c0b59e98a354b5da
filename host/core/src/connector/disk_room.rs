//! The last room on the disk of the data directory, which temporary files leave to the catalogue.

use std::fs::File;
use std::io;

/// The most bytes that are left.
const LAST: u64 = 64 << 20;
/// One part in so many of a small disk is left.
const PART: u64 = 16;

/// Returns whether a temporary file may take so many bytes more, as far as its file system tells.
pub(super) fn leaves(file: &File, more: u64) -> bool {
    let Ok(found) = rustix::fs::fstatvfs(file) else { return true };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let last = LAST.min(bytes(found.f_blocks) / PART);
    more.checked_add(last).is_some_and(|wanted| wanted <= bytes(found.f_bavail))
}

/// Makes sure that a temporary file may take so many bytes more.
///
/// # Errors
/// That of a full disk.
pub(super) fn check(file: &File, more: u64) -> io::Result<()> {
    if leaves(file, more) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}
