//! Failures as problem details (RFC 9457): the same as `error` of the command line, and a status.
//!
//! | kind | status |
//! | --- | --- |
//! | `invalid` | 400; 502 if an object is not what was stored |
//! | `denied` | 403; 502 if a backend refuses the daemon |
//! | `not-found` | 404; 502 if a backend lost an object |
//! | `conflict`, `archived` | 409; with `Retry-After` during a restore |
//! | `rate-limited` | 429, with `Retry-After` |
//! | `unsupported` | 501 |
//! | `corrupt`, `trapped`, `limit` | 502: the fault is behind the daemon |
//! | `unavailable`, `cancelled` | 503 |
//! | `timed-out` | 504; 408 if the client stalled |
//! | `insufficient-balance`; `unavailable` for want of space on this machine | 507 |
//! | `other` | 500 |

use std::io;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use tidelock::types::{ArchiveState, Error, ErrorKind, Fault};
use tidelock::{ColdStorage, LeftBehind};

/// The failure of a request, to be sent to the client.
#[derive(Debug)]
pub(super) struct Problem {
    error: Error,
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The failure of a request, as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details {
    /// Always `about:blank`: `kind` distinguishes failures.
    #[serde(rename = "type")]
    about: &'static str,
    /// The meaning of the status.
    title: &'static str,
    /// The status of the response.
    status: u16,
    /// The error message.
    detail: String,
    /// The kind of failure: a case of `error` in the interface of adapters, or `trapped`, `limit`, `timed-out`
    /// or `cancelled`.
    kind: &'static str,
    /// The backend that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    /// The operation or the stage of a swap that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    /// A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The payment that a backend requires, in its smallest unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_due: Option<Payment>,
    /// The state of the snapshot in cold storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<ColdStorage>,
    /// What a store that failed has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<LeftBehind>,
}

/// A payment that a backend requires.
#[derive(Debug, Serialize, ToSchema)]
struct Payment {
    /// The minimum amount, as a decimal number.
    amount: Option<String>,
    /// The unit, for example `nanoton`.
    unit: Option<String>,
    /// The account to pay, if it is not the configured one.
    account: Option<String>,
}

impl Problem {
    /// Returns the problem with another status than that of its kind.
    #[must_use]
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Returns the problem with a header field.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let wait = match error.kind() {
            ErrorKind::RateLimited(wait) => Some(wait.map_or(1, |wait| wait.as_secs().max(1))),
            ErrorKind::Archived(ArchiveState::Restoring(Some(wait))) => Some(wait.as_secs().max(1)),
            _ => None,
        };
        Self { status: status_of(&error), header: wait.map(|seconds| (RETRY_AFTER, seconds.into())), error }
    }
}

impl Problem {
    fn details(&self) -> Details {
        let error = &self.error;
        let payment_due = match error.kind() {
            ErrorKind::InsufficientBalance(due) => {
                Some(Payment { amount: due.amount.clone(), unit: due.unit.clone(), account: due.account.clone() })
            }
            _ => None,
        };
        Details {
            about: "about:blank",
            title: title(self.status),
            status: self.status.as_u16(),
            detail: error.message().to_owned(),
            kind: error.kind().name(),
            backend: error.backend().map(str::to_owned),
            operation: error.operation(),
            hint: error.advice().map(str::to_owned),
            payment_due,
            archive: ColdStorage::of(error),
            left: LeftBehind::of(error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Texts and numbers alone: this cannot fail.
        let json = serde_json::to_vec(&self.details()).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Failure")
}

fn status_of(error: &Error) -> StatusCode {
    let behind = error.backend().is_some();
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Denied if error.fault() == Fault::Backend => StatusCode::BAD_GATEWAY,
        ErrorKind::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::InsufficientBalance(_) => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::NotFound if behind => StatusCode::BAD_GATEWAY,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict | ErrorKind::Archived(_) => StatusCode::CONFLICT,
        ErrorKind::Unavailable if is_full(error) => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unavailable | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Corrupt | ErrorKind::Trapped | ErrorKind::Limit => StatusCode::BAD_GATEWAY,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::TimedOut if behind => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns whether a disk of this machine was full.
fn is_full(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<io::Error>() {
            return matches!(found.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        }
        cause = found.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderMap;

    use super::*;
    use tidelock::types::PaymentDue;

    fn answer(error: Error) -> (u16, HeaderMap, serde_json::Value) {
        let response = Problem::from(error).into_response();
        let (head, body) = response.into_parts();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(axum::body::to_bytes(body, 10_000)).unwrap();
        (head.status.as_u16(), head.headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_status_follows_the_kind_and_where_it_happened() {
        let status = |error: Error| answer(error).0;
        assert_eq!(status(Error::not_found("x")), 404);
        assert_eq!(status(Error::not_found("x").on_backend("b")), 502);
        assert_eq!(status(Error::timed_out("x")), 408);
        assert_eq!(status(Error::timed_out("x").on_backend("b")), 504);
        assert_eq!(status(Error::denied("x").on_backend("b")), 403);
        assert_eq!(status(Error::denied("expired keys").on_backend("b").during("retrieve")), 502);
        assert_eq!(status(Error::invalid("past the end").on_backend("b").during("retrieve")), 502);
        assert_eq!(status(Error::new(ErrorKind::Trapped, "x")), 502);
        assert_eq!(status(Error::io("x", io::ErrorKind::StorageFull.into())), 507);
        assert_eq!(status(Error::unavailable("x")), 503);
        let due = PaymentDue { amount: Some("5".into()), unit: Some("nanoton".into()), account: None };
        let (status, _, body) = answer(Error::new(ErrorKind::InsufficientBalance(due), "x"));
        assert_eq!((status, &body["payment_due"]["amount"]), (507, &serde_json::json!("5")));
    }

    #[test]
    fn a_problem_says_what_the_command_line_says() {
        let error = Error::new(ErrorKind::RateLimited(Some(Duration::from_secs(7))), "slow down");
        let (status, headers, body) = answer(error.on_backend("cloud").during("store").hint("wait"));
        assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "7"));
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(
            body,
            serde_json::json!({
                "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "slow down",
                "kind": "rate-limited", "backend": "cloud", "operation": "store", "hint": "wait"
            })
        );
    }
}
