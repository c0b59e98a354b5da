//! Errors: short constructors, and the mapping of HTTP replies.
//!
//! [`Error`] is the WIT variant itself. An adapter says *what happened*; what is done about it (wait, pay, go elsewhere)
//! follows from the case alone and is the host's business.

use std::time::UNIX_EPOCH;

use crate::http::Response;
use crate::{PaymentDue, RateLimit, clock};

pub use crate::bindings::tidelock::storage::types::Error;

/// The most bytes of a reply that are kept as the reason of an error.
pub const MAX_REASON_BYTES: usize = 1024;

impl Error {
    /// There is no such object.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self::NotFound(reason.into())
    }

    /// Credentials, grant or policy forbid it.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::Denied(reason.into())
    }

    /// The request makes no sense, now and later.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }

    /// It exists already, or changed in the meantime.
    pub fn conflict(reason: impl Into<String>) -> Self {
        Self::Conflict(reason.into())
    }

    /// The backend cannot be reached or cannot serve now.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable(reason.into())
    }

    /// The backend gave bytes that are not what was stored.
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt(reason.into())
    }

    /// The adapter cannot do this at all.
    pub fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }

    /// Anything else.
    pub fn other(reason: impl Into<String>) -> Self {
        Self::Other(reason.into())
    }

    /// Too many requests; `retry_after_ms` if the backend said how long to wait.
    pub fn rate_limited(retry_after_ms: Option<u64>, reason: impl Into<String>) -> Self {
        Self::RateLimited(RateLimit { retry_after_ms, reason: reason.into() })
    }

    /// The backend requires a payment first, and did not report the amount.
    pub fn insufficient_balance(reason: impl Into<String>) -> Self {
        Self::InsufficientBalance(PaymentDue { amount: None, unit: None, account: None, reason: reason.into() })
    }

    /// Returns whether this is `not-found`.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Returns the error for a failed reply, with at most 1 KiB of its body as the reason; the rest is not read.
    /// The mapping is that of [`Error::from_http_status`].
    pub async fn from_response(response: Response) -> Self {
        let status = response.status;
        // Only a rate limit needs the time, and an adapter should not import a clock for nothing.
        let retry_after = match (status, response.header("retry-after")) {
            (429 | 503, Some(value)) => retry_after_ms(value, clock::now()),
            _ => None,
        };
        let reason = printable(&response.body.read_at_most(MAX_REASON_BYTES).await);
        Self::from_http_status(status, retry_after, reason)
    }

    /// Returns the error for an HTTP status: 404 and 410 `not-found`; 401 and 403 `denied`; 409 and 412 `conflict`; 400
    /// and 416 `invalid`; 429, and 503 with a time to wait, `rate-limited`; 507 `insufficient-balance`; every other 5xx
    /// `unavailable`; all else `other`. The reason begins with the status: what follows may be a page of a proxy that
    /// does not tell it.
    pub fn from_http_status(status: u16, retry_after_ms: Option<u64>, reason: String) -> Self {
        let said = ["HTTP status ", &status.to_string()].concat();
        let reason = if reason.is_empty() { said } else { [&said, ": ", &reason].concat() };
        match status {
            404 | 410 => Self::NotFound(reason),
            401 | 403 => Self::Denied(reason),
            409 | 412 => Self::Conflict(reason),
            400 | 416 => Self::Invalid(reason),
            429 => Self::rate_limited(retry_after_ms, reason),
            503 if retry_after_ms.is_some() => Self::rate_limited(retry_after_ms, reason),
            507 => Self::insufficient_balance(reason),
            500..=599 => Self::Unavailable(reason),
            _ => Self::Other(reason),
        }
    }
}

/// Parses a `Retry-After` header. Returns the time to wait, in milliseconds from `now_ms` (milliseconds since 1970):
/// RFC 9110 §10.2.3, seconds or a date in any of the three forms of HTTP. A date that has passed is 0; what is neither
/// is `None`.
pub fn retry_after_ms(value: &str, now_ms: u64) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean a wait without end, not an error.
        return Some(value.parse::<u64>().map_or(u64::MAX, |seconds| seconds.saturating_mul(1000)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at_ms = date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().saturating_mul(1000));
    Some(at_ms.saturating_sub(now_ms))
}

/// Returns printable text from bytes of a backend: at most [`MAX_REASON_BYTES`] bytes of UTF-8, runs of blanks and
/// control characters made one space.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    let cut = &bytes[..bytes.len().min(MAX_REASON_BYTES)];
    for word in String::from_utf8_lossy(cut).split(|c: char| c.is_whitespace() || c.is_control()) {
        let gap = usize::from(!out.is_empty());
        // A replacement character is longer than the byte that it stands for.
        if word.is_empty() || out.len() + gap + word.len() > MAX_REASON_BYTES {
            continue;
        }
        out.extend((gap == 1).then_some(' '));
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT: the example of RFC 9110 §5.6.7.
    const EXAMPLE_MS: u64 = 784_111_777_000;

    #[test]
    fn statuses_have_one_meaning_each() {
        let case = |status| Error::from_http_status(status, Some(5), "why".into());
        assert!(matches!(case(404), Error::NotFound(r) if r == "HTTP status 404: why"));
        assert!(matches!(case(410), Error::NotFound(_)));
        assert!(matches!(case(401), Error::Denied(_)));
        assert!(matches!(case(403), Error::Denied(_)));
        assert!(matches!(case(409), Error::Conflict(_)));
        assert!(matches!(case(412), Error::Conflict(_)));
        assert!(matches!(case(400), Error::Invalid(_)));
        assert!(matches!(case(416), Error::Invalid(_)));
        assert!(matches!(case(429), Error::RateLimited(RateLimit { retry_after_ms: Some(5), .. })));
        assert!(matches!(case(507), Error::InsufficientBalance(PaymentDue { amount: None, .. })));
        for status in [500, 502, 504, 542, 599] {
            assert!(matches!(case(status), Error::Unavailable(_)), "{status}");
        }
        assert!(matches!(case(503), Error::RateLimited(RateLimit { retry_after_ms: Some(5), .. })));
        assert!(matches!(Error::from_http_status(503, None, "why".into()), Error::Unavailable(_)));
        for status in [200, 302, 402, 405, 418, 600] {
            assert!(matches!(case(status), Error::Other(_)), "{status}");
        }
    }

    #[test]
    fn a_silent_refusal_still_has_a_reason() {
        assert!(
            matches!(Error::from_http_status(503, None, String::new()), Error::Unavailable(r) if r == "HTTP status 503")
        );
    }

    #[test]
    fn retry_after_in_seconds() {
        assert_eq!(retry_after_ms("0", 9), Some(0));
        assert_eq!(retry_after_ms(" 120 ", 9), Some(120_000));
        assert_eq!(retry_after_ms("99999999999999999999999", 9), Some(u64::MAX));
        for bad in ["", " ", "-1", "1.5", "soon", "12x"] {
            assert_eq!(retry_after_ms(bad, 9), None, "{bad:?}");
        }
    }

    #[test]
    fn retry_after_as_a_date() {
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(retry_after_ms(date, EXAMPLE_MS - 1_500), Some(1_500), "{date}");
            assert_eq!(retry_after_ms(date, EXAMPLE_MS + 1), Some(0), "{date}");
        }
        assert_eq!(retry_after_ms("Sun, 32 Nov 1994 08:49:37 GMT", 0), None);
    }

    proptest! {
        #[test]
        fn retry_after_takes_any_text(value in ".{0,40}", now in any::<u64>()) {
            let _ = retry_after_ms(&value, now);
        }

        #[test]
        fn reasons_are_short_and_printable(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let reason = printable(&bytes);
            prop_assert!(reason.len() <= MAX_REASON_BYTES);
            prop_assert!(!reason.chars().any(char::is_control));
        }

        #[test]
        fn words_survive(words in prop::collection::vec("[a-z]{1,8}", 1..20)) {
            prop_assert_eq!(printable(words.join("\r\n\t").as_bytes()), words.join(" "));
        }
    }
}
