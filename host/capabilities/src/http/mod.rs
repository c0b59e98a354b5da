//! HTTP requests to granted origins: the `http` capability.
//!
//! [`HttpClient`] implements it with reqwest. The host controls destination and identity: it checks the
//! origin, resolves the name and connects to the addresses that it checked ([`super::egress`]), frames the body, adds the
//! credentials, and follows no redirect (a 3xx is returned, for the adapter to send a new request). It uses
//! no proxy but the grant's, keeps no cookies and decodes no `content-encoding`.
//!
//! A status is never an error here: the adapter interprets 404 or 429.

mod client;
mod headers;
#[cfg(test)]
mod tests;

pub use crate::reserved::owned_by_host;
pub use client::HttpClient;
pub(crate) use headers::check_response;
pub use headers::{MAX_HEADER_BYTES, MAX_HEADERS};

use bytes::Bytes;
use futures::future::BoxFuture;

use tidelock_types::{Body, Result};

/// Name and value. Names are lower-case; values are bytes of latin-1 or UTF-8, as text.
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
    /// Limited in number and size by the grant. Without the grant's credentials.
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
    /// `denied` outside the grant; `invalid` for a malformed request; `limit` for too many headers; `unavailable` if the
    /// peer refuses, resets, stalls, or does not send valid HTTP. Errors of the request's body are returned unchanged.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>>;
}
