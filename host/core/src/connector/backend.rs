//! A backend: its configuration and, once an operation needs it, its open adapter.
//!
//! A backend is opened once, by the first operation that needs it: its credentials are resolved, its grants are opened,
//! its component is read, checked and loaded. Concurrent operations wait for that attempt; if it fails, the next
//! one tries again. So a command that only reads the catalogue needs neither the secrets of a bucket nor the component
//! of an adapter, and a broken backend does not keep the others from serving.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Secrets;
use super::setup::open_backend;
use crate::capabilities::Capabilities;
use crate::config::{self, Tier};
use crate::runtime::{Sandbox, Slot, SwapLog};
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
    pub(super) slot: Slot,
    pub(super) capabilities: Capabilities,
    /// Days that restored objects stay readable.
    pub(super) restore_days: u32,
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
