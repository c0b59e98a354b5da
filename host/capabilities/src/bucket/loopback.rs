//! Names below `localhost`: this machine, whatever its resolver thinks of them.
//!
//! RFC 6761 §6.3 requires it, but the C library only resolves `localhost`. A local server in the virtual-host style,
//! with the bucket in the host name, is at `bucket.localhost`; no other name is resolved here.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};

/// Whether an endpoint is a name of this machine.
pub(super) fn is_local(endpoint: &str) -> bool {
    url::Url::parse(endpoint).is_ok_and(|url| url.host_str().is_some_and(is_local_name))
}

fn is_local_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Knows the names of this machine and no others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loopback;

impl ResolveDns for Loopback {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(if is_local_name(name) {
            Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        } else {
            Err(ResolveDnsError::new(format!("`{name}` does not resolve to this machine")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_and_no_other() {
        assert!(is_local("http://localhost:1") && is_local("http://s3.localhost"));
        assert!(!is_local("http://localhost.example") && !is_local("http://127.0.0.1:1") && !is_local("x"));
        let found = Loopback.resolve_dns("vm.localhost").await.unwrap();
        assert!(found.len() == 2 && found.iter().all(|address| address.is_loopback()));
        assert!(Loopback.resolve_dns("example.com").await.is_err());
    }
}
