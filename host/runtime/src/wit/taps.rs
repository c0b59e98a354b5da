//! Digests of bytes that pass: `tidelock:storage/digest-stream`, and `piece-digests` since 0.1.1.

use bytes::Bytes;
use futures::future::BoxFuture;
use wasmtime::component::{Access, FutureReader};

use super::bindings::tidelock::storage::{digest_stream, piece_digests};
use super::body::{accept_in, give_in, outcome};
use super::{Host, WitBody};
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use crate::operation::usage::Waiting;
use tidelock_capabilities::digest::{self, Digests, Plan};
use tidelock_types::{Body, Result};

/// The result of a tap.
type FutureDigests = BoxFuture<'static, Result<Digests>>;

impl digest_stream::Host for OperationState {}
impl piece_digests::Host for OperationState {}

impl digest_stream::HostWithStore<OperationState> for Host {
    fn tap(
        mut access: Access<'_, OperationState, Self>,
        data: WitBody,
        plan: digest_stream::Plan,
    ) -> wasmtime::Result<digest_stream::Tapped> {
        let plan = Plan {
            algorithm: algorithm(plan.algorithm),
            whole: true,
            piece_size: plan.piece_size,
            prefix: Bytes::from(plan.prefix),
        };
        let (data, parts, digests) = tap(&mut access, data, plan)?;
        let digests = FutureReader::new(&mut access, async move {
            Ok::<_, wasmtime::Error>(outcome(digests.await).map(|d| digest_stream::Digests {
                size: d.size,
                whole: d.whole,
                pieces: d.pieces,
            }))
        })?;
        Ok(digest_stream::Tapped { data: give_in(&mut access, data, parts)?, digests })
    }
}

impl piece_digests::HostWithStore<OperationState> for Host {
    fn tap(
        mut access: Access<'_, OperationState, Self>,
        data: WitBody,
        plan: piece_digests::Plan,
    ) -> wasmtime::Result<piece_digests::Tapped> {
        let plan = Plan {
            algorithm: algorithm(plan.algorithm),
            whole: false,
            piece_size: Some(plan.piece_size),
            prefix: Bytes::from(plan.prefix),
        };
        let (data, parts, digests) = tap(&mut access, data, plan)?;
        let digests = FutureReader::new(&mut access, async move {
            let digests = outcome(digests.await);
            Ok::<_, wasmtime::Error>(digests.map(|d| piece_digests::Digests { size: d.size, pieces: d.pieces }))
        })?;
        Ok(piece_digests::Tapped { data: give_in(&mut access, data, parts)?, digests })
    }
}

fn tap(
    access: &mut Access<'_, OperationState, Host>,
    data: WitBody,
    plan: Plan,
) -> wasmtime::Result<(Body, GuestParts, FutureDigests)> {
    access.data_mut().called()?;
    // Who reads the bytes is known when the guest passes them on.
    let (data, mut parts) = accept_in(&mut *access, data, Waiting::Nobody)?;
    parts.tap().map_err(|exceeded| access.data_mut().exceed(exceeded))?;
    // Counted against the operation's limit; exceeding it ends the operation.
    let account = access.data_mut().account();
    let (data, digests) = digest::tap(data, plan, &account).unwrap_or_else(|error| {
        // The interfaces have no place for an error here: both ends of the tap return it.
        let again = error.duplicate();
        let failed: FutureDigests = Box::pin(std::future::ready(Err(again)));
        (Body::new(futures::stream::iter([Err(error)]), None), failed)
    });
    Ok((data, parts, digests))
}

fn algorithm(named: digest_stream::Algorithm) -> digest::Algorithm {
    match named {
        digest_stream::Algorithm::Sha256 => digest::Algorithm::Sha256,
        digest_stream::Algorithm::Sha512 => digest::Algorithm::Sha512,
        digest_stream::Algorithm::Blake3 => digest::Algorithm::Blake3,
    }
}
