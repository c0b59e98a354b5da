//! One error type for the whole host: kind, message, backend, operation and hint.
//!
//! Kinds are the cases of `tidelock:storage/types.error`, so that an adapter's reason reaches the caller, and a few that
//! only the host can observe (a trap, a limit, a deadline). What a failure leads to follows from its kind and from where it
//! happened, by one table (`reaction.rs`); messages are for people. Messages never contain credentials: capabilities strip
//! them first. Nor can they control the terminal or the log that shows them, even if they quote untrusted text: control
//! characters, and those that change the direction of writing, are escaped.

mod reaction;
mod system;

use std::fmt;
use std::time::Duration;

pub use reaction::{Effect, Fault, Retry, Subject};

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The state of an object in cold storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveState {
    /// In the archive; no restore was requested.
    Archived,
    /// A restore is in progress; with an estimate of the time left, if there is one.
    Restoring(Option<Duration>),
    /// Readable until this time (seconds since 1970-01-01 UTC), if there is a limit.
    Readable(Option<u64>),
}

/// A backend's demand for money. Amounts are whole numbers of the smallest unit, as decimal text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentDue {
    /// The minimum amount that the backend requires, if known.
    pub amount: Option<String>,
    /// The unit of `amount`, for example `nanoton`.
    pub unit: Option<String>,
    /// The account to pay, if it is not the configured one.
    pub account: Option<String>,
}

/// The kind of a failure. What the host does about it follows from the kind and from where it happened: see
/// [`Error::retry`], [`Error::effect`], [`Error::fault`] and [`Error::subject`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Too many requests; with the backend's delay, if it gave one.
    RateLimited(Option<Duration>),
    /// The backend requires a payment first.
    InsufficientBalance(PaymentDue),
    /// No such snapshot or object.
    NotFound,
    /// Credentials, grants or policy forbid it.
    Denied,
    /// The request, the configuration or the input makes no sense.
    Invalid,
    /// It exists already, or changed in the meantime.
    Conflict,
    /// The backend, a file or a device cannot serve now.
    Unavailable,
    /// The object is in cold storage.
    Archived(ArchiveState),
    /// Bytes differ from the stored ones.
    Corrupt,
    /// The adapter or the backend cannot do this at all.
    Unsupported,
    /// The adapter trapped.
    Trapped,
    /// The adapter exceeded one of its limits; the message names it.
    Limit,
    /// A deadline passed.
    TimedOut,
    /// The caller gave up, or the host is shutting down.
    Cancelled,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// The name used in `--json`, in HTTP problem details and in metrics: the WIT case where there is one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RateLimited(_) => "rate-limited",
            Self::InsufficientBalance(_) => "insufficient-balance",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Archived(_) => "archived",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Trapped => "trapped",
            Self::Limit => "limit",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }

    /// Returns the kind of a name, without the details that only the message has; `other` for an unknown name.
    pub fn from_name(name: &str) -> Self {
        let kinds = [
            Self::RateLimited(None),
            Self::InsufficientBalance(PaymentDue::default()),
            Self::NotFound,
            Self::Denied,
            Self::Invalid,
            Self::Conflict,
            Self::Unavailable,
            Self::Archived(ArchiveState::Archived),
            Self::Corrupt,
            Self::Unsupported,
            Self::Trapped,
            Self::Limit,
            Self::TimedOut,
            Self::Cancelled,
        ];
        kinds.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Other)
    }
}

/// A failure with its context. Cheap to move; prints as one line, with the hint after a second sentence.
pub struct Error(Box<ErrorInner>);

struct ErrorInner {
    kind: ErrorKind,
    message: String,
    backend: Option<String>,
    operation: Option<&'static str>,
    hint: Option<String>,
    left: Option<Left>,
    key: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The remains of a store that failed: copies of a snapshot that got no name from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The id of the snapshot.
    pub snapshot: String,
    /// The backends that hold it, each with its name for the object.
    pub placements: Vec<(String, String)>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:expr;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new($kind, message) })*
    };
}

impl Error {
    /// Creates an error of a kind with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorInner {
            kind,
            message: visible(message.into()),
            backend: None,
            operation: None,
            hint: None,
            left: None,
            key: None,
            source: None,
        }))
    }

    constructors! {
        /// Does not exist.
        not_found => ErrorKind::NotFound;
        /// It is forbidden.
        denied => ErrorKind::Denied;
        /// The request, configuration or input makes no sense.
        invalid => ErrorKind::Invalid;
        /// It exists already, or changed.
        conflict => ErrorKind::Conflict;
        /// It cannot be served now.
        unavailable => ErrorKind::Unavailable;
        /// Bytes differ from the stored ones.
        corrupt => ErrorKind::Corrupt;
        /// It cannot be done at all.
        unsupported => ErrorKind::Unsupported;
        /// A deadline passed.
        timed_out => ErrorKind::TimedOut;
        /// Anything else.
        other => ErrorKind::Other;
    }

    /// `denied`: an object is encrypted with a key that is not configured. `key` is the number that objects name it by, which says
    /// nothing of the key itself.
    pub fn without_key(key: impl Into<String>) -> Self {
        let key = visible(key.into());
        let mut error = Self::denied(format!("the object is encrypted with the key {key}, which is not configured"))
            .hint("name its file as `key`, or among `old_keys`, of the table [encryption]");
        error.0.key = Some(key);
        error
    }

    /// Sets the backend, unless it is known already.
    #[must_use]
    pub fn on_backend(mut self, name: &str) -> Self {
        self.0.backend.get_or_insert_with(|| visible(name.to_owned()));
        self
    }

    /// Sets the operation, unless it is known already.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the hint: an imperative clause without a full stop.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(visible(hint.into()));
        self
    }

    /// Adds a clause to the message.
    #[must_use]
    pub fn and(mut self, clause: impl fmt::Display) -> Self {
        self.0.message = visible(format!("{}; {clause}", self.0.message));
        self
    }

    /// Says what the store that failed has left.
    #[must_use]
    pub fn leaving(mut self, left: Left) -> Self {
        self.0.left = Some(left);
        self
    }

    /// Keeps the error that caused this one, for `source()`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns the message, without backend, operation and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The backend on which it happened, if it was on one.
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// The operation during which it happened.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// Returns the hint, if there is one.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The number of the key that an object is encrypted with and that is not configured, if that is what is wrong. It says nothing of
    /// whether the object is there, whole or damaged: it cannot be read before the key is back.
    pub fn missing_key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// Returns the remains of a store that failed, if there are any.
    pub fn left(&self) -> Option<&Left> {
        self.0.left.as_ref()
    }

    /// The same failure once more, for a second reader of one stream. The source is not copied.
    pub fn duplicate(&self) -> Self {
        Self(Box::new(ErrorInner {
            kind: self.0.kind.clone(),
            message: self.0.message.clone(),
            backend: self.0.backend.clone(),
            operation: self.0.operation,
            hint: self.0.hint.clone(),
            left: self.0.left.clone(),
            key: self.0.key.clone(),
            source: None,
        }))
    }
}

/// Returns whether a character drives the terminal or the log that shows it, or changes the direction of writing there.
pub fn drives_terminal(c: char) -> bool {
    // Unicode's directional marks and line separators (UAX #9 and #14), which are not control characters.
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with all written out that would drive the terminal or the log it is shown on.
fn visible(text: String) -> String {
    if !text.contains(drives_terminal) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if drives_terminal(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = &self.0.backend {
            write!(f, "backend `{backend}`")?;
            match self.0.operation {
                Some(operation) => write!(f, ", {operation}: ")?,
                None => write!(f, ": ")?,
            }
        } else if let Some(operation) = self.0.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.0.kind.name())?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, "; caused by: {source:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_backend_and_operation() {
        let error = Error::unavailable("connection refused").on_backend("cloud").during("store");
        assert_eq!(error.to_string(), "backend `cloud`, store: connection refused");
        assert_eq!(error.on_backend("other").backend(), Some("cloud"));
    }

    #[test]
    fn no_text_drives_a_terminal() {
        let error = Error::invalid("a\tb\x1b[2Jc\u{202e}d\u{2028}").hint("x\r\ny\u{85}").on_backend("e\0é`\"\\");
        assert_eq!(error.message(), "a\\tb\\u{1b}[2Jc\\u{202e}d\\u{2028}");
        assert_eq!(error.advice(), Some("x\\r\\ny\\u{85}"));
        assert_eq!(error.backend(), Some("e\\0é`\"\\"));
    }
}
