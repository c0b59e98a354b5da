//! A loaded adapter: a component whose imports, exports and settings have been checked, ready to run operations.
//!
//! Every operation gets a fresh instance and its own store, and both are dropped afterwards, whatever happened:
//! nothing that a guest keeps, breaks or leaks outlives its operation. A watchdog beside the guest ends it when it stalls
//! or exceeds its deadline. Dropping the future of an operation drops the instance, at any point.
//!
//! A guest may still have to make the bytes of a `retrieve`, or to say how they ended, after it has answered. It then runs
//! on as a separate task, which ends when the body is dropped. Most adapters hand on what the host gave them, and have
//! nothing left to do.

mod load;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::digest::ComponentDigest;
use super::engine::CompiledFrom;
use super::manifest::Manifest;
use super::operation::limits::why;
use super::operation::state::{Environment, OperationState};
use super::operation::usage::{Turn, Usage};
use super::operation::watchdog::watched;
use super::retrieval::{Guest, Retrieval, cut_short};
use super::sandbox::Sandbox;
use super::trust::Trust;
use super::{stream, wit};
use tidelock_capabilities::Capabilities;
use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Description, Error, ErrorKind, Health, InventoryPage, LimitExceeded,
    Limits, ObjectId, ObjectStat, Platform, Receipt, Result, SettingValue, StoreHint,
};

/// Everything that a backend gives its adapter, for any generation of it.
#[derive(Clone)]
pub struct BackendSpec {
    /// The backend's name.
    pub name: String,
    /// The capabilities of its adapter.
    pub capabilities: Capabilities,
    /// The adapter's settings.
    pub settings: BTreeMap<String, SettingValue>,
    /// The limits of one operation.
    pub limits: Limits,
    /// The requirements for its components.
    pub trust: Trust,
}

/// A loaded adapter. Shared by all operations of its generation.
pub struct Adapter {
    sandbox: Arc<Sandbox>,
    environment: Arc<Environment>,
    pre: InstancePre<OperationState>,
    exports: wit::Exports,
    description: Description,
    manifest: Option<Manifest>,
    digest: ComponentDigest,
    compiled: CompiledFrom,
    in_flight: Arc<Semaphore>,
}

/// One operation in progress: a store, an instance, and its slots in the queues.
struct Running {
    store: Store<OperationState>,
    instance: Instance,
    usage: Arc<Usage>,
    turn: Turn,
    _place: OwnedSemaphorePermit,
}

impl Adapter {
    /// Returns the adapter's description of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Returns its manifest, if it has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Ends its time as a candidate: from now on its operations share what their backend has.
    pub(crate) fn serves(&self) {
        self.environment.serves.store(true, Ordering::Release);
    }

    /// The clock and the random numbers of its host.
    pub(crate) fn platform(&self) -> &Platform {
        &self.environment.platform
    }

    /// The SHA-256 of the component.
    pub fn digest(&self) -> ComponentDigest {
        self.digest
    }

    /// Returns whether the component was compiled or its code read from the cache.
    pub fn compiled_from(&self) -> CompiledFrom {
        self.compiled
    }

    /// The optional interfaces that the adapter exports: `archive`, `account`, `inventory`.
    pub fn optional_interfaces(&self) -> Vec<&'static str> {
        self.exports.optional()
    }

    /// Bytes that were copied into or out of guest memory, all operations so far together.
    pub fn bytes_through_guest(&self) -> u64 {
        self.environment.through_guest.load(Ordering::Relaxed)
    }

    /// Stores bytes as a new object. If their source fails, so does this, with the source's error, and nothing is stored.
    ///
    /// # Errors
    /// Errors of the backend; the adapter's limits, traps and deadlines.
    pub async fn store(&self, data: Body, hint: StoreHint) -> Result<Receipt> {
        self.take_in("store", None, data, hint).await
    }

    /// Stores bytes as a new object that records `base` as its base.
    ///
    /// # Errors
    /// `not-found` if there is no such base; otherwise as [`Self::store`].
    pub async fn incremental_update(&self, base: &ObjectId, delta: Body, hint: StoreHint) -> Result<Receipt> {
        self.take_in("incremental-update", Some(base), delta, hint).await
    }

    async fn take_in(
        &self,
        operation: &'static str,
        base: Option<&ObjectId>,
        data: Body,
        hint: StoreHint,
    ) -> Result<Receipt> {
        let mut running = self.begin(operation).await?;
        let (data, watch, failed) = stream::input(data, running.usage.clone());
        let Running { store, instance, usage, .. } = &mut running;
        let (instance, exports) = (&*instance, &self.exports);
        let work = watched(usage, exports.store(store, instance, base, data, hint));
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            Ok(error) = failed => return Err(error),
        };
        let receipt = self.conclude(operation, &running, outcome)?;
        if !watch.drained() {
            let seen = watch.seen();
            return Err(self.place(
                Error::corrupt(format!("the adapter reports a complete store, but read only {seen} bytes")),
                operation,
            ));
        }
        if receipt.size != watch.seen() {
            let (said, given) = (receipt.size, watch.seen());
            let what = format!("the adapter reports {said} bytes stored, but was given {given}");
            return Err(self.place(Error::corrupt(what), operation));
        }
        Ok(receipt)
    }

    /// The bytes of an object, or of a part of it. The body ends in an error whenever the adapter, the backend or a
    /// limit cuts it short.
    ///
    /// # Errors
    /// As [`Self::store`]; `not-found`; `archived`.
    pub async fn retrieve(self: &Arc<Self>, id: &ObjectId, range: Option<ByteRange>) -> Result<Body> {
        let (answer, mut answered) = oneshot::channel();
        let (adapter, id) = (self.clone(), id.clone());
        let mut work = Box::pin(async move { adapter.retrieve_and_end(&id, range, answer).await });
        let ended = poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(how) => Poll::Ready(Some(how)),
            Poll::Pending if answered.is_empty() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        let ended = ended.await;
        let retrieval = match (answered.try_recv(), ended) {
            (Ok(Answer { body, usage }), Some(Ok(turn))) => Retrieval::without_guest(body, usage, turn),
            (Ok(Answer { body, usage }), None) => Retrieval::with_guest(body, usage, Guest::spawn(work)),
            (_, Some(Err(error))) => return Err(error),
            (Err(_), _) => return Err(self.place(cut_short(), "retrieve")),
        };
        let backend = self.environment.backend.clone();
        Ok(retrieval.into_body(move |error| error.on_backend(&backend).during("retrieve")))
    }

    /// Runs the guest until its part of a retrieve is over. The answer goes out as soon as there is one. Returns the
    /// operation's turn among those of the backend: bytes that are still to come keep it.
    async fn retrieve_and_end(
        &self,
        id: &ObjectId,
        range: Option<ByteRange>,
        answer: oneshot::Sender<Answer>,
    ) -> Result<Turn> {
        let mut running = self.begin("retrieve").await?;
        let Running { store, instance, usage, .. } = &mut running;
        let (instance, exports) = (&*instance, &self.exports);
        let counts = usage.clone();
        let given = move |body| drop(answer.send(Answer { body, usage: counts }));
        let outcome = watched(usage, exports.retrieve(store, instance, id, range, given)).await;
        self.conclude("retrieve", &running, outcome)?;
        Ok(running.turn)
    }

    async fn describe(&self) -> Result<Description> {
        let mut running = self.begin("describe").await?;
        running.store.data_mut().capable = false;
        let Running { store, instance, usage, .. } = &mut running;
        let outcome = watched(usage, self.exports.describe(store, instance)).await;
        self.conclude("describe", &running, outcome)
    }

    async fn begin(&self, operation: &'static str) -> Result<Running> {
        let cancelled = |_| Error::new(ErrorKind::Cancelled, "the host has stopped");
        let shared = self.environment.usage().clone();
        let own = self.in_flight.clone().acquire_owned().await.map_err(cancelled)?;
        let all = shared.in_flight().clone().acquire_owned().await.map_err(cancelled)?;
        let place = self.sandbox.place().await?;
        let usage = Arc::new(Usage::of(shared, &self.environment.limits, self.environment.platform.now()));
        let turn = usage.take_turn([own, all]);
        self.sandbox.watch(&usage);
        let mut store = OperationState::store(self.sandbox.engine().wasmtime(), &self.environment, usage.clone());
        let made = watched(&usage, self.pre.instantiate_async(&mut store)).await;
        match made {
            Ok(Ok(instance)) => Ok(Running { store, instance, usage, turn, _place: place }),
            Ok(Err(error)) => Err(self.place(failure(&store, error), operation)),
            Err(exceeded) => Err(self.place(exceeded.error(), operation)),
        }
    }

    /// The outcome of an operation: `Err` of the watchdog, of the guest's store, or its answer.
    fn conclude<T>(
        &self,
        operation: &'static str,
        running: &Running,
        outcome: std::result::Result<wasmtime::Result<Result<T>>, LimitExceeded>,
    ) -> Result<T> {
        match outcome {
            Ok(Ok(answer)) => answer.map_err(|error| running.usage.advised(error)),
            Ok(Err(error)) => Err(failure(&running.store, error)),
            Err(exceeded) => Err(exceeded.error()),
        }
        .map_err(|error| self.place(error, operation))
    }

    fn place(&self, error: Error, operation: &'static str) -> Error {
        error.on_backend(&self.environment.backend).during(operation)
    }
}

/// The operations without bytes.
macro_rules! simple_operations {
    ($($(#[$doc:meta])* $name:ident($operation:literal $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        impl Adapter {
            $($(#[$doc])*
            pub async fn $name(&self $(, $argument: $type)*) -> Result<$answer> {
                let mut running = self.begin($operation).await?;
                let Running { store, instance, usage, .. } = &mut running;
                let (instance, exports) = (&*instance, &self.exports);
                let outcome = watched(usage, exports.$name(store, instance $(, $argument)*)).await;
                self.conclude($operation, &running, outcome)
            })*
        }
    };
}

simple_operations! {
    /// Returns the backend's metadata of an object.
    ///
    /// # Errors
    /// `not-found`; otherwise as [`Adapter::store`].
    stat("stat", id: &ObjectId) -> ObjectStat;
    /// Removes an object; one that is not there is success.
    ///
    /// # Errors
    /// As [`Adapter::store`].
    remove("remove", id: &ObjectId) -> ();
    /// Whether the backend would serve now.
    ///
    /// # Errors
    /// As [`Adapter::store`].
    probe("probe") -> Health;
    /// Requests that an object become readable for the given days.
    ///
    /// # Errors
    /// `unsupported` if the adapter does not export `archive`; otherwise as [`Adapter::store`].
    restore("restore", id: &ObjectId, days: u32) -> ArchiveState;
    /// The balances of the backend's account.
    ///
    /// # Errors
    /// `unsupported` if the adapter does not export `account`; otherwise as [`Adapter::store`].
    balance("balance") -> AccountState;
    /// Some of the objects that the backend holds.
    ///
    /// # Errors
    /// `unsupported` if the adapter does not export `inventory`; otherwise as [`Adapter::store`].
    list_objects("list-objects", cursor: Option<String>, limit: u32) -> InventoryPage;
}

/// The answer of a retrieve: the bytes, and the usage that they count towards.
struct Answer {
    body: Body,
    usage: Arc<Usage>,
}

/// Returns the reason why a guest ended, after logging the details.
fn failure(store: &Store<OperationState>, error: wasmtime::Error) -> Error {
    let environment = &store.data().environment;
    tracing::debug!(target: "tidelock::adapter", backend = %environment.backend, "{error:?}");
    why(&error, &environment.limits)
}

/// Keeps the future of an operation from being mistaken for one that is not `Send`.
#[allow(dead_code)]
fn operations_are_send(adapter: &Adapter, id: &ObjectId) -> impl Future + Send {
    adapter.stat(id)
}
