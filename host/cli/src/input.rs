//! Files named by the user: images and components. Problems with these are bad input.

use std::path::Path;

use super::failure::Failure;
use tidelock::runtime::Component;
use tidelock::snapshot::{Source, StreamSource};
use tidelock::types::{Error, ErrorKind, Result};

/// Whether standard input or output is meant.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens an image.
pub(super) async fn image(path: &Path) -> Result<Source, Failure> {
    if is_standard(path) {
        return Ok(Source::Stream(StreamSource::new(tokio::io::stdin(), "standard input")));
    }
    Source::open(path).await.map_err(Failure::input)
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
