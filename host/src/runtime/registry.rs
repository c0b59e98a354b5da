//! Which generation of an adapter serves a backend, and how one takes over from another.
//!
//! A [`Slot`] belongs to a backend and holds its current [`Generation`] in an atomic pointer: beginning an operation is
//! one load, no lock. Operations that began on a generation end on it, because they hold it; the last one to end frees
//! it. A swap loads, checks and probes the new component first and publishes it last, so that a component that does not
//! work never serves. Swaps of one slot wait for each other; nothing waits for a swap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::adapter::{Adapter, BackendSpec};
use super::component::Component;
use super::engine::Engine;
use crate::types::{Error, Result};

/// How many earlier generations stay loadable.
const KEPT: usize = 4;

/// One version of a backend's adapter, from when it began to serve.
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// When it began to serve, in seconds since 1970-01-01 UTC.
    pub since: u64,
}

/// A generation, for people and `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationInfo {
    /// Counts up from 1.
    pub generation: u64,
    /// The SHA-256 of the component.
    pub digest: String,
    /// The adapter's name.
    pub adapter: String,
    /// The adapter's version.
    pub version: String,
    /// When it began to serve, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// `serving` or `kept`.
    pub state: &'static str,
}

/// One stage of a swap and how long it took.
#[derive(Debug, Clone, Serialize)]
pub struct StageTime {
    /// `load` (compile, check, describe), `probe` or `publish`.
    pub stage: &'static str,
    /// In milliseconds.
    pub ms: f64,
}

/// What a swap did.
#[derive(Debug, Clone, Serialize)]
pub struct SwapReport {
    /// The backend.
    pub backend: String,
    /// The digest that served before.
    pub from: String,
    /// The digest that serves now.
    pub to: String,
    /// The number of the generation that serves now.
    pub generation: u64,
    /// Whether the code came from the compiler or from the cache.
    pub compiled_from: super::CompiledFrom,
    /// The stages in order.
    pub stages: Vec<StageTime>,
}

/// A backend's place in the registry.
pub struct Slot {
    spec: BackendSpec,
    engine: Arc<Engine>,
    current: ArcSwap<Generation>,
    earlier: Mutex<VecDeque<Arc<Generation>>>,
    swapping: tokio::sync::Mutex<()>,
}

impl Slot {
    /// Loads a backend's first generation.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub async fn open(engine: Arc<Engine>, spec: BackendSpec, component: impl Into<Component>) -> Result<Self> {
        let adapter = Arc::new(Adapter::load(&engine, &spec, component).await?);
        let first = Generation { number: 1, adapter, since: now() };
        Ok(Self {
            spec,
            engine,
            current: ArcSwap::from_pointee(first),
            earlier: Mutex::new(VecDeque::new()),
            swapping: tokio::sync::Mutex::new(()),
        })
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        &self.spec.name
    }

    /// The generation that serves now. Holding it keeps it alive, so hold it for one operation only.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Replaces the adapter. Operations that run go on undisturbed on the old one.
    ///
    /// # Errors
    /// Whatever keeps the component from loading; what its probe says. The old generation serves on.
    pub async fn swap(&self, component: impl Into<Component>) -> Result<SwapReport> {
        let _turn = self.swapping.lock().await;
        let mut stages = Stages::default();
        let adapter = Arc::new(Adapter::load(&self.engine, &self.spec, component).await?);
        stages.done("load");
        let health = adapter.probe().await?;
        if !health.ready {
            return Err(Error::unavailable(format!("the new adapter is not ready: {}", health.detail))
                .on_backend(self.backend())
                .during("probe")
                .hint("the old one serves on"));
        }
        stages.done("probe");
        Ok(self.publish(adapter, stages, Kept::First))
    }

    /// Puts the generation that served before back.
    ///
    /// # Errors
    /// `conflict` if there is none.
    pub async fn rollback(&self) -> Result<SwapReport> {
        let _turn = self.swapping.lock().await;
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match earlier {
            Some(generation) => Ok(self.publish(generation.adapter.clone(), Stages::default(), Kept::Last)),
            None => Err(Error::conflict("there is no earlier generation to go back to").on_backend(self.backend())),
        }
    }

    fn publish(&self, adapter: Arc<Adapter>, mut stages: Stages, kept: Kept) -> SwapReport {
        let compiled_from = adapter.compiled_from();
        let to = adapter.digest();
        let old = self.current.load_full();
        let number = old.number + 1;
        self.current.store(Arc::new(Generation { number, adapter, since: now() }));
        let from = old.adapter.digest();
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Kept::First => earlier.push_front(old),
            Kept::Last => earlier.push_back(old),
        }
        earlier.truncate(KEPT);
        stages.done("publish");
        SwapReport {
            backend: self.backend().to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            generation: number,
            compiled_from,
            stages: stages.times,
        }
    }

    /// The generation that serves and those that are kept, newest first.
    pub fn history(&self) -> Vec<GenerationInfo> {
        let mut history = vec![info(&self.current(), "serving")];
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        history.extend(earlier.iter().map(|generation| info(generation, "kept")));
        history
    }
}

fn info(generation: &Generation, state: &'static str) -> GenerationInfo {
    let description = generation.adapter.description();
    GenerationInfo {
        generation: generation.number,
        digest: generation.adapter.digest().to_string(),
        adapter: description.name.clone(),
        version: description.version.clone(),
        since: generation.since,
        state,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Where the generation that stops serving goes among those that are kept. One that was rolled back goes last, so that
/// a second rollback does not bring it back.
enum Kept {
    First,
    Last,
}

struct Stages {
    began: Instant,
    times: Vec<StageTime>,
}

impl Default for Stages {
    fn default() -> Self {
        Self { began: Instant::now(), times: Vec::new() }
    }
}

impl Stages {
    fn done(&mut self, stage: &'static str) {
        self.times.push(StageTime { stage, ms: self.began.elapsed().as_secs_f64() * 1e3 });
        self.began = Instant::now();
    }
}
