//! `tidelock serve --check`: whether a daemon could serve. Each backend is opened and asked once; nothing is written to any.

use serde::Serialize;

use super::failure::Failure;
use super::output;
use super::session::Session;
use tidelock::Host;
use tidelock::types::Error;

/// What was found.
#[derive(Serialize)]
struct Check {
    ready: bool,
    backends: Vec<State>,
}

/// A backend.
#[derive(Serialize)]
struct State {
    backend: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Fails if a backend cannot be opened, or if a route lacks one for each of its copies.
pub(super) async fn run(host: &Host, session: &Session) -> Result<(), Failure> {
    let looks = host.look_at_backends().await;
    let state = |(name, outcome): &(&str, Result<(), Error>)| {
        let (why, hint) = match outcome {
            Ok(()) => (None, None),
            Err(error) => (Some(error.message().to_owned()), error.advice().map(str::to_owned)),
        };
        State { backend: (*name).to_owned(), usable: outcome.is_ok(), why, hint }
    };
    let backends: Vec<State> = looks.iter().map(state).collect();
    let usable: Vec<&str> = looks.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(name, _)| *name).collect();
    let short = host.routes_short_of(&usable);
    let mut verdict = None;
    for (name, outcome) in looks {
        let Err(error) = outcome else { continue };
        let of = short.iter().find(|(_, backends)| backends.iter().any(|backend| backend == name));
        let failure = match of {
            // One that is not open is a fault of the configuration, whoever needs it.
            _ if !host.is_open(name) => error,
            Some((route, _)) => {
                let what = format!("the route `{route}` lacks a backend for each of its copies: {error}");
                let lacking = Error::new(error.kind().clone(), what);
                match error.advice() {
                    Some(hint) => lacking.hint(hint.to_owned()),
                    None => lacking,
                }
            }
            None => continue,
        };
        match verdict {
            None => verdict = Some(failure),
            Some(_) => tracing::error!(hint = failure.advice(), "{failure}"),
        }
    }
    match (verdict, session.json) {
        (Some(error), false) => Err(error.into()),
        (verdict, _) => {
            let check = Check { ready: verdict.is_none(), backends };
            output::outcome(session.json, &check, describe, verdict.map(Failure::from))
        }
    }
}

/// The states, if one cannot be used, and what follows.
fn describe(check: &Check) -> String {
    let unusable: Vec<&State> = check.backends.iter().filter(|state| !state.usable).collect();
    let mut text = String::new();
    if !unusable.is_empty() {
        for State { backend, why, hint, .. } in &check.backends {
            match why {
                None => text += &format!("{backend}: it can be used\n"),
                Some(why) => text += &format!("{backend}: it cannot be used: {why}\n"),
            }
            if let Some(hint) = hint {
                text += &format!("{backend}: {hint}\n");
            }
        }
    }
    let names: Vec<&str> = unusable.iter().map(|state| state.backend.as_str()).collect();
    text += &match names.is_empty() {
        true => "ready\n".to_owned(),
        false => format!("ready, without {}\n", names.join(", ")),
    };
    text
}
