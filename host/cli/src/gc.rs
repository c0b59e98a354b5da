//! `tidelock gc`: removes leftovers of interrupted stores.

use std::sync::Arc;

use serde::Serialize;

use super::arguments::Gc;
use super::failure::{ErrorObject, Failure};
use super::output;
use super::session::Session;
use tidelock::types::{Error, ErrorKind};
use tidelock::{GcOptions, GcReport, GcStep};

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    collected: &'a GcReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

pub(super) async fn run(arguments: &Gc, session: &Session) -> Result<(), Failure> {
    let host = session.open().await?;
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
    let verdict = verdict(&collected);
    if session.json {
        output::object(&Report { collected: &collected, error: verdict.as_ref().map(ErrorObject::of) })?;
    } else {
        output::text(&describe(&collected))?;
    }
    verdict.map_or(Ok(()), |error| Err(Failure::from(error).told()))
}

/// A backend that keeps its leftovers is a failure, so that a script notices it; of the kind of the first one's.
fn verdict(collected: &GcReport) -> Option<Error> {
    let first = collected.failed.first()?;
    let names: Vec<&str> = collected.failed.iter().map(|failed| failed.backend.as_str()).collect();
    let what = format!("leftovers stay on {}: {}", names.join(", "), first.why);
    let error = Error::new(ErrorKind::from_name(first.kind), what);
    Some(error.hint(first.hint.clone().unwrap_or_else(|| "run gc again once the backend answers".to_owned())))
}

fn describe(collected: &GcReport) -> String {
    let mut text = format!(
        "removed: {} temporary files and unfinished uploads, {} objects of interrupted stores, {} interrupted removals\n",
        collected.leftovers, collected.objects, collected.removals
    );
    for failed in collected.failed.iter().skip(1) {
        text += &format!("leftovers stay on {}: {}\n", failed.backend, failed.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock::FailedBackend;

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
        assert_eq!(verdict(&collected).unwrap().to_string(), "leftovers stay on cloud, tape: no route");
        assert!(
            describe(&collected).contains("removed: 2 temporary") && describe(&collected).contains("tape: no route")
        );
    }
}
