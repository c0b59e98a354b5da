//! The functions that an adapter exports, called with the host's own words.
//!
//! Which of the optional interfaces a component exports is found out once, when it is loaded. A call is made inside
//! `run_concurrent` with an accessor, so that streams keep moving while it is under way.

use wasmtime::component::{Accessor, Component, FutureReader, Instance, InstancePre, StreamReader};
use wasmtime::{AsContextMut, Result as WasmResult};

use super::bindings::exports::tidelock::storage::{account, adapter, archive, inventory};
use super::bindings::tidelock::storage::types as wit;
use super::convert;
use crate::runtime::state::State;
use crate::runtime::stream::HostBody;
use crate::types::{
    AccountState, ArchiveState, Body, ByteRange, Description, Health, InventoryPage, ObjectId, ObjectStat, Receipt,
    Result, StoreHint,
};

/// Where the exports of one component are.
pub(in crate::runtime) struct Exports {
    adapter: adapter::GuestIndices,
    archive: Option<archive::GuestIndices>,
    account: Option<account::GuestIndices>,
    inventory: Option<inventory::GuestIndices>,
}

/// The bytes that `retrieve` gave: a stream and how it ended.
pub(in crate::runtime) type WitBody = (StreamReader<u8>, FutureReader<std::result::Result<(), wit::Error>>);

/// An answer that may be the guest's failure (outer) or the guest's refusal (inner).
type Answer<T> = WasmResult<Result<T>>;

fn answer<W, T>(
    answered: WasmResult<std::result::Result<W, wit::Error>>,
    convert: impl FnOnce(W) -> Result<T>,
) -> Answer<T> {
    Ok(answered?.map_err(convert::error_in).and_then(convert))
}

impl Exports {
    /// Finds the exports.
    ///
    /// # Errors
    /// If `tidelock:storage/adapter` is missing or a function of it has another type.
    pub(in crate::runtime) fn new(pre: &InstancePre<State>) -> WasmResult<Self> {
        Ok(Self {
            adapter: adapter::GuestIndices::new(pre)?,
            archive: archive::GuestIndices::new(pre).ok(),
            account: account::GuestIndices::new(pre).ok(),
            inventory: inventory::GuestIndices::new(pre).ok(),
        })
    }

    /// The names of the optional interfaces that are there.
    pub(in crate::runtime) fn optional(&self) -> Vec<&'static str> {
        [
            ("archive", self.archive.is_some()),
            ("account", self.account.is_some()),
            ("inventory", self.inventory.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }

    pub(in crate::runtime) async fn describe(
        &self,
        mut store: impl AsContextMut<Data = State>,
        instance: &Instance,
    ) -> WasmResult<Description> {
        let guest = self.adapter.load(&mut store, instance)?;
        Ok(convert::description_in(guest.call_describe(&mut store).await?))
    }

    fn adapter(&self, accessor: &Accessor<State>, instance: &Instance) -> WasmResult<adapter::Guest> {
        accessor.with(|access| self.adapter.load(access, instance))
    }

    pub(in crate::runtime) async fn store(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        data: Body,
        hint: StoreHint,
    ) -> Answer<Receipt> {
        let guest = self.adapter(accessor, instance)?;
        let data = accessor.with(|access| StreamReader::new(access, HostBody::without_end(data)))?;
        answer(guest.call_store(accessor, data, convert::hint_out(hint)).await, convert::receipt_in)
    }

    pub(in crate::runtime) async fn incremental_update(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        base: &ObjectId,
        delta: Body,
        hint: StoreHint,
    ) -> Answer<Receipt> {
        let guest = self.adapter(accessor, instance)?;
        let delta = accessor.with(|access| StreamReader::new(access, HostBody::without_end(delta)))?;
        let base = base.as_str().to_owned();
        answer(guest.call_incremental_update(accessor, base, delta, convert::hint_out(hint)).await, convert::receipt_in)
    }

    pub(in crate::runtime) async fn retrieve(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        id: &ObjectId,
        range: Option<ByteRange>,
    ) -> Answer<WitBody> {
        let guest = self.adapter(accessor, instance)?;
        let answered = guest.call_retrieve(accessor, id.as_str().to_owned(), range.map(convert::range_out)).await;
        answer(answered, Ok)
    }

    pub(in crate::runtime) async fn stat(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<ObjectStat> {
        let guest = self.adapter(accessor, instance)?;
        answer(guest.call_stat(accessor, id.as_str().to_owned()).await, convert::stat_in)
    }

    pub(in crate::runtime) async fn remove(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        id: &ObjectId,
    ) -> Answer<()> {
        let guest = self.adapter(accessor, instance)?;
        answer(guest.call_remove(accessor, id.as_str().to_owned()).await, Ok)
    }

    pub(in crate::runtime) async fn probe(&self, accessor: &Accessor<State>, instance: &Instance) -> Answer<Health> {
        let guest = self.adapter(accessor, instance)?;
        answer(guest.call_probe(accessor).await, |health| Ok(convert::health_in(health)))
    }

    pub(in crate::runtime) async fn restore(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        id: &ObjectId,
        days: u32,
    ) -> Answer<ArchiveState> {
        let Some(indices) = &self.archive else { return Ok(Err(missing("archive", "restore"))) };
        let guest = accessor.with(|access| indices.load(access, instance))?;
        let answered = guest.call_restore(accessor, id.as_str().to_owned(), days).await;
        answer(answered, |state| Ok(convert::archive_in(state)))
    }

    pub(in crate::runtime) async fn balance(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
    ) -> Answer<AccountState> {
        let Some(indices) = &self.account else { return Ok(Err(missing("account", "balance"))) };
        let guest = accessor.with(|access| indices.load(access, instance))?;
        answer(guest.call_balance(accessor).await, convert::account_in)
    }

    pub(in crate::runtime) async fn list_objects(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        cursor: Option<String>,
        limit: u32,
    ) -> Answer<InventoryPage> {
        let Some(indices) = &self.inventory else { return Ok(Err(missing("inventory", "list objects"))) };
        let guest = accessor.with(|access| indices.load(access, instance))?;
        answer(guest.call_list_objects(accessor, cursor, limit).await, |page| convert::inventory_in(page, limit))
    }
}

fn missing(interface: &str, what: &str) -> crate::types::Error {
    crate::types::Error::unsupported(format!("the adapter does not export `{interface}`, so it cannot {what}"))
}

/// The interface that a component of this version must export.
pub(in crate::runtime) const REQUIRED_EXPORT: &str = "tidelock:storage/adapter@0.1";

/// Whether the name of an export is that of the adapter interface, in a version that this host serves.
pub(in crate::runtime) fn is_adapter_export(name: &str) -> bool {
    name.strip_prefix(REQUIRED_EXPORT).is_some_and(|patch| patch.starts_with('.'))
}

/// The names of what a component imports and exports.
pub(in crate::runtime) fn surface(component: &Component, engine: &wasmtime::Engine) -> (Vec<String>, Vec<String>) {
    let of = component.component_type();
    (
        of.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        of.exports(engine).map(|(name, _)| name.to_owned()).collect(),
    )
}
