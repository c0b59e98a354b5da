//! `tidelock forget`: a backend that was taken out of the configuration for good.

use serde::Serialize;

use super::arguments::Forget;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::SnapshotId;

#[derive(Serialize)]
struct Report<'a> {
    backend: &'a str,
    /// The placements that are forgotten.
    placements: u64,
    /// How many snapshots have lost their last copy.
    lost: u64,
    /// Some of these.
    snapshots: Vec<Lost<'a>>,
}

#[derive(Serialize)]
struct Lost<'a> {
    id: SnapshotId,
    name: Option<&'a str>,
}

pub(super) async fn run(arguments: &Forget, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let found = host.forget(&arguments.backend, arguments.lose_snapshots).await?;
    if session.json {
        let snapshots = found.last_copies.iter().map(|(id, name)| Lost { id: *id, name: name.as_deref() }).collect();
        let (backend, placements) = (arguments.backend.as_str(), found.placements);
        return output::object(&Report { backend, placements, lost: found.last, snapshots });
    }
    let objects = if found.placements == 1 { "object" } else { "objects" };
    let mut text = format!("forgot `{}` ({} {objects})\n", arguments.backend, found.placements);
    for (id, name) in &found.last_copies {
        text += &format!("lost: {id}{}\n", name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default());
    }
    output::text(&text)
}
