//! From a configuration to a host whose backends are not open yet: folders, catalogue, engine, hot tier.

use std::io::ErrorKind as Io;
use std::path::PathBuf;
use std::sync::Arc;

use super::HostInner;
use super::backend::ConfiguredBackend;
use super::data_dir;
use super::hot::HotTier;
use super::jobs::DueJobs;
use super::lazy_sandbox::LazySandbox;
use super::options::HostOptions;
use super::owner::Owner;
use super::packs;
use super::page_digests::MAX_DIGEST_BYTES;
use super::secrets::Secrets;
use super::shares;
use super::swap_log::CatalogueSwapLog;
use crate::catalogue::{Catalogue, SqliteCatalogue};
use crate::config::{self, Config, HOT};
use crate::hot::HotBackend;
use crate::runtime::{EngineOptions, Limits, SwapLog};
use crate::types::{Platform, Result, durable};

/// The most operations at once for which places are set aside; further ones wait, of whatever backend they are. Each
/// takes 400 MiB of address space with the default limits.
const MAX_OPERATIONS: u32 = 2048;

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
    let catalogue = data_dir.join("catalogue.sqlite");
    let begun = !catalogue.exists();
    let catalogue: Arc<dyn Catalogue> = Arc::new(SqliteCatalogue::open(catalogue, platform.clone()).await?);
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
    let page_digest_bytes = MAX_DIGEST_BYTES.saturating_add(hot.as_ref().map_or(0, HotTier::digest_bytes));
    let mut configured = config.backends.clone();
    configured.extend(hot.as_ref().map(|_| (HOT.to_owned(), config::BackendConfig::hot())));
    let encryption = config.encryption.clone().map(Arc::new);
    let backend = |(name, backend): (&String, _)| {
        let backend = ConfiguredBackend::new(name, backend, roots.clone(), swap_log.clone(), &options);
        (name.clone(), backend.encrypted(encryption.clone()))
    };
    let backends = configured.iter().map(backend).collect();
    Ok(HostInner {
        catalogue,
        owner,
        platform,
        data_dir,
        begun,
        sandbox,
        backends,
        hot,
        page_digest_bytes,
        routes: config.routes.clone(),
        recent_digests: Default::default(),
        recent_packs: Default::default(),
        recent_frames: Default::default(),
        pack_memory: Default::default(),
        pack_shares: Default::default(),
        decoders: packs::decoders(),
        encoders: Default::default(),
        apply_places: Default::default(),
        deletions: Default::default(),
        job_settings: config.jobs.clone(),
        scrub_settings: config.scrub.clone(),
        rebase_settings: config.rebase.clone(),
        jobs: Default::default(),
        pushes: Box::new(DueJobs),
        secrets,
    })
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

/// The directory of compiled code, unless it cannot be made: where nothing can be written, code is compiled anew.
fn cache(dir: PathBuf) -> Option<PathBuf> {
    if dir.exists() && !dir.is_dir() {
        tracing::warn!(path = %dir.display(), "compiled code is not kept: there is no directory for it");
        return None;
    }
    match durable::make_dir(&dir) {
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
