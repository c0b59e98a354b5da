//! From a configuration to an open host: folders, grants, credentials, components.

use std::path::Path;
use std::sync::Arc;

use super::Inner;
use super::backend::{Backend, Open};
use crate::capabilities::Capabilities;
use crate::capabilities::grant::{BucketCredentials, BucketGrant, DirectoryGrant, HeaderCredential, HttpGrant, Secret};
use crate::catalogue::{Catalogue, Owner};
use crate::config::{self, AdapterSource, Config, CredentialRef};
use crate::runtime::{BackendSpec, Component, Digest, Engine, EngineOptions, Limits, Slot, Trust, builtin};
use crate::types::{Error, Result};

/// Turns references to credentials into credentials. The library reads neither environment nor credential files: who
/// embeds it decides where secrets come from.
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
}

/// Has no secrets: a configuration that refers to one is refused.
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
    Error::invalid("the configuration refers to a credential, and this host was opened without any")
        .hint("open the host with an implementation of `Secrets`")
}

/// Everything but the backends.
pub(super) async fn open(config: &Config, secrets: Option<Arc<dyn Secrets>>) -> Result<Inner> {
    let data_dir = config.data_dir.clone();
    make_dir(&data_dir)?;
    let catalogue = Catalogue::open(data_dir.join("catalogue.sqlite")).await?;
    let run = data_dir.join("run");
    let owner = blocking(move || {
        let owner = Owner::acquire(&run)?;
        Owner::sweep(&run)?;
        Ok(owner)
    })
    .await?;
    let largest_memory = config.backends.values().filter_map(|backend| backend.limits.memory).max().unwrap_or(0);
    let options = EngineOptions {
        cache: Some(data_dir.join("compiled")),
        largest_memory: largest_memory.max(EngineOptions::default().largest_memory),
        ..Default::default()
    };
    let engine = Engine::new(options)?;
    let roots = Arc::new(config.trust.clone());
    let backend = |(name, backend): (&String, _)| (name.clone(), Backend::new(name, backend, roots.clone()));
    let backends = config.backends.iter().map(backend).collect();
    Ok(Inner { catalogue, owner, data_dir, engine, backends, routes: config.routes.clone(), secrets })
}

/// What an operation needs of a backend: its grants with their credentials, and its adapter.
pub(super) async fn open_backend(
    engine: &Arc<Engine>,
    name: &str,
    backend: &config::Backend,
    roots: &config::Trust,
    secrets: &dyn Secrets,
) -> Result<Open> {
    let component = component(&backend.adapter).await?;
    let trust = trust(backend, roots)?;
    // Also before any folder of its grants is made; loading checks it again.
    trust.check(&component)?;
    let capabilities = capabilities(&backend.grants, secrets).await?;
    let spec = BackendSpec {
        name: name.to_owned(),
        capabilities: capabilities.clone(),
        settings: backend.settings.clone(),
        limits: limits(&backend.limits),
        trust,
    };
    Ok(Open { slot: Slot::open(engine.clone(), spec, component).await?, capabilities })
}

/// What a backend demands of its components, the names of keys resolved.
fn trust(backend: &config::Backend, roots: &config::Trust) -> Result<Trust> {
    let key = |name: &String| match roots.keys.get(name) {
        Some(key) => Ok((name.clone(), *key)),
        None => Err(Error::invalid(format!("signed_by names `{name}`, and there is no such key in trust.keys"))),
    };
    let signed_by = backend.signed_by.iter().map(key).collect::<Result<_>>()?;
    Ok(Trust { digest: backend.digest.map(Digest::from_bytes), signed_by })
}

async fn component(source: &AdapterSource) -> Result<Component> {
    match source {
        AdapterSource::BuiltIn(name) => builtin::builtin(name).map(Component::from).ok_or_else(|| {
            let known: Vec<_> = builtin::names().collect();
            if known.contains(&name.as_str()) {
                return Error::unsupported("this binary was built without the default adapters")
                    .hint("run `cargo xtask build`, or name a component file in `adapter`");
            }
            Error::invalid(format!("there is no built-in adapter `{name}`"))
                .hint(format!("there is {}; or give the path of a component", known.join(", ")))
        }),
        AdapterSource::File(path) => Component::read(path).await,
    }
}

async fn capabilities(grants: &config::Grants, secrets: &dyn Secrets) -> Result<Capabilities> {
    let mut granted = Capabilities::none();
    for (name, grant) in &grants.http {
        let mut http = HttpGrant::to(grant.origins.iter().map(String::as_str))?;
        http.private_addresses = grant.private_addresses;
        if let Some(credentials) = &grant.credentials {
            let secret = secrets.http(&credentials.value)?;
            http.credentials = Some(HeaderCredential { header: credentials.header.clone(), secret });
        }
        granted.grant_http(name, &http)?;
    }
    for (name, grant) in &grants.bucket {
        let credentials = grant.credentials.as_ref().map(|reference| secrets.bucket(reference)).transpose()?;
        let bucket = BucketGrant {
            endpoint: grant.endpoint.clone(),
            prefix: grant.prefix.clone(),
            path_style: grant.path_style,
            credentials,
            ..BucketGrant::of(grant.region.clone(), grant.bucket.clone())
        };
        granted.grant_bucket(name, &bucket)?;
    }
    for (name, grant) in &grants.directory {
        match grant {
            config::DirectoryGrant::Path(path) => {
                let (name, grant) = (name.clone(), DirectoryGrant::below(path.clone()));
                granted = blocking(move || {
                    granted.grant_directory(&name, &grant)?;
                    Ok(granted)
                })
                .await?;
            }
            config::DirectoryGrant::Nfs { .. } => {
                return Err(Error::unsupported(format!("grants.directory.{name}: NFS exports cannot be granted yet"))
                    .hint("mount the export and grant its `path`"));
            }
        }
    }
    Ok(granted)
}

fn limits(given: &config::Limits) -> Limits {
    let otherwise = Limits::default();
    Limits {
        memory: given.memory.unwrap_or(otherwise.memory),
        deadline: given.deadline.unwrap_or(otherwise.deadline),
        idle: given.idle.unwrap_or(otherwise.idle),
        cpu: given.cpu.unwrap_or(otherwise.cpu),
        in_flight: given.in_flight.map_or(otherwise.in_flight, |count| count as usize),
        ..otherwise
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("data_dir {}", dir.display()), error))
}

/// Runs what blocks on the file system off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::other(format!("the work was cut short: {error}")))?
}
