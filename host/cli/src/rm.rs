//! `tidelock rm`: removes a snapshot from all backends.

use super::arguments::One;
use super::failure::Failure;
use super::output;
use super::session::Session;

pub(super) async fn run(arguments: &One, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let id = host.find(&arguments.id).await?;
    let removed = host.remove(id).await?;
    if session.json {
        return output::object(&removed);
    }
    let objects = if removed.placements == 1 { "object" } else { "objects" };
    output::line(format_args!("removed {} ({} {objects})", removed.id, removed.placements))
}
