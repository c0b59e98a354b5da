//! The `http` capability over reqwest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use reqwest::Method;
use url::Url;

use super::headers::{self, Credential};
use super::{Http, Part, Request, Response};
use crate::egress::{Names, Origin, PublicResolver, SystemNames};
use crate::grant::{HeaderLimits, HttpGrant};
use crate::stall::{self, Clock};
use crate::tls;
use tidelock_types::{Body, Error, Result};

/// The largest piece that is passed to the connection at once. Stalls are detected by pieces, so they must be small
/// compared with the bytes that a slow line moves within the stall timeout.
const PIECE: usize = 256 << 10;

/// Sends the requests of one grant, over one pool of connections.
pub struct HttpClient {
    client: reqwest::Client,
    origins: Vec<Origin>,
    private_addresses: bool,
    credential: Option<Credential>,
    headers: HeaderLimits,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

impl HttpClient {
    /// A client for a grant. Connects to nothing yet.
    ///
    /// # Errors
    /// `invalid` for a grant that makes no sense; `unavailable` if the system has no trusted certificates and an origin
    /// needs them.
    pub fn open(grant: &HttpGrant) -> Result<Self> {
        Self::with_names(grant, Arc::new(SystemNames))
    }

    /// Creates a client with another resolver. Its addresses are checked too.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_names(grant: &HttpGrant, names: Arc<dyn Names>) -> Result<Self> {
        grant.validate()?;
        let mut tls =
            if grant.origins.iter().any(Origin::is_https) { tls::client_config()? } else { tls::trusting_nobody()? };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(PublicResolver::new(names, grant.private_addresses))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(grant.connect_timeout)
            .http1_max_headers(grant.headers.count)
            .http2_max_header_list_size(u32::try_from(grant.headers.bytes).unwrap_or(u32::MAX))
            .build()
            .map_err(|error| Error::other(format!("cannot set up the HTTP client: {}", reason(&error))))?;
        Ok(Self {
            client,
            origins: grant.origins.clone(),
            private_addresses: grant.private_addresses,
            credential: grant.credentials.as_ref().map(Credential::new).transpose()?,
            headers: grant.headers,
            connect_timeout: grant.connect_timeout,
            stall_timeout: grant.stall_timeout,
        })
    }

    /// The URL of a request, if the grant allows it.
    fn check_url(&self, text: &str) -> Result<Url> {
        let url = Url::parse(text)
            .map_err(|error| Error::invalid(format!("`{}` is not a URL: {error}", text.escape_debug())))?;
        let origin = Origin::of(&url)?;
        if !self.origins.contains(&origin) {
            return Err(Error::denied(format!("{origin} is not among the grant's origins"))
                .hint(format!("add \"{origin}\" to the grant's origins to allow it")));
        }
        origin.check_literal(self.private_addresses)?;
        Ok(url)
    }

    async fn exchange(&self, request: Request) -> Result<Response> {
        let url = self.check_url(&request.url)?;
        let method = check_method(&request.method)?;
        let headers = headers::of_request(&request.headers, self.headers, self.credential.as_ref())?;
        let clock = Clock::new();
        let mut builder = self.client.request(method, url).headers(headers);
        if let Some(body) = assemble(request.body, request.size)? {
            if let Some(size) = body.remaining() {
                builder = builder.header(http::header::CONTENT_LENGTH, size);
            }
            let body = confirmed(body).await?.chunks_of_at_most(PIECE);
            let body = stall::winding(body, clock.clone());
            builder = builder.body(reqwest::Body::wrap_stream(body));
        }
        let limit = self.stall_timeout.max(self.connect_timeout);
        let response = clock.watch(limit, builder.send()).await?.map_err(|error| self.explain(&error))?;
        headers::check_framing(response.headers())?;
        let status = response.status().as_u16();
        let headers = headers::of_response(response.headers(), self.headers, self.credential.as_ref())?;
        let size = response.content_length();
        let body = response.bytes_stream().map(|chunk| chunk.map_err(|error| broken(&error)));
        Ok(Response { status, headers, body: stall::watched(Body::new(body, size), self.stall_timeout) })
    }

    /// Why a request had no response.
    fn explain(&self, error: &reqwest::Error) -> Error {
        if let Some(own) = own(error) {
            return own;
        }
        if error.is_builder() {
            return Error::invalid(format!("the request is invalid: {}", reason(error)));
        }
        if error.is_connect() && error.is_timeout() {
            let seconds = self.connect_timeout.as_secs_f32();
            return Error::unavailable(format!("no connection within {seconds} s"));
        }
        Error::unavailable(reason(error))
    }
}

impl Http for HttpClient {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(self.exchange(request))
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("origins", &self.origins).finish_non_exhaustive()
    }
}

fn check_method(text: &str) -> Result<Method> {
    match text {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "DELETE" => Ok(Method::DELETE),
        "PATCH" => Ok(Method::PATCH),
        other => Err(Error::invalid(format!("the method `{}` is not supported", other.escape_debug()))
            .hint("use GET, HEAD, POST, PUT, DELETE or PATCH, in upper case")),
    }
}

/// Joins the parts to one body, with a size if one was given or every part has one.
fn assemble(parts: Vec<Part>, size: Option<u64>) -> Result<Option<Body>> {
    if parts.is_empty() {
        return match size {
            None | Some(0) => Ok(None),
            Some(size) => Err(Error::invalid(format!("a size of {size} bytes without a body"))),
        };
    }
    let bodies = parts.into_iter().map(|part| match part {
        Part::Bytes(bytes) => Body::from_bytes(bytes),
        Part::Body(body) => body,
    });
    let whole = Body::concat(bodies.collect());
    match (size, whole.remaining()) {
        (Some(said), Some(known)) if said != known => {
            Err(Error::invalid(format!("a size of {said} bytes for a body of {known}")))
        }
        (Some(said), None) => Ok(Some(Body::new(whole, Some(said)))),
        _ => Ok(Some(whole)),
    }
}

/// Holds the last bytes of an announced size back until the source has ended there. A connection stops
/// polling once it has sent the announced length, and would treat a body that is too long, or fails at the last moment,
/// as complete.
async fn confirmed(mut body: Body) -> Result<Body> {
    let size = body.remaining();
    if size == Some(0) {
        body.next().await.transpose()?;
        return Ok(Body::from_bytes(Bytes::new()));
    }
    let stream = futures::stream::unfold(body, |mut body| async move {
        let chunk = body.next().await?;
        match chunk {
            Ok(last) if body.remaining() == Some(0) => match body.next().await {
                Some(Err(error)) => Some((Err(error), body)),
                _ => Some((Ok(last), body)),
            },
            other => Some((other, body)),
        }
    });
    Ok(Body::new(stream, size))
}

/// Returns the error that ended a response early.
fn broken(error: &reqwest::Error) -> Error {
    own(error).unwrap_or_else(|| Error::unavailable(format!("the response ended early: {}", reason(error))))
}

/// Our own error, if it was one of ours (a request's body, the resolver) that made the client fail.
fn own(error: &reqwest::Error) -> Option<Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<Error>()).map(Error::duplicate)
}

/// Returns the innermost causes. Outer ones only say "error sending request", and contain the URL, which may hold a token.
fn reason(error: &reqwest::Error) -> String {
    let texts: Vec<String> = causes(error).skip(1).map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => "the request failed".to_owned(),
        [one] => one.clone(),
        [.., outer, inner] if outer.contains(inner.as_str()) => outer.clone(),
        [.., outer, inner] => format!("{outer}: {inner}"),
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
