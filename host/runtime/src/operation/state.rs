//! The host state of one guest instance: its backend, its capabilities, and its usage.
//!
//! An `OperationState` lives as long as one operation. Everything that outlasts an operation is in [`Environment`],
//! which is shared and immutable: a guest can leave nothing behind for the next operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::held::{BackendUsage, BackendUsages};
use super::usage::Usage;
use crate::body_handle::{BodyCharges, BodyHandle, BodyPiece, Origin};
use tidelock_capabilities::Capabilities;
use tidelock_types::{Account, Body, Charge, LimitExceeded, Limits, Platform, SettingValue};

/// What all operations of one generation of a backend share.
pub(crate) struct Environment {
    /// The backend's name in the configuration.
    pub(crate) backend: Arc<str>,
    pub(crate) settings: BTreeMap<String, SettingValue>,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: Limits,
    pub(crate) platform: Platform,
    /// What all of its operations use together.
    pub(crate) usages: BackendUsages,
    /// Whether it may serve. Until then its operations are those of a candidate.
    pub(crate) serves: AtomicBool,
    /// Bytes that were copied into or out of guest memory, all operations together.
    pub(crate) through_guest: AtomicU64,
}

impl Environment {
    /// What an operation that begins now shares with the others.
    pub(crate) fn usage(&self) -> &Arc<BackendUsage> {
        if self.serves.load(Ordering::Acquire) { &self.usages.serving } else { &self.usages.candidate }
    }
}

/// The data of one store.
pub(crate) struct OperationState {
    pub(crate) environment: Arc<Environment>,
    pub(crate) usage: Arc<Usage>,
    /// Host calls so far.
    calls: u64,
    /// Host calls under way. Each has a clone for as long as it is: a call that is dropped is no longer under way.
    pub(crate) calls_in_flight: Arc<()>,
    log_left: usize,
    /// When the operation began.
    pub(crate) started: std::time::Instant,
    /// Whether capabilities work: not while `describe` runs.
    pub(crate) capable: bool,
    memory: u64,
    table_elements: u64,
    /// Bodies that the host holds for the guest. Few guests have any.
    bodies: ResourceTable,
    charges: Arc<BodyCharges>,
    /// WASI 0.2 with nothing granted; made when a guest first asks for it, since most never do.
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl OperationState {
    /// A store whose limits are in force.
    pub(crate) fn store(
        engine: &wasmtime::Engine,
        environment: &Arc<Environment>,
        usage: Arc<Usage>,
    ) -> Store<OperationState> {
        let mut store = Store::new(
            engine,
            OperationState {
                environment: environment.clone(),
                usage,
                calls: 0,
                calls_in_flight: Arc::default(),
                log_left: environment.limits.log_bytes,
                started: environment.platform.now(),
                capable: true,
                memory: 0,
                table_elements: 0,
                bodies: ResourceTable::new(),
                charges: Arc::default(),
                wasi: None,
            },
        );
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        // At every tick the guest yields its thread, and the watchdog measures how long it ran.
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(environment.limits.call_bytes);
        let handles = environment.limits.handles;
        store.set_max_component_handles(handles);
        store.data_mut().bodies.set_max_capacity(handles);
        // wasmtime's own entries per handle: a stream has three, a call in progress two.
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(handles.saturating_mul(4).saturating_add(256));
        }
        store
    }

    /// Notes which limit was exceeded and makes the error that ends the guest.
    pub(crate) fn exceed(&mut self, exceeded: LimitExceeded) -> wasmtime::Error {
        self.usage.exceed(exceeded.clone());
        wasmtime::Error::new(exceeded)
    }

    /// Counts a host call, of whatever kind.
    pub(crate) fn called(&mut self) -> wasmtime::Result<()> {
        self.calls += 1;
        let limit = self.environment.limits.calls;
        if self.calls > limit { Err(self.exceed(LimitExceeded::Calls(limit))) } else { Ok(()) }
    }

    /// Counts a line of log.
    pub(crate) fn logged(&mut self, bytes: usize) -> wasmtime::Result<()> {
        // The cost of an empty line.
        const LINE: usize = 64;
        match self.log_left.checked_sub(bytes.saturating_add(LINE)) {
            Some(left) => self.log_left = left,
            None => {
                let limit = self.environment.limits.log_bytes;
                return Err(self.exceed(LimitExceeded::LogBytes(limit)));
            }
        }
        Ok(())
    }

    /// The account of what the host holds for this operation.
    pub(crate) fn account(&self) -> Arc<dyn Account> {
        self.usage.clone()
    }

    /// A body that a capability opened, for which at most so many bytes are held.
    pub(crate) fn opened(&mut self, body: Body, holds: u64) -> wasmtime::Result<Body> {
        let charge = Charge::open(&self.account(), holds).map_err(|exceeded| self.exceed(exceeded))?;
        Ok(body.holding(charge))
    }

    pub(crate) fn crossed(&self, bytes: usize) {
        self.environment.through_guest.fetch_add(bytes as u64, Ordering::Relaxed);
        self.usage.carried(bytes);
    }
}

/// Bodies that the host holds for a guest of synchronous functions.
impl OperationState {
    /// Holds a body for the guest.
    pub(crate) fn hold(&mut self, body: Body, origin: Origin) -> wasmtime::Result<Resource<BodyHandle>> {
        let bytes = if origin == Origin::Guest { body.remaining().unwrap_or_default() } else { 0 };
        let charge = self.keep(bytes)?;
        self.hold_again(BodyHandle::new(body, origin, charge))
    }

    /// Holds a body again that was taken from its handle.
    pub(crate) fn hold_again(&mut self, bodies: BodyHandle) -> wasmtime::Result<Resource<BodyHandle>> {
        Ok(self.bodies.push(bodies)?)
    }

    /// Returns the body of a guest's handle.
    pub(crate) fn bodies(&mut self, handle: &Resource<BodyHandle>) -> wasmtime::Result<&mut BodyHandle> {
        Ok(self.bodies.get_mut(handle)?)
    }

    /// Takes the body from its handle, which ends.
    pub(crate) fn take_body(&mut self, handle: Resource<BodyHandle>) -> wasmtime::Result<BodyHandle> {
        Ok(self.bodies.delete(handle)?)
    }

    /// Counts a piece of a body, and its bytes that are the guest's own: bytes held by the host are its memory.
    fn keep(&mut self, bytes: u64) -> wasmtime::Result<BodyPiece> {
        let Limits { handles, memory, .. } = self.environment.limits;
        if self.charges.pieces() >= handles {
            return Err(self.exceed(LimitExceeded::Handles(handles)));
        }
        if self.memory.saturating_add(self.charges.bytes()).saturating_add(bytes) > memory {
            return Err(self.exceed(LimitExceeded::Memory(memory)));
        }
        Ok(BodyPiece::new(&self.charges, bytes))
    }
}

impl ResourceLimiter for OperationState {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.environment.limits.memory;
        let total = self.memory.saturating_add(desired.saturating_sub(current) as u64);
        if total.saturating_add(self.charges.bytes()) > limit {
            // Refusing would let the guest run on and fail somewhere else, under another name.
            return Err(self.exceed(LimitExceeded::Memory(limit)));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.environment.limits.table_elements;
        let total = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if total > limit {
            return Err(self.exceed(LimitExceeded::TableElements(limit)));
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.environment.limits.instances
    }
}

impl WasiView for OperationState {
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
