//! What runs operations: the places in the engine's pool, all that a guest may import, and the clock that interrupts guests.
//!
//! An operation that finds the pool full waits for a place; it does not fail. A thread advances the engine's epoch every
//! [`TICK`], so that a guest gives its thread back that often; the time that it holds one is counted against the operation's
//! CPU limit by the watchdog (`operation/watchdog.rs`), which also hears of each tick.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;

use super::engine::{Engine, EngineOptions, first_line, of_system};
use super::operation::state::OperationState;
use super::operation::usage::Usage;
use super::operation::watchdog::Watchdog;
use super::wit;
use tidelock_types::{Error, ErrorKind, Result};

/// How often the epoch advances, and so how long a guest can run before the host looks at it.
const TICK: Duration = Duration::from_millis(10);

/// An engine, and what its guests run in. One for each host.
pub struct Sandbox {
    engine: Engine,
    /// All that a guest may import. The same for every adapter, so it is made once: WASI alone has hundreds of functions.
    linker: Linker<OperationState>,
    places: Arc<Semaphore>,
    watchdog: Arc<Watchdog>,
}

impl Sandbox {
    /// Makes an engine and starts its clock, a thread that ends with the engine.
    ///
    /// # Errors
    /// `unavailable` if the address space for the pool cannot be reserved, or the cache folder cannot be made.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>> {
        let engine = Engine::new(options)?;
        let places = Arc::new(Semaphore::new(engine.operations() as usize));
        let watchdog = Arc::new(Watchdog::default());
        start_clock(&engine, watchdog.clone())?;
        let linker = wit::linker(engine.wasmtime()).map_err(|error| {
            let other = || Error::other(format!("cannot set up the sandbox: {}", first_line(&error)));
            of_system(&error).unwrap_or_else(other)
        })?;
        Ok(Arc::new(Self { engine, linker, places, watchdog }))
    }

    /// The engine that compiles its guests.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<OperationState> {
        &self.linker
    }

    /// Watches an operation until it ends.
    pub(crate) fn watch(&self, usage: &Arc<Usage>) {
        self.watchdog.begin(usage);
    }

    /// Waits for a place in the pool.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.map_err(|_| Error::new(ErrorKind::Cancelled, "the host has stopped"))
    }
}

fn start_clock(engine: &Engine, watchdog: Arc<Watchdog>) -> Result<()> {
    let (weak, platform) = (engine.wasmtime().weak(), engine.options().platform.clone());
    std::thread::Builder::new()
        .name("tidelock-epoch".into())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
                watchdog.look(platform.now());
            }
        })
        .map(drop)
        .map_err(|error| {
            Error::io("cannot start the epoch thread", error).hint("allow this user more threads (ulimit -u)")
        })
}
