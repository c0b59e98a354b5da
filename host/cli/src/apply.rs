//! `tidelock apply`: from a snapshot and a delta that the user has to a new snapshot.

use std::io::Read;
use std::path::Path;

use super::arguments::{Apply, Format};
use super::failure::Failure;
use super::session::Session;
use super::{input, store};
use tidelock::Delta;
use tidelock::types::Error;

pub(super) async fn run(arguments: Apply, session: &Session) -> Result<(), Failure> {
    let delta = open(&arguments.delta, arguments.format).await?;
    let host = session.open_existing().await?;
    let base = host.find(&arguments.base).await?;
    let bar = session.console.bar("storing", None);
    let stored = host.apply(base, delta, arguments.how.options(bar.progress())).await?;
    drop(bar);
    store::answer(&stored, session)
}

async fn open(path: &Path, format: Format) -> Result<Delta, Failure> {
    match format {
        Format::Zstd if input::is_standard(path) => Ok(Delta::Zstd(Box::new(std::io::stdin()))),
        Format::Zstd => {
            Ok(Delta::Zstd(Box::new(Named { file: input::file(path).await?, name: path.display().to_string() })))
        }
        Format::Sparse if input::is_standard(path) => {
            Err(Failure::usage("a sparse delta cannot be read from a pipe, which has no holes", "name the file"))
        }
        Format::Sparse => {
            input::file(path).await?;
            Ok(Delta::Sparse(path.to_owned()))
        }
    }
}

/// A file whose errors contain its name.
struct Named {
    file: std::fs::File,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer).map_err(|error| std::io::Error::new(error.kind(), Error::io(&self.name, error)))
    }
}
