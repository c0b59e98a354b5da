//! A request to the odd server, and what is to happen to it.

use std::collections::BTreeMap;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// For example `PUT`.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// The decoded key; empty for a request about the bucket.
    pub key: String,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns whether the query has this name.
    pub fn asks(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// The requests of S3 by the names of its operations, as far as they are known here.
    pub fn operation(&self) -> &'static str {
        match (self.method.as_str(), self.key.is_empty()) {
            ("GET", true) if self.asks("uploads") => "ListUploads",
            ("GET", true) => "List",
            ("GET", _) => "Get",
            ("HEAD", _) => "Head",
            ("PUT", _) if self.asks("partNumber") => "Part",
            ("PUT", _) => "Put",
            ("POST", _) if self.asks("uploads") => "Begin",
            ("POST", _) => "Complete",
            ("DELETE", _) if self.asks("uploadId") => "Abort",
            ("DELETE", _) => "Delete",
            _ => "",
        }
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Then {
    /// Refused, with a document that has this code and message, and further headers (`name: value\r\n`).
    Refuse { status: u16, code: &'static str, says: &'static str, headers: String },
    /// Answered with this status and document, and nothing is done.
    Answer { status: u16, headers: String, body: String },
    /// Answered with so many bytes of white space.
    Flood { status: u16, bytes: u64 },
    /// Answered with a page of a listing that never ends, of new keys.
    Endless,
    /// Done, and the connection closed instead of an answer.
    Vanish,
    /// Done and answered without the length of the body: in chunks, or for a HEAD without a word about it.
    NoLength,
    /// Done and answered with a length of 0 (HEAD).
    ZeroLength,
    /// Done and answered, 2 KiB of the body every second: too much for a time without progress.
    Trickle,
    /// Never answered.
    Silence,
    /// Done and answered, and the connection closed so many bytes before the end of the body.
    Short(usize),
    /// Done and answered, with a body that is as much longer, of zeros.
    Long(u64),
}

type When = Box<dyn Fn(&Request) -> bool + Send + Sync>;

/// Which requests fail, how often, and how.
pub struct Rule {
    pub(super) when: When,
    pub(super) times: usize,
    pub(super) then: Then,
}

/// A rule for all requests of an operation: see [`Request::operation`].
pub fn on(operation: &'static str, times: usize, then: Then) -> Rule {
    when(move |request| request.operation() == operation, times, then)
}

/// A rule for chosen requests.
pub fn when(when: impl Fn(&Request) -> bool + Send + Sync + 'static, times: usize, then: Then) -> Rule {
    Rule { when: Box::new(when), times, then }
}

/// A refusal.
pub fn refuse(status: u16, code: &'static str, says: &'static str) -> Then {
    Then::Refuse { status, code, says, headers: String::new() }
}
