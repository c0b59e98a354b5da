//! Opening a slot: the generation that serves after a start.
//!
//! The configured component serves, unless another one was swapped in since it was configured: then the last one
//! serves. If that is gone, damaged or rejected now, the configured one serves, and the history has the reason. So a
//! start after a crash finds one generation or the other, never none.

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::history::{Event, History, HistoryRow};
use super::{Generation, Slot, SlotInner, SlotOptions, Stages};
use crate::operation::held::BackendUsages;
use crate::{Adapter, BackendSpec, Component, Sandbox};
use tidelock_types::{Error, Result};

impl Slot {
    /// Opens a backend's slot with the component that the configuration names, or with the one that served last.
    ///
    /// # Errors
    /// As [`Adapter::load`], of the configured component; errors of the swap log.
    pub async fn open(
        sandbox: Arc<Sandbox>,
        spec: BackendSpec,
        component: impl Into<Component>,
        options: SlotOptions,
    ) -> Result<Self> {
        let component = Arc::new(component.into());
        let configured = component.digest().to_string();
        let mut history = History::of(options.swap_log.past(&spec.name).await?);
        let usages = BackendUsages::new(&spec.limits);
        let mut why = None;
        let mut resumed = None;
        if let Some(row) = history.resume(&configured).cloned() {
            match resume(&sandbox, &spec, &usages, &options, &component, &row).await {
                Ok(adapter) => resumed = Some((adapter, row)),
                // The configured one itself cannot serve: there is nothing else to try.
                Err(error) if row.digest == configured => return Err(error),
                Err(error) => {
                    tracing::warn!(backend = spec.name, digest = row.digest, %error, "the last generation cannot serve");
                    why = Some(format!("{}, which served last, cannot serve: {error}", row.digest));
                }
            }
        }
        let (adapter, row) = match resumed {
            Some(found) => found,
            None => {
                let adapter =
                    Adapter::load_in_stages(&sandbox, &spec, &usages, component.clone(), &mut Stages::default())
                        .await?;
                let by = "configuration".to_owned();
                let since = sandbox.engine().options().platform.unix_seconds();
                let row = HistoryRow {
                    generation: Some(0),
                    from: history.serving().map(|row| row.digest.clone()),
                    why,
                    ..HistoryRow::new(
                        Event::Configured,
                        configured.clone(),
                        Some(&adapter),
                        since,
                        by,
                        configured.clone(),
                    )
                };
                let row = options.swap_log.add(&spec.name, row, Some((*component).clone())).await?;
                history.add(row.clone());
                (adapter, row)
            }
        };
        let generation = Generation::new(Arc::new(adapter));
        generation.named(row.generation.unwrap_or_default(), row.since);
        Ok(Self(Arc::new(SlotInner {
            spec,
            usages,
            sandbox,
            options,
            configured,
            current: ArcSwap::new(generation),
            canary: ArcSwapOption::empty(),
            begun: Default::default(),
            swapping: Arc::default(),
            history: Mutex::new(history),
            draining: Mutex::default(),
            drains: Mutex::default(),
            trial_end: Mutex::default(),
        })))
    }
}

/// Loads the last generation.
async fn resume(
    sandbox: &Arc<Sandbox>,
    spec: &BackendSpec,
    usages: &BackendUsages,
    options: &SlotOptions,
    configured: &Arc<Component>,
    row: &HistoryRow,
) -> Result<Adapter> {
    let component = if row.digest == configured.digest().to_string() {
        configured.clone()
    } else {
        kept(options, &row.digest).await?
    };
    Adapter::load_in_stages(sandbox, spec, usages, component, &mut Stages::default()).await
}

/// Returns a component from the swap log, and checks that it is unchanged.
pub(super) async fn kept(options: &SlotOptions, digest: &str) -> Result<Arc<Component>> {
    let component = options.swap_log.component(digest).await?;
    let found = component.digest().to_string();
    if found != digest {
        return Err(Error::corrupt(format!("the component stored as {digest} is {found}")));
    }
    Ok(Arc::new(component))
}
