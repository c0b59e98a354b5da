//! The connector: store, update, apply, retrieve, and their consistency. The public interface of the library.
//!
//! [`Host`] combines the modules below: the catalogue, the engine that runs adapters, and for each backend the current
//! generation of its adapter. Each operation is one function in its own file.
//! An operation takes the current generation when it reaches a backend and keeps it to its end, so a swap never
//! disturbs it.
//!
//! Guarantees hold at any moment, also if the process is killed: an object is recorded in the catalogue only after its
//! backend has reported it durable, and a store is recorded as an intent before the first byte leaves, so that
//! leftovers can be found (`gc`).

mod adapter_dir;
mod apply;
mod archive;
mod backend;
mod change;
mod component_files;
mod container;
mod damage;
mod data_dir;
mod encoding;
mod forget;
mod full;
mod gc;
mod hot;
mod hot_room;
mod identities;
mod image;
mod import;
#[cfg(test)]
mod interleaving;
mod jobs;
mod labels;
mod lazy_sandbox;
mod listing;
mod lock_file;
mod looked_through;
mod object_bytes;
mod options;
mod owner;
mod packs;
mod page_digests;
mod payload;
mod placement;
mod preflight;
mod recent;
mod relied;
mod removal;
mod report;
mod retrieve;
mod secrets;
mod setup;
mod shares;
mod sketches;
mod slot;
mod snapshots;
mod store;
mod swap_log;
mod upload;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use adapter_dir::{AdapterDir, AdapterDirEvent, AdapterDirOutcome};
pub use apply::{Delta, Room};
pub use gc::{GcOptions, GcProgress, GcStep};
pub use hot::HotStats;
pub use image::{CopiedOut, Image};
pub use import::{ImportOptions, ImportProgress, ImportStep, Imported, ImportedSnapshot, LeftAlone, LeftState};
pub use jobs::{
    JobCounts, JobOutcome, JobOverview, JobPage, JobReport, MadeObject, RebaseReport, RepairReport, RunOptions,
    ScrubOptions, ScrubReport,
};
pub use listing::MOST_LISTED;
pub use options::{HostOptions, StoreBase, StoreOptions};
pub use preflight::{GrantPreflight, LimitPreflight, NeedPreflight, Preflight, inspect, preflights};
pub use report::{
    AdapterInfo, BadPlacement, ChainStat, ColdPlacement, ColdStorage, FailedBackend, GcReport, LeftBehind,
    PlacementInfo, PlacementStat, Removed, SnapshotStat, Stored, Verification,
};
pub use retrieve::Retrieved;
pub use secrets::{NoSecrets, Secrets};

use backend::{ConfiguredBackend, OpenBackend};
use lazy_sandbox::LazySandbox;
use owner::Owner;

use crate::backend::OperationCounts;
use crate::catalogue::Catalogue;
use crate::config::{Config, Route};
use crate::runtime::{Adapter, Component, HistoryEntry, SwapOptions, SwapReport};
use crate::types::{Error, Platform, Result};

/// A running host. Cheap to clone; all clones are the same host, and the last one to go ends it. Several hosts in one
/// process are independent of each other, also on one `data_dir`.
///
/// All of its functions need a Tokio runtime with I/O and time enabled, of either flavour. Dropping the future of an
/// operation cancels it: nothing of it becomes visible.
#[derive(Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

struct HostInner {
    catalogue: Arc<dyn Catalogue>,
    owner: Owner,
    platform: Platform,
    data_dir: std::path::PathBuf,
    sandbox: LazySandbox,
    backends: BTreeMap<String, ConfiguredBackend>,
    hot: Option<hot::HotTier>,
    /// The most bytes of page digests that are kept.
    page_digest_bytes: u64,
    routes: BTreeMap<String, Route>,
    recent_digests: identities::RecentDigests,
    recent_packs: packs::RecentPacks,
    recent_frames: Arc<packs::RecentFrames>,
    pack_memory: Arc<packs::Memory>,
    pack_shares: packs::Shares,
    /// Places for the decoding of frames.
    decoders: tokio::sync::Semaphore,
    /// What those hold who make packs.
    encoders: packs::Encoders,
    apply_places: apply::ApplyPlaces,
    deletions: removal::Deletions,
    job_settings: crate::config::Jobs,
    scrub_settings: crate::config::Scrub,
    rebase_settings: crate::config::Rebase,
    /// What jobs have done.
    jobs: jobs::Totals,
    /// What a store waits for when too much is on this machine alone.
    pushes: Box<dyn store::Pushes>,
    /// For the backends that are opened later; `None` once all are open.
    secrets: Option<Arc<dyn Secrets>>,
}

impl Host {
    /// Starts a host with all of its backends: its catalogue, its grants, their credentials and the adapters. Connects to
    /// no backend yet.
    ///
    /// # Errors
    /// `invalid` and `denied` for a configuration that does not fit its adapters; `not-found` for a component that is not
    /// there; `corrupt` for a damaged catalogue. One backend that cannot be opened is enough; the error names it.
    pub async fn start(config: &Config, secrets: &dyn Secrets) -> Result<Self> {
        let host = Self { inner: Arc::new(setup::open(config, None, HostOptions::default()).await?) };
        for backend in host.inner.backends.values() {
            backend.open(&host.inner.sandbox, secrets).await?;
        }
        Ok(host)
    }

    /// Starts a host without its backends: each is opened by the first operation that needs it, which is when its
    /// credentials and its component have to be there. Operations on the catalogue alone need neither. A backend that
    /// cannot be opened fails that operation, or leaves it to the next backend that holds a snapshot, and is tried again
    /// by the next one.
    ///
    /// # Errors
    /// Errors of the data directory and of the catalogue.
    pub async fn start_lazily(config: &Config, secrets: Arc<dyn Secrets>) -> Result<Self> {
        Self::start_with(config, secrets, HostOptions::default()).await
    }

    /// Starts a host as [`Self::start_lazily`] does, with the caller's clock, random numbers or backends.
    ///
    /// # Errors
    /// As [`Self::start_lazily`]; `invalid` if a backend is given that the configuration does not name.
    pub async fn start_with(config: &Config, secrets: Arc<dyn Secrets>, options: HostOptions) -> Result<Self> {
        if let Some(name) = options.backends.keys().find(|name| !config.backends.contains_key(*name)) {
            return Err(Error::invalid(format!("the configuration has no backend `{name}`"))
                .hint(format!("add `backends.{name}` to the configuration")));
        }
        Ok(Self { inner: Arc::new(setup::open(config, Some(secrets), options).await?) })
    }

    /// Returns the names of the backends, whether or not they are open.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.inner.backends.keys().map(String::as_str)
    }

    /// The names of the backends: what is recorded on others does not count as a copy.
    fn configured_names(&self) -> Vec<String> {
        self.inner.backends.keys().cloned().collect()
    }

    /// Opens a backend if it is not open yet.
    ///
    /// # Errors
    /// `not-found` for an unknown name; otherwise as [`Self::start`].
    pub async fn open_backend(&self, name: &str) -> Result<()> {
        self.backend(name).await.map(drop)
    }

    /// Returns whether a backend is open. An unknown one is not.
    pub fn is_open(&self, name: &str) -> bool {
        self.inner.backends.get(name).is_some_and(|backend| backend.get().is_some())
    }

    /// Returns the open backends and their adapters.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        self.inner.backends.values().filter_map(|backend| AdapterInfo::of(backend, backend.get()?)).collect()
    }

    /// Returns the current adapter of a backend, opening it if necessary: for access to objects rather than to
    /// snapshots, as in a conformance suite. It is a copy of the current state; a swap does not wait for it.
    ///
    /// # Errors
    /// `not-found` for an unknown name; otherwise as [`Self::start`].
    pub async fn adapter(&self, backend: &str) -> Result<Arc<Adapter>> {
        Ok(self.backend(backend).await?.serving()?.adapter)
    }

    /// Replaces the adapter of a backend by another component while operations run. Those that have begun end on the
    /// old one.
    ///
    /// # Errors
    /// `denied` for a component that violates the backend's pin or required signature; any error of loading it; the
    /// result of its probe. The old generation keeps serving.
    pub async fn swap(&self, backend: &str, component: impl Into<Component>) -> Result<SwapReport> {
        self.swap_with(backend, component, SwapOptions::default()).await
    }

    /// Swaps with options: the origin for the swap log, and a callback for stages.
    ///
    /// # Errors
    /// As [`Self::swap`].
    pub async fn swap_with(
        &self,
        backend: &str,
        component: impl Into<Component>,
        options: SwapOptions,
    ) -> Result<SwapReport> {
        self.backend(backend).await?.swap(component, options).await
    }

    /// Returns to the adapter that served before.
    ///
    /// # Errors
    /// `conflict` if there is none.
    pub async fn rollback(&self, backend: &str) -> Result<SwapReport> {
        self.rollback_with(backend, SwapOptions::default()).await
    }

    /// Rolls back with options: the origin for the swap log, and a callback for stages.
    ///
    /// # Errors
    /// As [`Self::rollback`].
    pub async fn rollback_with(&self, backend: &str, options: SwapOptions) -> Result<SwapReport> {
        self.backend(backend).await?.rollback(options).await
    }

    /// Returns the swap log of a backend, newest first: generations with time and origin, and rejected components with
    /// the reason. `None` if the backend is not open yet.
    ///
    /// # Errors
    /// `not-found` for an unknown backend.
    pub fn history(&self, backend: &str) -> Result<Vec<HistoryEntry>> {
        Ok(self.configured(backend)?.get().map(OpenBackend::history).unwrap_or_default())
    }

    /// Returns the bytes that were copied into or out of the memory of the current adapters.
    pub fn bytes_through_guests(&self) -> u64 {
        let open = self.inner.backends.values().filter_map(ConfiguredBackend::get);
        open.filter_map(|open| open.serving().ok()).map(|serving| serving.adapter.bytes_through_guest()).sum()
    }

    /// Returns the counts of the operations of each open backend, by its name.
    pub fn operation_counts(&self) -> BTreeMap<String, Vec<OperationCounts>> {
        let open = self.inner.backends.iter().filter_map(|(name, backend)| Some((name, backend.get()?)));
        open.map(|(name, open)| (name.clone(), open.metrics().counts())).collect()
    }

    /// Returns a backend, opening it if necessary. An error of opening can be of any kind, even `not-found` (of a
    /// component), and must not be taken for an adapter's answer about an object.
    async fn backend(&self, name: &str) -> Result<&OpenBackend> {
        let backend = self.configured(name)?;
        match (backend.get(), &self.inner.secrets) {
            (Some(open), _) => Ok(open),
            (None, Some(secrets)) => backend.open(&self.inner.sandbox, &**secrets).await,
            (None, None) => backend.open(&self.inner.sandbox, &NoSecrets).await,
        }
    }

    fn configured(&self, name: &str) -> Result<&ConfiguredBackend> {
        self.inner.backends.get(name).ok_or_else(|| {
            let known: Vec<_> = self.backends().collect();
            Error::not_found(format!("no backend `{name}`")).hint(format!("use one of {}", known.join(", ")))
        })
    }

    /// Returns the names of all configured routes.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.inner.routes.keys().map(String::as_str)
    }

    fn route(&self, name: Option<&str>) -> Result<&Route> {
        let name = name.unwrap_or(crate::config::DEFAULT_ROUTE);
        self.inner.routes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.inner.routes.keys().map(String::as_str).collect();
            Error::invalid(format!("no route `{name}`")).hint(format!("use one of {}", known.join(", ")))
        })
    }
}
