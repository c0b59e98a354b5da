//! The grants that an adapter requests: a grant is effective only if it was requested.
//!
//! The operator's grants say what a backend allows, [`RequestedGrants`] what its adapter has declared to need, and
//! [`Capabilities::only`](super::Capabilities::only) returns the intersection. So an adapter cannot do
//! more than its author declared, even where more was granted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::egress::Origin;
use super::http::{Http, Request, Response};
use tidelock_types::{Error, Result};

/// The grants that an adapter asks for, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedGrants {
    /// HTTP, with the origins that requests will go to.
    pub http: BTreeMap<String, Vec<OriginPattern>>,
    /// Buckets.
    pub bucket: BTreeSet<String>,
    /// Directories.
    pub directory: BTreeSet<String>,
}

impl RequestedGrants {
    /// Returns whether a grant of this kind (`http`, `bucket`, `directory`) and name is requested.
    pub fn has(&self, kind: &str, name: &str) -> bool {
        match kind {
            "http" => self.http.contains_key(name),
            "bucket" => self.bucket.contains(name),
            "directory" => self.directory.contains(name),
            _ => false,
        }
    }
}

/// Which origins an adapter means to reach.
///
/// | text | means |
/// | --- | --- |
/// | `https://api.example` | this origin |
/// | `https://*.example.org` | hosts below `example.org`, at any depth, but not `example.org` itself; scheme and port as written |
/// | `*` | whatever origins the operator names: for a backend that everybody runs somewhere else |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OriginPattern {
    /// Any.
    Any,
    /// Exactly this one.
    Exactly(Origin),
    /// Those whose host ends in a dot and the host of this one, with its scheme and port.
    Below(Origin),
}

impl OriginPattern {
    /// Returns whether an origin is one of those meant.
    pub fn fits(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => exact == origin,
            Self::Below(parent) => {
                let below = match (origin.host(), parent.host()) {
                    (Host::Domain(name), Host::Domain(parent)) => {
                        name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                    }
                    _ => false,
                };
                below && (origin.scheme(), origin.port()) == (parent.scheme(), parent.port())
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exactly(origin) => origin.fmt(f),
            Self::Below(parent) => f.write_str(&parent.to_string().replacen("://", "://*.", 1)),
        }
    }
}

impl From<OriginPattern> for String {
    fn from(pattern: OriginPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for OriginPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some((scheme, host)) = text.split_once("://*.") else {
            return match text.contains('*') {
                // The URL standard lets a star stand in a name; here it would look like a pattern and be none.
                true => Err(Error::invalid(format!("`{text}` is not an origin pattern"))
                    .hint("use `*` alone, or as the first label, as in https://*.example.org")),
                false => text.parse().map(Self::Exactly),
            };
        };
        let parent: Origin = format!("{scheme}://{host}").parse()?;
        match parent.host() {
            // A pattern over a whole top-level domain is not a meaningful restriction.
            Host::Domain(name) if name.trim_end_matches('.').contains('.') && !name.contains('*') => {
                Ok(Self::Below(parent))
            }
            _ => Err(Error::invalid(format!("`{text}` is too broad"))
                .hint("use a name of at least two labels after `*.`, as in https://*.example.org")),
        }
    }
}

/// A grant, narrowed to the requested origins.
pub(super) struct Narrowed {
    name: String,
    granted: Arc<dyn Http>,
    origins: Vec<OriginPattern>,
}

impl Narrowed {
    pub(super) fn new(name: &str, granted: Arc<dyn Http>, origins: &[OriginPattern]) -> Self {
        Self { name: name.to_owned(), granted, origins: origins.to_vec() }
    }

    fn check(&self, url: &str) -> Result<()> {
        let url = Url::parse(url)
            .map_err(|error| Error::invalid(format!("`{}` is not a URL: {error}", url.escape_debug())))?;
        let origin = Origin::of(&url)?;
        if self.origins.iter().any(|pattern| pattern.fits(&origin)) {
            return Ok(());
        }
        let name = &self.name;
        Err(Error::denied(format!("{origin} is not among the origins of `{name}` in the adapter's manifest"))
            .hint(format!("ask the adapter's author to add it to asks.http.{name} of adapter.toml")))
    }
}

impl Http for Narrowed {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        match self.check(&request.url) {
            Ok(()) => self.granted.send(request),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Capabilities;
    use super::*;
    use tidelock_types::{Body, ErrorKind};

    fn fits(pattern: &str, origin: &str) -> bool {
        pattern.parse::<OriginPattern>().unwrap().fits(&origin.parse().unwrap())
    }

    #[test]
    fn patterns_mean_what_they_say() {
        assert!(fits("*", "http://127.0.0.1:5001") && fits("https://api.example", "https://api.example:443"));
        assert!(fits("https://*.example.org", "https://a.example.org"));
        assert!(fits("https://*.example.org:8443", "https://a.b.example.org:8443"));
        for outside in [
            "https://example.org",
            "https://evilexample.org",
            "https://a.example.org.evil.net",
            "http://a.example.org",
            "https://a.example.org:8443",
            "https://127.0.0.1",
        ] {
            assert!(!fits("https://*.example.org", outside), "{outside}");
        }
        assert!(!fits("https://api.example", "https://x.api.example"));
        for wrong in [
            "",
            "**",
            "https://*",
            "https://*.com",
            "https://*.10.0.0.1",
            "https://*.*.example.org",
            "https://a.example/x",
            "ftp://*.example.org",
            "*.example.org",
        ] {
            assert!(wrong.parse::<OriginPattern>().is_err(), "{wrong}");
        }
    }

    struct Answers;

    impl Http for Answers {
        fn send(&self, _: Request) -> BoxFuture<'_, Result<Response>> {
            let body = Body::from_bytes(bytes::Bytes::new());
            Box::pin(std::future::ready(Ok(Response { status: 200, headers: Vec::new(), body })))
        }
    }

    #[tokio::test]
    async fn capabilities_that_were_not_requested_are_absent() {
        let mut granted = Capabilities::none();
        granted.provide_http("api", Arc::new(Answers));
        granted.provide_http("more", Arc::new(Answers));
        let asked = RequestedGrants {
            http: BTreeMap::from([("api".to_owned(), vec!["https://api.example".parse().unwrap()])]),
            directory: BTreeSet::from(["objects".to_owned()]),
            ..RequestedGrants::default()
        };
        let both = granted.only(&asked);
        let error = both.http("more").err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("manifest does not request"), "{error}");
        // A requested grant that is missing is the operator's to add.
        assert!(both.directory("objects").err().unwrap().advice().unwrap().contains("grants.directory.objects"));
        let send = async |url: &str| {
            both.http("api")
                .unwrap()
                .send(Request { method: "GET".into(), url: url.into(), ..Request::default() })
                .await
        };
        assert_eq!(send("https://api.example/x?y").await.unwrap().status, 200);
        let error = send("https://api.example.evil.net/x").await.unwrap_err();
        assert!(*error.kind() == ErrorKind::Denied && error.to_string().contains("manifest"), "{error}");
        assert_eq!(*send("nonsense").await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    proptest! {
        #[test]
        fn a_printed_pattern_can_be_parsed(text in "https?://(\\*\\.)?[a-z]{1,9}(\\.[a-z]{1,9}){0,3}(:[1-9][0-9]{0,3})?") {
            if let Ok(pattern) = text.parse::<OriginPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<OriginPattern>().unwrap(), pattern);
            }
        }
    }
}
