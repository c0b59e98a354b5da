//! How a command fails: what it says, and the status that it leaves.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed: trying again, or mending something outside, may help |
//! | 2 | bad usage or input: the same call cannot succeed |
//! | 3 | pending: the snapshot is being restored from cold storage, as was asked; or objects that are to be imported are cold |
//! | 130, 143 | interrupted by SIGINT, SIGTERM |
//!
//! The text is on stderr: `error: …`, and `hint: …` if something is known to help. With `--json`, stdout has one object
//! with the key `error`.

use std::io::{self, Write};

use serde::Serialize;

use tidelock::ColdStorage;
use tidelock::types::{ArchiveState, Error, ErrorKind};

const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;
const PENDING: u8 = 3;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something failed.
    Error {
        /// What.
        error: Error,
        /// The status that the process leaves.
        status: u8,
    },
    /// The same, and stdout has the JSON object with the error already.
    Told {
        /// What.
        error: Error,
        /// The status that the process leaves.
        status: u8,
    },
    /// Whoever read stdout has gone, as in `| head`: nothing is wrong, and nobody is there to be told.
    ReaderLeft,
    /// A signal, by its number.
    Interrupted(u8),
}

impl Failure {
    /// Bad usage, in words.
    pub(super) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::invalid(message).hint(hint).into()
    }

    /// What has to be waited for.
    pub(super) fn pending(error: Error) -> Self {
        Self::Error { error, status: PENDING }
    }

    /// What a file that the user named met: one that is missing or that may not be read is bad input.
    pub(super) fn input(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid => Self::Error { error, status: BAD_INPUT },
            _ => error.into(),
        }
    }

    /// What writing to standard output met.
    pub(super) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderLeft,
            _ => Error::io("cannot write to standard output", error).into(),
        }
    }

    /// The same, once the object on stdout holds the error.
    pub(super) fn told(self) -> Self {
        match self {
            Self::Error { error, status } => Self::Told { error, status },
            other => other,
        }
    }

    /// The status that the process leaves.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Error { status, .. } | Self::Told { status, .. } => *status,
            Self::ReaderLeft => 0,
            Self::Interrupted(signal) => 128 + signal,
        }
    }

    /// What stdout gets with `--json`.
    pub(super) fn object(&self) -> Option<ErrorObject<'_>> {
        match self {
            Self::Error { error, .. } => Some(ErrorObject::of(error)),
            Self::Interrupted(_) => Some(ErrorObject {
                kind: ErrorKind::Cancelled.name(),
                message: "interrupted",
                backend: None,
                hint: None,
                archive: None,
            }),
            Self::Told { .. } | Self::ReaderLeft => None,
        }
    }

    /// What stderr gets.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Error { error, .. } | Self::Told { error, .. } => Some(match error.advice() {
                Some(hint) => format!("error: {error}\nhint: {hint}\n"),
                None => format!("error: {error}\n"),
            }),
            Self::Interrupted(_) => Some("interrupted\n".to_owned()),
            Self::ReaderLeft => None,
        }
    }

    /// Says it, and gives the status.
    pub(super) fn report(&self, json: bool) -> u8 {
        if let Some(object) = self.object().filter(|_| json) {
            print_object(&object);
        }
        if let Some(text) = self.text() {
            // Without a stderr there is nobody to be told that there is none.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        self.status()
    }
}

impl From<Error> for Failure {
    /// `invalid` is bad input wherever it turns up. A `not-found` that no backend is to blame for is about an id or a
    /// name that the user gave.
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => BAD_INPUT,
            ErrorKind::NotFound if error.backend().is_none() => BAD_INPUT,
            // Unless nothing has been asked for, which only somebody can do who has other means.
            ErrorKind::Archived(ArchiveState::Restoring(_) | ArchiveState::Readable(_)) => PENDING,
            _ => FAILED,
        };
        Self::Error { error, status }
    }
}

/// The value of `error` in the object on stdout.
#[derive(Debug, Serialize)]
pub(super) struct ErrorObject<'a> {
    kind: &'a str,
    message: &'a str,
    backend: Option<&'a str>,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<ColdStorage>,
}

impl<'a> ErrorObject<'a> {
    /// An error's.
    pub(super) fn of(error: &'a Error) -> Self {
        let (kind, message) = (error.kind().name(), error.message());
        Self { kind, message, backend: error.backend(), hint: error.advice(), archive: ColdStorage::of(error) }
    }
}

/// Says what clap found wrong with the arguments, or shows the help that was asked for, and gives the status.
pub(super) fn report_usage(found: &clap::Error, json: bool) -> u8 {
    if json && found.use_stderr() {
        print_object(&ErrorObject {
            kind: ErrorKind::Invalid.name(),
            message: &usage_message(found),
            backend: None,
            hint: Some("`tidelock help` shows the usage"),
            archive: None,
        });
    }
    // Help that nobody reads to the end is no failure.
    let _ = found.print();
    if found.use_stderr() { BAD_INPUT } else { 0 }
}

/// Clap's first paragraph in one line. Without a command it shows the help instead of a message.
fn usage_message(found: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(found.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        return "a command is missing".to_owned();
    }
    let text = found.render().to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = lines.join(" ");
    message.strip_prefix("error: ").unwrap_or(&message).to_owned()
}

fn print_object(error: &ErrorObject<'_>) {
    #[derive(Serialize)]
    struct Object<'a> {
        error: &'a ErrorObject<'a>,
    }
    // The status tells the same; a stdout that cannot be written to changes nothing about it.
    let mut out = io::stdout().lock();
    let _ =
        serde_json::to_writer(&mut out, &Object { error }).map(|()| out.write_all(b"\n").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_the_kind_and_whose_fault_it_is() {
        let status = |error: Error| Failure::from(error).status();
        assert_eq!(status(Error::invalid("x")), 2);
        assert_eq!(status(Error::invalid("x").on_backend("b")), 2);
        assert_eq!(status(Error::not_found("x")), 2);
        assert_eq!(status(Error::not_found("x").on_backend("b")), 1);
        assert_eq!(status(Error::denied("x")), 1);
        assert_eq!(status(Error::unavailable("x")), 1);
        assert_eq!(status(Error::corrupt("x")), 1);
        assert_eq!(status(Error::new(ErrorKind::Archived(ArchiveState::Restoring(None)), "x")), 3);
        assert_eq!(status(Error::new(ErrorKind::Archived(ArchiveState::Archived), "x")), 1);
        assert_eq!(Failure::Interrupted(2).status(), 130);
        assert_eq!(Failure::Interrupted(15).status(), 143);
    }

    #[test]
    fn a_file_of_the_user_is_input() {
        let status = |code| Failure::input(Error::io("x", io::Error::from_raw_os_error(code))).status();
        assert_eq!([status(2), status(13), status(21), status(28)], [2, 2, 2, 1]);
        let no_base = Failure::input(Error::unavailable("x"));
        assert_eq!(no_base.status(), 1);
    }

    #[test]
    fn a_reader_that_left_hears_nothing() {
        let left = Failure::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((left.status(), left.text(), left.object().is_none()), (0, None, true));
        let full = Failure::output(io::Error::from_raw_os_error(28));
        assert_eq!(full.status(), 1);
        assert!(full.text().unwrap().contains("no space left"));
    }

    #[test]
    fn the_text_has_the_hint_on_its_own_line_and_the_object_has_all_keys() {
        let error = Error::unavailable("connection refused").on_backend("cloud").hint("start it");
        let failure = Failure::from(error);
        assert_eq!(failure.text().unwrap(), "error: backend `cloud`: connection refused\nhint: start it\n");
        assert_eq!(
            serde_json::to_value(failure.object()).unwrap(),
            serde_json::json!({
                "kind": "unavailable", "message": "connection refused", "backend": "cloud", "hint": "start it"
            })
        );
        let plain = Failure::from(Error::not_found("no such snapshot"));
        assert_eq!(plain.text().unwrap(), "error: no such snapshot\n");
        assert_eq!(
            serde_json::to_value(plain.object()).unwrap(),
            serde_json::json!({ "kind": "not-found", "message": "no such snapshot", "backend": null, "hint": null })
        );
    }

    #[test]
    fn what_is_cold_has_its_state_in_the_object() {
        let left = std::time::Duration::from_secs(18_000);
        let error = Error::new(ErrorKind::Archived(ArchiveState::Restoring(Some(left))), "x");
        assert_eq!(
            serde_json::to_value(Failure::from(error).object()).unwrap()["archive"],
            serde_json::json!({ "state": "restoring", "estimate_seconds": 18_000, "until": null })
        );
    }

    #[test]
    fn usage_is_told_in_one_line() {
        use clap::{Arg, Command};
        let parse = |words: &[&str]| {
            let store = Command::new("store").arg(Arg::new("FILE").required(true));
            let command = Command::new("x").subcommand(store).subcommand_required(true).arg_required_else_help(true);
            usage_message(&command.try_get_matches_from(words).unwrap_err())
        };
        assert_eq!(parse(&["x", "store"]), "the following required arguments were not provided: <FILE>");
        assert_eq!(parse(&["x"]), "a command is missing");
    }

    #[test]
    fn what_was_told_is_not_told_twice() {
        let failure = Failure::from(Error::corrupt("x")).told();
        assert!(failure.object().is_none());
        assert_eq!((failure.status(), failure.text().unwrap().as_str()), (1, "error: x\n"));
    }
}
