//! Swaps and rollbacks.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::history::{Event, HistoryRow};
use super::open::kept;
use super::publication::Candidate;
use super::trial::Trial;
use super::{Canary, Generation, OnStage, Slot, SlotInner, Stage, StageTime, Stages, SwapReport, lock};
use crate::{Adapter, Component};
use tidelock_types::{Error, Result};

/// How long a swap waits for the old generation's last operations before it reports. They go on beyond that.
const PATIENCE: Duration = Duration::from_millis(500);

/// The origin of a swap, and a callback for its stages.
#[derive(Clone)]
pub struct SwapOptions {
    /// The origin, for the history: `command line`, `http`, a directory.
    pub by: String,
    /// Why, for the history.
    pub why: Option<String>,
    /// Called when a stage begins.
    pub on_stage: Option<OnStage>,
}

impl Default for SwapOptions {
    fn default() -> Self {
        Self { by: "library".to_owned(), why: None, on_stage: None }
    }
}

impl Slot {
    /// Swaps the adapter. Running operations continue undisturbed on the old one. Swaps of one slot run in the order of
    /// their requests.
    ///
    /// Returns when the old generation is free, or half a second after the new one took over if operations are still
    /// ending on it by then. Dropping the future gives up a swap that has not been published; one that has is whole.
    ///
    /// # Errors
    /// The error of the failed stage, with the stage as the operation: the old generation keeps serving, and the history has
    /// a row about it.
    pub async fn swap(&self, component: impl Into<Component>, options: SwapOptions) -> Result<SwapReport> {
        let attempt = self.0.swapping.clone().lock_owned().await;
        let component = Arc::new(component.into());
        let mut stages = Stages::told(options.on_stage, self.platform());
        let mut adapter = None;
        match self.bring_up(&component, &mut stages, &mut adapter).await {
            Ok(generation) => {
                let candidate = Candidate {
                    generation,
                    component: Some(component),
                    event: Event::Swap,
                    on_trial: true,
                    by: options.by,
                    why: options.why,
                };
                self.publish(attempt, candidate, stages).await
            }
            Err(error) => {
                let error = stages.place(error, self.backend());
                let error = match error.advice() {
                    Some(_) => error,
                    None => error.hint("fix the cause and swap again; the old generation keeps serving"),
                };
                self.refused(&component, adapter.as_deref(), &stages, &error, options.by).await;
                Err(error)
            }
        }
    }

    async fn load(&self, component: Arc<Component>, stages: &mut Stages) -> Result<Adapter> {
        let SlotInner { sandbox, spec, usages, .. } = &*self.0;
        Adapter::load_in_stages(sandbox, spec, usages, component, stages).await
    }

    /// All stages before the publication.
    async fn bring_up(
        &self,
        component: &Arc<Component>,
        stages: &mut Stages,
        loaded: &mut Option<Arc<Adapter>>,
    ) -> Result<Arc<Generation>> {
        let adapter = self.load(component.clone(), stages).await?;
        let adapter = Arc::new(adapter);
        *loaded = Some(adapter.clone());
        stages.enter(Stage::Probe);
        let health = adapter.probe().await?;
        if !health.ready {
            return Err(Error::unavailable(format!("the new adapter is not ready: {}", health.detail)));
        }
        let generation = Generation::new(adapter);
        if let Some(canary) = self.0.options.policy.canary {
            stages.enter(Stage::Canary);
            self.try_out(&generation, canary).await?;
        }
        Ok(generation)
    }

    /// Lets a share of the operations run on a new generation beside the one that serves.
    async fn try_out(&self, generation: &Arc<Generation>, canary: Canary) -> Result<()> {
        let serving = self.current();
        let trial = Trial::beside(serving.clone());
        generation.trial.store(Some(trial.clone()));
        self.0.canary.store(Some(generation.clone()));
        let mut withdraw = Withdraw { slot: self, generation, stays: false };
        let serving_trial = serving.trial.load_full();
        let serving_found_worse = async {
            match &serving_trial {
                Some(trial) => trial.found_worse().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(canary.duration) => {}
            () = trial.found_worse() => {}
            // Its rollback waits for this swap; and there is nothing left to compare with.
            () = serving_found_worse => {
                return Err(Error::conflict("the current adapter was found to be failing")
                    .hint("try again: it is being rolled back"));
            }
        }
        match trial.verdict() {
            Some(figures) => Err(Error::unavailable(format!("the new adapter fails more: {figures}"))),
            None => {
                // It takes over from here: operations that began on it as a canary stay where they are.
                withdraw.stays = true;
                Ok(())
            }
        }
    }

    /// Puts the generation that served before back.
    ///
    /// # Errors
    /// `conflict` if there is none; errors of loading it. Nothing has changed then.
    pub async fn rollback(&self, options: SwapOptions) -> Result<SwapReport> {
        let attempt = self.0.swapping.clone().lock_owned().await;
        let Some(before) = lock(&self.0.history).before().cloned() else {
            return Err(Error::conflict("no earlier generation to roll back to").on_backend(self.backend()));
        };
        let mut stages = Stages::told(options.on_stage, self.platform());
        // It served here before: a backend that is not ready now is no reason to keep the current one.
        let load = async {
            let component = kept(&self.0.options, &before.digest).await?;
            self.load(component, &mut stages).await
        };
        let adapter = load.await.map_err(|error| error.on_backend(self.backend()).during("rollback"))?;
        let candidate = Candidate {
            generation: Generation::new(Arc::new(adapter)),
            component: None,
            event: Event::Rollback,
            on_trial: false,
            by: options.by,
            why: options.why,
        };
        self.publish(attempt, candidate, stages).await
    }

    /// Counts a failure that is a generation's own, and rolls it back if that was one too many.
    pub(super) fn failed(&self, generation: &Arc<Generation>, trial: &Arc<Trial>) {
        generation.tally.add(true);
        if !trial.exceeds_threshold(generation) {
            return;
        }
        // The other half of the fence in [`Slot::take_over`].
        fence(Ordering::SeqCst);
        if Arc::ptr_eq(generation, &self.current()) {
            self.roll_back_soon(generation, trial);
        }
    }

    pub(super) fn roll_back_soon(&self, bad: &Arc<Generation>, trial: &Arc<Trial>) {
        let (slot, bad, trial) = (self.clone(), bad.clone(), trial.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { slot.roll_back_by_itself(&bad, &trial).await });
        }
    }

    async fn roll_back_by_itself(&self, bad: &Arc<Generation>, trial: &Trial) {
        let attempt = self.0.swapping.clone().lock_owned().await;
        if !Arc::ptr_eq(bad, &self.current()) {
            return;
        }
        let figures = trial.verdict().unwrap_or_default().to_owned();
        tracing::warn!(backend = self.backend(), digest = %bad.adapter().digest(), figures, "rolling back");
        let candidate = Candidate {
            // The predecessor is still loaded: nothing can keep it from coming back.
            generation: Generation::new(trial.predecessor().adapter().clone()),
            component: None,
            event: Event::AutomaticRollback,
            on_trial: false,
            by: "tidelock".to_owned(),
            why: Some(figures),
        };
        if let Err(error) = self.publish(attempt, candidate, Stages::default()).await {
            tracing::error!(backend = self.backend(), %error, "the rollback failed");
        }
    }

    /// Makes a candidate durable, then publishes it, then waits a while for the old one. From the first step on it runs
    /// to its end even if the future is dropped.
    async fn publish(
        &self,
        attempt: OwnedMutexGuard<()>,
        candidate: Candidate,
        mut stages: Stages,
    ) -> Result<SwapReport> {
        let slot = self.clone();
        let published = tokio::spawn(async move {
            let _in_flight = attempt;
            stages.enter(Stage::Publish);
            let generation = candidate.generation.clone();
            let taken = slot.take_over(candidate).await;
            if taken.is_err() {
                slot.withdraw(&generation);
            }
            let (old, new) = taken.map_err(|error| stages.place(error, slot.backend()))?;
            let times = stages.take();
            let gone = slot.drain_old(old.clone(), stages);
            Ok::<_, Error>((old, new, times, gone))
        });
        let cut_short = |error| Error::other(format!("the swap was interrupted: {error}")).on_backend(self.backend());
        let (old, new, times, gone) = published.await.map_err(cut_short)??;
        let mut report = SwapReport {
            backend: self.backend().to_owned(),
            from: old.adapter().digest().to_string(),
            to: new.adapter().digest().to_string(),
            generation: new.number(),
            compiled_from: new.adapter().compiled_from(),
            stages: times,
            draining: 0,
            preempted: 0,
        };
        match tokio::time::timeout(PATIENCE, gone).await {
            Ok(Ok(gone)) => {
                report.stages.extend(gone.times);
                report.preempted = gone.preempted;
            }
            _ => report.draining = old.in_flight(),
        }
        Ok(report)
    }

    /// Withdraws a generation that was to take over, and may be a canary: it gets no more operations.
    fn withdraw(&self, generation: &Arc<Generation>) {
        self.0.canary.store(None);
        // The task is detached.
        drop(self.drain_old(generation.clone(), Stages::default()));
    }

    /// Lets the predecessor go when the trial is over.
    pub(super) fn end_trial_after(&self, trial: Option<Duration>, generation: &Arc<Generation>) {
        let end = trial.map(|duration| {
            let generation = Arc::downgrade(generation);
            let end = tokio::spawn(async move {
                tokio::time::sleep(duration).await;
                if let Some(generation) = generation.upgrade() {
                    generation.trial.store(None);
                }
            });
            AbortOnDropHandle::new(end)
        });
        *lock(&self.0.trial_end) = end;
    }

    /// Drains a generation that does not serve any more, in the background. Returns a receiver that resolves at its end.
    pub(super) fn drain_old(&self, old: Arc<Generation>, mut stages: Stages) -> oneshot::Receiver<Gone> {
        let (gone, wait) = oneshot::channel();
        // A future can be dropped outside of a runtime; then nothing runs any more either.
        let Ok(runtime) = Handle::try_current() else { return wait };
        let deadline = self.drain_deadline();
        let slot = Arc::downgrade(&self.0);
        let mut drains = lock(&self.0.drains);
        while drains.try_join_next().is_some() {}
        let drain = async move {
            stages.enter(Stage::Drain);
            let preempted = old.drain(deadline).await;
            stages.enter(Stage::Free);
            let number = old.number();
            drop(old);
            if let Some(slot) = slot.upgrade() {
                lock(&slot.draining).retain(|draining| *draining != number);
            }
            if preempted > 0 {
                tracing::warn!(
                    generation = number,
                    preempted,
                    ?deadline,
                    "operations were preempted at the drain deadline"
                );
            }
            let _ = gone.send(Gone { times: stages.take(), preempted });
        };
        drains.spawn_on(drain, &runtime);
        wait
    }

    /// Notes in the history that a component was refused. A history that cannot be written changes nothing about that.
    async fn refused(
        &self,
        component: &Component,
        adapter: Option<&Adapter>,
        stages: &Stages,
        error: &Error,
        by: String,
    ) {
        let digest = component.digest().to_string();
        let row = HistoryRow {
            stage: stages.now(),
            why: Some(error.message().to_owned()),
            ..HistoryRow::new(Event::Refused, digest, adapter, self.now(), by, self.0.configured.clone())
        };
        match self.0.options.swap_log.add(self.backend(), row, None).await {
            Ok(row) => lock(&self.0.history).add(row),
            Err(error) => tracing::warn!(backend = self.backend(), %error, "cannot record a rejected swap"),
        }
    }
}

/// The result of draining an old generation.
pub(super) struct Gone {
    times: Vec<StageTime>,
    preempted: u64,
}

/// Removes a canary that does not take over. Its operations continue until the drain deadline.
struct Withdraw<'a> {
    slot: &'a Slot,
    generation: &'a Arc<Generation>,
    stays: bool,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        self.slot.withdraw(self.generation);
    }
}
