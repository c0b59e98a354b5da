//! `tidelock scrub`: reads everything that is stored.

use super::arguments::Scrub;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::types::{Error, format_bytes};
use tidelock::{BadPlacement, ScrubOptions, ScrubReport};

pub(super) async fn run(arguments: &Scrub, session: &Session) -> Result<(), Failure> {
    let (host, _empty) = session.open_any().await?;
    let bar = session.console.bar("scrubbing", None);
    let options = ScrubOptions { bytes: arguments.bytes, progress: bar.progress(), ..ScrubOptions::default() };
    let scrub = host.scrub(&options).await?;
    drop(bar);
    let verdict = verdict(&scrub).map(Failure::from);
    output::outcome(session.json, &scrub, describe, verdict)
}

/// Damage is a failure, so that a script notices it.
fn verdict(scrub: &ScrubReport) -> Option<Error> {
    if !scrub.bad.is_empty() {
        let error = Error::corrupt(format!("{} of {} objects missing or damaged", scrub.bad.len(), scrub.checked));
        return Some(error.hint("run `tidelock jobs run`, or let `tidelock serve` repair them"));
    }
    let away = scrub.unreachable.first()?;
    let what = format!("{} objects could not be checked: {}", scrub.unreachable.len(), away.why);
    Some(Error::unavailable(what).hint("scrub again once the backend is reachable"))
}

fn describe(scrub: &ScrubReport) -> String {
    let rest = if scrub.complete { "" } else { "; the next scrub goes on from here" };
    let mut text = format!("{} objects, {} read and compared{rest}\n", scrub.checked, format_bytes(scrub.bytes));
    let mut tell = |placements: &[BadPlacement], what: &str| {
        for BadPlacement { id, backend, object, why } in placements {
            text += &format!("{what}: {object} of {id} on {backend}: {why}\n");
        }
    };
    tell(&scrub.bad, "bad");
    tell(&scrub.unreachable, "unchecked");
    text
}
