//! Where credentials come from: the embedding program.

use crate::capabilities::grant::{BucketCredentials, Proxies, Secret};
use crate::config::CredentialRef;
use crate::types::{Error, Result};

/// Resolves references to credentials. The library reads neither environment nor credential files: the embedding
/// program decides where secrets come from.
pub trait Secrets: Send + Sync {
    /// The keys for a bucket.
    ///
    /// # Errors
    /// If the reference leads nowhere. The message never holds a secret.
    fn bucket(&self, reference: &CredentialRef) -> Result<BucketCredentials>;

    /// The value of a header.
    ///
    /// # Errors
    /// If the reference leads nowhere. The message never holds a secret.
    fn http(&self, reference: &CredentialRef) -> Result<Secret>;

    /// An encryption key, as 64 hexadecimal digits. Without an implementation there is none.
    ///
    /// # Errors
    /// If the reference leads nowhere. The message never holds a secret.
    fn encryption_key(&self, reference: &CredentialRef) -> Result<Secret> {
        let _ = reference;
        Err(nowhere())
    }

    /// The proxies of grants that name none. Without an implementation there are none.
    ///
    /// # Errors
    /// If they are set to something that is not a proxy.
    fn proxies(&self) -> Result<Proxies> {
        Ok(Proxies::default())
    }
}

/// No secrets: a configuration that refers to one is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn bucket(&self, _: &CredentialRef) -> Result<BucketCredentials> {
        Err(nowhere())
    }

    fn http(&self, _: &CredentialRef) -> Result<Secret> {
        Err(nowhere())
    }
}

fn nowhere() -> Error {
    Error::invalid("the configuration refers to a credential, and this host was started without any")
        .hint("start the host with an implementation of `Secrets`")
}
