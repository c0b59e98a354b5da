//! Giving a snapshot, or a part of it.
//!
//! The response head is written once the first backend has opened the object; a later failure can only be reported by
//! closing the connection. Every byte is verified before it is sent. The entity tag is the id: equal tags mean equal
//! bytes, for ever.
//!
//! One range is served, as RFC 9110 defines. A `Range` of another unit is ignored; a malformed one, one past the end, and
//! several ranges are answered with 416: a client that wants a range does not want all of a large image instead.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream as _;
use http_body::{Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;

use super::extract::Named;
use super::metrics::Running;
use super::problem::{Details, Problem};
use super::shared::Shared;
use tidelock::types::{self, ByteRange, Error, SnapshotId};

/// The source backend of the bytes.
const SOURCE: HeaderName = HeaderName::from_static("tidelock-source");

/// Read a snapshot
///
/// Or a range of it, with `Range: bytes=A-B` (both inclusive), `bytes=A-` or `bytes=-N`. Every byte is verified before it is
/// sent; if some cannot be read, the connection is closed.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}", tag = "snapshots", params(super::described::Id, super::described::Conditions),
    responses(
        (status = 200, description = "The whole snapshot", body = inline(super::described::Binary), content_type = "application/octet-stream"),
        (status = 206, description = "The requested range", body = inline(super::described::Binary), content_type = "application/octet-stream"),
        (status = 304, description = "Not modified"),
        (status = 416, description = "The range cannot be satisfied", body = Details, content_type = "application/problem+json"),
        (status = "default", description = "The operation failed", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, tag) = match found(&shared, &id, &headers).await? {
        Found::Unchanged(response) => return Ok(response),
        Found::Snapshot(id, tag) => (id, tag),
    };
    let image = shared.host.open(id).await?;
    let size = image.size();
    let part = wanted(&headers, &tag, size)?;
    let running = shared.metrics.begin("retrieve");
    let retrieved = match image.stream(part).await {
        Ok(retrieved) => retrieved,
        Err(error) => {
            running.end(Some(&error));
            return Err(error.into());
        }
    };
    let length = retrieved.size;
    let source = HeaderValue::from_str(&retrieved.source);
    let body = Body::new(Download { body: retrieved.body, running: Some(running), sent: shared.metrics.sent() });
    let mut response = body.into_response();
    describe(response.headers_mut(), tag, length);
    if let Ok(source) = source {
        response.headers_mut().insert(SOURCE, source);
    }
    if let Some(part) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = part.start + length.saturating_sub(1);
        let range = format!("bytes {}-{last}/{size}", part.start);
        if let Ok(range) = HeaderValue::from_str(&range) {
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

/// The size of a snapshot
///
/// Answered from the catalogue, without access to a backend.
#[utoipa::path(
    head, path = "/v1/snapshots/{id}", tag = "snapshots", params(super::described::Id),
    responses(
        (status = 200, description = "The snapshot exists; `Content-Length` is its size"),
        (status = "default", description = "The operation failed"),
    )
)]
pub(super) async fn head(
    State(shared): State<Shared>,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, tag) = match found(&shared, &id, &headers).await? {
        Found::Unchanged(response) => return Ok(response),
        Found::Snapshot(id, tag) => (id, tag),
    };
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), tag, shared.host.stat(id).await?.size);
    Ok(response)
}

/// A requested snapshot.
enum Found {
    /// The client has it already.
    Unchanged(Response),
    Snapshot(SnapshotId, HeaderValue),
}

async fn found(shared: &Shared, id: &str, headers: &HeaderMap) -> Result<Found, Problem> {
    let id = shared.host.find(id).await?;
    let tag = tag(id);
    Ok(match has_already(headers, &tag) {
        true => Found::Unchanged((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response()),
        false => Found::Snapshot(id, tag),
    })
}

fn describe(headers: &mut HeaderMap, tag: HeaderValue, length: u64) {
    headers.insert(ETAG, tag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

fn tag(id: SnapshotId) -> HeaderValue {
    // An id has letters and digits alone.
    HeaderValue::from_str(&format!("\"{id}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Returns whether `If-None-Match` names the tag. Weak ones count here (RFC 9110, 13.1.2).
fn has_already(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let named = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = named.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|named| named == "*" || Some(named.strip_prefix("W/").unwrap_or(named)) == tag.to_str().ok())
}

/// Returns the requested range; `None` for the whole snapshot.
fn wanted(headers: &HeaderMap, tag: &HeaderValue, size: u64) -> Result<Option<ByteRange>, Problem> {
    let Some(range) = headers.get(RANGE) else { return Ok(None) };
    if headers.get(IF_RANGE).is_some_and(|of| of != tag) {
        return Ok(None);
    }
    let text = range.to_str().unwrap_or("bytes=?");
    let unit = text.split('=').next().unwrap_or_default().trim();
    if !unit.eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    let unsatisfied = |why: &str| {
        let total = HeaderValue::from_str(&format!("bytes */{size}")).unwrap_or(HeaderValue::from_static("bytes */*"));
        let error = Error::invalid(format!("the range cannot be satisfied: {why}"))
            .hint(format!("write bytes=A-B, bytes=A- or bytes=-N; the snapshot has {size} bytes"));
        Problem::from(error).status(StatusCode::RANGE_NOT_SATISFIABLE).header(CONTENT_RANGE, total)
    };
    let parsed = http_range_header::parse_range_header(text).map_err(|_| unsatisfied("it is malformed"))?;
    let parts = parsed.validate(size).map_err(|_| unsatisfied("it is past the end"))?;
    match parts.as_slice() {
        [part] => Ok(Some(ByteRange { start: *part.start(), end: Some(part.end().saturating_add(1)) })),
        _ => Err(unsatisfied("only one range is supported")),
    }
}

/// A response body.
struct Download {
    body: types::Body,
    running: Option<Running>,
    sent: Counter,
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match std::task::ready!(Pin::new(&mut self.body).poll_next(cx)) {
            Some(Ok(bytes)) => {
                self.sent.inc_by(bytes.len() as u64);
                if self.body.remaining() == Some(0)
                    && let Some(running) = self.running.take()
                {
                    // hyper knows the length and does not poll for the end.
                    running.end(None);
                }
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a download failed");
                if let Some(running) = self.running.take() {
                    running.end(Some(&error));
                }
                Some(Err(error))
            }
            None => {
                if let Some(running) = self.running.take() {
                    running.end(None);
                }
                None
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(range: &str, size: u64) -> Result<Option<ByteRange>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(range).unwrap());
        let tag = HeaderValue::from_static("\"x\"");
        wanted(&headers, &tag, size).map_err(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn ranges_are_read_as_http_means_them() {
        let part = |start, end| Ok(Some(ByteRange { start, end: Some(end) }));
        assert_eq!(with("bytes=0-0", 10), part(0, 1));
        assert_eq!(with("bytes=3-7", 10), part(3, 8));
        assert_eq!(with("bytes=3-", 10), part(3, 10));
        assert_eq!(with("bytes=3-70", 10), part(3, 10));
        assert_eq!(with("bytes=-4", 10), part(6, 10));
        assert_eq!(with("bytes=-40", 10), part(0, 10));
        assert_eq!(with("lines=1-2", 10), Ok(None));
        for wrong in ["bytes=10-", "bytes=-0", "bytes=7-3", "bytes=a-b", "bytes=", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(with(wrong, 10), Err(416), "{wrong}");
        }
        assert_eq!(with("bytes=0-", 0), Err(416));
        assert_eq!(with("bytes=18446744073709551615-", 10), Err(416));
        assert_eq!(with("bytes=0-18446744073709551615", 10), part(0, 10));
    }

    #[test]
    fn tags_are_compared() {
        let tag = HeaderValue::from_static("\"x\"");
        let has = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(text));
            has_already(&headers, &tag)
        };
        assert!(has("\"x\"") && has("\"a\", W/\"x\"") && has("*"));
        assert!(!has("x") && !has("\"xx\"") && !has(""));
    }
}
