//! `tidelock update`: stores what has changed in an image since a base.

use std::path::Path;

use tidelock::snapshot::{DirtyFormat, DirtyRanges, Source, max_dirty_bytes};
use tidelock::types::Error;
use tokio::io::AsyncReadExt as _;

use super::arguments::Update;
use super::failure::Failure;
use super::session::Session;
use super::{input, store};

/// Reads what has changed in an image of `size` bytes.
async fn dirty(path: &Path, format: Option<DirtyFormat>, size: u64) -> Result<DirtyRanges, Failure> {
    let fail = |error| Failure::input(Error::io(path.display(), error));
    let file = tokio::fs::File::open(path).await.map_err(fail)?;
    let most = max_dirty_bytes(size);
    let mut given = Vec::new();
    file.take(most + 1).read_to_end(&mut given).await.map_err(fail)?;
    if given.len() as u64 > most {
        let what = format!("{} has more than {most} bytes, which no list of dirty ranges needs", path.display());
        return Err(Failure::input(Error::invalid(what)));
    }
    let parsed = match format {
        None => DirtyRanges::parse(&given, size),
        Some(format) => DirtyRanges::parse_as(format, &given, size),
    };
    parsed.map_err(|error| {
        let told = Error::invalid(format!("{}: {}", path.display(), error.message()));
        Failure::input(error.advice().map_or(told.duplicate(), |advice| told.hint(advice)))
    })
}

pub(super) async fn run(arguments: Update, session: &Session) -> Result<(), Failure> {
    let image = input::image(&arguments.image.file, arguments.allow_empty).await?;
    let host = session.open_existing().await?;
    let base = host.find(&arguments.base).await?;
    let bar = session.console.bar("storing", image.size());
    let options = arguments.how.options(bar.progress());
    let stored = match arguments.dirty {
        None => host.update(base, image, options).await?,
        Some(path) => {
            let Source::File(image) = image else {
                return Err(Failure::usage(
                    "--dirty needs an image that is a file",
                    "leave it out to store from a pipe",
                ));
            };
            let dirty = dirty(&path, arguments.dirty_format.map(Into::into), image.size()).await?;
            host.update_dirty(base, image, dirty, options).await?
        }
    };
    drop(bar);
    store::answer(&stored, session)
}
