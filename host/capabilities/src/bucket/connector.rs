//! The connections of the SDK: the host's own, with every reply bounded below the SDK.
//!
//! The SDK reads whatever a server sends into memory before it looks at it. So all replies pass here: only the bytes of an
//! object are a stream without an end of ours; everything else, errors included, ends in `unavailable` at a bound. Heads
//! are bounded as those of the `http` capability are.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use url::Url;

use super::LIST_LIMIT;
use super::apart::arrived;
use super::scan::Scan;
use super::secrets::Secrets;
use crate::grant::HeaderLimits;
use crate::http::check_response;
use crate::transport::{self, BehindProxy};
use tidelock_types::{Error, Result};

/// The most bytes of an entry of a listing: a key of 1,024 bytes, each of which may be escaped as three, and the rest.
const LARGEST_ENTRY: u64 = 4 << 10;
/// The most bytes of a listing beside its entries.
const LISTING_FRAME: u64 = 64 << 10;
/// Entries that a server may return beyond the requested ones. They are not passed on.
const SPARE_ENTRIES: u32 = 8;
/// The most bytes of any other reply that is not an object. Some have white space in front, to keep the connection.
pub(super) const LARGEST_REPLY: u64 = 256 << 10;

/// The most bytes of a page of a listing of so many entries: 4 MiB for 1,000.
pub(super) fn largest_listing(entries: u32) -> u64 {
    LISTING_FRAME + LARGEST_ENTRY * u64::from(entries)
}

/// The allowed content of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// The bytes of an object.
    Object,
    /// A page of a listing, of so many entries.
    Listing(u32),
    /// The result of what the server does while the head of its reply, with status 200, has been sent.
    Late,
    /// Anything else.
    Small,
}

impl Reply {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().split_once('?').map_or("", |(_, query)| query);
        let asks = |name: &str| query.split('&').any(|pair| pair == name || pair.split('=').next() == Some(name));
        match request.method() {
            "GET" if asks("x-id=GetObject") => Self::Object,
            "GET" => {
                let most = query.split('&').find_map(|pair| pair.strip_prefix("max-keys=")?.parse().ok());
                Self::Listing(most.unwrap_or(LIST_LIMIT).min(LIST_LIMIT))
            }
            "POST" if asks("uploadId") => Self::Late,
            "PUT" if request.headers().get("x-amz-copy-source").is_some() => Self::Late,
            _ => Self::Small,
        }
    }

    /// The most bytes of a reply with this status.
    fn bound(self, success: bool) -> Option<u64> {
        match self {
            Self::Object if success => None,
            Self::Listing(entries) if success => Some(largest_listing(entries)),
            _ => Some(LARGEST_REPLY),
        }
    }

    /// Returns the limits of its document; `None` for bytes that are not a document.
    fn scan(self, success: bool) -> Option<Scan> {
        match self {
            Self::Object if success => None,
            Self::Listing(entries) if success => Some(Scan::of(u64::from(entries.saturating_add(SPARE_ENTRIES)))),
            _ => Some(Scan::of(0)),
        }
    }
}

/// Sends the SDK's requests.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) client: reqwest::Client,
    pub(super) headers: HeaderLimits,
    pub(super) connect_timeout: Duration,
    pub(super) secrets: Secrets,
    pub(super) behind_proxy: BehindProxy,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    async fn exchange(self, request: HttpRequest) -> std::result::Result<HttpResponse, ConnectorError> {
        let reply = Reply::of(&request);
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string()).map_err(|error| ConnectorError::user(error.into()))?;
        self.behind_proxy.check(&url).await.map_err(|error| ConnectorError::io(error.into()))?;
        let request = self.client.request(head.method, url).headers(head.headers);
        let response = request.body(reqwest::Body::wrap(body)).send().await.map_err(|error| {
            let told = transport::explain(&error, self.connect_timeout);
            // Whatever a request meant to do, one without a connection has not done it.
            if error.is_connect() { ConnectorError::io(told.into()) } else { ConnectorError::other(told.into(), None) }
        })?;
        let failed = |error: Error| ConnectorError::other(error.into(), None);
        check_response(response.headers(), self.headers).map_err(failed)?;
        let (mut head, body) = http::Response::from(response).into_parts();
        self.secrets.remove_from(&mut head.headers);
        let success = head.status.is_success();
        let body = Bounded { body, left: reply.bound(success), scan: reply.scan(success) };
        let body = match reply {
            Reply::Late if success => {
                let whole = body.collect().await.map_err(failed)?.to_bytes();
                if is_error(&whole) {
                    head.status = http::StatusCode::INTERNAL_SERVER_ERROR;
                }
                SdkBody::from(whole)
            }
            Reply::Listing(_) if success => {
                let whole = body.collect().await.map_err(failed)?.to_bytes();
                arrived().await;
                SdkBody::from(whole)
            }
            _ => SdkBody::from_body_1_x(body),
        };
        HttpResponse::try_from(http::Response::from_parts(head, body))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().exchange(request))
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Returns whether a document is an error: "200 with an error in the body", where the status was sent before the
/// outcome was known. <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
fn is_error(document: &[u8]) -> bool {
    let mut rest = document.trim_ascii_start();
    if rest.starts_with(b"<?xml") {
        let end = rest.windows(2).position(|end| end == b"?>").map_or(rest.len(), |at| at + 2);
        rest = rest[end..].trim_ascii_start();
    }
    rest.strip_prefix(b"<Error").is_some_and(|rest| rest.first().is_none_or(|b| !b.is_ascii_alphanumeric()))
}

/// A reply of at most so many bytes, entries and tags.
struct Bounded {
    body: reqwest::Body,
    left: Option<u64>,
    scan: Option<Scan>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let polled = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(polled.map(|frame| {
            let frame = frame.map_err(|error| transport::broken(&error))?;
            if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| Error::unavailable("the server's reply is longer than any of its kind"))?;
            }
            if let (Some(scan), Some(data)) = (&mut this.scan, frame.data_ref()) {
                scan.pass(data)
                    .ok_or_else(|| Error::unavailable("the server's reply has more in it than was asked for"))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_reply_is_bounded_by_its_request() {
        let reply = |method: &str, uri: &str| {
            let mut request = HttpRequest::get(uri).unwrap();
            request.set_method(method).unwrap();
            Reply::of(&request)
        };
        assert_eq!(reply("GET", "http://h/b/k?x-id=GetObject"), Reply::Object);
        assert_eq!(reply("GET", "http://h/b/k?partNumber=1&x-id=GetObject"), Reply::Object);
        assert_eq!(reply("GET", "http://h/b?list-type=2&prefix=x-id%3DGetObject"), Reply::Listing(1000));
        assert_eq!(reply("GET", "http://h/b?list-type=2&max-keys=7&prefix=max-keys%3D9"), Reply::Listing(7));
        assert_eq!(reply("GET", "http://h/b?uploads&max-keys=99999999"), Reply::Listing(1000));
        assert_eq!(reply("POST", "http://h/b/k?x-id=CompleteMultipartUpload&uploadId=u"), Reply::Late);
        assert_eq!(reply("POST", "http://h/b/k?uploads"), Reply::Small);
        assert_eq!(reply("PUT", "http://h/b/k?x-id=PutObject"), Reply::Small);
        assert_eq!((Reply::Object.bound(true), Reply::Object.bound(false)), (None, Some(LARGEST_REPLY)));
        assert_eq!(
            (Reply::Listing(1000).bound(true), Reply::Listing(1).bound(true), Reply::Listing(1).bound(false)),
            (Some(4_161_536), Some(69_632), Some(LARGEST_REPLY))
        );
    }

    #[test]
    fn errors_behind_a_status_of_200_are_found() {
        for error in [
            "<Error><Code>x</Code></Error>",
            "<?xml version=\"1.0\"?>\n   \n <Error>",
            "<Error/>",
            "  <Error xmlns='x'>",
        ] {
            assert!(is_error(error.as_bytes()), "{error}");
        }
        for other in ["", "<?xml", "<?xml version=\"1.0\"?><CompleteMultipartUploadResult>", "<Errors>", "x <Error>"] {
            assert!(!is_error(other.as_bytes()), "{other}");
        }
    }
}
