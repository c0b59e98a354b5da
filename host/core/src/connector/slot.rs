//! From the configuration of a backend to its adapter, ready to serve: credentials, grants, component.

use std::path::Path;
use std::sync::Arc;

use super::secrets::Secrets;
use crate::builtin;
use crate::capabilities::Capabilities;
use crate::capabilities::grant::{
    BucketGrant, ConnectionSettings, DirectoryGrant, HeaderCredential, HeaderLimits, HttpGrant, NfsGrant, Proxies,
};
use crate::config::{self, AdapterSource};
use crate::runtime::{
    BackendSpec, Canary, Component, ComponentDigest, Limits, Sandbox, Slot, SlotOptions, SwapLog, SwapPolicy, Trust,
};
use crate::types::{Error, Platform, Result, blocking};

/// Opens the slot of a backend with its adapter in it, and returns the grants that the adapter has.
///
/// # Errors
/// `invalid` and `denied` for a configuration that does not fit the adapter; `not-found` for a component that is not there;
/// errors of the credentials and of the grants.
pub(super) async fn open_slot(
    sandbox: &Arc<Sandbox>,
    name: &str,
    backend: &config::BackendConfig,
    roots: &config::Trust,
    swap_log: Arc<dyn SwapLog>,
    secrets: &dyn Secrets,
) -> Result<(Slot, Capabilities)> {
    let component = component(&backend.adapter).await?;
    let trust = trust(backend, roots)?;
    // Also before any folder of its grants is made; loading checks it again.
    trust.check(&component)?;
    let limits = backend.limits.apply_to(&Limits::DEFAULT);
    let capabilities = capabilities(&backend.grants, &limits, secrets, &sandbox.engine().options().platform).await?;
    let spec = BackendSpec {
        name: name.to_owned(),
        capabilities: capabilities.clone(),
        settings: backend.settings.clone(),
        limits,
        trust,
    };
    let options = SlotOptions { policy: policy(&backend.swap), swap_log };
    let slot = Slot::open(sandbox.clone(), spec, component, options).await?;
    Ok((slot, capabilities))
}

/// Returns a backend's requirements for its components, with the names of keys resolved.
pub(super) fn trust(backend: &config::BackendConfig, roots: &config::Trust) -> Result<Trust> {
    let key = |name: &String| match roots.keys.get(name) {
        Some(key) => Ok((name.clone(), *key)),
        None => Err(Error::invalid(format!("signed_by names `{name}`, which is not a key of trust.keys"))),
    };
    let signed_by = backend.signed_by.iter().map(key).collect::<Result<_>>()?;
    Ok(Trust {
        digest: backend.digest.map(ComponentDigest::from_bytes),
        signed_by,
        require_manifest: roots.require_manifest,
    })
}

async fn component(source: &AdapterSource) -> Result<Component> {
    match source {
        AdapterSource::BuiltIn(name) => builtin::builtin(name).map(Component::from).ok_or_else(|| {
            let known: Vec<_> = builtin::names().collect();
            if known.contains(&name.as_str()) {
                return Error::unsupported("this binary was built without the default adapters")
                    .hint("run `cargo xtask build`, or name a component file in `adapter`");
            }
            Error::invalid(format!("no built-in adapter `{name}`"))
                .hint(format!("use one of {}, or the path of a component", known.join(", ")))
        }),
        AdapterSource::File(path) => Component::read(path).await,
    }
}

async fn capabilities(
    grants: &config::Grants,
    limits: &Limits,
    secrets: &dyn Secrets,
    platform: &Platform,
) -> Result<Capabilities> {
    let mut granted = Capabilities::with_platform(platform.clone());
    for (name, grant) in &grants.http {
        let mut http = HttpGrant::to(grant.origins.iter().map(String::as_str))?;
        http.connection =
            connection(grant.private_addresses, proxies(&grant.proxy, secrets)?, grant.ca_file.as_deref(), limits);
        if let Some(credentials) = &grant.credentials {
            let secret = secrets.http(&credentials.value)?;
            http.credentials = Some(HeaderCredential { header: credentials.header.clone(), secret });
        }
        granted.grant_http(name, &http)?;
    }
    for (name, grant) in &grants.bucket {
        let credentials = grant.credentials.as_ref().map(|reference| secrets.bucket(reference)).transpose()?;
        let mut bucket = BucketGrant {
            endpoint: grant.endpoint.clone(),
            prefix: grant.prefix.clone(),
            prefix_without_slash: grant.prefix_without_slash,
            path_style: grant.path_style,
            credentials,
            conditional_writes: grant.conditional_writes,
            checksums: grant.checksums,
            connection: connection(
                grant.private_addresses,
                proxies(&grant.proxy, secrets)?,
                grant.ca_file.as_deref(),
                limits,
            ),
            ..BucketGrant::of(grant.region.clone(), grant.bucket.clone())
        };
        bucket.largest_part = grant.largest_part.unwrap_or(bucket.largest_part);
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
            config::DirectoryGrant::Nfs { url, mount_port } => {
                let place = |error: Error| {
                    Error::invalid(format!("grants.directory.{name}: {}", error.message()))
                        .hint(error.advice().unwrap_or("see docs/backends.md").to_owned())
                };
                let mut nfs = NfsGrant::parse(url, *mount_port).map_err(place)?;
                nfs.stall_timeout = nfs.stall_timeout.min(limits.idle);
                nfs.patience = nfs.patience.min(limits.idle);
                granted.grant_nfs(name, nfs);
            }
        }
    }
    Ok(granted)
}

fn connection(
    private_addresses: bool,
    proxies: Proxies,
    ca_file: Option<&Path>,
    limits: &Limits,
) -> ConnectionSettings {
    let defaults = ConnectionSettings::new(private_addresses);
    ConnectionSettings {
        headers: HeaderLimits { count: limits.headers, bytes: limits.header_bytes },
        proxies,
        ca_file: ca_file.map(Path::to_owned),
        // A connection that is not made in time is a stall too, and the wait for an answer covers both.
        connect_timeout: defaults.connect_timeout.min(limits.idle),
        stall_timeout: defaults.stall_timeout.min(limits.idle),
        ..defaults
    }
}

fn proxies(proxy: &config::Proxy, secrets: &dyn Secrets) -> Result<Proxies> {
    match proxy {
        config::Proxy::Environment => secrets.proxies(),
        config::Proxy::Direct => Ok(Proxies::default()),
        config::Proxy::Url(url) => Ok(Proxies::all(url)),
    }
}

fn policy(given: &config::Swap) -> SwapPolicy {
    let otherwise = SwapPolicy::default();
    SwapPolicy {
        drain: given.drain,
        canary: given.canary.map(|config::Canary { share, duration }| Canary { share, duration }),
        trial: given.trial.or(otherwise.trial).filter(|_| given.automatic_rollback),
    }
}
