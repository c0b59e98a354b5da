//! From a configuration to an open host: folders, grants, credentials, components.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::HostInner;
use super::backend::{ConfiguredBackend, OpenBackend};
use super::data_dir;
use super::hot::HotTier;
use super::lazy_sandbox::LazySandbox;
use super::options::HostOptions;
use super::owner::Owner;
use super::packs;
use super::shares;
use super::swap_log::CatalogueSwapLog;
use crate::builtin;
use crate::capabilities::Capabilities;
use crate::capabilities::grant::{
    BucketCredentials, BucketGrant, ConnectionSettings, DirectoryGrant, HeaderCredential, HeaderLimits, HttpGrant,
    NfsGrant, Proxies, Secret,
};
use crate::catalogue::{Catalogue, SqliteCatalogue};
use crate::config::{self, AdapterSource, Config, CredentialRef, HOT};
use crate::hot::HotBackend;
use crate::runtime::{
    BackendSpec, Canary, Component, ComponentDigest, EngineOptions, Limits, Sandbox, Slot, SlotOptions, SwapLog,
    SwapPolicy, Trust,
};
use crate::types::{Error, Platform, Result, blocking};

/// The most operations at once for which places are set aside; further ones wait, of whatever backend they are. Each
/// takes 400 MiB of address space with the default limits.
const MAX_OPERATIONS: u32 = 2048;

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

/// Everything but the backends.
pub(super) async fn open(
    config: &Config,
    secrets: Option<Arc<dyn Secrets>>,
    options: HostOptions,
) -> Result<HostInner> {
    let config = &shares::divided(config);
    let data_dir = config.data_dir.clone();
    data_dir::open(&config.data_dir)?;
    let platform = options.platform.clone();
    let catalogue: Arc<dyn Catalogue> =
        Arc::new(SqliteCatalogue::open(data_dir.join("catalogue.sqlite"), platform.clone()).await?);
    let owner = Owner::new(catalogue.clone(), data_dir.join("run"), platform.clone());
    let sandbox = LazySandbox::new(engine(config, cache(data_dir.join("compiled")), platform.clone()));
    let roots = Arc::new(config.trust.clone());
    let swap_log = CatalogueSwapLog::new(catalogue.clone(), data_dir.join("adapters"), platform.clone());
    let swap_log: Arc<dyn SwapLog> = Arc::new(swap_log);
    let mut options = options;
    let hot = config.hot.as_ref().map(|hot| {
        let backend = Arc::new(HotBackend::new(HOT, &hot.path, platform.clone()));
        options.backends.insert(HOT.to_owned(), backend.clone());
        HotTier::new(backend, hot.capacity, hot.at_risk)
    });
    let mut configured = config.backends.clone();
    configured.extend(hot.as_ref().map(|_| (HOT.to_owned(), config::BackendConfig::hot())));
    let backend = |(name, backend): (&String, _)| {
        (name.clone(), ConfiguredBackend::new(name, backend, roots.clone(), swap_log.clone(), &options))
    };
    let backends = configured.iter().map(backend).collect();
    Ok(HostInner {
        catalogue,
        owner,
        platform,
        data_dir,
        sandbox,
        backends,
        hot,
        routes: config.routes.clone(),
        recent_digests: Default::default(),
        recent_packs: Default::default(),
        recent_frames: Default::default(),
        pack_memory: Default::default(),
        pack_shares: Default::default(),
        decoders: packs::decoders(),
        encoders: tokio::sync::Semaphore::new(2),
        apply_places: Default::default(),
        deletions: Default::default(),
        job_settings: config.jobs.clone(),
        scrub_settings: config.scrub.clone(),
        rebase_settings: config.rebase.clone(),
        jobs: Default::default(),
        secrets,
    })
}

/// Returns everything that an operation needs of a backend: its grants with their credentials, and its adapter.
pub(super) async fn open_backend(
    sandbox: &Arc<Sandbox>,
    name: &str,
    backend: &config::BackendConfig,
    roots: &config::Trust,
    swap_log: Arc<dyn SwapLog>,
    secrets: &dyn Secrets,
) -> Result<OpenBackend> {
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
    OpenBackend::new(slot, capabilities, backend.restore_days, sandbox.engine().options().platform.clone())
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

/// An engine that can hold what the limits of all backends allow.
fn engine(config: &Config, cache: Option<PathBuf>, platform: Platform) -> EngineOptions {
    let limits: Vec<Limits> =
        config.backends.values().map(|backend| backend.limits.apply_to(&Limits::DEFAULT)).collect();
    // A place for every operation that any backend may run: those of the generation that serves, as many of those that
    // drain, and one of a candidate. No backend waits for another's places. Places cost address space.
    let wanted = limits.iter().map(|limits| limits.in_flight.saturating_mul(2).saturating_add(1));
    let wanted = wanted.fold(0, usize::saturating_add);
    let operations = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, MAX_OPERATIONS);
    // Code is compiled for a size of memory: that a limit is changed a little is no reason to compile again.
    let largest_memory = limits.iter().map(|limits| limits.memory).max().unwrap_or(Limits::DEFAULT.memory);
    let largest_memory = largest_memory.checked_next_power_of_two().unwrap_or(u64::MAX);
    let largest_table = limits.iter().map(|limits| limits.table_elements).max().unwrap_or(0);
    EngineOptions {
        operations,
        largest_memory: largest_memory.max(Limits::DEFAULT.memory),
        largest_table: largest_table.max(Limits::DEFAULT.table_elements),
        cache,
        platform,
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

/// The directory of compiled code, unless it cannot be made: where nothing can be written, code is compiled anew.
fn cache(dir: PathBuf) -> Option<PathBuf> {
    if dir.exists() && !dir.is_dir() {
        tracing::warn!(path = %dir.display(), "compiled code is not kept: there is no directory for it");
        return None;
    }
    match data_dir::make(&dir) {
        Err(error) if matches!(error.kind(), Io::ReadOnlyFilesystem | Io::StorageFull | Io::QuotaExceeded) => None,
        // The engine reports everything else.
        _ => Some(dir),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::types::LimitOverrides;

    /// The file of `tidelock init` has the defaults.
    #[test]
    fn the_commented_limits_are_the_defaults() {
        let shown =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
        let text: Vec<String> = config::commented_default().lines().map(shown).collect();
        let config = Config::parse(&text.join("\n"), Path::new("")).unwrap();
        let given = &config.backends["local"].limits;
        assert_ne!(*given, LimitOverrides::default());
        assert_eq!(given.apply_to(&Limits::DEFAULT), Limits::DEFAULT);
    }

    #[test]
    fn there_is_a_place_for_every_operation() {
        let text =
            "[backends.a]\nadapter = 'fs'\nlimits = { in_flight = 300, memory = '2 GiB', table_elements = 30000 }";
        let options = engine(&Config::parse(text, Path::new("")).unwrap(), Some("x".into()), Platform::system());
        assert_eq!((options.operations, options.largest_memory, options.largest_table), (601, 2 << 30, 30_000));
    }
}
