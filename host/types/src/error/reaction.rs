//! What a failure leads to: the one place that decides it.
//!
//! A failure answers four questions: whether the same request may be repeated ([`Retry`]), whether it may have had an
//! effect all the same ([`Effect`]), whose fault it is ([`Fault`]), and what it is about ([`Subject`]). Retries, the choice
//! of another backend, intents, trials of adapters, exit statuses and HTTP statuses follow from the answers alone.
//!
//! The kind decides, together with the backend and the operation on which it happened. Without a backend it happened to
//! the caller's side: an argument, the source of a store, the catalogue, the host itself. No other backend does better then.
//! With a backend:
//!
//! | kind | retry | effect of a change | fault | subject |
//! | --- | --- | --- | --- | --- |
//! | `rate-limited` | after the given delay | none | nobody | the backend |
//! | `insufficient-balance` | never | none | nobody | the backend |
//! | `not-found` | never | none | the backend | the object; the backend when storing |
//! | `denied` | never | none | the backend | the backend |
//! | `invalid` | never | none | the caller; the backend when reading | the backend; the object when reading |
//! | `conflict` | never | unknown | the backend | the object; the backend when storing |
//! | `unavailable` | after a while | unknown | the backend | the backend |
//! | `archived` | after the estimate | none | nobody | the object |
//! | `corrupt` | now | unknown | the backend; the adapter when storing | the object; the backend when storing |
//! | `unsupported` | never | none | the backend | the backend |
//! | `trapped`, `limit` | after a while | unknown | the adapter | the backend |
//! | `timed-out` | after a while | unknown | the backend | the backend |
//! | `cancelled` | never | unknown | nobody | the request |
//! | `other` | after a while | unknown | the backend | the backend |
//!
//! What reads has no effect, whatever the kind. Reasons for what is not obvious:
//!
//! - The host checks ids and ranges before it asks for an object, so an adapter that calls a *read* `invalid` says that the
//!   object is not what was stored: a range begins past its end. A *store* that is `invalid` does not fit this backend (its
//!   settings, its largest object), and may fit another one.
//! - `denied` on a backend is the backend's state: expired keys, a file system that is read-only. What the caller may not
//!   do is refused before a backend is asked.
//! - What is encrypted with a key that is not configured ([`Error::missing_key`]) is `denied`, and about the object alone.
//! - The keys of objects are fresh, so a `conflict` says that an attempt whose reply was lost has made the object.
//! - `corrupt` may come from the way, so a second reading may be right.
//! - Before an operation begins, a backend is opened: its adapter, settings and credentials. `invalid`, `not-found`,
//!   `denied` and `unsupported` are then the fault of the configuration, which is the caller's.

use std::time::Duration;

use super::{ArchiveState, Error, ErrorKind};

/// Whether the same request, to the same backend, may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before something is changed: the request, the configuration or the backend.
    Never,
    /// At once.
    Now,
    /// After this time, if it is known; otherwise after a pause that grows.
    After(Option<Duration>),
}

/// Whether a request that failed may have had its effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It had none.
    None,
    /// It may have had one: the reply was lost, or the operation ended early.
    Unknown,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's: the request, its input, the configuration.
    Caller,
    /// The adapter's alone.
    Adapter,
    /// The backend's, or its adapter's.
    Backend,
    /// The host's: its catalogue, its disk.
    Host,
    /// Nobody's: an answer about load, money or cold storage, or a request that was given up.
    Nobody,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The request: it fails on any backend.
    Request,
    /// This object: a copy on the same backend or another one may serve.
    Object,
    /// This backend, whichever object is asked for.
    Backend,
}

/// What an operation does, as far as failures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Opening a backend, replacing its adapter, or what is not known.
    Opening,
    Reading,
    Storing,
    /// Another change.
    Changing,
}

impl Error {
    /// Returns whether the same request to the same backend may succeed. Says nothing of whether repeating it is safe:
    /// see [`Self::effect`].
    pub fn retry(&self) -> Retry {
        use ErrorKind as Kind;
        match self.kind() {
            Kind::RateLimited(after) => Retry::After(*after),
            Kind::Archived(ArchiveState::Restoring(left)) => Retry::After(*left),
            Kind::Archived(ArchiveState::Readable(_)) => Retry::Now,
            Kind::Corrupt if self.backend().is_some() => Retry::Now,
            Kind::Unavailable | Kind::Trapped | Kind::Limit | Kind::TimedOut | Kind::Other => Retry::After(None),
            Kind::Archived(ArchiveState::Archived)
            | Kind::InsufficientBalance(_)
            | Kind::NotFound
            | Kind::Denied
            | Kind::Invalid
            | Kind::Conflict
            | Kind::Corrupt
            | Kind::Unsupported
            | Kind::Cancelled => Retry::Never,
        }
    }

    /// Returns whether it may have had an effect. What never reached a backend had none.
    pub fn effect(&self) -> Effect {
        use ErrorKind as Kind;
        if self.backend().is_none() || self.doing() == Doing::Reading {
            return Effect::None;
        }
        match self.kind() {
            Kind::Conflict
            | Kind::Unavailable
            | Kind::Corrupt
            | Kind::Trapped
            | Kind::Limit
            | Kind::TimedOut
            | Kind::Cancelled
            | Kind::Other => Effect::Unknown,
            Kind::RateLimited(_)
            | Kind::InsufficientBalance(_)
            | Kind::NotFound
            | Kind::Denied
            | Kind::Invalid
            | Kind::Archived(_)
            | Kind::Unsupported => Effect::None,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        use ErrorKind as Kind;
        if self.backend().is_none() {
            return match self.kind() {
                Kind::Invalid | Kind::NotFound | Kind::Denied | Kind::Conflict | Kind::Unsupported | Kind::TimedOut => {
                    Fault::Caller
                }
                Kind::Unavailable | Kind::Corrupt | Kind::Trapped | Kind::Limit | Kind::Other => Fault::Host,
                Kind::RateLimited(_) | Kind::InsufficientBalance(_) | Kind::Archived(_) | Kind::Cancelled => {
                    Fault::Nobody
                }
            };
        }
        let doing = self.doing();
        match self.kind() {
            Kind::RateLimited(_) | Kind::InsufficientBalance(_) | Kind::Archived(_) | Kind::Cancelled => Fault::Nobody,
            Kind::Trapped | Kind::Limit => Fault::Adapter,
            Kind::Corrupt if doing == Doing::Storing => Fault::Adapter,
            Kind::NotFound | Kind::Denied | Kind::Unsupported if doing == Doing::Opening => Fault::Caller,
            Kind::Invalid if doing != Doing::Reading => Fault::Caller,
            Kind::Invalid
            | Kind::NotFound
            | Kind::Denied
            | Kind::Unsupported
            | Kind::Conflict
            | Kind::Corrupt
            | Kind::Unavailable
            | Kind::TimedOut
            | Kind::Other => Fault::Backend,
        }
    }

    /// Returns what it is about.
    pub fn subject(&self) -> Subject {
        use ErrorKind as Kind;
        if self.backend().is_none() {
            return Subject::Request;
        }
        match (self.kind(), self.doing()) {
            (Kind::Cancelled, _) => Subject::Request,
            // Others may be encrypted with another key.
            _ if self.missing_key().is_some() => Subject::Object,
            (Kind::Archived(_), _) => Subject::Object,
            (Kind::NotFound | Kind::Conflict | Kind::Corrupt | Kind::Invalid, Doing::Reading) => Subject::Object,
            (Kind::NotFound | Kind::Conflict | Kind::Corrupt, Doing::Changing) => Subject::Object,
            _ => Subject::Backend,
        }
    }

    /// Returns whether another backend may succeed where this one failed.
    pub fn another_may_serve(&self) -> bool {
        self.subject() != Subject::Request
    }

    /// Returns what was being done: the operations of a backend, and those of an adapter by their names in the interface.
    fn doing(&self) -> Doing {
        match self.operation() {
            Some("retrieve" | "stat" | "list-objects" | "balance" | "get" | "list" | "health") => Doing::Reading,
            Some("store" | "incremental-update" | "put") => Doing::Storing,
            Some("remove" | "restore" | "delete") => Doing::Changing,
            _ => Doing::Opening,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PaymentDue;
    use super::*;

    const WAIT: Option<Duration> = Some(Duration::from_secs(3));

    fn kinds() -> Vec<ErrorKind> {
        vec![
            ErrorKind::RateLimited(WAIT),
            ErrorKind::InsufficientBalance(PaymentDue::default()),
            ErrorKind::NotFound,
            ErrorKind::Denied,
            ErrorKind::Invalid,
            ErrorKind::Conflict,
            ErrorKind::Unavailable,
            ErrorKind::Archived(ArchiveState::Archived),
            ErrorKind::Archived(ArchiveState::Restoring(WAIT)),
            ErrorKind::Archived(ArchiveState::Readable(None)),
            ErrorKind::Corrupt,
            ErrorKind::Unsupported,
            ErrorKind::Trapped,
            ErrorKind::Limit,
            ErrorKind::TimedOut,
            ErrorKind::Cancelled,
            ErrorKind::Other,
        ]
    }

    const OPERATIONS: [&str; 13] = [
        "retrieve",
        "stat",
        "list-objects",
        "balance",
        "get",
        "list",
        "health",
        "store",
        "incremental-update",
        "put",
        "remove",
        "restore",
        "check",
    ];

    /// The rows of the documentation, in words.
    fn table() -> Vec<(String, [String; 4])> {
        let rows = include_str!("reaction.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let rows = rows.filter(|row| row.starts_with('`'));
        let cells =
            |row: &str| row.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        rows.flat_map(|row| {
            let cells = cells(row);
            let names: Vec<_> = cells[0].split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
            let answers: [String; 4] = cells[1..].to_vec().try_into().unwrap();
            names.into_iter().map(move |name| (name, answers.clone()))
        })
        .collect()
    }

    /// Returns the part of a cell that is about an operation: `A; B when reading`.
    fn said(cell: &str, doing: Doing) -> String {
        let when = match doing {
            Doing::Reading => " when reading",
            Doing::Storing => " when storing",
            Doing::Changing | Doing::Opening => " never",
        };
        let mut parts = cell.split("; ");
        let usual = parts.next().unwrap();
        parts.find_map(|part| part.strip_suffix(when)).unwrap_or(usual).to_owned()
    }

    #[test]
    fn the_table_is_what_the_code_does() {
        let table = table();
        assert_eq!(table.len(), 15, "a row for each kind");
        for kind in kinds() {
            let (_, row) = table.iter().find(|(name, _)| name == kind.name()).unwrap();
            for operation in OPERATIONS {
                let error = Error::new(kind.clone(), "x").on_backend("b").during(operation);
                let doing = error.doing();
                let what = format!("{} during {operation}", kind.name());
                let retry = match error.retry() {
                    Retry::Never => "never",
                    Retry::Now => "now",
                    Retry::After(None) => "after a while",
                    Retry::After(Some(_)) => "after a given time",
                };
                match (row[0].as_str(), &kind) {
                    ("after the given delay", _) => assert_eq!(retry, "after a given time", "{what}"),
                    ("after the estimate", ErrorKind::Archived(ArchiveState::Restoring(_))) => {
                        assert_eq!(retry, "after a given time", "{what}");
                    }
                    ("after the estimate", _) => {}
                    (said, _) => assert_eq!(retry, said, "{what}"),
                }
                let effect = if doing == Doing::Reading { "none" } else { row[1].as_str() };
                assert_eq!(error.effect() == Effect::Unknown, effect == "unknown", "{what}");
                if doing != Doing::Opening {
                    let fault = match error.fault() {
                        Fault::Caller => "the caller",
                        Fault::Adapter => "the adapter",
                        Fault::Backend => "the backend",
                        Fault::Host => "the host",
                        Fault::Nobody => "nobody",
                    };
                    assert_eq!(fault, said(&row[2], doing), "{what}");
                    let subject = match error.subject() {
                        Subject::Request => "the request",
                        Subject::Object => "the object",
                        Subject::Backend => "the backend",
                    };
                    assert_eq!(subject, said(&row[3], doing), "{what}");
                }
            }
        }
    }

    #[test]
    fn every_failure_has_consistent_properties() {
        for kind in kinds() {
            let unplaced = || Error::new(kind.clone(), "x");
            // The caller's side: no other backend does better, and no backend has seen it.
            assert_eq!((unplaced().subject(), unplaced().effect()), (Subject::Request, Effect::None), "{kind:?}");
            assert!(!matches!(unplaced().fault(), Fault::Adapter | Fault::Backend), "{kind:?}");
            for operation in OPERATIONS {
                let error = unplaced().on_backend("b").during(operation);
                let what = format!("{kind:?} during {operation}");
                // Only a request that was given up ends a read or a store while another backend is left.
                assert_eq!(error.another_may_serve(), kind != ErrorKind::Cancelled, "{what}");
                if error.doing() == Doing::Reading {
                    assert_eq!(error.effect(), Effect::None, "{what}");
                    assert_ne!(error.fault(), Fault::Caller, "{what}");
                }
                // An adapter that broke may have done anything before.
                if error.fault() == Fault::Adapter && error.doing() != Doing::Reading {
                    assert_eq!(error.effect(), Effect::Unknown, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_missing_key_is_about_the_object_alone() {
        let error = Error::without_key("00ff").on_backend("b").during("retrieve");
        assert_eq!((error.kind(), error.subject(), error.retry()), (&ErrorKind::Denied, Subject::Object, Retry::Never));
        assert_eq!(error.duplicate().missing_key(), Some("00ff"));
        assert_eq!(Error::denied("the key 00ff").missing_key(), None);
    }

    #[test]
    fn a_configuration_that_does_not_open_is_the_callers() {
        for kind in [ErrorKind::Invalid, ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Unsupported] {
            let error = Error::new(kind.clone(), "no such setting").on_backend("b").during("check");
            assert_eq!((error.fault(), error.subject()), (Fault::Caller, Subject::Backend), "{kind:?}");
        }
    }
}
