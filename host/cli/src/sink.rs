//! Sinks of retrieved images.
//!
//! A file appears whole or not at all, and is what its target was: owner, group, mode and attributes of a file that is
//! replaced stay, and a new one is for its owner alone, since the image of a machine's memory has its secrets in it. The
//! bytes have no name until all are there ([`Unnamed`]), so that nothing is left however the
//! process ends.
//!
//! A device is written to in place, so one that is too small is refused before its first byte changes.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, seek};

use super::failure::Failure;
use super::unnamed::Unnamed;
use tidelock::types::holes::data_runs;
use tidelock::types::{Error, format_bytes};

/// The access control list of a file, which is more precise than its mode.
const ACL: &str = "system.posix_acl_access";

/// A place for bytes.
pub(super) enum Sink {
    /// Standard output.
    Standard(File),
    /// A pipe or a device: it cannot be replaced, so it gets the bytes as they come.
    Direct {
        /// It.
        file: File,
        /// Its name.
        path: PathBuf,
    },
    /// A file that appears when all is there.
    Whole {
        /// Its bytes so far.
        file: Unnamed,
        /// The final name.
        path: PathBuf,
        /// How many bytes it has, holes included.
        len: u64,
    },
}

impl Sink {
    /// Opens a path, or standard output, for `size` bytes. Blocks: a named pipe waits for its reader.
    pub(super) fn open(path: Option<&Path>, size: u64) -> Result<Self, Failure> {
        let Some(path) = path else {
            // The descriptor itself: the standard library's handle would look for line ends in an image.
            let own = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::output)?;
            return Ok(Self::Standard(own.into()));
        };
        let fail = |error| Failure::input(Error::io(format_args!("cannot write {}", path.display()), error));
        // Through a symbolic link, its target is meant: replacing the link would leave the target as it was.
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
                return Err(Failure::usage(
                    format!("{} is a link to a file that is not there", path.display()),
                    "remove the link, or create what it points to",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(fail(error)),
        };
        let found = match fs::metadata(&real) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail(error)),
        };
        match found {
            Some(metadata) if metadata.is_dir() => {
                Err(Failure::usage(format!("{} is a directory", path.display()), "name a file in the directory"))
            }
            Some(metadata) if !metadata.is_file() => {
                let file = File::options().write(true).open(&real).map_err(fail)?;
                if metadata.file_type().is_block_device() {
                    fits(&file, path, size)?;
                }
                Ok(Self::Direct { file, path: real })
            }
            found => {
                let file = Unnamed::beside(&real).map_err(fail)?;
                if let Some(metadata) = found {
                    keep(&metadata, &real, file.file())?;
                }
                Ok(Self::Whole { file, path: real, len: 0 })
            }
        }
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Standard(file) => file.write_all(bytes).map_err(Failure::output),
            Self::Direct { file, path } => file.write_all(bytes).map_err(|error| failed(path, error)),
            Self::Whole { file, path, len } => {
                for run in data_runs(bytes, *len) {
                    let at = *len + run.start as u64;
                    file.file().write_all_at(&bytes[run], at).map_err(|error| failed(path, error))?;
                }
                *len += bytes.len() as u64;
                Ok(())
            }
        }
    }

    /// The file that is to appear, to be written by another; `None` for everything else.
    pub(super) fn file(&self) -> Option<File> {
        match self {
            Self::Whole { file, .. } => file.file().try_clone().ok(),
            Self::Standard(_) | Self::Direct { .. } => None,
        }
    }

    /// Takes note that the file was written, and how long it is.
    pub(super) fn filled(&mut self, bytes: u64) {
        if let Self::Whole { len, .. } = self {
            *len = bytes;
        }
    }

    /// Makes it durable and, if it is a file, visible.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Standard(_) => Ok(()),
            Self::Direct { file, path } => match file.sync_all() {
                // Pipes and character devices cannot be synced.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                result => result.map_err(|error| failed(&path, error)),
            },
            Self::Whole { file, path, len } => {
                let write = || {
                    file.file().set_len(len)?;
                    file.file().sync_all()?;
                    file.place(&path)
                };
                write().map_err(|error| failed(&path, error))
            }
        }
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderLeft,
        _ => Error::io(format_args!("cannot write {}", path.display()), error).into(),
    }
}

/// Refuses a device that is too small.
fn fits(device: &File, path: &Path, size: u64) -> Result<(), Failure> {
    let fail = |errno: rustix::io::Errno| Failure::input(Error::io(path.display(), errno.into()));
    let room = seek(device, SeekFrom::End(0)).map_err(fail)?;
    seek(device, SeekFrom::Start(0)).map_err(fail)?;
    if room >= size {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{} has {} and the image {}", path.display(), format_bytes(room), format_bytes(size)),
        "name a larger device; this one is unchanged",
    ))
}

/// Copies owner, group, attributes and mode to a new file from the one that it is to replace. A user who could open
/// that one can open this one, and no other user can.
fn keep(old: &Metadata, path: &Path, new: &File) -> Result<(), Failure> {
    let fail = |error| Failure::from(Error::io(format_args!("cannot write {}", path.display()), error));
    let made = new.metadata().map_err(fail)?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid())
        && let Err(error) = fchown(new, Some(old.uid()), Some(old.gid()))
    {
        let what = format!("{} belongs to another user or group, which cannot be kept", path.display());
        let hint = "run as its owner or as root, write to another file, or remove this one first";
        return Err(Failure::input(Error::denied(what).hint(hint).with_source(error)));
    }
    keep_attributes(path, new).map_err(fail)?;
    new.set_permissions(Permissions::from_mode(old.permissions().mode() & 0o7777)).map_err(fail)
}

/// The extended attributes, as far as this process may set them, and the access control list in any case: without it
/// the mode would mean something else.
fn keep_attributes(path: &Path, new: &File) -> io::Result<()> {
    /// Of one value, and of all names: the kernel has no more.
    const MOST: usize = 64 << 10;
    // The directory may have given it a list of its own.
    let _ = fremovexattr(new, ACL);
    // A file that may be replaced but not read: nothing is known of its attributes.
    let Ok(old) = File::open(path) else { return Ok(()) };
    let mut names = vec![0u8; MOST];
    // A file system without attributes.
    let Ok(len) = flistxattr(&old, &mut names) else { return Ok(()) };
    names.truncate(len);
    let mut value = vec![0u8; MOST];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let copied =
            fgetxattr(&old, name, &mut value).and_then(|len| fsetxattr(new, name, &value[..len], XattrFlags::empty()));
        match copied {
            Err(errno) if name == ACL.as_bytes() => return Err(errno.into()),
            Err(errno) => tracing::debug!(%errno, "an attribute of {} is lost", path.display()),
            Ok(()) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
