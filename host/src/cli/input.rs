//! What the user names: images and components. What is wrong with these is bad input.

use std::path::Path;

use super::failure::Failure;
use crate::snapshot::{Source, StreamSource};
use crate::types::{Error, Result};

/// The most bytes of a component.
const LARGEST_COMPONENT: u64 = 256 << 20;

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

/// Reads a component.
pub(super) async fn component(path: &Path) -> Result<Vec<u8>, Failure> {
    use tokio::io::AsyncReadExt;
    let fail = |error| Failure::input(Error::io(path.display(), error));
    let mut bytes = Vec::new();
    let file = tokio::fs::File::from_std(file(path).await?);
    file.take(LARGEST_COMPONENT + 1).read_to_end(&mut bytes).await.map_err(fail)?;
    if bytes.len() as u64 > LARGEST_COMPONENT {
        return Err(Failure::usage(
            format!("{} has more than 256 MiB: it is not an adapter", path.display()),
            "give the component that was built for the adapter",
        ));
    }
    Ok(bytes)
}
