//! The connector: store, update, apply, retrieve, and what keeps them honest. This is the library's front door.
//!
//! [`Host`] ties the rooms below together: a catalogue that knows what is where, an engine that runs adapters, and for
//! each backend the generation of its adapter that serves now. Each operation is one function in a file of its own.
//! An operation takes the generation that serves when it reaches a backend and keeps it to its end, so that a swap never
//! disturbs it.
//!
//! What has been promised holds at any moment, also when the process is killed: an object is recorded in the catalogue
//! only after its backend has said that it is durable, and what was under way is recorded as an intent before the first
//! byte goes out, so that leftovers can be found (`collect`).

mod adapter_dir;
mod apply;
mod archive;
mod backend;
mod gc;
mod import;
mod labels;
mod preflight;
mod report;
mod retrieve;
mod setup;
mod snapshots;
mod store;
mod swap_log;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use adapter_dir::{AdapterDir, AdapterDirEvent, AdapterDirOutcome};
pub use apply::Delta;
pub use import::{ImportOptions, ImportProgress, ImportStep, Imported, ImportedSnapshot, LeftAlone, LeftState};
pub use preflight::{GrantPreflight, LimitPreflight, NeedPreflight, Preflight, inspect, preflights};
pub use report::{
    AdapterInfo, BadPlacement, ColdPlacement, ColdStorage, GcReport, PlacementInfo, PlacementStat, Removed,
    SnapshotStat, Stored, Verification,
};
pub use retrieve::Retrieved;
pub use setup::{NoSecrets, Secrets};
pub use store::StoreOptions;

use backend::{ConfiguredBackend, OpenBackend};

use crate::catalogue::{Catalogue, Owner};
use crate::config::{Config, Route};
use crate::runtime::{Adapter, Component, Engine, HistoryEntry, SwapOptions, SwapReport};
use crate::types::{Error, Result};

/// A running host. Cheap to clone; all clones are the same host, and the last one to go ends it. Several hosts in one
/// process are independent of each other, also on one `data_dir`.
///
/// All of its functions need a Tokio runtime with I/O and time enabled, of either flavour. Dropping the future of an
/// operation gives the operation up: nothing of it becomes visible.
#[derive(Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

struct HostInner {
    catalogue: Catalogue,
    owner: Owner,
    data_dir: std::path::PathBuf,
    engine: Arc<Engine>,
    backends: BTreeMap<String, ConfiguredBackend>,
    routes: BTreeMap<String, Route>,
    /// For the backends that are opened later; `None` once all are open.
    secrets: Option<Arc<dyn Secrets>>,
}

impl Host {
    /// Opens a host with all of its backends: its catalogue, its grants, their credentials and the adapters. Connects to
    /// no backend yet.
    ///
    /// # Errors
    /// `invalid` and `denied` for a configuration that does not fit its adapters; `not-found` for a component that is not
    /// there; `corrupt` for a damaged catalogue. One backend that cannot be opened is enough; the error names it.
    pub async fn open(config: &Config, secrets: &dyn Secrets) -> Result<Self> {
        let host = Self { inner: Arc::new(setup::open(config, None).await?) };
        for backend in host.inner.backends.values() {
            backend.open(&host.inner.engine, secrets).await?;
        }
        Ok(host)
    }

    /// Opens a host without its backends: each is opened by the first operation that needs it, which is when its
    /// credentials and its component have to be there. What only asks the catalogue needs none of them. A backend that
    /// cannot be opened fails that operation, or leaves it to the next backend that holds a snapshot, and is tried again
    /// by the next one.
    ///
    /// # Errors
    /// What the data directory and the catalogue meet.
    pub async fn open_lazily(config: &Config, secrets: Arc<dyn Secrets>) -> Result<Self> {
        Ok(Self { inner: Arc::new(setup::open(config, Some(secrets)).await?) })
    }

    /// The names of the backends, whether or not they are open.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.inner.backends.keys().map(String::as_str)
    }

    /// Opens a backend if it is not open yet.
    ///
    /// # Errors
    /// `not-found` for a name that is none; otherwise as [`Self::open`].
    pub async fn open_backend(&self, name: &str) -> Result<()> {
        self.backend(name).await.map(drop)
    }

    /// Whether a backend is open. An unknown one is not.
    pub fn is_open(&self, name: &str) -> bool {
        self.inner.backends.get(name).is_some_and(|backend| backend.get().is_some())
    }

    /// The backends that are open, and what serves them.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        self.inner.backends.values().filter_map(|backend| Some(AdapterInfo::of(backend, backend.get()?))).collect()
    }

    /// The adapter that serves a backend now, opened if it was not yet: for whoever asks about objects rather than about
    /// snapshots, as a suite does that checks adapters. It is what serves at this moment; a swap does not wait for it.
    ///
    /// # Errors
    /// `not-found` for a name that is none; otherwise as [`Self::open`].
    pub async fn adapter(&self, backend: &str) -> Result<Arc<Adapter>> {
        Ok(self.backend(backend).await?.slot.current().adapter().clone())
    }

    /// Replaces the adapter of a backend by another component while operations run. Those that have begun end on the
    /// old one.
    ///
    /// # Errors
    /// `denied` for a component that the backend's pin or its demand for a signature refuses; whatever else keeps it from
    /// loading; what its probe says. The old one serves on.
    pub async fn swap(&self, backend: &str, component: impl Into<Component>) -> Result<SwapReport> {
        self.swap_with(backend, component, SwapOptions::default()).await
    }

    /// The same, with a word on who asks and a look at the stages as they pass.
    ///
    /// # Errors
    /// As [`Self::swap`].
    pub async fn swap_with(
        &self,
        backend: &str,
        component: impl Into<Component>,
        options: SwapOptions,
    ) -> Result<SwapReport> {
        self.backend(backend).await?.slot.swap(component, options).await
    }

    /// Puts the adapter that served before back.
    ///
    /// # Errors
    /// `conflict` if there is none.
    pub async fn rollback(&self, backend: &str) -> Result<SwapReport> {
        self.rollback_with(backend, SwapOptions::default()).await
    }

    /// The same, with a word on who asks and a look at the stages as they pass.
    ///
    /// # Errors
    /// As [`Self::rollback`].
    pub async fn rollback_with(&self, backend: &str, options: SwapOptions) -> Result<SwapReport> {
        self.backend(backend).await?.slot.rollback(options).await
    }

    /// What has happened to a backend's adapter, newest first: which generation began to serve when, who put it in, what
    /// was refused and why. Nothing if the backend is not open yet.
    ///
    /// # Errors
    /// `not-found` for an unknown backend.
    pub fn history(&self, backend: &str) -> Result<Vec<HistoryEntry>> {
        Ok(self.configured(backend)?.get().map(|open| open.slot.history()).unwrap_or_default())
    }

    /// Bytes that were copied into or out of the memory of the adapters that serve now: what the sandbox had to carry.
    pub fn bytes_through_guests(&self) -> u64 {
        let open = self.inner.backends.values().filter_map(ConfiguredBackend::get);
        open.map(|open| open.slot.current().adapter().bytes_through_guest()).sum()
    }

    /// A backend, opened if it was not yet. What keeps it from being opened may be of any kind, `not-found` too (of a
    /// component), and must not be taken for what an adapter says of an object.
    async fn backend(&self, name: &str) -> Result<&OpenBackend> {
        let backend = self.configured(name)?;
        match (backend.get(), &self.inner.secrets) {
            (Some(open), _) => Ok(open),
            (None, Some(secrets)) => backend.open(&self.inner.engine, &**secrets).await,
            (None, None) => backend.open(&self.inner.engine, &NoSecrets).await,
        }
    }

    fn configured(&self, name: &str) -> Result<&ConfiguredBackend> {
        self.inner.backends.get(name).ok_or_else(|| {
            let known: Vec<_> = self.backends().collect();
            Error::not_found(format!("no backend `{name}`")).hint(format!("use one of {}", known.join(", ")))
        })
    }

    fn route(&self, name: Option<&str>) -> Result<&Route> {
        let name = name.unwrap_or(crate::config::DEFAULT_ROUTE);
        self.inner.routes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.inner.routes.keys().map(String::as_str).collect();
            Error::invalid(format!("no route `{name}`")).hint(format!("use one of {}", known.join(", ")))
        })
    }
}
