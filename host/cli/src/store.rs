//! `tidelock store`: from an image to an id.

use super::arguments::{How, Store};
use super::failure::Failure;
use super::session::Session;
use super::{input, output};
use tidelock::snapshot::Progress;
use tidelock::{StoreBase, StoreOptions, Stored};

pub(super) async fn run(arguments: Store, session: &Session) -> Result<(), Failure> {
    let image = input::image(&arguments.image.file, arguments.allow_empty).await?;
    let host = session.open().await?;
    let base = match arguments.base.as_deref() {
        None => None,
        Some("auto") => Some(StoreBase::Auto),
        Some("none") => Some(StoreBase::None),
        Some(base) => Some(StoreBase::Snapshot(host.find(base).await?)),
    };
    let bar = session.console.bar("storing", image.size());
    let stored = host.store(image, StoreOptions { base, ..arguments.how.options(bar.progress()) }).await?;
    drop(bar);
    answer(&stored, session)
}

/// Prints the stored snapshot: the id alone, or everything in an object. A moved name is reported on stderr too.
pub(super) fn answer(stored: &Stored, session: &Session) -> Result<(), Failure> {
    if let Some(before) = stored.name_taken_from {
        session.console.note(&format!("the name was taken from {before}, which is still stored"));
    }
    if session.json { output::object(stored) } else { output::line(stored.id) }
}

impl How {
    /// Returns the options for the library.
    pub(super) fn options(self, progress: Option<Progress>) -> StoreOptions {
        StoreOptions { route: self.route, name: self.name, raw: self.raw, progress, ..StoreOptions::default() }
    }
}
