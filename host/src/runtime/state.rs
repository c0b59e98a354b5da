//! What lies behind one guest instance: whose it is, what it may use, and how much it has used.
//!
//! A `State` lives as long as one operation. Everything that outlasts an operation is in [`Environment`], which is shared
//! and immutable: a guest can leave nothing behind for the next operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::engine::TICK;
use super::limits::{Limits, Struck};
use crate::capabilities::Capabilities;
use crate::types::SettingValue;

/// What all operations of one backend share.
pub(super) struct Environment {
    /// The backend's name in the configuration.
    pub(super) backend: Arc<str>,
    pub(super) settings: BTreeMap<String, SettingValue>,
    pub(super) capabilities: Capabilities,
    pub(super) limits: Limits,
    /// Bytes that were copied into or out of guest memory, all operations together.
    pub(super) through_guest: AtomicU64,
}

/// Signs of life of one operation, for the watch that ends it when it stalls, and who it waits for.
#[derive(Default)]
pub(super) struct Progress {
    moves: AtomicU64,
    /// Streams that wait for somebody outside: a slow source, a slow reader.
    outside: AtomicU32,
    /// Host calls under way. They have timeouts of their own, and a disk may take its time to sync.
    calls: AtomicU32,
    /// Host calls and readers that wait for the guest to go on.
    guest: AtomicU32,
}

/// Who is waited for.
#[derive(Clone, Copy)]
pub(super) enum Waiting {
    /// Somebody who is neither guest nor backend.
    Outside,
    /// A host call.
    Call,
    /// The guest.
    Guest,
}

impl Progress {
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Whether standing still is nobody's fault here. A guest that lets a host call wait for it has no excuse.
    pub(super) fn excused(&self) -> bool {
        let some = |count: &AtomicU32| count.load(Ordering::Relaxed) > 0;
        some(&self.outside) || (some(&self.calls) && !some(&self.guest))
    }

    fn counter(&self, whom: Waiting) -> &AtomicU32 {
        match whom {
            Waiting::Outside => &self.outside,
            Waiting::Call => &self.calls,
            Waiting::Guest => &self.guest,
        }
    }
}

/// Says that something waits for somebody; takes it back when dropped.
pub(super) struct Wait {
    progress: Arc<Progress>,
    whom: Waiting,
    said: bool,
}

impl Wait {
    pub(super) fn new(progress: Arc<Progress>, whom: Waiting) -> Self {
        Self { progress, whom, said: false }
    }

    pub(super) fn set(&mut self, waiting: bool) {
        if waiting == self.said {
            return;
        }
        self.said = waiting;
        let counter = self.progress.counter(self.whom);
        if waiting {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            self.progress.moved();
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// The data of one store.
pub(super) struct State {
    pub(super) environment: Arc<Environment>,
    pub(super) progress: Arc<Progress>,
    /// The limit that ended this operation, if one did.
    pub(super) struck: Option<Struck>,
    /// Host calls under way.
    pub(super) calls: usize,
    pub(super) log_left: usize,
    /// When the operation began.
    pub(super) started: std::time::Instant,
    /// Whether capabilities work: not while `describe` runs.
    pub(super) capable: bool,
    memory: u64,
    table_elements: u64,
    ticks: u32,
    /// WASI 0.2 with nothing granted; made when a guest first asks for it, since most never do.
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl State {
    /// A store whose limits are in force.
    pub(super) fn store(
        engine: &wasmtime::Engine,
        environment: &Arc<Environment>,
        progress: Arc<Progress>,
    ) -> Store<State> {
        let mut store = Store::new(
            engine,
            State {
                environment: environment.clone(),
                progress,
                struck: None,
                calls: 0,
                log_left: environment.limits.log_bytes,
                started: std::time::Instant::now(),
                capable: true,
                memory: 0,
                table_elements: 0,
                ticks: 0,
                wasi: None,
            },
        );
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            state.ticks = state.ticks.saturating_add(1);
            let cpu = state.environment.limits.cpu;
            if TICK.saturating_mul(state.ticks) > cpu {
                return Err(state.strike(Struck::Cpu(cpu)));
            }
            Ok(UpdateDeadline::Yield(1))
        });
        // Strings and lists that one host call may carry out of the guest.
        store.set_hostcall_fuel(16 << 20);
        store
    }

    /// Notes which limit struck and makes the error that ends the guest.
    pub(super) fn strike(&mut self, struck: Struck) -> wasmtime::Error {
        let error = wasmtime::Error::new(struck.clone());
        self.struck.get_or_insert(struck);
        error
    }

    pub(super) fn crossed(&self, bytes: usize) {
        self.environment.through_guest.fetch_add(bytes as u64, Ordering::Relaxed);
        self.progress.moved();
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.environment.limits.memory;
        let total = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if total > limit {
            // Refusing would let the guest run on and fail somewhere else, under another name.
            return Err(self.strike(Struck::Memory(limit)));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.environment.limits.table_elements;
        let total = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if total > limit {
            return Err(self.strike(Struck::TableElements(limit)));
        }
        self.table_elements = total;
        Ok(true)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // A builder's default has no arguments, environment, directories or network, and discards output.
        let wasi = self.wasi.get_or_insert_with(|| Box::new((WasiCtx::builder().build(), ResourceTable::new())));
        WasiCtxView { ctx: &mut wasi.0, table: &mut wasi.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_lets_a_call_wait_has_no_excuse() {
        let progress = Arc::new(Progress::default());
        let wait = |whom| {
            let mut wait = Wait::new(progress.clone(), whom);
            wait.set(true);
            wait
        };
        assert!(!progress.excused());
        let call = wait(Waiting::Call);
        assert!(progress.excused());
        let guest = wait(Waiting::Guest);
        assert!(!progress.excused());
        let outside = wait(Waiting::Outside);
        assert!(progress.excused());
        drop((call, outside));
        assert!(!progress.excused());
        drop(guest);
        assert!(!progress.excused());
    }
}
