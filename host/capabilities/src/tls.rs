//! TLS: rustls with ring and the operating system's certificates (or the grant's own), configured here and handed over, so that no process-wide crypto provider is installed or needed (the embedder may have its own).

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use tidelock_types::{Error, Result};

/// A client's configuration that trusts the certificates of `ca_file`, or else the operating system's.
///
/// # Errors
/// `invalid` if `ca_file`, or the file that `SSL_CERT_FILE` names, cannot be read; `unavailable` if there are no trusted
/// certificates.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let roots = match ca_file {
        Some(path) => roots_in(path)?,
        None => roots_of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::other(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn roots_in(path: &Path) -> Result<RootCertStore> {
    let wrong = |why: String| {
        Error::invalid(format!("ca_file: {}: {why}", path.display()))
            .hint("name a file with one or more certificates in PEM form")
    };
    let found: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let mut roots = RootCertStore::empty();
    for certificate in found.map_err(|error| wrong(reason(&error)))? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it contains no certificate".to_owned())) } else { Ok(roots) }
}

/// Returns the reason, without the debug form around it.
fn reason(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn roots_of_system() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    // Only what the environment names can be missing; with a folder of certificates beside it, it would go unnoticed.
    let missing = found.errors.iter().find_map(|error| match &error.kind {
        rustls_native_certs::ErrorKind::Io { inner, path } if inner.kind() == std::io::ErrorKind::NotFound => {
            Some(path)
        }
        _ => None,
    });
    if let Some(path) = missing {
        return Err(Error::invalid(format!("cannot find the trusted certificates at {}", path.display()))
            .hint("point SSL_CERT_FILE or SSL_CERT_DIR at trusted certificates, or unset it"));
    }
    let mut roots = RootCertStore::empty();
    let (trusted, _) = roots.add_parsable_certificates(found.certs);
    if trusted > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
    Err(Error::unavailable(format!("cannot find trusted certificates: {why}"))
        .hint("install the package ca-certificates, or point SSL_CERT_FILE at a bundle"))
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
