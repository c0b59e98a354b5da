//! A backend: its configuration and, once an operation needs it, its open adapter.
//!
//! A backend is opened once, by the first operation that needs it: its credentials are resolved, its grants are opened,
//! its component is read, checked and loaded. Those who come meanwhile wait for that one attempt; if it fails, the next
//! one tries again. So a command that asks only the catalogue needs neither the secrets of a bucket nor the component of
//! an adapter, and a broken backend does not keep the others from serving.
//!
//! Operations on objects go through [`OpenBackend::objects`], a [`Backend`] with its layers around it. That a swap slot is
//! at the bottom of it is known here alone, where adapters are replaced and looked at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::container::Looks;
use super::labels::names_its_key;
use super::lazy_sandbox::LazySandbox;
use super::options::HostOptions;
use super::secrets::Secrets;
use super::slot::open_slot;
use crate::backend::{Backend, Layer, Metrics, OperationMetrics, Trace, layered};
use crate::capabilities::Capabilities;
use crate::config::{self, Cost, Tier};
use crate::runtime::{Component, HistoryEntry, HistoryRow, Serving, Slot, SwapLog, SwapOptions, SwapReport};
use crate::sealed::{EncryptionKey, Keyring, SealedBackend};
use crate::types::{Error, Platform, Result};

/// A configured backend.
pub(super) struct ConfiguredBackend {
    name: String,
    config: config::BackendConfig,
    roots: Arc<config::Trust>,
    swap_log: Arc<dyn SwapLog>,
    /// In place of an adapter, as the embedder has it.
    given: Option<Arc<dyn Backend>>,
    /// The keys that its objects are sealed with.
    encryption: Option<Arc<config::Encryption>>,
    platform: Platform,
    open: OnceCell<OpenBackend>,
    /// Set once its container was found to be the one that is recorded (`container.rs`).
    pub(super) container_seen: OnceCell<()>,
    /// Set once it has not shown the label of a pack that it was sent: it is sent no others until the host starts again.
    pub(super) loses_labels: AtomicBool,
    /// The looks at its container that prove what was done in it.
    pub(super) looks: Looks,
    /// The backends that were found to store into other places (`container/apart.rs`).
    apart_from: Mutex<BTreeSet<String>>,
    /// Whether it could not be used when it was last looked at (`states.rs`).
    unusable: AtomicBool,
}

/// Everything that an operation needs of a backend.
pub(super) struct OpenBackend {
    /// Its objects.
    pub(super) objects: Arc<dyn Backend>,
    /// Where its adapter is replaced; none where the embedder has brought a backend of its own.
    slot: Option<Slot>,
    metrics: Arc<OperationMetrics>,
    pub(super) capabilities: Capabilities,
    /// Days that restored objects stay readable.
    pub(super) restore_days: u32,
}

impl OpenBackend {
    /// Puts the layers around a backend.
    fn layered(
        inner: Arc<dyn Backend>,
        slot: Option<Slot>,
        capabilities: Capabilities,
        restore_days: u32,
        platform: Platform,
    ) -> Result<Self> {
        let metrics = Metrics::new(platform);
        let counters = metrics.counters();
        let layers: Vec<Box<dyn Layer>> = vec![Box::new(metrics), Box::new(Trace)];
        Ok(Self { objects: layered(inner, layers)?, slot, metrics: counters, capabilities, restore_days })
    }

    fn slot(&self) -> Result<&Slot> {
        self.slot.as_ref().ok_or_else(|| {
            Error::unsupported("it has no adapter, but a backend of the embedding program")
                .on_backend(self.objects.name())
        })
    }

    /// Returns the counts of its operations.
    pub(super) fn metrics(&self) -> &OperationMetrics {
        &self.metrics
    }

    /// The adapter that serves now, and since when.
    ///
    /// # Errors
    /// `unsupported` if it has none.
    pub(super) fn serving(&self) -> Result<Serving> {
        Ok(self.slot()?.serving())
    }

    /// Returns the history of its adapter, newest first.
    pub(super) fn history(&self) -> Vec<HistoryEntry> {
        self.slot.as_ref().map(Slot::history).unwrap_or_default()
    }

    /// Why a component should not be put in unasked, as [`Slot::put_aside`].
    pub(super) fn put_aside(&self, digest: &str) -> Option<HistoryRow> {
        self.slot.as_ref()?.put_aside(digest)
    }

    /// Replaces its adapter, as [`Slot::swap`].
    pub(super) async fn swap(&self, component: impl Into<Component>, options: SwapOptions) -> Result<SwapReport> {
        self.slot()?.swap(component, options).await
    }

    /// Puts the adapter that served before back, as [`Slot::rollback`].
    pub(super) async fn rollback(&self, options: SwapOptions) -> Result<SwapReport> {
        self.slot()?.rollback(options).await
    }
}

impl ConfiguredBackend {
    /// One that is not open yet.
    pub(super) fn new(
        name: &str,
        config: &config::BackendConfig,
        roots: Arc<config::Trust>,
        swap_log: Arc<dyn SwapLog>,
        options: &HostOptions,
    ) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            roots,
            swap_log,
            given: options.backends.get(name).cloned(),
            encryption: None,
            platform: options.platform.clone(),
            open: OnceCell::new(),
            container_seen: OnceCell::new(),
            loses_labels: AtomicBool::new(false),
            looks: Looks::default(),
            apart_from: Mutex::default(),
            unusable: AtomicBool::new(false),
        }
    }

    /// This one, with its objects sealed unless its configuration says otherwise.
    pub(super) fn encrypted(self, encryption: Option<Arc<config::Encryption>>) -> Self {
        Self { encryption, ..self }
    }

    /// Returns whether what is stored is sealed.
    pub(super) fn seals(&self) -> bool {
        self.encryption.is_some() && self.config.encrypted.unwrap_or(true)
    }

    /// Puts encryption around its objects: those that are sealed are known for that without a key too.
    fn sealed(&self, inner: Arc<dyn Backend>, secrets: &dyn Secrets) -> Result<Arc<dyn Backend>> {
        let key = |reference| EncryptionKey::parse(secrets.encryption_key(reference)?.expose());
        let keys = match self.encryption.as_deref() {
            Some(config::Encryption { key: first, old_keys }) => {
                std::iter::once(first).chain(old_keys).map(key).collect::<Result<_>>()?
            }
            None => Vec::new(),
        };
        let seals = self.config.encrypted.unwrap_or(true);
        let keys = Arc::new(Keyring::new(keys));
        Ok(Arc::new(SealedBackend::new(inner, keys, seals, names_its_key, self.platform.clone())))
    }

    /// Returns whether another backend was found to store into another place.
    pub(super) fn is_apart_from(&self, other: &str) -> bool {
        self.apart_from.lock().unwrap_or_else(PoisonError::into_inner).contains(other)
    }

    /// Takes note that another backend stores into another place.
    pub(super) fn set_apart_from(&self, other: String) {
        self.apart_from.lock().unwrap_or_else(PoisonError::into_inner).insert(other);
    }

    /// Takes note that this is not so any more.
    pub(super) fn unset_apart_from(&self, other: &str) {
        self.apart_from.lock().unwrap_or_else(PoisonError::into_inner).remove(other);
    }

    /// Takes note of whether it could be used when it was looked at.
    pub(super) fn set_seen(&self, usable: bool) {
        self.unusable.store(!usable, Ordering::Relaxed);
    }

    /// Returns whether it could be used when it was last looked at, if it was.
    pub(super) fn was_usable(&self) -> bool {
        !self.unusable.load(Ordering::Relaxed)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How warm it is.
    pub(super) fn tier(&self) -> Tier {
        self.config.tier
    }

    /// Returns its cost.
    pub(super) fn cost(&self) -> Cost {
        self.config.cost
    }

    /// Returns the slot of its adapter, if it is open.
    pub(super) fn get(&self) -> Option<&OpenBackend> {
        self.open.get()
    }

    /// Opens it unless that has been done.
    pub(super) async fn open(&self, sandbox: &LazySandbox, secrets: &dyn Secrets) -> Result<&OpenBackend> {
        let open = self.open.get_or_try_init(|| async {
            match &self.given {
                Some(given) => {
                    let (none, days) = (Capabilities::none(), self.config.restore_days);
                    let objects = self.sealed(given.clone(), secrets)?;
                    OpenBackend::layered(objects, None, none, days, self.platform.clone())
                }
                None => {
                    let (sandbox, swap_log) = (sandbox.get().await?, self.swap_log.clone());
                    let opened = open_slot(&sandbox, &self.name, &self.config, &self.roots, swap_log, secrets).await;
                    let ((slot, capabilities), platform) = (opened?, sandbox.engine().options().platform.clone());
                    let objects = self.sealed(Arc::new(slot.clone()), secrets)?;
                    OpenBackend::layered(objects, Some(slot), capabilities, self.config.restore_days, platform)
                }
            }
        });
        open.await.map_err(|error| error.on_backend(&self.name))
    }
}
