//! Headers in both directions: those that an adapter can set, and those that it receives.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Header;
use crate::grant::{HeaderCredential, HeaderLimits, Secret};
use crate::reserved::owned_by_host;
use tidelock_types::{Error, ErrorKind, LimitExceeded, Limits, Result};

/// The most headers of a request or a response, unless the grant says otherwise.
pub const MAX_HEADERS: usize = Limits::DEFAULT.headers;
/// The most bytes of all names and values of a request's or a response's headers together, unless the grant says
/// otherwise.
pub const MAX_HEADER_BYTES: usize = Limits::DEFAULT.header_bytes;

/// The header that the host adds to each request of a grant, and removes from each response.
pub(super) struct Credential {
    name: HeaderName,
    value: HeaderValue,
    secret: Secret,
}

impl Credential {
    /// # Errors
    /// `invalid` for a value that is not valid in a header.
    pub(super) fn new(credential: &HeaderCredential) -> Result<Self> {
        let name = HeaderName::try_from(credential.header.as_str())
            .map_err(|_| Error::invalid("credentials.header is not the name of a header"))?;
        let mut value = HeaderValue::try_from(credential.secret.expose())
            .map_err(|_| Error::invalid("credentials: the secret is not a valid header value"))?;
        value.set_sensitive(true);
        Ok(Self { name, value, secret: credential.secret.clone() })
    }

    /// Returns whether a response's header contains the credential: whole, or without its scheme (`Bearer`).
    fn shows_in(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        let within = |needle: &str| {
            let needle = needle.as_bytes();
            !needle.is_empty() && value.as_bytes().windows(needle.len()).any(|window| window == needle)
        };
        let bare = self.secret.expose().rsplit(' ').next().unwrap_or_default();
        name == self.name || within(self.secret.expose()) || within(bare)
    }
}

/// The limit that headers exceed, in the words of the sandbox.
fn exceeded(limits: HeaderLimits, count: usize, bytes: usize) -> Option<String> {
    if count > limits.count {
        Some(LimitExceeded::Headers(limits.count).to_string())
    } else if bytes > limits.bytes {
        Some(LimitExceeded::HeaderBytes(limits.bytes).to_string())
    } else {
        None
    }
}

/// The headers of a request: the adapter's, checked, and the host's.
///
/// # Errors
/// `invalid` for a header that is the host's, carries the credentials, or is malformed (CR and LF with it); `limit` for
/// too many, and for too many bytes of them.
pub(super) fn of_request(
    headers: &[Header],
    limits: HeaderLimits,
    credential: Option<&Credential>,
) -> Result<HeaderMap> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if let Some(limit) = exceeded(limits, headers.len(), bytes) {
        return Err(Error::new(ErrorKind::Limit, limit)
            .hint("raise it in the backend's `limits` if you trust the adapter with more"));
    }
    let mut map = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::invalid(format!("`{}` is not the name of a header", name.escape_debug())))?;
        if owned_by_host(&name) || credential.is_some_and(|credential| credential.name == name) {
            return Err(Error::invalid(format!("the header `{name}` is reserved for the host"))
                .hint("omit it: the host frames the request and adds the grant's credentials"));
        }
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| Error::invalid(format!("the value of the header `{name}` contains control characters")))?;
        map.append(name, value);
    }
    if !map.contains_key(header::USER_AGENT) {
        map.insert(header::USER_AGENT, HeaderValue::from_static(concat!("tidelock/", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(credential) = credential {
        map.insert(credential.name.clone(), credential.value.clone());
    }
    Ok(map)
}

/// Returns the headers of a response for the adapter: without those that contain the credentials.
///
/// # Errors
/// `unavailable` for too many, and for too many bytes of them: the server's fault, not the adapter's.
pub(super) fn of_response(
    map: &HeaderMap,
    limits: HeaderLimits,
    credential: Option<&Credential>,
) -> Result<Vec<Header>> {
    check_size(map, limits)?;
    let shown = map.iter().filter(|(name, value)| !credential.is_some_and(|c| c.shows_in(name, value)));
    Ok(shown.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
}

/// Checks the head of a response: its size, and that its length is stated in one way.
///
/// # Errors
/// `unavailable`: the server's fault.
pub(crate) fn check_response(map: &HeaderMap, limits: HeaderLimits) -> Result<()> {
    check_framing(map)?;
    check_size(map, limits)
}

fn check_size(map: &HeaderMap, limits: HeaderLimits) -> Result<()> {
    let bytes: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    match exceeded(limits, map.len(), bytes) {
        Some(limit) => {
            Err(Error::unavailable(format!("the response has {} headers of {bytes} bytes ({limit})", map.len())))
        }
        None => Ok(()),
    }
}

/// Rejects a response with an ambiguous length: one that has two lengths, or both a length and a coding, or a
/// coding that was not requested (RFC 9112 §6.1: no coding but `chunked` is sent unrequested; §6.3: a length beside a
/// coding "ought to be handled as an error"). Clients read such a body up to the end of the connection, and treat a
/// truncated one as complete.
///
/// # Errors
/// `unavailable`.
pub(super) fn check_framing(map: &HeaderMap) -> Result<()> {
    let mut codings = map.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if !chunked || map.contains_key(header::CONTENT_LENGTH) {
        return Err(Error::unavailable("the response has an ambiguous length"));
    }
    Ok(())
}

/// UTF-8 if it is that, else latin-1, as which RFC 9110 §5.5 lets old values be read.
fn text(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}
