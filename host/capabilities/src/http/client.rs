//! The `http` capability over reqwest.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use reqwest::Method;
use url::Url;

use super::headers::{self, Credential};
use super::{Http, Part, Request, Response};
use crate::egress::{Names, Origin, SystemNames};
use crate::grant::{ConnectionSettings, HttpGrant};
use crate::stall::{self, Clock};
use crate::transport::{self, BehindProxy};
use tidelock_types::{Body, Error, Result, owned_if_sparse_of_http};

/// The largest piece that is passed to the connection at once. Stalls are detected by pieces, so they must be small
/// compared with the bytes that a slow line moves within the stall timeout.
const PIECE: usize = 256 << 10;

/// Sends the requests of one grant, over one pool of connections.
pub struct HttpClient {
    client: reqwest::Client,
    behind_proxy: BehindProxy,
    origins: Vec<Origin>,
    credential: Option<Credential>,
    connection: ConnectionSettings,
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
        let settings = transport::Settings {
            encrypted: grant.origins.iter().any(Origin::is_https),
            http1_only: false,
            connection: &grant.connection,
        };
        let client = transport::client(&settings, Arc::clone(&names))?;
        Ok(Self {
            client,
            behind_proxy: BehindProxy::of(&grant.connection, names),
            origins: grant.origins.clone(),
            credential: grant.credentials.as_ref().map(Credential::new).transpose()?,
            connection: grant.connection.clone(),
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
        origin.check_literal(self.connection.private_addresses)?;
        Ok(url)
    }

    async fn exchange(&self, request: Request) -> Result<Response> {
        let url = self.check_url(&request.url)?;
        self.behind_proxy.check(&url).await?;
        let method = check_method(&request.method)?;
        let headers = headers::of_request(&request.headers, self.connection.headers, self.credential.as_ref())?;
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
        let limit = self.connection.stall_timeout.max(self.connection.connect_timeout);
        let response = clock
            .watch(limit, builder.send())
            .await?
            .map_err(|error| transport::explain(&error, self.connection.connect_timeout))?;
        headers::check_framing(response.headers())?;
        let status = response.status().as_u16();
        let headers = headers::of_response(response.headers(), self.connection.headers, self.credential.as_ref())?;
        let size = response.content_length();
        let body = response.bytes_stream().map(|chunk| match chunk {
            Ok(chunk) => Ok(owned_if_sparse_of_http(chunk)),
            Err(error) => Err(transport::broken(&error)),
        });
        Ok(Response { status, headers, body: stall::watched(Body::new(body, size), self.connection.stall_timeout) })
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
    Body::concat(bodies.collect()).with_size(size).map(Some)
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
