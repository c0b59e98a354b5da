//! What a service can do that not every S3-compatible one can: conditional writes and checksums.
//!
//! Both are used until the service rejects them as unknown, unless the grant turns them off. That costs one refused
//! request for each process, and never more than a small one: the header that asks for checksums is in the request that
//! begins an upload; and before the first large upload a put of one byte, which no service that checks it accepts, shows
//! what becomes of a condition. For some services drop an upload with the request that completes it.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::errors::status;
use crate::grant::BucketGrant;

/// The optional features that requests may use. They are only ever turned off.
pub(super) struct Habits {
    conditions: Habit,
    checksums: Habit,
}

struct Habit {
    on: AtomicBool,
    /// Whether the grant decided.
    fixed: bool,
    /// Whether a request has shown it.
    shown: AtomicBool,
    /// The key of the grant.
    key: &'static str,
}

impl Habit {
    fn new(key: &'static str, said: Option<bool>) -> Self {
        Self {
            on: AtomicBool::new(said.unwrap_or(true)),
            fixed: said.is_some(),
            shown: AtomicBool::new(said.is_some()),
            key,
        }
    }

    fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Stops using it. Returns whether a request that had it may be sent again without it.
    fn give_up(&self) -> bool {
        if self.fixed {
            return false;
        }
        self.shown.store(true, Ordering::Relaxed);
        if self.on.swap(false, Ordering::Relaxed) {
            let key = self.key;
            tracing::warn!(key, "the service refuses a header of S3, and gets requests without it from now on");
        }
        true
    }
}

/// The headers of a request that a service may not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extras {
    /// `If-None-Match`.
    pub(super) condition: bool,
    /// `x-amz-checksum-…`.
    pub(super) checksum: bool,
}

impl Habits {
    pub(super) fn of(grant: &BucketGrant) -> Self {
        Self {
            conditions: Habit::new("conditional_writes", grant.conditional_writes),
            checksums: Habit::new("checksums", grant.checksums),
        }
    }

    /// Returns which of the wanted headers a request may have.
    pub(super) fn extras(&self, condition: bool, checksum: bool) -> Extras {
        Extras { condition: condition && self.conditions.on(), checksum: checksum && self.checksums.on() }
    }

    /// Returns whether it is still unknown if the service supports conditions.
    pub(super) fn conditions_are_open(&self) -> bool {
        !self.conditions.shown.load(Ordering::Relaxed)
    }

    /// A request with these headers was not refused for them.
    pub(super) fn accepted(&self, sent: Extras) {
        if sent.condition {
            self.conditions.shown.store(true, Ordering::Relaxed);
        }
    }

    /// Takes a lesson from a refusal. Returns whether the request may be sent again with fewer headers.
    pub(super) fn learn<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>, sent: Extras) -> bool {
        match refused(error, sent) {
            Some(Refused::Condition) => self.conditions.give_up(),
            Some(Refused::Checksum) => self.checksums.give_up(),
            None => false,
        }
    }
}

/// A header that a service does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Condition,
    Checksum,
}

/// The header that is the reason of a refusal.
pub(super) fn refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, sent: Extras) -> Option<Refused> {
    let SdkError::ServiceError(said) = error else { return None };
    let text = [said.err().code(), said.err().message()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    why(status(error)?, &text, sent)
}

fn why(status: u16, text: &str, sent: Extras) -> Option<Refused> {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // A checksum that was compared and differs does not mean that checksums are unsupported.
    let compared = says(&["baddigest", "mismatch", "did not match", "does not match"]);
    let about_checksums = says(&["checksum", "crc32"]) && !compared;
    let about_conditions = says(&["if-none-match", "conditional", "precondition"]);
    match status {
        400 | 501 if sent.checksum && about_checksums => Some(Refused::Checksum),
        400 | 501 if sent.condition && about_conditions => Some(Refused::Condition),
        // Which one it is, the answer does not say: one after the other.
        501 if sent.condition => Some(Refused::Condition),
        501 if sent.checksum => Some(Refused::Checksum),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_header_follows_from_the_answer() {
        let both = Extras { condition: true, checksum: true };
        let neither = Extras { condition: false, checksum: false };
        let vague = "NotImplemented A header you provided implies functionality that is not implemented";
        assert_eq!(why(501, vague, both), Some(Refused::Condition));
        assert_eq!(why(501, vague, Extras { condition: false, ..both }), Some(Refused::Checksum));
        assert_eq!(why(501, vague, neither), None);
        assert_eq!(why(400, "InvalidArgument Unsupported header x-amz-checksum-crc32c", both), Some(Refused::Checksum));
        assert_eq!(why(501, "NotImplemented Checksum algorithm", both), Some(Refused::Checksum));
        assert_eq!(why(400, "InvalidRequest If-None-Match is not supported", both), Some(Refused::Condition));
        assert_eq!(why(400, "BadDigest The CRC32C checksum you specified did not match", both), None);
        assert_eq!(why(412, "PreconditionFailed At least one of the pre-conditions", both), None);
        assert_eq!(why(400, "InvalidArgument", both), None);
    }

    #[test]
    fn a_grant_that_decides_is_not_overruled() {
        let grant = BucketGrant { conditional_writes: Some(true), checksums: Some(false), ..BucketGrant::of("r", "b") };
        let habits = Habits::of(&grant);
        assert_eq!(habits.extras(true, true), Extras { condition: true, checksum: false });
        assert!(!habits.conditions.give_up() && habits.conditions.on());
        let free = Habits::of(&BucketGrant::of("r", "b"));
        assert!(free.conditions.give_up() && !free.conditions.on() && free.checksums.on());
    }
}
