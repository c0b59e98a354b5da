//! `tidelock id`: prints the id of an image, without a host.

use serde::Serialize;

use super::arguments::Image;
use super::failure::Failure;
use super::session::Session;
use super::{input, output};
use tidelock::types::SnapshotId;

#[derive(Serialize)]
struct Identified {
    id: SnapshotId,
    size: u64,
}

pub(super) async fn run(arguments: &Image, session: &Session) -> Result<(), Failure> {
    let image = input::image(&arguments.file, true).await?;
    let bar = session.console.bar("reading", image.size());
    let identity = image.identify(bar.progress()).await?;
    drop(bar);
    let identified = Identified { id: identity.id(), size: identity.size() };
    if session.json { output::object(&identified) } else { output::line(identified.id) }
}
