//! `tidelock gc`: removes leftovers of interrupted stores.

use super::arguments::Gc;
use super::failure::Failure;
use super::output;
use super::session::Session;

pub(super) async fn run(arguments: &Gc, session: &Session) -> Result<(), Failure> {
    let host = session.open().await?;
    let collected = host.gc(arguments.older_than).await?;
    if session.json {
        return output::object(&collected);
    }
    output::line(format_args!(
        "removed: {} temporary files and unfinished uploads, {} objects of interrupted stores, {} interrupted removals",
        collected.leftovers, collected.objects, collected.removals
    ))
}
