//! Failures of commands: messages and exit statuses.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed: trying again, or fixing the environment, may help |
//! | 2 | bad usage or input: the same command cannot succeed |
//! | 3 | pending: the snapshot is being restored from cold storage; or objects to be imported are cold |
//! | 129, 130, 143 | interrupted by SIGHUP, SIGINT, SIGTERM |
//!
//! The message is on stderr: `error: …`, and `hint: …` if there is one. With `--json`, stdout has one object with the key
//! `error`.

use std::io::{self, Write};

use serde::Serialize;

use tidelock::types::{ArchiveState, Error, ErrorKind, Fault};
use tidelock::{ColdStorage, LeftBehind};

const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;
const PENDING: u8 = 3;

/// The reason why a command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error.
    Error {
        /// The error.
        error: Error,
        /// The exit status.
        status: u8,
    },
    /// An error that the JSON object on stdout already contains.
    Told {
        /// The error.
        error: Error,
        /// The exit status.
        status: u8,
    },
    /// The reader of stdout closed the pipe, as in `| head`: not an error, and nothing is printed.
    ReaderLeft,
    /// Interrupted by the signal of this number.
    Interrupted(u8),
}

impl Failure {
    /// Returns a failure for bad usage.
    pub(super) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::invalid(message).hint(hint).into()
    }

    /// Returns a failure for an operation that is pending.
    pub(super) fn pending(error: Error) -> Self {
        Self::Error { error, status: PENDING }
    }

    /// Returns a failure that is not of the user's making, whatever its kind.
    pub(super) fn failed(error: Error) -> Self {
        Self::Error { error, status: FAILED }
    }

    /// Returns the failure for an error on a file that the user named: a missing or unreadable one is bad input.
    pub(super) fn input(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid => Self::Error { error, status: BAD_INPUT },
            _ => error.into(),
        }
    }

    /// Returns the failure for an error on standard output.
    pub(super) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderLeft,
            _ => Error::io("cannot write to standard output", error).into(),
        }
    }

    /// Marks the error as already contained in the object on stdout.
    pub(super) fn told(self) -> Self {
        match self {
            Self::Error { error, status } => Self::Told { error, status },
            other => other,
        }
    }

    /// Returns the exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Error { status, .. } | Self::Told { status, .. } => *status,
            Self::ReaderLeft => 0,
            Self::Interrupted(signal) => 128 + signal,
        }
    }

    /// Returns the object for stdout with `--json`.
    pub(super) fn object(&self) -> Option<ErrorObject<'_>> {
        match self {
            Self::Error { error, .. } => Some(ErrorObject::of(error)),
            Self::Interrupted(_) => Some(ErrorObject {
                kind: ErrorKind::Cancelled.name(),
                message: "interrupted",
                backend: None,
                hint: None,
                archive: None,
                left: None,
            }),
            Self::Told { .. } | Self::ReaderLeft => None,
        }
    }

    /// Returns the text for stderr.
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

    /// Prints the failure and returns the exit status.
    pub(super) fn report(&self, json: bool) -> u8 {
        if let Some(object) = self.object().filter(|_| json) {
            print_object(&object);
        }
        if let Some(text) = self.text() {
            // An error on stderr cannot be reported anywhere.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        self.status()
    }
}

impl From<Error> for Failure {
    /// `invalid` is bad input if it is the caller's fault: an adapter that calls a read invalid has a damaged object. A
    /// `not-found` without a backend is about an id or a name that the user gave.
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid if error.fault() == Fault::Caller => BAD_INPUT,
            ErrorKind::NotFound if error.backend().is_none() => BAD_INPUT,
            // Not if no restore was requested: it has to be done outside of tidelock.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<LeftBehind>,
}

impl<'a> ErrorObject<'a> {
    /// Returns the object of an error.
    pub(super) fn of(error: &'a Error) -> Self {
        let (kind, message) = (error.kind().name(), error.message());
        let (archive, left) = (ColdStorage::of(error), LeftBehind::of(error));
        Self { kind, message, backend: error.backend(), hint: error.advice(), archive, left }
    }
}

/// Prints clap's error or the requested help, and returns the exit status.
pub(super) fn report_usage(found: &clap::Error, json: bool) -> u8 {
    if json && found.use_stderr() {
        print_object(&ErrorObject {
            kind: ErrorKind::Invalid.name(),
            message: &usage_message(found),
            backend: None,
            hint: Some("run `tidelock help` for the usage"),
            archive: None,
            left: None,
        });
    }
    // A closed pipe is not a failure of help.
    let _ = found.print();
    if found.use_stderr() { BAD_INPUT } else { 0 }
}

/// Returns clap's first paragraph as one line. Without a command, clap shows the help instead of a message.
fn usage_message(found: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(found.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        return "missing command".to_owned();
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
    // The exit status reports the failure even if stdout cannot be written to.
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
        assert_eq!(status(Error::invalid("past the end").on_backend("b").during("retrieve")), 1);
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
    fn a_closed_output_is_not_reported() {
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
        let without_hint = Failure::from(Error::not_found("no such snapshot"));
        assert_eq!(without_hint.text().unwrap(), "error: no such snapshot\n");
        assert_eq!(
            serde_json::to_value(without_hint.object()).unwrap(),
            serde_json::json!({ "kind": "not-found", "message": "no such snapshot", "backend": null, "hint": null })
        );
    }

    #[test]
    fn an_archived_error_has_the_archive_state() {
        let left = std::time::Duration::from_secs(18_000);
        let error = Error::new(ErrorKind::Archived(ArchiveState::Restoring(Some(left))), "x");
        assert_eq!(
            serde_json::to_value(Failure::from(error).object()).unwrap()["archive"],
            serde_json::json!({ "state": "restoring", "estimate_seconds": 18_000, "until": null })
        );
    }

    #[test]
    fn a_usage_error_has_one_line() {
        use clap::{Arg, Command};
        let parse = |words: &[&str]| {
            let store = Command::new("store").arg(Arg::new("FILE").required(true));
            let command = Command::new("x").subcommand(store).subcommand_required(true).arg_required_else_help(true);
            usage_message(&command.try_get_matches_from(words).unwrap_err())
        };
        assert_eq!(parse(&["x", "store"]), "the following required arguments were not provided: <FILE>");
        assert_eq!(parse(&["x"]), "missing command");
    }

    #[test]
    fn a_reported_failure_is_not_reported_twice() {
        let failure = Failure::from(Error::corrupt("x")).told();
        assert!(failure.object().is_none());
        assert_eq!((failure.status(), failure.text().unwrap().as_str()), (1, "error: x\n"));
    }
}
