//! The interface `adapter-sync`: synchronous functions over bodies that the host holds.
//!
//! A call runs on its own stack, which is suspended while a host function is awaited. When it has returned,
//! the guest's part is over: the bytes that it returned are the host's.

use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Answer, adapter_sync, answer};
use crate::body_handle::Origin;
use crate::operation::state::OperationState;
use crate::wit::convert;
use tidelock_types::{Body, ByteRange, Health, ObjectId, ObjectStat, Receipt, StoreHint};

pub(super) async fn store(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    data: Body,
    hint: StoreHint,
) -> Answer<Receipt> {
    let guest = at.load(&mut *store, instance)?;
    let data = store.data_mut().hold(data, Origin::Input)?;
    answer(guest.call_store(store, data, &convert::hint_out(hint)).await, convert::receipt_in)
}

pub(super) async fn incremental_update(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    base: &ObjectId,
    delta: Body,
    hint: StoreHint,
) -> Answer<Receipt> {
    let guest = at.load(&mut *store, instance)?;
    let delta = store.data_mut().hold(delta, Origin::Input)?;
    let (base, hint) = (base.as_str().to_owned(), convert::hint_out(hint));
    answer(guest.call_incremental_update(store, &base, delta, &hint).await, convert::receipt_in)
}

pub(super) async fn retrieve(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
    range: Option<ByteRange>,
    given: impl FnOnce(Body) + Send,
) -> Answer<()> {
    let guest = at.load(&mut *store, instance)?;
    match guest.call_retrieve(&mut *store, &id.as_str().to_owned(), range.map(convert::range_out)).await? {
        Ok(body) => {
            given(store.data_mut().take_body(body)?.into_body());
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(convert::error_in(error))),
    }
}

pub(super) async fn stat(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
) -> Answer<ObjectStat> {
    let guest = at.load(&mut *store, instance)?;
    answer(guest.call_stat(store, &id.as_str().to_owned()).await, convert::stat_in)
}

pub(super) async fn remove(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
    id: &ObjectId,
) -> Answer<()> {
    let guest = at.load(&mut *store, instance)?;
    answer(guest.call_remove(store, &id.as_str().to_owned()).await, Ok)
}

pub(super) async fn probe(
    at: &adapter_sync::GuestIndices,
    store: &mut Store<OperationState>,
    instance: &Instance,
) -> Answer<Health> {
    let guest = at.load(&mut *store, instance)?;
    answer(guest.call_probe(store).await, |health| Ok(convert::health_in(health)))
}
