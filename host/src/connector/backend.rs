//! A backend: what the configuration says of it, and, once something needs it, its open adapter.
//!
//! A backend is opened once, by the first operation that needs it: its credentials are resolved, its grants are opened,
//! its component is read, checked and loaded. Those who come meanwhile wait for that one attempt; if it fails, the next
//! one tries again. So a command that asks only the catalogue needs neither the secrets of a bucket nor the component of
//! an adapter, and a broken backend does not keep the others from serving.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Secrets;
use super::setup::open_backend;
use crate::capabilities::Capabilities;
use crate::config::{self, Tier};
use crate::runtime::{Engine, Ledger, Slot};
use crate::types::Result;

/// A configured backend.
pub(super) struct Backend {
    name: String,
    config: config::Backend,
    roots: Arc<config::Trust>,
    ledger: Arc<dyn Ledger>,
    open: OnceCell<Open>,
}

/// What an operation needs of a backend.
pub(super) struct Open {
    pub(super) slot: Slot,
    pub(super) capabilities: Capabilities,
    /// For how many days what is restored stays readable.
    pub(super) restore_days: u32,
}

impl Backend {
    /// One that is not open yet.
    pub(super) fn new(
        name: &str,
        config: &config::Backend,
        roots: Arc<config::Trust>,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        Self { name: name.to_owned(), config: config.clone(), roots, ledger, open: OnceCell::new() }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How warm it is.
    pub(super) fn tier(&self) -> Tier {
        self.config.tier
    }

    /// What serves it, if it is open.
    pub(super) fn get(&self) -> Option<&Open> {
        self.open.get()
    }

    /// Opens it unless that has been done.
    pub(super) async fn open(&self, engine: &Arc<Engine>, secrets: &dyn Secrets) -> Result<&Open> {
        let open = self.open.get_or_try_init(|| {
            open_backend(engine, &self.name, &self.config, &self.roots, self.ledger.clone(), secrets)
        });
        open.await.map_err(|error| error.on_backend(&self.name))
    }
}
