//! The stages of a swap, their durations, and the report.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use super::engine::CompiledFrom;
use tidelock_types::{Error, Platform};

/// One stage of a swap. A component that fails any of those before `publish` never serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Digest and signatures.
    Verify,
    /// To machine code, or from the cache.
    Compile,
    /// Imports against grants, exports, the description, settings.
    Check,
    /// An instance is asked whether the backend can serve.
    Probe,
    /// A share of real operations, if the backend has a canary.
    Canary,
    /// The component and the history are made durable, then the new generation takes over.
    Publish,
    /// Operations that began on the old generation end.
    Drain,
    /// Resources of the old generation are released.
    Free,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 8] =
        [Self::Verify, Self::Compile, Self::Check, Self::Probe, Self::Canary, Self::Publish, Self::Drain, Self::Free];

    /// The name in errors, reports and the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Compile => "compile",
            Self::Check => "check",
            Self::Probe => "probe",
            Self::Canary => "canary",
            Self::Publish => "publish",
            Self::Drain => "drain",
            Self::Free => "free",
        }
    }

    /// The stage of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One stage of a swap and its duration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// In milliseconds.
    pub ms: f64,
}

/// The result of a swap or a rollback.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SwapReport {
    /// The backend.
    pub backend: String,
    /// The digest that served before.
    pub from: String,
    /// The digest that serves now.
    pub to: String,
    /// The number of the generation that serves now.
    pub generation: u64,
    /// Whether the code was compiled or read from the cache.
    pub compiled_from: CompiledFrom,
    /// The stages in order. `drain` and `free` are missing while operations still end on the old generation.
    pub stages: Vec<StageTime>,
    /// Operations that were still ending on the old generation when this was written.
    pub draining: u64,
    /// Operations that were preempted at the drain deadline.
    #[serde(rename = "cut")]
    pub preempted: u64,
}

/// Called when a stage begins, on the thread that runs the swap: it must not block.
pub type OnStage = Arc<dyn Fn(Stage) + Send + Sync>;

/// The stages of one swap, as they pass.
#[derive(Default)]
pub(crate) struct Stages {
    platform: Platform,
    now: Option<(Stage, Instant)>,
    times: Vec<StageTime>,
    on_stage: Option<OnStage>,
}

impl Stages {
    pub(crate) fn told(on_stage: Option<OnStage>, platform: &Platform) -> Self {
        Self { platform: platform.clone(), now: None, times: Vec::new(), on_stage }
    }

    /// Ends the stage that runs and begins another.
    pub(crate) fn enter(&mut self, stage: Stage) {
        self.leave();
        if let Some(tell) = &self.on_stage {
            tell(stage);
        }
        self.now = Some((stage, self.platform.now()));
    }

    pub(crate) fn leave(&mut self) {
        if let Some((stage, began)) = self.now.take() {
            self.times.push(StageTime { stage, ms: self.platform.since(began).as_secs_f64() * 1e3 });
        }
    }

    /// The stage that runs.
    pub(crate) fn now(&self) -> Option<Stage> {
        self.now.map(|(stage, _)| stage)
    }

    /// An error of the stage that runs.
    pub(crate) fn place(&self, error: Error, backend: &str) -> Error {
        error.on_backend(backend).during(self.now().map_or("load", Stage::name))
    }

    /// Takes the times so far.
    pub(crate) fn take(&mut self) -> Vec<StageTime> {
        self.leave();
        std::mem::take(&mut self.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_timed_and_reported_in_order() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = told.clone();
        let mut stages =
            Stages::told(Some(Arc::new(move |stage| heard.lock().unwrap().push(stage))), &Platform::system());
        Stage::ALL.into_iter().for_each(|stage| stages.enter(stage));
        assert_eq!(stages.place(Error::other("x"), "b").to_string(), "backend `b`, free: x");
        let times: Vec<Stage> = stages.take().into_iter().map(|time| time.stage).collect();
        assert_eq!(times, Stage::ALL);
        assert_eq!(*told.lock().unwrap(), Stage::ALL);
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(&stage.to_string()), Some(stage));
        }
    }
}
