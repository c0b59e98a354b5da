//! The configuration of a hostile backend, and the credentials that it must not see.

use std::path::Path;

use tidelock::capabilities::grant::{BucketCredentials, Secret};
use tidelock::config::CredentialRef;
use tidelock::{Result, Secrets};

/// Credentials that nothing may show.
pub struct Planted;

pub const ACCESS_KEY: &str = "AKPLANTEDACCESSKEY00";
pub const SECRET_KEY: &str = "planted/secret+key/0123456789abcdefghijkl";
pub const SESSION_TOKEN: &str = "planted-session-token-ZYXWVUTSRQPONMLK";
pub const HEADER: &str = "Bearer planted-header-credential-9876543210";

impl Secrets for Planted {
    fn bucket(&self, _: &CredentialRef) -> Result<BucketCredentials> {
        Ok(BucketCredentials {
            access_key: ACCESS_KEY.into(),
            secret_key: Secret::new(SECRET_KEY),
            session_token: Some(Secret::new(SESSION_TOKEN)),
        })
    }

    fn http(&self, _: &CredentialRef) -> Result<Secret> {
        Ok(Secret::new(HEADER))
    }
}

/// A hostile backend's part of the configuration.
pub fn backend(name: &str, adapter: &Path, origin: &str, settings: &str, limits: &str) -> String {
    format!(
        r#"
[backends.{name}]
adapter = "{}"
settings = {{ {settings} }}
limits = {{ {limits} }}
grants.directory.objects = {{ path = "objects/{name}" }}
grants.http.api = {{ origins = ["{origin}", "http://nowhere.invalid", "http://127.0.0.1:1"], private_addresses = true, credentials = {{ header = "authorization", file = "x" }} }}
grants.bucket.objects = {{ endpoint = "{origin}", bucket = "shared", prefix = "{name}/", path_style = true, credentials = {{ file = "x" }} }}
[routes.{name}]
backends = ["{name}"]
"#,
        adapter.display()
    )
}
