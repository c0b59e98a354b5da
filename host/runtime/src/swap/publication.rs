//! The moment at which a generation takes over: its row is made durable first, then it serves.
//!
//! A canary can be found to be failing at any moment before that, also while its row is being written. Then it never
//! serves.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::history::{Event, HistoryRow};
use super::trial::Trial;
use super::{Generation, Slot, Stages, lock};
use crate::Component;
use tidelock_types::{Error, Result};

/// A generation that is about to take over.
pub(super) struct Candidate {
    pub(super) generation: Arc<Generation>,
    /// Where the swap log does not have it yet.
    pub(super) component: Option<Arc<Component>>,
    pub(super) event: Event,
    /// Whether it is on trial beside its predecessor.
    pub(super) on_trial: bool,
    pub(super) by: String,
    pub(super) why: Option<String>,
}

impl Slot {
    /// Records a candidate, then has it serve. One that was found to be failing meanwhile, as a canary, never serves: its
    /// predecessor goes on, under a number of its own.
    pub(super) async fn take_over(&self, candidate: Candidate) -> Result<(Arc<Generation>, Arc<Generation>)> {
        let Candidate { generation, component, event, on_trial, by, why } = candidate;
        let old = self.current();
        let from = old.adapter().digest().to_string();
        let row = HistoryRow { from: Some(from), why, ..self.row(event, &generation, old.number() + 1, by) };
        let row = self.record(row, component.map(Arc::unwrap_or_clone)).await?;
        let canary = generation.trial.load_full();
        if let Some(figures) = canary.as_deref().and_then(Trial::verdict) {
            lock(&self.0.history).add(row);
            self.take_back(&old, &generation, figures).await;
            return Err(Error::unavailable(format!("the new adapter fails more: {figures}")));
        }
        let trial = self.0.options.policy.trial.filter(|_| on_trial);
        match trial {
            None => generation.trial.store(None),
            Some(_) if canary.is_some() => {}
            Some(_) => generation.trial.store(Some(Trial::beside(old.clone()))),
        }
        self.enter(&old, &generation, row);
        self.end_trial_after(trial, &generation);
        // A verdict that fell between the look at it and the entry was not acted on: the generation did not serve yet.
        // Either the one who found it sees that it serves now, or it is seen here ([`Slot::failed`]).
        fence(Ordering::SeqCst);
        if let Some(trial) = canary.filter(|trial| trial.verdict().is_some()) {
            self.roll_back_soon(&generation, &trial);
        }
        Ok((old, generation))
    }

    /// Keeps the predecessor of a canary that was recorded and must not serve.
    async fn take_back(&self, old: &Arc<Generation>, bad: &Arc<Generation>, figures: &str) {
        tracing::warn!(backend = self.backend(), digest = %bad.adapter().digest(), figures, "not taking it over");
        let again = Generation::new(old.adapter().clone());
        let row = HistoryRow {
            from: Some(bad.adapter().digest().to_string()),
            why: Some(figures.to_owned()),
            ..self.row(Event::AutomaticRollback, &again, old.number() + 2, "tidelock".to_owned())
        };
        // Never an error: see there.
        if let Ok(row) = self.record(row, None).await {
            self.enter(old, &again, row);
            drop(self.drain_old(old.clone(), Stages::default()));
        }
    }

    fn row(&self, event: Event, generation: &Generation, number: u64, by: String) -> HistoryRow {
        let adapter = generation.adapter();
        let digest = adapter.digest().to_string();
        let row = HistoryRow::new(event, digest, Some(adapter), self.now(), by, self.0.configured.clone());
        HistoryRow { generation: Some(number), ..row }
    }

    /// Makes a row durable. That of an automatic rollback need not be.
    async fn record(&self, row: HistoryRow, component: Option<Component>) -> Result<HistoryRow> {
        match self.0.options.swap_log.add(self.backend(), row.clone(), component).await {
            // A failing generation must go, even if the disk is full. A restart would bring it and its failures back.
            Err(error) if row.event == Event::AutomaticRollback => {
                tracing::error!(backend = self.backend(), %error, "cannot record the rollback");
                Ok(row)
            }
            recorded => recorded,
        }
    }

    /// From here on a generation serves.
    fn enter(&self, old: &Generation, generation: &Arc<Generation>, row: HistoryRow) {
        generation.named(row.generation.unwrap_or_default(), row.since);
        lock(&self.0.draining).push(old.number());
        lock(&self.0.history).add(row);
        generation.takes_over();
        self.0.current.store(generation.clone());
        self.0.canary.store(None);
        old.trial.store(None);
    }
}
