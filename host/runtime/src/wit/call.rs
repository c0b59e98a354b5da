//! Accounting of host calls that take time: the operation's limits of calls, and its signs of progress.
//!
//! A call of an asynchronous guest borrows the store only briefly, so that streams move during the call. One of a
//! synchronous guest keeps the store until it returns: the guest is suspended meanwhile, and nothing in it could move.
//! [`Caller`] is all that differs between the two.

use std::future::Future;
use std::sync::Arc;

use wasmtime::component::Accessor;

use super::Host;
use super::bindings::tidelock::storage::types as wit;
use super::body::outcome;
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use crate::operation::usage::{Wait, Waiting};
use tidelock_capabilities::Capabilities;
use tidelock_types::{Body, Charge, Error, ErrorKind, LimitExceeded, Result};

/// The result of a host call: the end of the guest (outer), or an answer.
pub(super) type HostCallResult<T> = wasmtime::Result<std::result::Result<T, wit::Error>>;

/// The caller of an asynchronous host function.
pub(super) type AsyncCaller = Accessor<OperationState, Host>;

/// The caller of a host function, of either kind of guest: a reference to [`AsyncCaller`], or the operation's state.
pub(super) trait Caller {
    /// A body as it crosses the border.
    type Body;

    /// Borrows the operation's state.
    fn with<R>(&mut self, f: impl FnOnce(&mut OperationState) -> R) -> R;

    /// Takes a body that a host call will read from the guest, and what it needs of the guest.
    fn take(&mut self, body: Self::Body) -> wasmtime::Result<(Body, GuestParts)>;

    /// Passes a body to the guest. `parts` is what it needs of the guest.
    fn give(&mut self, body: Body, parts: GuestParts) -> wasmtime::Result<Self::Body>;
}

/// A call under way. Whatever ends it, dropping this ends all that it counts for.
pub(super) struct InFlight {
    _counted: Arc<()>,
    _wait: Wait,
    _held: Charge,
}

/// Counts the start of a call for which so many bytes are held, and returns its capabilities: none during `describe`.
pub(super) fn begins(state: &mut OperationState, holds: u64) -> wasmtime::Result<Option<(Capabilities, InFlight)>> {
    state.usage.stepped();
    state.called()?;
    if !state.capable {
        return Ok(None);
    }
    let limit = state.environment.limits.calls_in_flight;
    // One is the state's own.
    if Arc::strong_count(&state.calls_in_flight) > limit {
        return Err(state.exceed(LimitExceeded::CallsInFlight(limit)));
    }
    let counted = Arc::clone(&state.calls_in_flight);
    let account = state.account();
    let held = Charge::open(&account, holds).map_err(|exceeded| state.exceed(exceeded))?;
    let mut wait = Wait::new(state.usage.clone(), Waiting::Call);
    wait.set(true);
    Ok(Some((
        state.environment.capabilities.for_operation(account),
        InFlight { _counted: counted, _wait: wait, _held: held },
    )))
}

/// Counts a call that is answered. A limit that the capability itself keeps ends the operation too.
fn ends<T>(state: &mut OperationState, call: InFlight, result: &Result<T>) -> wasmtime::Result<()> {
    drop(call);
    state.usage.stepped();
    match result {
        Err(error) if *error.kind() == ErrorKind::Limit => {
            Err(state.exceed(LimitExceeded::Capability(error.message().to_owned())))
        }
        Err(error) => {
            state.usage.failed(error);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

fn incapable() -> Error {
    Error::unsupported("capabilities are not available in `describe`")
}

/// Makes a host call within the operation's limits. So many bytes are held for it until it is answered.
pub(super) async fn call<T, F: Future<Output = Result<T>>>(
    caller: &mut impl Caller,
    holds: u64,
    work: impl FnOnce(Capabilities) -> F,
) -> HostCallResult<T> {
    let Some((capabilities, in_flight)) = caller.with(|state| begins(state, holds))? else {
        return Ok(outcome(Err(incapable())));
    };
    let result = work(capabilities).await;
    caller.with(|state| ends(state, in_flight, &result))?;
    Ok(outcome(result))
}
