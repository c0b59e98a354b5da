//! `tidelock rebase`: full packs in place of those that take pages from others.

use super::arguments::Rebase;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::RebaseReport;
use tidelock::types::{Error, format_bytes};

pub(super) async fn run(arguments: &Rebase, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let id = host.find(&arguments.id).await?;
    let bar = session.console.bar("rebasing", None);
    let rebase = host.rebase(id, arguments.profile.map(Into::into)).await?;
    drop(bar);
    let verdict = verdict(&rebase).map(Failure::from);
    output::outcome(session.json, &rebase, describe, verdict)
}

/// What was not rebased is a failure, so that a script notices it.
fn verdict(rebase: &RebaseReport) -> Option<Error> {
    let first = rebase.failed.first()?;
    let what = format!("{} of its packs could not be rebased: {}: {}", rebase.failed.len(), first.backend, first.why);
    Some(Error::unavailable(what).hint("a job tries again later; `tidelock jobs ls` says when, and why"))
}

fn describe(rebase: &RebaseReport) -> String {
    let mut text = String::new();
    for made in &rebase.rebased {
        let (backend, size, object) = (&made.backend, format_bytes(made.bytes), &made.object);
        text += &format!("rebased on {backend}, {}: {size}, {object}\n", rebase.profile);
    }
    for place in &rebase.unchanged {
        text += &format!("unchanged on {}: {}\n", place.backend, place.object);
    }
    for place in &rebase.kept {
        text += &format!("kept on {}, since others take pages from it: {}\n", place.backend, place.object);
    }
    for bad in &rebase.failed {
        text += &format!("not rebased on {}: {}: {}\n", bad.backend, bad.object, bad.why);
    }
    text
}
