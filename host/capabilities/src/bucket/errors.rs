//! Errors of a bucket.
//!
//! Codes take precedence over statuses, which are less specific; a status decides if there is no known code (HEAD).
//! Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::secrets::Secrets;
use crate::transport::own;
use tidelock_types::{ArchiveState, Error, ErrorKind, PaymentDue};

/// The most characters of a server's own words that are passed on.
const LONGEST_REASON: usize = 300;

/// Our error for one of the SDK's, during something in words (`"sending part 3"`). Holds nothing of the request,
/// and none of the secrets if the server says one.
pub(super) fn explain<E>(
    doing: &str,
    error: &SdkError<E, HttpResponse>,
    since_epoch: Duration,
    secrets: &Secrets,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            let (code, message) = (refused.err().code(), refused.err().message());
            from_reply(doing, status, (code, message), retry_after(error, since_epoch), secrets)
        }
        SdkError::TimeoutError(_) => Error::unavailable(format!("{doing}: no answer in time")),
        SdkError::ConstructionFailure(_) => Error::invalid(format!("{doing}: {}", told(cause(error), secrets))),
        _ => {
            let status = status(error).filter(|status| *status >= 300);
            let status = status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
            let own = own(error);
            let kind = own.as_ref().map_or(ErrorKind::Unavailable, |own| own.kind().clone());
            let failed = Error::new(kind, format!("{doing}: {}{status}", told(cause(error), secrets)));
            match own.as_ref().and_then(Error::advice) {
                Some(advice) => failed.hint(advice),
                None => failed,
            }
        }
    }
}

/// Returns the pause that the server requests: `Retry-After`, in seconds or as a date (RFC 9110 §10.2.3).
pub(super) fn retry_after<E>(error: &SdkError<E, HttpResponse>, since_epoch: Duration) -> Option<Duration> {
    let raw = match error {
        SdkError::ServiceError(refused) => refused.raw(),
        SdkError::ResponseError(broken) => broken.raw(),
        _ => return None,
    };
    delay(raw.headers().get("retry-after")?, since_epoch)
}

fn delay(text: &str, since_epoch: Duration) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean a wait without end, not an error.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    Some(Duration::from_secs(u64::try_from(date.secs()).unwrap_or(0)).saturating_sub(since_epoch))
}

/// The code of a refusal, if it was one.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    match error {
        SdkError::ServiceError(refused) => refused.err().code(),
        _ => None,
    }
}

/// The status of a reply, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    match error {
        SdkError::ServiceError(refused) => Some(refused.raw().status().as_u16()),
        SdkError::ResponseError(broken) => Some(broken.raw().status().as_u16()),
        _ => None,
    }
}

fn from_reply(
    doing: &str,
    status: u16,
    (code, message): (Option<&str>, Option<&str>),
    retry_after: Option<Duration>,
    secrets: &Secrets,
) -> Error {
    let kind = kind(status, code, retry_after);
    let said: String = match (code, message) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{message} ({code}, HTTP {status})"),
        (Some(code), _) => format!("{code} (HTTP {status})"),
        (None, _) => format!("HTTP {status}"),
    };
    let error = Error::new(kind, format!("{doing}: {}", told(said, secrets)));
    match code {
        Some("NoSuchBucket") => error.hint("create the bucket, or correct its name in the grant"),
        Some("RequestTimeTooSkewed") => error.hint("set this machine's clock"),
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => error.hint("correct the region in the grant"),
        Some("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken") => {
            error.hint("correct the credentials of the grant")
        }
        // A HEAD has no reason in its reply.
        None if status == 400 => {
            error.hint("check the region and the credentials of the grant; a token may have expired")
        }
        _ => error,
    }
}

fn kind(status: u16, code: Option<&str>, retry_after: Option<Duration>) -> ErrorKind {
    match code.unwrap_or_default() {
        "NoSuchKey" | "NotFound" | "NoSuchUpload" | "NoSuchVersion" => return ErrorKind::NotFound,
        // Not `not-found`: no object will ever be found there until the configuration is fixed.
        "NoSuchBucket" | "PermanentRedirect" | "AuthorizationHeaderMalformed" => return ErrorKind::Invalid,
        // Amazon's status for these is 400.
        "ExpiredToken" | "InvalidToken" => return ErrorKind::Denied,
        "InvalidObjectState" | "ObjectNotInActiveTierError" => return ErrorKind::Archived(ArchiveState::Archived),
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => {
            return ErrorKind::RateLimited(retry_after);
        }
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => return ErrorKind::Corrupt,
        "RequestTimeout" | "IncompleteBody" => return ErrorKind::Unavailable,
        "PreconditionFailed" | "ConditionalRequestConflict" | "OperationAborted" => return ErrorKind::Conflict,
        "NotImplemented" => return ErrorKind::Unsupported,
        _ => {}
    }
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited(retry_after),
        503 if retry_after.is_some() => ErrorKind::RateLimited(retry_after),
        402 | 507 => ErrorKind::InsufficientBalance(PaymentDue::default()),
        501 => ErrorKind::Unsupported,
        408 | 500.. => ErrorKind::Unavailable,
        400..500 => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}

/// Returns the innermost cause of a failure that was not a reply ("connection refused"); outer ones say "dispatch failure".
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    told(cause(error), &Secrets::default())
}

fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    text.find(" (os error ").map_or(text.as_str(), |at| &text[..at]).to_owned()
}

/// A text of a server's as it is passed on: without control characters, which could be amid a secret, then without
/// secrets, then truncated, which could leave a part of one.
fn told(text: String, secrets: &Secrets) -> String {
    let printable = text.chars().filter(|c| !c.is_control()).collect();
    secrets.hidden_in(printable).chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_become_kinds() {
        let kind = |status, code| super::kind(status, code, Some(Duration::from_secs(7)));
        assert_eq!(kind(404, Some("NoSuchKey")), ErrorKind::NotFound);
        assert_eq!(kind(404, None), ErrorKind::NotFound);
        assert_eq!(kind(404, Some("NoSuchBucket")), ErrorKind::Invalid);
        assert_eq!(kind(403, Some("AccessDenied")), ErrorKind::Denied);
        assert_eq!(kind(400, Some("ExpiredToken")), ErrorKind::Denied);
        assert_eq!(kind(403, Some("InvalidObjectState")), ErrorKind::Archived(ArchiveState::Archived));
        assert_eq!(kind(403, Some("ObjectNotInActiveTierError")), ErrorKind::Archived(ArchiveState::Archived));
        assert_eq!(kind(503, Some("SlowDown")), ErrorKind::RateLimited(Some(Duration::from_secs(7))));
        assert_eq!(kind(503, None), ErrorKind::RateLimited(Some(Duration::from_secs(7))));
        assert_eq!(super::kind(503, None, None), ErrorKind::Unavailable);
        assert_eq!(super::kind(503, Some("ServiceUnavailable"), None), ErrorKind::Unavailable);
        assert_eq!(kind(429, None), ErrorKind::RateLimited(Some(Duration::from_secs(7))));
        assert_eq!(kind(412, None), ErrorKind::Conflict);
        assert_eq!(kind(409, Some("ConditionalRequestConflict")), ErrorKind::Conflict);
        assert_eq!(kind(416, Some("InvalidRange")), ErrorKind::Invalid);
        assert_eq!(kind(507, None), ErrorKind::InsufficientBalance(PaymentDue::default()));
        assert_eq!(kind(400, Some("BadDigest")), ErrorKind::Corrupt);
        assert_eq!(kind(500, Some("InternalError")), ErrorKind::Unavailable);
    }

    #[test]
    fn a_pause_is_in_seconds_or_a_date() {
        let now = Duration::from_secs(784_111_777);
        assert_eq!(delay(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(delay("99999999999999999999999", now), Some(Duration::from_secs(u32::MAX.into())));
        assert_eq!(delay("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(delay("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(delay(wrong, now), None, "{wrong}");
        }
    }

    #[test]
    fn the_servers_words_are_passed_on_cut() {
        let long = "x".repeat(5000);
        let error = from_reply("sending part 3", 403, (Some("AccessDenied"), Some(&long)), None, &Secrets::default());
        assert!(error.to_string().starts_with("sending part 3: xxx"));
        assert!(error.to_string().len() < 400);
        let error = from_reply("reading", 403, (Some("SignatureDoesNotMatch"), None), None, &Secrets::default());
        assert_eq!(error.to_string(), "reading: SignatureDoesNotMatch (HTTP 403)");
        assert!(error.advice().is_some());
    }
}
