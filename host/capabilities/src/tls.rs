//! TLS for the `http` capability: rustls with ring and the operating system's certificates, configured here and handed
//! over, so that no process-wide crypto provider is installed or needed (the embedder may have its own).

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use tidelock_types::{Error, Result};

/// A client's configuration that trusts the operating system's certificates.
///
/// # Errors
/// `unavailable` if there are none.
pub fn client_config() -> Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (trusted, _) = roots.add_parsable_certificates(found.certs);
    if trusted == 0 {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_else(|| "none were found".to_owned());
        return Err(Error::unavailable(format!("cannot find trusted certificates: {why}"))
            .hint("install the package ca-certificates, or point SSL_CERT_FILE at a bundle"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::other(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// A client configuration without trusted roots, for grants without an https origin: reading the system's certificates
/// takes milliseconds.
///
/// # Errors
/// None in practice.
pub fn trusting_nobody() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::other(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}
