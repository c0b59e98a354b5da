//! The sandbox, made by the first backend that needs one.
//!
//! It reserves address space for every operation that the configuration allows, and has a thread. What asks the catalogue
//! alone, and what works with backends of the embedding program, has neither.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::runtime::{EngineOptions, Sandbox};
use crate::types::{Result, blocking};

/// A sandbox that is made when it is first needed.
pub(super) struct LazySandbox {
    options: EngineOptions,
    made: OnceCell<Arc<Sandbox>>,
}

impl LazySandbox {
    /// One that will be made with these options.
    pub(super) fn new(options: EngineOptions) -> Self {
        Self { options, made: OnceCell::new() }
    }

    /// Makes the sandbox unless there is one.
    ///
    /// # Errors
    /// As [`Sandbox::new`]; the next call tries again.
    pub(super) async fn get(&self) -> Result<Arc<Sandbox>> {
        let make = || {
            let options = self.options.clone();
            blocking(move || Sandbox::new(options))
        };
        self.made.get_or_try_init(make).await.cloned()
    }
}
