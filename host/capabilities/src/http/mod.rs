//! HTTP requests to granted origins: the `http` capability.
//!
//! [`HttpClient`] serves it with reqwest. The host keeps what decides where bytes go and who they are from: it checks the
//! origin, resolves the name and connects to the addresses that it checked ([`super::egress`]), frames the body, adds the
//! credentials, and follows no redirect (a 3xx comes back as it is, to be asked for in a request of its own). It takes
//! no proxy from the environment, keeps no cookies and decodes no `content-encoding`.
//!
//! A status is never an error here: what 404 or 429 means is the adapter's to say.

mod client;
mod headers;
#[cfg(test)]
mod tests;

pub use client::HttpClient;
pub use headers::{MAX_HEADER_BYTES, MAX_HEADERS, owned_by_host};

use bytes::Bytes;
use futures::future::BoxFuture;

use tidelock_types::{Body, Result};

/// Name and value. Names are lower-case; values are bytes of latin-1 or UTF-8, given as text.
pub type Header = (String, String);

/// A piece of a request's body.
#[derive(Debug)]
pub enum Part {
    /// Bytes in memory: the frame around a stream, a small document.
    Bytes(Bytes),
    /// A stream, sent on as it comes.
    Body(Body),
}

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    /// `GET`, `HEAD`, `POST`, `PUT`, `DELETE` or `PATCH`.
    pub method: String,
    /// An absolute URL within the grant's origins.
    pub url: String,
    /// Those of [`owned_by_host`], and the one that carries the grant's credentials, are refused.
    pub headers: Vec<Header>,
    /// The parts, one after the other; empty for no body.
    pub body: Vec<Part>,
    /// The bytes of all parts together, if known: becomes `content-length`. Otherwise the body is sent in chunks.
    pub size: Option<u64>,
}

/// The head of a response, and its body to come.
#[derive(Debug)]
pub struct Response {
    /// For example 200.
    pub status: u16,
    /// At most as many and as long as the grant says. None carries the grant's credentials.
    pub headers: Vec<Header>,
    /// Ends in `unavailable` when the connection breaks before the announced length, never silently short.
    pub body: Body,
}

/// HTTP requests within a grant.
pub trait Http: Send + Sync + 'static {
    /// Sends a request and returns when the head of the response has come. Nothing is retried. Dropping the future, or
    /// the response's body, closes the connection.
    ///
    /// # Errors
    /// `denied` outside the grant; `invalid` for a malformed request; `limit` for too many headers; `unavailable` when the other side refuses, resets,
    /// stalls, or says something that is not HTTP. Whatever cut the request's body short is given as it is.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>>;
}
