//! Files named by the user: images and components. Problems with these are bad input.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::failure::Failure;
use tidelock::runtime::Component;
use tidelock::snapshot::{Source, StreamSource};
use tidelock::types::{Error, ErrorKind, Result};

/// Returns whether standard input or output is meant.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens an image. What cannot be told from the output of a program that failed, an image of no bytes that comes as a
/// stream, is refused unless it is allowed.
pub(super) async fn image(path: &Path, allow_empty: bool) -> Result<Source, Failure> {
    let source = if is_standard(path) {
        if standard_input_is_closed() {
            return Err(Failure::usage("standard input is closed", "pipe an image into it, or name a file"));
        }
        Source::Stream(StreamSource::new(tokio::io::stdin(), "standard input"))
    } else {
        Source::open(path).await.map_err(Failure::input)?
    };
    source.checked(allow_empty).await.map_err(Failure::input)
}

/// Returns whether this process was started without a standard input. Rust's runtime then opens `/dev/null` in its
/// place, for reading and writing, which no other program does.
fn standard_input_is_closed() -> bool {
    let stdin = std::io::stdin();
    let null = || Some(std::fs::metadata("/dev/null").ok()?.rdev());
    let opened = rustix::fs::fstat(&stdin).ok().map(|found| found.st_rdev);
    let flags = rustix::fs::fcntl_getfl(&stdin);
    opened.is_some() && opened == null() && flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR))
}

/// Opens a regular file.
pub(super) async fn file(path: &Path) -> Result<std::fs::File, Failure> {
    let fail = |error| Failure::input(Error::io(path.display(), error));
    let file = tokio::fs::File::open(path).await.map_err(fail)?;
    if file.metadata().await.map_err(fail)?.is_dir() {
        return Err(Failure::input(Error::invalid(format!("{} is a directory", path.display()))));
    }
    Ok(file.into_std().await)
}

/// Reads a component, with the signatures that lie beside it.
pub(super) async fn component(path: &Path) -> Result<Component, Failure> {
    let hint = "name a component file";
    Component::read(path).await.map_err(|error| {
        let hinted = error.advice().is_some();
        Failure::input(if hinted || *error.kind() != ErrorKind::Invalid { error } else { error.hint(hint) })
    })
}
