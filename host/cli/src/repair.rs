//! `tidelock repair`: good copies in place of damaged ones.

use super::arguments::One;
use super::failure::Failure;
use super::output::{self, Side, TextTable};
use super::session::Session;
use tidelock::RepairReport;
use tidelock::types::{Error, format_bytes};

pub(super) async fn run(arguments: &One, session: &Session) -> Result<(), Failure> {
    let host = session.open_existing().await?;
    let id = host.find(&arguments.id).await?;
    let bar = session.console.bar("repairing", None);
    let repair = host.repair(id).await?;
    drop(bar);
    let verdict = verdict(&repair).map(Failure::from);
    output::outcome(session.json, &repair, describe, verdict)
}

/// What stays damaged is a failure, so that a script notices it.
fn verdict(repair: &RepairReport) -> Option<Error> {
    let first = repair.unrepaired.first()?;
    let what = format!("{} could not be repaired: {}", objects(repair.unrepaired.len()), first.why);
    Some(Error::unavailable(what).hint("a job tries again later; `tidelock jobs ls` says when, and why"))
}

fn objects(count: usize) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

fn describe(repair: &RepairReport) -> String {
    let (damaged, repaired) = (repair.damaged.len(), repair.repaired.len());
    let mut text = format!("{} checked, {damaged} damaged, {repaired} repaired\n", objects(repair.checked as usize));
    for made in &repair.repaired {
        let (size, from) = (format_bytes(made.bytes), &made.from);
        text += &format!("repaired on {}, from {from}: {size}, {}\n", made.backend, made.object);
    }
    if repair.unrepaired.is_empty() {
        return text;
    }
    let mut table = TextTable::new([("BACKEND", Side::Left), ("OBJECT", Side::Left), ("WHY", Side::Left)]);
    for bad in &repair.unrepaired {
        table.row([bad.backend.clone(), bad.object.to_string(), bad.why.clone()]);
    }
    format!("{text}\n{table}")
}
