//! Requests to the origins of a grant. The host adds the credentials and follows no redirect.

use crate::bindings::tidelock::storage::http as import;
use crate::{Body, Error};

/// The origins that the operator granted.
#[derive(Clone, Copy, Debug)]
pub struct Http {
    grant: &'static str,
}

impl Http {
    /// The origins of `grants.http.NAME`.
    pub const fn granted(name: &'static str) -> Self {
        Self { grant: name }
    }

    /// Sends a request. Every status is a success here; [`Response::success`] sorts them.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let response = import::send(self.grant.into(), request.inner).await?;
        Ok(Response { status: response.status, headers: response.headers, body: response.body.into() })
    }
}

/// A request that is being put together.
#[derive(Debug)]
pub struct Request {
    inner: import::Request,
}

impl Request {
    /// A request without headers and body. `method` in capitals; `url` absolute and within the grant.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        let inner = import::Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            size: Some(0),
        };
        Self { inner }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Adds a header; the name in lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.inner.headers.push((name.into(), value.into()));
        self
    }

    /// Adds bytes to the end of the body.
    #[must_use]
    pub fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.inner.size = add(self.inner.size, Some(bytes.len() as u64));
        self.inner.body.push(import::Part::Bytes(bytes));
        self
    }

    /// Adds a body, unread, to the end of the body. `size` is its exact number of bytes, if that is known: if all parts
    /// have one, the request has a `content-length`.
    #[must_use]
    pub fn body(mut self, body: Body, size: Option<u64>) -> Self {
        self.inner.size = add(self.inner.size, size);
        self.inner.body.push(import::Part::Body(body.into()));
        self
    }
}

/// The number of bytes of two parts together, if both are known.
fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a?.checked_add(b?)
}

/// A reply.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Ends in `unavailable` if the connection breaks; never silently short.
    pub body: Body,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The reply if it is a success (2xx); otherwise what [`Error::from_response`] makes of it.
    pub async fn success(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(Error::from_response(self).await) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_known_only_if_every_part_has_one() {
        assert_eq!(Request::get("http://a").inner.size, Some(0));
        assert_eq!(Request::put("http://a").bytes(vec![0; 3]).bytes(vec![0; 4]).inner.size, Some(7));
        assert_eq!(add(Some(3), None), None);
        assert_eq!(add(None, Some(3)), None);
        assert_eq!(add(Some(u64::MAX), Some(1)), None);
    }
}
