//! The interface `adapter`, and the optional ones: asynchronous functions, whose bytes are streams.
//!
//! A call is made inside `run_concurrent` with an accessor, so that streams keep moving during the call.

use wasmtime::Store;
use wasmtime::component::{Instance, StreamReader};

use super::{Answer, account, adapter, answer, archive, inventory};
use crate::operation::state::OperationState;
use crate::operation::usage::Waiting;
use crate::stream::HostBody;
use crate::wit::body::accept;
use crate::wit::convert;
use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Health, InventoryPage, ObjectId, ObjectStat, Receipt, StoreHint,
};

pub(super) async fn store(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    data: Body,
    hint: StoreHint,
) -> Answer<Receipt> {
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            let data = accessor.with(|access| StreamReader::new(access, HostBody::without_end(data)))?;
            answer(guest.call_store(accessor, data, convert::hint_out(hint)).await, convert::receipt_in)
        })
        .await?
}

pub(super) async fn incremental_update(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    base: &ObjectId,
    delta: Body,
    hint: StoreHint,
) -> Answer<Receipt> {
    let (base, hint) = (base.as_str().to_owned(), convert::hint_out(hint));
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            let delta = accessor.with(|access| StreamReader::new(access, HostBody::without_end(delta)))?;
            answer(guest.call_incremental_update(accessor, base, delta, hint).await, convert::receipt_in)
        })
        .await?
}

/// Runs the guest until its part is over: it may have to produce the bytes, or to say how they ended.
pub(super) async fn retrieve(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
    range: Option<ByteRange>,
    given: impl FnOnce(Body) + Send,
) -> Answer<()> {
    let (id, range) = (id.as_str().to_owned(), range.map(convert::range_out));
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

pub(super) async fn stat(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
) -> Answer<ObjectStat> {
    let id = id.as_str().to_owned();
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            answer(guest.call_stat(accessor, id).await, convert::stat_in)
        })
        .await?
}

pub(super) async fn remove(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
) -> Answer<()> {
    let id = id.as_str().to_owned();
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            answer(guest.call_remove(accessor, id).await, Ok)
        })
        .await?
}

pub(super) async fn probe(
    at: &adapter::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
) -> Answer<Health> {
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            answer(guest.call_probe(accessor).await, |health| Ok(convert::health_in(health)))
        })
        .await?
}

pub(super) async fn restore(
    at: &archive::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
    days: u32,
) -> Answer<ArchiveState> {
    let id = id.as_str().to_owned();
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            answer(guest.call_restore(accessor, id, days).await, |state| Ok(convert::archive_in(state)))
        })
        .await?
}

pub(super) async fn balance(
    at: &account::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
) -> Answer<AccountState> {
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            answer(guest.call_balance(accessor).await, convert::account_in)
        })
        .await?
}

pub(super) async fn list_objects(
    at: &inventory::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    cursor: Option<String>,
    limit: u32,
) -> Answer<InventoryPage> {
    store
        .run_concurrent(async |accessor| {
            let guest = accessor.with(|access| at.load(access, instance))?;
            let answered = guest.call_list_objects(accessor, cursor, limit).await;
            answer(answered, |page| convert::inventory_in(page, limit))
        })
        .await?
}
