//! `tidelock update`: stores a changed image with its base.

use super::arguments::Update;
use super::failure::Failure;
use super::session::Session;
use super::{input, store};

pub(super) async fn run(arguments: Update, session: &Session) -> Result<(), Failure> {
    let image = input::image(&arguments.image.file, arguments.allow_empty).await?;
    let host = session.open_existing().await?;
    let base = host.find(&arguments.base).await?;
    let bar = session.console.bar("storing", image.size());
    let stored = host.update(base, image, arguments.how.options(bar.progress())).await?;
    drop(bar);
    store::answer(&stored, session)
}
