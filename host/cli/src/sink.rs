//! Sinks of retrieved images.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::failure::Failure;
use tidelock::types::Error;

/// Zeros are detected in pieces of this size, and become holes in files. File system blocks are not larger.
const HOLE: usize = 64 << 10;

static ZEROS: [u8; HOLE] = [0; HOLE];

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
        /// Its bytes so far. It is removed when this is dropped.
        temporary: NamedTempFile,
        /// The final name.
        path: PathBuf,
        /// How many bytes it has, holes included.
        len: u64,
    },
}

impl Sink {
    /// Opens a path, or standard output.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            // The descriptor itself: the standard library's handle would look for line ends in an image.
            let own = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::output)?;
            return Ok(Self::Standard(own.into()));
        };
        let fail = |error| Failure::input(Error::io(format_args!("cannot write {}", path.display()), error));
        // Through a symbolic link, its target is meant: replacing the link would leave the target as it was.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
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
                Ok(Self::Direct { file, path: real })
            }
            found => {
                let temporary = temporary_beside(&real).map_err(fail)?;
                if let Some(metadata) = found {
                    let kept = Permissions::from_mode(metadata.permissions().mode() & 0o7777);
                    temporary.as_file().set_permissions(kept).map_err(fail)?;
                }
                Ok(Self::Whole { temporary, path: real, len: 0 })
            }
        }
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Standard(file) => file.write_all(bytes).map_err(Failure::output),
            Self::Direct { file, path } => file.write_all(bytes).map_err(|error| failed(path, error)),
            Self::Whole { temporary, path, len } => {
                write_sparse(temporary.as_file(), bytes, *len).map_err(|error| failed(path, error))?;
                *len += bytes.len() as u64;
                Ok(())
            }
        }
    }

    /// Makes it durable and, if it is a file, visible.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Standard(_) => Ok(()),
            Self::Direct { file, path } => match file.sync_all() {
                // Pipes and character devices know no durability.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                result => result.map_err(|error| failed(&path, error)),
            },
            Self::Whole { temporary, path, len } => {
                let file = temporary.as_file();
                file.set_len(len).and_then(|()| file.sync_all()).map_err(|error| failed(&path, error))?;
                temporary.persist(&path).map_err(|refused| failed(&path, refused.error))?;
                File::open(directory_of(&path)).and_then(|dir| dir.sync_all()).map_err(|error| failed(&path, error))
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

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// In the same directory, so that renaming it is one step of the file system.
fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".tidelock-")
        .suffix(".partial")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory_of(path))
        .map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))
}

/// Writes to an unwritten range of a file, leaving out zeros.
fn write_sparse(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut pending = 0..0;
    // Pieces end where the file's own do, whatever the chunks are.
    let first = (HOLE - (at % HOLE as u64) as usize).min(bytes.len());
    let mut start = 0;
    while start < bytes.len() {
        let end = if start == 0 { first } else { (start + HOLE).min(bytes.len()) };
        let piece = &bytes[start..end];
        if piece == &ZEROS[..piece.len()] {
            file.write_all_at(&bytes[pending.clone()], at + pending.start as u64)?;
            pending = end..end;
        } else {
            pending = pending.start..end;
        }
        start = end;
    }
    file.write_all_at(&bytes[pending.clone()], at + pending.start as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read_whatever_the_chunks(
            runs in proptest::collection::vec((any::<bool>(), 1usize..200_000), 0..8), chunk in 1usize..150_000,
        ) {
            let mut image = Vec::new();
            for (data, len) in runs {
                image.resize(image.len() + len, u8::from(data));
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("image");
            let mut sink = Sink::open(Some(&path)).unwrap();
            for chunk in image.chunks(chunk) {
                sink.write(chunk).unwrap();
            }
            sink.finish().unwrap();
            prop_assert!(fs::read(&path).unwrap() == image);
        }
    }

    #[test]
    fn zeros_take_no_room_and_the_mode_of_a_replaced_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut sink = Sink::open(Some(&path)).unwrap();
        for _ in 0..64 {
            sink.write(&[0; 1 << 20]).unwrap();
        }
        sink.finish().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20);
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut sink = Sink::open(Some(&link)).unwrap();
        sink.write(b"new").unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_device_is_written_to_and_a_directory_refused() {
        let mut sink = Sink::open(Some(Path::new("/dev/null"))).unwrap();
        sink.write(b"x").unwrap();
        sink.finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Sink::open(Some(dir.path())).err().unwrap().status(), 2);
        assert_eq!(Sink::open(Some(&dir.path().join("no/file"))).err().unwrap().status(), 2);
    }
}
