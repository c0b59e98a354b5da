//! `tidelock rm`: removes a name, or a snapshot from all backends.

use super::arguments::Rm;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::Removed;

pub(super) async fn run(arguments: &Rm, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let removed = host.remove_by(&arguments.id, arguments.all_names).await?;
    if session.json {
        return output::object(&removed);
    }
    output::line(describe(&arguments.id, &removed))
}

fn describe(text: &str, removed: &Removed) -> String {
    let Removed { id, placements, kept, names, needed_by, kept_on } = removed;
    match (kept, names.first()) {
        (false, _) => {
            let objects = if *placements == 1 { "object" } else { "objects" };
            let mut removed = format!("removed {id} ({placements} {objects})");
            if let Some(by) = needed_by.first() {
                removed += &format!("; {by} takes pages from it, so objects of it stay until that is removed too");
            }
            for backend in kept_on {
                removed += &format!(
                    "; its objects on `{backend}` stay until `tidelock import {backend}` has found out what takes pages from them"
                );
            }
            removed
        }
        (true, Some(name)) => format!("removed the name {text}; {id} is still stored as {name}"),
        (true, None) => {
            format!("removed the name {text}; {id} is still stored, since it was also stored without a name")
        }
    }
}
