//! The functions that an adapter exports, called with the host's own words.
//!
//! An adapter exports the interface `adapter`, whose functions are asynchronous and whose bytes are streams
//! (`streaming.rs`), or `adapter-sync`, the same operations as synchronous functions over bodies that the host holds
//! (`sync.rs`). Which of the two, and which of the optional interfaces, is determined once, when a component is loaded.
//! No code outside of this file distinguishes them: an operation takes a body and returns one.

mod streaming;
mod sync;

use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{Result as WasmResult, Store};

use super::bindings::exports::tidelock::storage::{account, adapter, adapter_sync, archive, inventory};
use super::bindings::tidelock::storage::types as wit;
use super::convert;
use crate::operation::state::OperationState;
use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Description, Error, Health, InventoryPage, ObjectId, ObjectStat,
    Receipt, Result, StoreHint,
};

/// Where the exports of one component are.
pub(crate) struct Exports {
    operations: Operations,
    archive: Option<archive::GuestIndices>,
    account: Option<account::GuestIndices>,
    inventory: Option<inventory::GuestIndices>,
}

/// The two ways to export the operations.
enum Operations {
    Streaming(adapter::GuestIndices),
    Sync(adapter_sync::GuestIndices),
}

/// An answer that may be the guest's failure (outer) or the guest's refusal (inner).
type Answer<T> = WasmResult<Result<T>>;

fn answer<W, T>(
    answered: WasmResult<std::result::Result<W, wit::Error>>,
    convert: impl FnOnce(W) -> Result<T>,
) -> Answer<T> {
    Ok(answered?.map_err(convert::error_in).and_then(convert))
}

impl Exports {
    /// Finds the exports. A component that has both kinds is run by its streams.
    ///
    /// # Errors
    /// If both `tidelock:storage/adapter` and `adapter-sync` are missing, or a function has another type.
    pub(crate) fn new(pre: &InstancePre<OperationState>) -> WasmResult<Self> {
        let operations = match (adapter::GuestIndices::new(pre), adapter_sync::GuestIndices::new(pre)) {
            (Ok(streaming), _) => Operations::Streaming(streaming),
            (Err(_), Ok(plain)) => Operations::Sync(plain),
            (Err(streaming), Err(plain)) => return Err(if exports_sync(pre) { plain } else { streaming }),
        };
        Ok(Self {
            operations,
            archive: archive::GuestIndices::new(pre).ok(),
            account: account::GuestIndices::new(pre).ok(),
            inventory: inventory::GuestIndices::new(pre).ok(),
        })
    }

    /// The names of the optional interfaces that are there.
    pub(crate) fn optional(&self) -> Vec<&'static str> {
        [
            ("archive", self.archive.is_some()),
            ("account", self.account.is_some()),
            ("inventory", self.inventory.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }

    pub(crate) async fn describe(&self, store: &mut Store<OperationState>, instance: &Instance) -> Answer<Description> {
        let said = match &self.operations {
            Operations::Streaming(at) => at.load(&mut *store, instance)?.call_describe(&mut *store).await?,
            Operations::Sync(at) => at.load(&mut *store, instance)?.call_describe(&mut *store).await?,
        };
        Ok(Ok(convert::description_in(said)))
    }

    pub(crate) async fn store(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        data: Body,
        hint: StoreHint,
    ) -> Answer<Receipt> {
        match &self.operations {
            Operations::Streaming(at) => streaming::store(at, store, instance, data, hint).await,
            Operations::Sync(at) => sync::store(at, store, instance, data, hint).await,
        }
    }

    pub(crate) async fn incremental_update(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        base: &ObjectId,
        delta: Body,
        hint: StoreHint,
    ) -> Answer<Receipt> {
        match &self.operations {
            Operations::Streaming(at) => streaming::incremental_update(at, store, instance, base, delta, hint).await,
            Operations::Sync(at) => sync::incremental_update(at, store, instance, base, delta, hint).await,
        }
    }

    /// Gives the body as soon as there is one; returns when the guest's part is over and the store may be dropped.
    pub(crate) async fn retrieve(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
        range: Option<ByteRange>,
        given: impl FnOnce(Body) + Send,
    ) -> Answer<()> {
        match &self.operations {
            Operations::Streaming(at) => streaming::retrieve(at, store, instance, id, range, given).await,
            Operations::Sync(at) => sync::retrieve(at, store, instance, id, range, given).await,
        }
    }

    pub(crate) async fn stat(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<ObjectStat> {
        match &self.operations {
            Operations::Streaming(at) => streaming::stat(at, store, instance, id).await,
            Operations::Sync(at) => sync::stat(at, store, instance, id).await,
        }
    }

    pub(crate) async fn remove(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<()> {
        match &self.operations {
            Operations::Streaming(at) => streaming::remove(at, store, instance, id).await,
            Operations::Sync(at) => sync::remove(at, store, instance, id).await,
        }
    }

    pub(crate) async fn probe(&self, store: &mut Store<OperationState>, instance: &Instance) -> Answer<Health> {
        match &self.operations {
            Operations::Streaming(at) => streaming::probe(at, store, instance).await,
            Operations::Sync(at) => sync::probe(at, store, instance).await,
        }
    }

    pub(crate) async fn restore(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
        days: u32,
    ) -> Answer<ArchiveState> {
        match &self.archive {
            Some(at) => streaming::restore(at, store, instance, id, days).await,
            None => Ok(Err(missing("archive", "restore"))),
        }
    }

    pub(crate) async fn balance(&self, store: &mut Store<OperationState>, instance: &Instance) -> Answer<AccountState> {
        match &self.account {
            Some(at) => streaming::balance(at, store, instance).await,
            None => Ok(Err(missing("account", "balance"))),
        }
    }

    pub(crate) async fn list_objects(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        cursor: Option<String>,
        limit: u32,
    ) -> Answer<InventoryPage> {
        match &self.inventory {
            Some(at) => streaming::list_objects(at, store, instance, cursor, limit).await,
            None => Ok(Err(missing("inventory", "list objects"))),
        }
    }
}

fn missing(interface: &str, what: &str) -> Error {
    Error::unsupported(format!("the adapter cannot {what}: it does not export `{interface}`"))
}

/// The interface that a component of this version must export, or `adapter-sync` in its place.
pub(crate) const REQUIRED_EXPORT: &str = "tidelock:storage/adapter@0.1";

/// The same operations as synchronous functions.
const PLAIN_EXPORT: &str = "tidelock:storage/adapter-sync@0.1";

/// Whether the name of an export is that of one of the two adapter interfaces, in a version that this host serves.
pub(crate) fn is_adapter_export(name: &str) -> bool {
    [REQUIRED_EXPORT, PLAIN_EXPORT].iter().any(|of| names(name, of))
}

fn names(name: &str, export: &str) -> bool {
    name.strip_prefix(export).is_some_and(|patch| patch.starts_with('.'))
}

fn exports_sync(pre: &InstancePre<OperationState>) -> bool {
    let (_, exports) = surface(pre.component(), pre.engine());
    exports.iter().any(|name| names(name, PLAIN_EXPORT))
}

/// Returns the names of a component's imports and exports.
pub(crate) fn surface(component: &Component, engine: &wasmtime::Engine) -> (Vec<String>, Vec<String>) {
    let of = component.component_type();
    (
        of.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        of.exports(engine).map(|(name, _)| name.to_owned()).collect(),
    )
}
