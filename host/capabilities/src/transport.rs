//! The connections of `http` and `bucket`: one way to resolve names, trust certificates, use a proxy and bound heads.
//!
//! Both capabilities send through a [`reqwest::Client`] that is built here, so what is true of the one is true of the
//! other: names are resolved once and connected to at the addresses that were checked, no redirect is followed, nothing
//! is repeated, the head of a response is bounded, and no proxy is used but the grant's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use url::Url;

use crate::egress::{Names, PublicResolver, SystemNames};
use crate::grant::ConnectionSettings;
use crate::tls;
use tidelock_types::{Error, ErrorKind, Result};

/// The settings of a client.
pub(super) struct Settings<'a> {
    /// Whether any connection is encrypted. Without it no certificates are read.
    pub(super) encrypted: bool,
    /// Speaks HTTP/1.1 only.
    pub(super) http1_only: bool,
    /// Those of the grant.
    pub(super) connection: &'a ConnectionSettings,
}

/// Checks names that a proxy resolves itself, for a grant of public addresses only: what this machine resolves them to
/// counts as well.
#[derive(Clone)]
pub(super) struct BehindProxy(Option<Arc<PublicResolver>>);

impl BehindProxy {
    /// Returns that of a grant; it checks nothing without a proxy, or where every address is allowed.
    pub(super) fn of(connection: &ConnectionSettings, names: Arc<dyn Names>) -> Self {
        let needed = !connection.proxies.is_none() && !connection.private_addresses;
        Self(needed.then(|| Arc::new(PublicResolver::new(names, false))))
    }

    /// Checks the name in a URL.
    ///
    /// # Errors
    /// `denied` for one that leads to an address that is not public. One that only the proxy can resolve is the proxy's to
    /// refuse.
    pub(super) async fn check(&self, url: &Url) -> Result<()> {
        if let (Some(resolver), Some(url::Host::Domain(name))) = (&self.0, url.host())
            && let Err(error) = resolver.lookup(name).await
            && *error.kind() == ErrorKind::Denied
        {
            return Err(error);
        }
        Ok(())
    }
}

/// Returns a client. Connects to nothing yet.
///
/// # Errors
/// `invalid` for a proxy or a file of certificates that cannot be used; `unavailable` if the system has no trusted
/// certificates and a connection needs them.
pub(super) fn client(settings: &Settings<'_>, names: Arc<dyn Names>) -> Result<reqwest::Client> {
    let connection = settings.connection;
    let (http_proxy, https_proxy) = connection.proxies.urls();
    let mut tls = match settings.encrypted {
        true => tls::client_config(connection.ca_file.as_deref())?,
        false => tls::trusting_nobody()?,
    };
    tls.alpn_protocols = match settings.http1_only {
        true => vec![b"http/1.1".to_vec()],
        false => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let resolver =
        PublicResolver::new(names, connection.private_addresses).except(proxy_hosts([http_proxy, https_proxy]));
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(connection.connect_timeout)
        .http1_max_headers(connection.headers.count)
        // Sent to the server.
        .http2_max_header_list_size(u32::try_from(connection.headers.bytes).unwrap_or(u32::MAX));
    if settings.http1_only {
        builder = builder.http1_only();
    }
    let no_proxy = reqwest::NoProxy::from_string(&connection.proxies.no_proxy);
    // The error of the parser shows the URL, which may hold a password.
    let wrong = |_| Error::invalid("the proxy is not a URL");
    if let Some(url) = http_proxy {
        let proxy = reqwest::Proxy::http(url).map_err(wrong)?;
        builder = builder.proxy(proxy.no_proxy(no_proxy.clone()));
    }
    if let Some(url) = https_proxy {
        let proxy = reqwest::Proxy::https(url).map_err(wrong)?;
        builder = builder.proxy(proxy.no_proxy(no_proxy));
    }
    builder.build().map_err(|error| {
        let other = || Error::other(format!("cannot set up the HTTP client: {}", reason(&error)));
        Error::of_system("cannot set up the HTTP client", &error).unwrap_or_else(other)
    })
}

/// The names below `localhost` are this machine, whatever its resolver returns for them; all others are resolved by the
/// system.
///
/// RFC 6761 §6.3 requires it, but the C library only resolves `localhost`. A local server in the virtual-host style, with
/// the bucket in the host name, is at `bucket.localhost`.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalNames;

impl Names for LocalNames {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SocketAddr>>> {
        if name == "localhost" || name.ends_with(".localhost") {
            let both = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            return Box::pin(std::future::ready(Ok(both)));
        }
        SystemNames.lookup(name)
    }
}

/// Why a request had no response.
pub(super) fn explain(error: &reqwest::Error, connect_timeout: Duration) -> Error {
    if let Some(own) = own(error) {
        return own;
    }
    if error.is_builder() {
        return Error::invalid(format!("the request is invalid: {}", reason(error)));
    }
    if error.is_connect() && error.is_timeout() {
        return Error::unavailable(format!("no connection within {} s", connect_timeout.as_secs_f32()));
    }
    Error::of_system("no connection", error).unwrap_or_else(|| advised(Error::unavailable(reason(error))))
}

/// Why a response ended early.
pub(super) fn broken(error: &reqwest::Error) -> Error {
    own(error).unwrap_or_else(|| Error::unavailable(format!("the response ended early: {}", reason(error))))
}

/// Adds what helps against a certificate that is not accepted.
fn advised(error: Error) -> Error {
    let says = |words: &str| error.message().contains(words);
    if says("UnknownIssuer") || says("CaUsedAsEndEntity") {
        let hint = "if its authority is a private one, name the authority's certificates in `ca_file` of the grant or in \
                    the environment variable SSL_CERT_FILE";
        error.hint(hint)
    } else if says("certificate expired") || says("not valid yet") || says("CertExpired") {
        error.hint("check this machine's clock, and the server's certificate")
    } else if says("certificate not valid for name") || says("NotValidForName") {
        error.hint("use the name that the server's certificate has")
    } else {
        error
    }
}

/// Our own error, if it was one of ours (a request's body, the resolver, a bound) that made something fail.
pub(super) fn own(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<Error>()).map(Error::duplicate)
}

/// Returns the innermost causes. Outer ones only say "error sending request", and contain the URL, which may hold a token.
pub(super) fn reason(error: &reqwest::Error) -> String {
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

fn proxy_hosts(proxies: [Option<&str>; 2]) -> Vec<String> {
    let host = |url: &str| Url::parse(url).ok()?.host_str().map(str::to_owned);
    proxies.into_iter().flatten().filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_machine_need_no_resolver() {
        for name in ["localhost", "vm.localhost"] {
            let found = LocalNames.lookup(name).await.unwrap();
            assert!(found.len() == 2 && found.iter().all(|address| address.ip().is_loopback()), "{name}");
        }
    }
}
