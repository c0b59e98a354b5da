//! `tidelock gc`: removes leftovers of interrupted stores.

use std::sync::Arc;

use super::arguments::Gc;
use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::types::{Error, ErrorKind};
use tidelock::{FailedBackend, GcOptions, GcReport, GcStep};

pub(super) async fn run(arguments: &Gc, session: &Session) -> Result<(), Failure> {
    let (host, _empty) = session.open_any().await?;
    let bar = session.console.bar("collecting", None);
    // A listing may take long.
    let progress =
        move |step: GcStep<'_>| bar.say(format!("collecting: {} of `{}` looked at", step.objects, step.backend));
    let options = GcOptions {
        older_than: arguments.older_than,
        max_objects: Some(arguments.max_objects),
        progress: Some(Arc::new(progress)),
    };
    let collected = host.gc_with(options).await?;
    let verdict = verdict(&collected).map(Failure::failed);
    output::outcome(session.json, &collected, describe, verdict)
}

/// A backend that keeps its leftovers is a failure, so that a script notices it; of the kind of the first one's.
fn verdict(collected: &GcReport) -> Option<Error> {
    let first = collected.failed.first()?;
    let error = Error::new(ErrorKind::from_name(first.kind), format!("leftovers stay: {}", errors(&collected.failed)));
    let hint = collected.failed.iter().find_map(|failed| failed.hint.clone());
    Some(error.hint(hint.unwrap_or_else(|| "run gc again once the backend answers".to_owned())))
}

/// Each error of each backend, in one line.
pub(super) fn errors(failed: &[FailedBackend]) -> String {
    const SHOWN: usize = 10;
    let mut all: Vec<_> = failed.iter().map(|failed| format!("backend `{}`: {}", failed.backend, failed.why)).collect();
    if all.len() > SHOWN {
        let more = all.len() - SHOWN;
        all.truncate(SHOWN);
        all.push(format!("and {more} more"));
    }
    all.join("; ")
}

fn describe(collected: &GcReport) -> String {
    format!(
        "removed: {} temporary files and unfinished uploads, {} objects of interrupted stores, {} interrupted removals\n",
        collected.leftovers, collected.objects, collected.removals
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_backend_is_reported_and_is_a_failure() {
        let mut collected = GcReport { leftovers: 2, ..GcReport::default() };
        assert!(verdict(&collected).is_none());
        let failed = |backend: &str| FailedBackend {
            backend: backend.into(),
            kind: "unavailable",
            why: "no route".into(),
            hint: None,
        };
        collected.failed = vec![failed("cloud"), failed("tape")];
        let said = verdict(&collected).unwrap().to_string();
        assert_eq!(said, "leftovers stay: backend `cloud`: no route; backend `tape`: no route");
        assert!(describe(&collected).contains("removed: 2 temporary"));
        collected.failed = (0..12).map(|number| failed(&number.to_string())).collect();
        assert!(verdict(&collected).unwrap().to_string().ends_with("backend `9`: no route; and 2 more"));
    }
}
