//! Typed grants of a backend, created from the configuration by the caller and validated here.
//!
//! A grant is plain data. It does not depend on how the capability is implemented, and holds credentials only as
//! [`Secret`]s, which are wiped when they are dropped and never print.

pub use tidelock_nfs3::{NfsGrant, NfsUser};

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::egress::Origin;
use super::key::check_key;
use super::reserved::owned_by_host;
use tidelock_types::{Error, Limits, Result};

/// Default timeout for making a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Default time after which a peer that transfers no byte has stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The smallest part that S3 takes in a multipart upload (save the last).
pub const SMALLEST_PART: u64 = 5 << 20;
/// The largest part that S3 takes.
pub const LARGEST_PART: u64 = 5 << 30;

/// Objects up to this size go in one request, larger ones in parts of this size. Against a local SeaweedFS parts of 8 and
/// of 16 MiB, and 2, 4 and 8 at once, made no difference beyond the noise; so the smaller ones, which need 40 MiB.
pub const PART_SIZE: u64 = 8 << 20;
/// Parts of one object in flight at once. One would do on loopback; over a distance each waits for its own round trips.
pub const CONCURRENCY: usize = 4;
/// The largest part of an object whose size is not known in advance, unless the grant says otherwise. 10,000 parts of this
/// are 600 GiB.
pub const LARGEST_UNSIZED_PART: u64 = 64 << 20;

/// A secret text: wiped from memory when it is dropped, prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A header that the host adds to every request of a grant, for example `authorization`.
#[derive(Debug, Clone)]
pub struct HeaderCredential {
    /// Its name.
    pub header: String,
    /// Its whole value (`Bearer …` included).
    pub secret: Secret,
}

/// The size of a request's or a response's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLimits {
    /// The most of them.
    pub count: usize,
    /// The most bytes of all names and values together.
    pub bytes: usize,
}

impl Default for HeaderLimits {
    fn default() -> Self {
        Self { count: Limits::DEFAULT.headers, bytes: Limits::DEFAULT.header_bytes }
    }
}

/// The proxies through which the requests of a grant go. None by default.
///
/// A proxy resolves the names of the servers itself, so addresses behind a name cannot be checked here: that is the
/// proxy's to refuse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The URL of the proxy for `http:`. It may hold a user and a password, so it never prints.
    pub http: Option<Secret>,
    /// The URL of the proxy for `https:`, which tunnels (CONNECT) and sees only host and port.
    pub https: Option<Secret>,
    /// Hosts that are connected to directly: names (with everything below), addresses and networks (`10.0.0.0/8`), separated
    /// by commas; `*` for all.
    pub no_proxy: String,
}

impl Proxies {
    /// This proxy for everything.
    pub fn all(url: &str) -> Self {
        Self { http: Some(Secret::new(url)), https: Some(Secret::new(url)), no_proxy: String::new() }
    }

    /// The URLs for http and https.
    pub(super) fn urls(&self) -> (Option<&str>, Option<&str>) {
        (self.http.as_ref().map(Secret::expose), self.https.as_ref().map(Secret::expose))
    }

    /// Returns whether there is none.
    pub fn is_none(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    fn validate(&self) -> Result<()> {
        [&self.http, &self.https].into_iter().flatten().try_for_each(|url| check_proxy(url.expose()))
    }
}

/// How the connections of a grant are made.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Whether names may resolve to (and URLs may name) addresses that are not public: loopback, private networks,
    /// link-local and metadata addresses. Without it such a request is `denied` even if its origin is granted.
    pub private_addresses: bool,
    /// The largest headers of requests and responses.
    pub headers: HeaderLimits,
    /// The proxies of the requests.
    pub proxies: Proxies,
    /// A file of certificates (PEM) that are trusted instead of the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The most time for making a connection, name resolution and TLS included.
    pub connect_timeout: Duration,
    /// The most time without a byte in either direction.
    pub stall_timeout: Duration,
}

impl ConnectionSettings {
    /// Default limits and timeouts, without a proxy.
    pub fn new(private_addresses: bool) -> Self {
        Self {
            private_addresses,
            headers: HeaderLimits::default(),
            proxies: Proxies::default(),
            ca_file: None,
            connect_timeout: CONNECT_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        }
    }

    fn validate(&self) -> Result<()> {
        self.proxies.validate()?;
        if self.connect_timeout.is_zero() || self.stall_timeout.is_zero() {
            return Err(Error::invalid("a timeout must be longer than zero")
                .hint("omit the timeouts for the defaults of 10 s and 30 s"));
        }
        Ok(())
    }
}

/// Permission to send HTTP requests to some origins.
#[derive(Debug, Clone)]
pub struct HttpGrant {
    /// Where requests may go. Scheme, host and port have to be the same.
    pub origins: Vec<Origin>,
    /// The header that the host adds to each request.
    pub credentials: Option<HeaderCredential>,
    /// How connections are made.
    pub connection: ConnectionSettings,
}

impl HttpGrant {
    /// Requests to these origins (`https://api.example`, `http://127.0.0.1:5001`), public addresses only, without
    /// credentials, with the default timeouts.
    ///
    /// # Errors
    /// `invalid` for a text that is not an origin.
    pub fn to<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Ok(Self {
            origins: origins.into_iter().map(str::parse).collect::<Result<_>>()?,
            credentials: None,
            connection: ConnectionSettings::new(false),
        })
    }

    /// Checks the grant.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.origins.is_empty() {
            return Err(Error::invalid("an http grant must have origins")
                .hint("name at least one, for example origins = [\"https://api.example\"]"));
        }
        if let Some(HeaderCredential { header, secret }) = &self.credentials {
            let name = http::HeaderName::try_from(header.as_str())
                .map_err(|_| Error::invalid(format!("credentials.header: `{header}` is not the name of a header")))?;
            if owned_by_host(&name) {
                return Err(Error::invalid(format!("credentials.header: `{name}` is set by the host")));
            }
            http::HeaderValue::try_from(secret.expose())
                .map_err(|_| Error::invalid("credentials: the secret is not a valid header value"))?;
        }
        self.connection.validate()
    }
}

/// The keys of an S3 account.
#[derive(Debug, Clone)]
pub struct BucketCredentials {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
    /// For temporary credentials.
    pub session_token: Option<Secret>,
}

/// Permission to use the objects below a prefix of a bucket.
#[derive(Debug, Clone)]
pub struct BucketGrant {
    /// Where the service is, for example `http://127.0.0.1:8333`. Without it, Amazon's for the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// The prefix of every key, invisible to the adapter. Empty for the whole bucket. One that ends in `/` is a folder.
    /// One that does not is only the beginning of names, so below it an adapter can reach nothing but objects that are
    /// named by the host's own keys: `vm` does not cover `vm-prod/…`.
    pub prefix: String,
    /// Whether objects in folders of two digits (the layout `fan-out`) belong to a prefix that does not end in `/`. Below
    /// `vm` these are those of a grant with the prefix `vm01/` too, so the operator must make sure that there is none.
    pub prefix_without_slash: bool,
    /// Whether the bucket is in the path instead of the host name.
    pub path_style: bool,
    /// Without them requests are not signed.
    pub credentials: Option<BucketCredentials>,
    /// Objects up to this size are sent in one request, larger ones in parts of this size. Parts get larger if
    /// an object would need more than 10,000 of them.
    pub part_size: u64,
    /// Parts of one object in flight at once. `part_size × (concurrency + 1)` bounds the memory of an upload whose size
    /// is known and below 10,000 parts.
    pub concurrency: usize,
    /// The largest part of an upload whose size is not known in advance. Parts grow up to it as their number does, so it
    /// bounds both the memory of such an upload (two of these) and its size (some 9,900 of these).
    pub largest_part: u64,
    /// Whether the service understands `If-None-Match: *` in a put. `None`: it is tried, and if the service answers
    /// that it does not, the key is looked up before a put instead.
    pub conditional_writes: Option<bool>,
    /// Whether the service takes CRC-32C checksums. `None`: they are sent, and left out once it has refused them.
    pub checksums: Option<bool>,
    /// Objects up to this size are copied within the bucket in one request, larger ones in parts. No service takes more
    /// than 5 GiB at once, some take less.
    pub copy_limit: u64,
    /// How connections are made. The operator names the endpoint, and an adapter cannot, so it may be at an address that is
    /// not public unless `private_addresses` is set to false.
    pub connection: ConnectionSettings,
}

impl BucketGrant {
    /// A bucket at Amazon, without credentials, with the default part size, concurrency and timeouts.
    pub fn of(region: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            region: region.into(),
            bucket: bucket.into(),
            prefix: String::new(),
            prefix_without_slash: false,
            path_style: false,
            credentials: None,
            part_size: PART_SIZE,
            concurrency: CONCURRENCY,
            largest_part: LARGEST_UNSIZED_PART,
            conditional_writes: None,
            checksums: None,
            copy_limit: LARGEST_PART,
            connection: ConnectionSettings::new(true),
        }
    }

    /// Checks the grant.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::invalid(what));
        if let Some(endpoint) = &self.endpoint {
            let url = url::Url::parse(endpoint)
                .map_err(|error| Error::invalid(format!("endpoint: `{endpoint}` is not a URL: {error}")))?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return wrong(format!("endpoint: `{endpoint}` is neither http:// nor https://"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return wrong("endpoint: the URL must not contain credentials".to_owned());
            }
            if url.query().is_some() || url.fragment().is_some() {
                return wrong(format!("endpoint: `{endpoint}` must have no query and no fragment"));
            }
        }
        if self.region.is_empty() || self.region.contains(|c: char| !c.is_ascii_graphic()) {
            return wrong(format!("region: `{}` is not a region", self.region));
        }
        // Amazon requires 3 to 63; other services accept longer ones and upper case.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=255).contains(&self.bucket.len()) || !self.bucket.chars().all(is_allowed) || self.bucket.contains("..")
        {
            return wrong(format!("bucket: `{}` is not the name of a bucket", self.bucket));
        }
        if !self.prefix.is_empty() {
            check_key(self.prefix.trim_end_matches('/'))
                .map_err(|error| Error::invalid(format!("prefix: {}", error.message())))?;
        }
        if self.prefix_without_slash && (self.prefix.is_empty() || self.prefix.ends_with('/')) {
            return wrong(
                "prefix_without_slash: it has no effect without a prefix that does not end in `/`".to_owned(),
            );
        }
        if !(SMALLEST_PART..=LARGEST_PART).contains(&self.part_size) {
            return wrong(format!("part_size: {} is not between 5 MiB and 5 GiB", self.part_size));
        }
        if !(SMALLEST_PART..=LARGEST_PART).contains(&self.largest_part) {
            return wrong(format!("largest_part: {} is not between 5 MiB and 5 GiB", self.largest_part));
        }
        if !(SMALLEST_PART..=LARGEST_PART).contains(&self.copy_limit) {
            return wrong(format!("copy_limit: {} is not between 5 MiB and 5 GiB", self.copy_limit));
        }
        if !(1..=64).contains(&self.concurrency) {
            return wrong(format!("concurrency: {} is not between 1 and 64", self.concurrency));
        }
        if let Some(credentials) = &self.credentials
            && (credentials.access_key.is_empty() || credentials.secret_key.expose().is_empty())
        {
            return wrong("credentials: access key and secret key must not be empty".to_owned());
        }
        self.connection.validate()
    }
}

/// Permission to use the files below a directory.
#[derive(Debug, Clone)]
pub struct DirectoryGrant {
    /// The directory. It is made, with its parents, if it is not there.
    pub path: PathBuf,
}

impl DirectoryGrant {
    /// The files below this directory.
    pub fn below(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Checks the grant.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::invalid("path: must not be empty"));
        }
        Ok(())
    }
}

/// Checks that a text is the URL of a proxy.
///
/// # Errors
/// `invalid`. The message never holds the text, which may hold a password.
fn check_proxy(text: &str) -> Result<()> {
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    url.map(drop).ok_or_else(|| {
        Error::invalid("the proxy is not a URL with http:// or https://")
            .hint("write scheme, host and port, for example http://proxy.example:3128")
    })
}

#[cfg(test)]
mod tests;
