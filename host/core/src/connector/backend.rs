//! A backend: its configuration and, once an operation needs it, its open adapter.
//!
//! A backend is opened once, by the first operation that needs it: its credentials are resolved, its grants are opened,
//! its component is read, checked and loaded. Those who come meanwhile wait for that one attempt; if it fails, the next
//! one tries again. So a command that asks only the catalogue needs neither the secrets of a bucket nor the component of
//! an adapter, and a broken backend does not keep the others from serving.
//!
//! Operations on objects go through [`OpenBackend::objects`], a [`Backend`] with its layers around it. That a swap slot is
//! at the bottom of it is known here alone, where adapters are replaced and looked at.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Secrets;
use super::setup::open_backend;
use crate::backend::{Backend, Layer, Metrics, OperationMetrics, Trace, layered};
use crate::capabilities::Capabilities;
use crate::config::{self, Tier};
use crate::runtime::{Component, HistoryEntry, HistoryRow, Sandbox, Serving, Slot, SwapLog, SwapOptions, SwapReport};
use crate::types::Result;

/// A configured backend.
pub(super) struct ConfiguredBackend {
    name: String,
    config: config::BackendConfig,
    roots: Arc<config::Trust>,
    swap_log: Arc<dyn SwapLog>,
    open: OnceCell<OpenBackend>,
}

/// Everything that an operation needs of a backend.
pub(super) struct OpenBackend {
    /// Its objects.
    pub(super) objects: Arc<dyn Backend>,
    slot: Slot,
    metrics: Arc<OperationMetrics>,
    pub(super) capabilities: Capabilities,
    /// Days that restored objects stay readable.
    pub(super) restore_days: u32,
}

impl OpenBackend {
    /// Puts the layers around a slot.
    pub(super) fn new(slot: Slot, capabilities: Capabilities, restore_days: u32) -> Result<Self> {
        let metrics = Metrics::default();
        let counters = metrics.counters();
        let layers: Vec<Box<dyn Layer>> = vec![Box::new(metrics), Box::new(Trace)];
        let objects = layered(Arc::new(slot.clone()), layers)?;
        Ok(Self { objects, slot, metrics: counters, capabilities, restore_days })
    }

    /// What has been counted of its operations.
    pub(super) fn metrics(&self) -> &OperationMetrics {
        &self.metrics
    }

    /// The adapter that serves now, and since when.
    pub(super) fn serving(&self) -> Serving {
        self.slot.serving()
    }

    /// What has happened to its adapter, newest first.
    pub(super) fn history(&self) -> Vec<HistoryEntry> {
        self.slot.history()
    }

    /// Why a component should not be put in unasked, as [`Slot::put_aside`].
    pub(super) fn put_aside(&self, digest: &str) -> Option<HistoryRow> {
        self.slot.put_aside(digest)
    }

    /// Replaces its adapter, as [`Slot::swap`].
    pub(super) async fn swap(&self, component: impl Into<Component>, options: SwapOptions) -> Result<SwapReport> {
        self.slot.swap(component, options).await
    }

    /// Puts the adapter that served before back, as [`Slot::rollback`].
    pub(super) async fn rollback(&self, options: SwapOptions) -> Result<SwapReport> {
        self.slot.rollback(options).await
    }
}

impl ConfiguredBackend {
    /// One that is not open yet.
    pub(super) fn new(
        name: &str,
        config: &config::BackendConfig,
        roots: Arc<config::Trust>,
        swap_log: Arc<dyn SwapLog>,
    ) -> Self {
        Self { name: name.to_owned(), config: config.clone(), roots, swap_log, open: OnceCell::new() }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How warm it is.
    pub(super) fn tier(&self) -> Tier {
        self.config.tier
    }

    /// Returns the slot of its adapter, if it is open.
    pub(super) fn get(&self) -> Option<&OpenBackend> {
        self.open.get()
    }

    /// Opens it unless that has been done.
    pub(super) async fn open(&self, sandbox: &Arc<Sandbox>, secrets: &dyn Secrets) -> Result<&OpenBackend> {
        let open = self.open.get_or_try_init(|| {
            open_backend(sandbox, &self.name, &self.config, &self.roots, self.swap_log.clone(), secrets)
        });
        open.await.map_err(|error| error.on_backend(&self.name))
    }
}
