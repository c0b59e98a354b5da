//! The functions that an adapter exports, called with the host's own types.
//!
//! An adapter exports the interface `adapter`, whose functions are asynchronous and whose bytes are streams, or
//! `adapter-sync`, the same operations as synchronous functions over bodies that the host holds. Which of the two, and
//! which of the optional interfaces, is determined once, when a component is loaded. No code outside of this file
//! distinguishes them: an operation takes a body and returns one.
//!
//! An asynchronous function is called inside `run_concurrent` with an accessor, so that streams move during the call. A
//! synchronous one runs on its own stack, which is suspended while a host function is awaited.

use wasmtime::component::{Component, Instance, InstancePre, StreamReader};
use wasmtime::{Result as WasmResult, Store};

use super::bindings::exports::tidelock::storage::{account, adapter, adapter_sync, archive, inventory};
use super::bindings::tidelock::storage::types as wit;
use super::body::accept;
use super::convert;
use crate::body_handle::Origin;
use crate::operation::state::OperationState;
use crate::operation::usage::Waiting;
use crate::stream::HostBody;
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

/// Calls an asynchronous function without bodies.
macro_rules! call_async {
    ($at:expr, $store:ident, $instance:ident, $function:ident($($argument:expr),*)) => {
        $store
            .run_concurrent(async |accessor| {
                let guest = accessor.with(|access| $at.load(access, $instance))?;
                guest.$function(accessor $(, $argument)*).await
            })
            .await?
    };
}

/// Calls a function of the interface `adapter` without bodies, in either form. Its arguments are owned values.
macro_rules! call {
    ($exports:ident, $store:ident, $instance:ident, $function:ident($($argument:ident),*)) => {
        match &$exports.operations {
            Operations::Streaming(at) => call_async!(at, $store, $instance, $function($($argument),*)),
            Operations::Sync(at) => at.load(&mut *$store, $instance)?.$function($store $(, &$argument)*).await,
        }
    };
}

impl Exports {
    /// Finds the exports. A component that has both kinds is run by its streams.
    ///
    /// # Errors
    /// If both `tidelock:storage/adapter` and `adapter-sync` are missing, or a function has another type.
    pub(crate) fn new(pre: &InstancePre<OperationState>) -> WasmResult<Self> {
        let operations = match (adapter::GuestIndices::new(pre), adapter_sync::GuestIndices::new(pre)) {
            (Ok(streaming), _) => Operations::Streaming(streaming),
            (Err(_), Ok(sync)) => Operations::Sync(sync),
            (Err(streaming), Err(sync)) => return Err(if exports_sync(pre) { sync } else { streaming }),
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
        let description = match &self.operations {
            Operations::Streaming(at) => at.load(&mut *store, instance)?.call_describe(&mut *store).await?,
            Operations::Sync(at) => at.load(&mut *store, instance)?.call_describe(&mut *store).await?,
        };
        Ok(Ok(convert::description_in(description)))
    }

    /// Stores bytes, as a delta if there is a base.
    pub(crate) async fn store(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        base: Option<&ObjectId>,
        data: Body,
        hint: StoreHint,
    ) -> Answer<Receipt> {
        let (base, hint) = (base.map(|base| base.as_str().to_owned()), convert::hint_out(hint));
        let answered = match &self.operations {
            Operations::Streaming(at) => {
                store
                    .run_concurrent(async |accessor| {
                        let guest = accessor.with(|access| at.load(access, instance))?;
                        let data = accessor.with(|access| StreamReader::new(access, HostBody::without_end(data)))?;
                        match base {
                            Some(base) => guest.call_incremental_update(accessor, base, data, hint).await,
                            None => guest.call_store(accessor, data, hint).await,
                        }
                    })
                    .await?
            }
            Operations::Sync(at) => {
                let guest = at.load(&mut *store, instance)?;
                let data = store.data_mut().hold(data, Origin::Input)?;
                match base {
                    Some(base) => guest.call_incremental_update(store, &base, data, &hint).await,
                    None => guest.call_store(store, data, &hint).await,
                }
            }
        };
        answer(answered, convert::receipt_in)
    }

    /// Passes the body to `given` as soon as there is one; returns when the guest's part is over and the store may be
    /// dropped. An asynchronous guest may have to make the bytes, or to report how they ended, after it has answered.
    pub(crate) async fn retrieve(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
        range: Option<ByteRange>,
        given: impl FnOnce(Body) + Send,
    ) -> Answer<()> {
        let (id, range) = (id.as_str().to_owned(), range.map(convert::range_out));
        match &self.operations {
            Operations::Streaming(at) => {
                store
                    .run_concurrent(async |accessor| {
                        let guest = accessor.with(|access| at.load(access, instance))?;
                        let body = match guest.call_retrieve(accessor, id, range).await? {
                            Ok(body) => body,
                            Err(error) => return Ok(Err(convert::error_in(error))),
                        };
                        let (body, parts) = accept(accessor, body, Waiting::Outside)?;
                        given(body);
                        parts.over().await;
                        Ok(Ok(()))
                    })
                    .await?
            }
            Operations::Sync(at) => {
                let guest = at.load(&mut *store, instance)?;
                match guest.call_retrieve(&mut *store, &id, range).await? {
                    Ok(body) => given(store.data_mut().take_body(body)?.into_body()),
                    Err(error) => return Ok(Err(convert::error_in(error))),
                }
                Ok(Ok(()))
            }
        }
    }

    pub(crate) async fn stat(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<ObjectStat> {
        let id = id.as_str().to_owned();
        answer(call!(self, store, instance, call_stat(id)), convert::stat_in)
    }

    pub(crate) async fn remove(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<()> {
        let id = id.as_str().to_owned();
        answer(call!(self, store, instance, call_remove(id)), Ok)
    }

    pub(crate) async fn probe(&self, store: &mut Store<OperationState>, instance: &Instance) -> Answer<Health> {
        answer(call!(self, store, instance, call_probe()), |health| Ok(convert::health_in(health)))
    }

    pub(crate) async fn restore(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        id: &ObjectId,
        days: u32,
    ) -> Answer<ArchiveState> {
        let Some(at) = &self.archive else { return Ok(Err(missing("archive", "restore"))) };
        let id = id.as_str().to_owned();
        answer(call_async!(at, store, instance, call_restore(id, days)), |state| Ok(convert::archive_in(state)))
    }

    pub(crate) async fn balance(&self, store: &mut Store<OperationState>, instance: &Instance) -> Answer<AccountState> {
        let Some(at) = &self.account else { return Ok(Err(missing("account", "balance"))) };
        answer(call_async!(at, store, instance, call_balance()), convert::account_in)
    }

    pub(crate) async fn list_objects(
        &self,
        store: &mut Store<OperationState>,
        instance: &Instance,
        cursor: Option<String>,
        limit: u32,
    ) -> Answer<InventoryPage> {
        let Some(at) = &self.inventory else { return Ok(Err(missing("inventory", "list objects"))) };
        let answered = call_async!(at, store, instance, call_list_objects(cursor, limit));
        answer(answered, |page| convert::inventory_in(page, limit))
    }
}

fn missing(interface: &str, what: &str) -> Error {
    Error::unsupported(format!("the adapter cannot {what}: it does not export `{interface}`"))
}

/// The interface that a component of this version must export, or `adapter-sync` in its place.
pub(crate) const REQUIRED_EXPORT: &str = "tidelock:storage/adapter@0.1";

/// The same operations as synchronous functions.
const SYNC_EXPORT: &str = "tidelock:storage/adapter-sync@0.1";

/// Returns whether the name of an export is that of one of the two adapter interfaces, in a version that this host serves.
pub(crate) fn is_adapter_export(name: &str) -> bool {
    [REQUIRED_EXPORT, SYNC_EXPORT].iter().any(|of| names(name, of))
}

fn names(name: &str, export: &str) -> bool {
    name.strip_prefix(export).is_some_and(|patch| patch.starts_with('.'))
}

fn exports_sync(pre: &InstancePre<OperationState>) -> bool {
    let (_, exports) = surface(pre.component(), pre.engine());
    exports.iter().any(|name| names(name, SYNC_EXPORT))
}

/// Returns the names of a component's imports and exports.
pub(crate) fn surface(component: &Component, engine: &wasmtime::Engine) -> (Vec<String>, Vec<String>) {
    let of = component.component_type();
    (
        of.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        of.exports(engine).map(|(name, _)| name.to_owned()).collect(),
    )
}
