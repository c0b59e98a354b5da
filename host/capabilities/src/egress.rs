//! Egress rules: granted origins, and permitted addresses.
//!
//! A granted name is not enough. Names are resolved by servers of others, and a name that resolves to
//! `169.254.169.254` or to a neighbour on the private network would give an adapter access to it. So the resolved
//! addresses are checked too, and the connection is made to the same addresses that were checked: [`PublicResolver`]
//! is between the name and the socket, so that there is no second lookup with another answer. Addresses
//! in a URL do not pass a resolver and are checked by [`Origin::check_literal`].
//!
//! Denied addresses follow IANA's special-purpose registries for IPv4 and IPv6 (everything that is not
//! globally reachable), and the IPv6 forms that embed an IPv4 address, which are checked by that address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::{Host, Url};

use tidelock_types::{Error, ErrorKind, Result};

/// Scheme, host and port, as in a grant. Two are equal only if all three are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: Host<String>,
    port: u16,
}

impl Origin {
    /// The origin of a URL.
    ///
    /// # Errors
    /// `invalid` unless it is an http or https URL with a host and without user name and password.
    pub fn of(url: &Url) -> Result<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::invalid(format!("`{}:` is neither http: nor https:", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("a URL must not contain credentials"));
        }
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) if port > 0 => {
                Ok(Self { scheme: url.scheme().to_owned(), host: host.to_owned(), port })
            }
            _ => Err(Error::invalid("a URL must have a host")),
        }
    }

    pub(super) fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(super) fn host(&self) -> &Host<String> {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Checks that an address in place of a name may be connected to.
    ///
    /// # Errors
    /// `denied` for one that is not public, unless the grant allows those.
    pub fn check_literal(&self, private_addresses: bool) -> Result<()> {
        let address = match &self.host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
        };
        if private_addresses || is_public(address) { Ok(()) } else { Err(not_public(&address.to_string(), address)) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// `https://api.example`, `http://127.0.0.1:5001`; a path, a query or a fragment is `invalid`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!("`{}` is not an origin: {why}", text.escape_debug()))
                .hint("write scheme, host and port, for example https://api.example or http://127.0.0.1:5001")
        };
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        let origin = Self::of(&url).map_err(|error| wrong(error.message()))?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a path, query or fragment"));
        }
        Ok(origin)
    }
}

/// Returns whether an address is one of the public Internet's: not private, shared (CGNAT), loopback, link-local,
/// unique-local, multicast, unspecified, broadcast, reserved, for documentation or benchmarks, or a metadata service's.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)                    // this network, private, loopback
            | (100, 64..=127, _)              // shared: CGNAT, and 100.100.100.200 of one cloud's metadata
            | (169, 254, _)                   // link-local: the metadata services
            | (172, 16..=31, _)               // private
            | (192, 168, _)                   // private
            | (192, 0, 0 | 2)                 // protocol assignments, documentation
            | (192, 88, 99)                   // 6to4 relays, deprecated
            | (198, 18..=19, _)               // benchmarks
            | (198, 51, 100)                  // documentation
            | (203, 0, 113)                   // documentation
            | (224..=255, ..) // multicast, reserved, broadcast
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // ::ffff:a.b.c.d (mapped), ::ffff:0:a.b.c.d (translated), ::a.b.c.d (compatible; holds :: and ::1 too).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            is_public_v4(inner(high, low))
        }
        // 64:ff9b::a.b.c.d, NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(inner(high, low)),
        // 2002:a.b.c.d::, 6to4.
        [0x2002, high, low, ..] => is_public_v4(inner(high, low)),
        // 2001::/23 is for protocols (Teredo, ORCHID, benchmarks); 2001:db8::/32 and 3fff::/20 are for documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Of the rest only 2000::/3 is allocated: unique-local (fd00:ec2::254 with it), link-local, site-local, multicast,
        // local NAT64 (64:ff9b:1::/48), discard and segment routing are outside of it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn not_public(name: &str, address: IpAddr) -> Error {
    let what = if name == address.to_string() { name.to_owned() } else { format!("{name} ({address})") };
    Error::denied(format!("{what} is not a public address"))
        .hint("set private_addresses = true in the grant to allow it")
}

/// Resolves names to addresses. [`SystemNames`] uses the operating system; an embedder can inject another.
pub trait Names: Send + Sync + 'static {
    /// All addresses of a name, in the order in which they are to be tried; ports do not matter. They are checked
    /// afterwards, and connected to without a further look-up.
    ///
    /// # Errors
    /// `unavailable` if the name does not resolve.
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SocketAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await;
            let found = found.map_err(|error| Error::unavailable(format!("`{name}` does not resolve: {error}")))?;
            Ok(found.collect())
        })
    }
}

/// Resolves names and returns only public addresses. A name that has none is `denied`.
#[derive(Clone)]
pub struct PublicResolver {
    names: Arc<dyn Names>,
    /// Whether non-public addresses are returned too.
    private_addresses: bool,
    /// Names of proxies, whose addresses need not be public: the operator chose them, and no adapter can.
    proxies: Arc<[String]>,
    places: Arc<Semaphore>,
}

/// Names that are resolved at once for one grant; further ones wait. Each keeps a blocking thread until it is answered.
const LOOKUPS: usize = 8;

impl PublicResolver {
    /// Over a way of resolving names.
    pub fn new(names: Arc<dyn Names>, private_addresses: bool) -> Self {
        Self { names, private_addresses, proxies: Arc::from([]), places: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Returns this resolver without the check for some names: those of the operator's proxies.
    #[must_use]
    pub(super) fn except(self, proxies: Vec<String>) -> Self {
        Self { proxies: proxies.into(), ..self }
    }

    /// Returns the addresses of a name that may be connected to, in the given order.
    ///
    /// # Errors
    /// `unavailable` if the name does not resolve; `denied` if no address is allowed.
    pub async fn lookup(&self, name: &str) -> Result<Vec<SocketAddr>> {
        let gone = || Error::new(ErrorKind::Cancelled, "the host has stopped");
        let place = self.places.clone().acquire_owned().await.map_err(|_| gone())?;
        let (names, wanted) = (self.names.clone(), name.to_owned());
        let found = tokio::spawn(async move {
            // Kept to the end, also by a look-up that nothing waits for any more.
            let _place = place;
            names.lookup(&wanted).await
        });
        self.keep(name, found.await.map_err(|_| gone())??)
    }

    fn keep(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        let first = found.first().map(SocketAddr::ip);
        let all = self.private_addresses || self.proxies.iter().any(|proxy| proxy == name);
        let kept: Vec<_> = found.into_iter().filter(|a| all || is_public(a.ip())).collect();
        match (kept.is_empty(), first) {
            (false, _) => Ok(kept),
            (true, Some(refused)) => Err(not_public(name, refused)),
            (true, None) => Err(Error::unavailable(format!("`{name}` has no address"))),
        }
    }
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.lookup(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use proptest::prelude::*;

    /// Never answers, and counts requests.
    struct Silent(AtomicUsize);

    impl Names for Silent {
        fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<SocketAddr>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn look_ups_that_nothing_waits_for_keep_their_places() {
        let names = Arc::new(Silent(AtomicUsize::new(0)));
        let resolver = PublicResolver::new(names.clone(), false);
        for _ in 0..100 {
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), resolver.lookup("a.test")).await;
            assert!(given_up.is_err());
        }
        assert_eq!(names.0.load(Ordering::Relaxed), LOOKUPS);
    }

    #[test]
    fn origins_are_compared_whole() {
        let origin = |text: &str| text.parse::<Origin>();
        assert_eq!(origin("https://API.example").unwrap(), origin("https://api.example:443/").unwrap());
        assert_eq!(origin("http://127.0.0.1:5001").unwrap().to_string(), "http://127.0.0.1:5001");
        assert_ne!(origin("https://api.example").unwrap(), origin("http://api.example").unwrap());
        assert_ne!(origin("https://api.example").unwrap(), origin("https://api.example:8443").unwrap());
        // Other ways to write an address are the same address.
        assert_eq!(origin("http://2130706433").unwrap(), origin("http://127.0.0.1").unwrap());
        assert_eq!(origin("http://0x7f.1").unwrap(), origin("http://127.0.0.1").unwrap());
        for wrong in
            ["api.example", "ftp://a", "https://a/b", "https://u@a", "https://a?x", "https://a#x", "https://", ""]
        {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ];
        for text in special {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn literal_addresses_need_leave() {
        let inside: Origin = "http://[::ffff:169.254.169.254]".parse().unwrap();
        let error = inside.check_literal(false).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied);
        inside.check_literal(true).unwrap();
        "https://8.8.8.8".parse::<Origin>().unwrap().check_literal(false).unwrap();
        "https://name.example".parse::<Origin>().unwrap().check_literal(false).unwrap();
    }

    #[tokio::test]
    async fn only_public_addresses_of_a_name_are_left() {
        let mixed = vec!["127.0.0.1:0".parse().unwrap(), "8.8.8.8:0".parse().unwrap()];
        let strict = PublicResolver::new(Arc::new(SystemNames), false);
        assert_eq!(strict.keep("x", mixed.clone()).unwrap(), ["8.8.8.8:0".parse().unwrap()]);
        assert_eq!(PublicResolver::new(Arc::new(SystemNames), true).keep("x", mixed.clone()).unwrap(), mixed);
        let error = strict.lookup("localhost").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied);
        assert!(error.to_string().starts_with("localhost ("), "{error}");
    }

    proptest! {
        /// Addresses that the standard library knows to be special never pass.
        #[test]
        fn never_more_than_the_standard_library_allows(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_unspecified() || v4.is_broadcast() || v4.is_documentation();
            prop_assert!(!(special && is_public(v4.into())));
            // However it is embedded, an address has the same verdict.
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for wrapped in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(is_public(wrapped.into()), is_public(v4.into()));
            }
        }

        #[test]
        fn never_more_than_the_standard_library_allows_of_v6(bits: u128) {
            let v6 = Ipv6Addr::from(bits);
            let special = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unique_local()
                || v6.is_unicast_link_local();
            prop_assert!(!(special && is_public(v6.into())));
        }

        #[test]
        fn origins_print_as_they_parse(host in "[a-z][a-z0-9]{0,8}(\\.[a-z]{2,5})?", port in 1u16..) {
            let origin: Origin = format!("https://{host}:{port}").parse().unwrap();
            prop_assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin);
        }
    }
}
