//! What lies behind one guest instance: whose it is, what it may use, and how much it has used.
//!
//! A `State` lives as long as one operation. Everything that outlasts an operation is in [`Environment`], which is shared
//! and immutable: a guest can leave nothing behind for the next operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::held::{Held, Holdings, Kept, Origin};
use super::limits::{Limits, Struck};
use super::progress::Progress;
use crate::capabilities::Capabilities;
use crate::types::{Body, SettingValue};

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

/// The data of one store.
pub(super) struct State {
    pub(super) environment: Arc<Environment>,
    pub(super) progress: Arc<Progress>,
    /// Host calls so far.
    calls: u64,
    /// Host calls under way.
    pub(super) calls_in_flight: usize,
    log_left: usize,
    /// When the operation began.
    pub(super) started: std::time::Instant,
    /// Whether capabilities work: not while `describe` runs.
    pub(super) capable: bool,
    memory: u64,
    table_elements: u64,
    /// Bodies that the host holds for the guest. Few guests have any.
    held: ResourceTable,
    holdings: Arc<Holdings>,
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
                calls: 0,
                calls_in_flight: 0,
                log_left: environment.limits.log_bytes,
                started: std::time::Instant::now(),
                capable: true,
                memory: 0,
                table_elements: 0,
                held: ResourceTable::new(),
                holdings: Arc::default(),
                wasi: None,
            },
        );
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        // At every tick the guest gives its thread back, and the watch sees how long it had it.
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(environment.limits.call_bytes);
        let handles = environment.limits.handles;
        store.set_max_component_handles(handles);
        store.data_mut().held.set_max_capacity(handles);
        // What wasmtime keeps of a handle on its side: a stream is three entries, a call that is under way two.
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(handles.saturating_mul(4).saturating_add(256));
        }
        store
    }

    /// Notes which limit struck and makes the error that ends the guest.
    pub(super) fn strike(&mut self, struck: Struck) -> wasmtime::Error {
        self.progress.strike(struck.clone());
        wasmtime::Error::new(struck)
    }

    /// Counts a host call, of whatever kind.
    pub(super) fn called(&mut self) -> wasmtime::Result<()> {
        self.calls += 1;
        let limit = self.environment.limits.calls;
        if self.calls > limit { Err(self.strike(Struck::Calls(limit))) } else { Ok(()) }
    }

    /// Counts a line of log.
    pub(super) fn logged(&mut self, bytes: usize) -> wasmtime::Result<()> {
        // What a line costs that says nothing.
        const LINE: usize = 64;
        match self.log_left.checked_sub(bytes.saturating_add(LINE)) {
            Some(left) => self.log_left = left,
            None => {
                let limit = self.environment.limits.log_bytes;
                return Err(self.strike(Struck::LogBytes(limit)));
            }
        }
        Ok(())
    }

    pub(super) fn crossed(&self, bytes: usize) {
        self.environment.through_guest.fetch_add(bytes as u64, Ordering::Relaxed);
        self.progress.carried(bytes);
    }
}

/// Bodies that the host holds for a guest of plain functions.
impl State {
    /// Holds a body for the guest.
    pub(super) fn hold(&mut self, body: Body, origin: Origin) -> wasmtime::Result<Resource<Held>> {
        let bytes = if origin == Origin::Guest { body.remaining().unwrap_or_default() } else { 0 };
        let kept = self.keep(bytes)?;
        self.hold_again(Held::new(body, origin, kept))
    }

    /// Holds what was let go of in another form.
    pub(super) fn hold_again(&mut self, held: Held) -> wasmtime::Result<Resource<Held>> {
        Ok(self.held.push(held)?)
    }

    /// What a handle of the guest's stands for.
    pub(super) fn held(&mut self, handle: &Resource<Held>) -> wasmtime::Result<&mut Held> {
        Ok(self.held.get_mut(handle)?)
    }

    /// The same, no longer held.
    pub(super) fn let_go(&mut self, handle: Resource<Held>) -> wasmtime::Result<Held> {
        Ok(self.held.delete(handle)?)
    }

    /// Counts a piece of a body, and bytes in it that are the guest's own: what it puts into the host is its memory.
    fn keep(&mut self, bytes: u64) -> wasmtime::Result<Kept> {
        let Limits { handles, memory, .. } = self.environment.limits;
        if self.holdings.pieces() >= handles {
            return Err(self.strike(Struck::Handles(handles)));
        }
        if self.memory.saturating_add(self.holdings.bytes()).saturating_add(bytes) > memory {
            return Err(self.strike(Struck::Memory(memory)));
        }
        Ok(Kept::new(&self.holdings, bytes))
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.environment.limits.memory;
        let total = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if total.saturating_add(self.holdings.bytes()) > limit {
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

    fn instances(&self) -> usize {
        self.environment.limits.instances
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let limits = &self.environment.limits;
        let wasi = self.wasi.get_or_insert_with(|| {
            // A builder's default has no arguments, environment or directories, and discards output. It would let a
            // guest make sockets, though not use them: each is a file descriptor of this process.
            let mut builder = WasiCtx::builder();
            builder.allow_tcp(false).allow_udp(false).max_random_size(limits.call_bytes as u64);
            let mut table = ResourceTable::new();
            table.set_max_capacity(limits.handles);
            Box::new((builder.build(), table))
        });
        WasiCtxView { ctx: &mut wasi.0, table: &mut wasi.1 }
    }
}
