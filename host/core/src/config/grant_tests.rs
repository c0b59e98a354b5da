//! The keys of grants: proxies, parts, and what a service lacks.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("/etc/tidelock"))
}

#[test]
fn a_proxy_has_no_secrets_in_the_file() {
    let grant = |keys: &str| {
        parse(&format!("[backends.a]\nadapter = 's3'\ngrants.bucket.objects = {{ bucket = 'b', {keys} }}"))
    };
    let error = grant("proxy = 'http://user:hush@proxy:1'").unwrap_err();
    assert!(!format!("{error:?}").contains("hush") && error.advice().unwrap().contains("HTTPS_PROXY"), "{error:?}");
    for wrong in ["proxy = 'proxy:3128'", "proxy = 'http://p/x'", "largest_part = '1 MiB'", "checksums = 'no'"] {
        assert!(grant(wrong).is_err(), "{wrong}");
    }
    let a =
        grant("checksums = false, private_addresses = false").unwrap().backends["a"].grants.bucket["objects"].clone();
    assert!(!a.prefix_without_slash);
    let fanned = grant("prefix = 'vm', prefix_without_slash = true").unwrap();
    assert!(fanned.backends["a"].grants.bucket["objects"].prefix_without_slash);
    assert_eq!((a.checksums, a.private_addresses, a.proxy), (Some(false), false, Proxy::Environment));
}
