//! Which limit ended a guest, where wasmtime enforces it.
//!
//! Every limit is enforced by the host outside the guest: memory, tables and instances by wasmtime's limiter, CPU by
//! epochs and by the time that the host spends on the guest's behalf, wall time and stalls by timers, the rest by
//! counters. A limit that is exceeded ends the operation, whatever the guest makes of it, with an error whose text is
//! `limit: NAME VALUE`, and the store is thrown away. The limits themselves are a table in `tidelock_types::limits`.

use crate::engine::{NO_ROOM, first_line, of_system};
use tidelock_types::{Error, ErrorKind, LimitExceeded, Limits};

/// The limit that made wasmtime end a guest, if it was one. Where wasmtime has no type for it, its words tell; the tests of
/// hostile guests hold that they still do.
fn exceeded(error: &wasmtime::Error, limits: &Limits) -> Option<LimitExceeded> {
    if let Some(exceeded) = error.downcast_ref::<LimitExceeded>() {
        return Some(exceeded.clone());
    }
    if let Some(wasmtime::Trap::StackOverflow) = error.downcast_ref::<wasmtime::Trap>() {
        return Some(LimitExceeded::Stack);
    }
    let text = format!("{error:#}");
    let says = |words: &str| text.contains(words);
    if says("fuel allocated for hostcalls has been exhausted") {
        Some(LimitExceeded::CallBytes(limits.call_bytes))
    } else if says("store handle limit exceeded") || says("resource table has no free keys") {
        Some(LimitExceeded::Handles(limits.handles))
    } else if says("resource limit exceeded: instance count") {
        Some(LimitExceeded::Instances(limits.instances))
    } else {
        None
    }
}

/// Why a guest ended: the limit that was exceeded, or the trap. Texts hold no backtrace: those go to the log.
pub(crate) fn why(error: &wasmtime::Error, limits: &Limits) -> Error {
    if let Some(exceeded) = exceeded(error, limits) {
        return exceeded.error();
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Error::unavailable(format!("the sandbox has no capacity: {}", first_line(error)))
            .hint("lower `in_flight` of the backends: other operations use it all");
    }
    // The pool has its address space from the start; without one an instance takes its own.
    if format!("{error:#}").contains("mmap failed") {
        return Error::unavailable(format!("the sandbox has no address space: {}", first_line(error))).hint(NO_ROOM);
    }
    if let Some(refused) = of_system(error) {
        return refused;
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => Error::new(ErrorKind::Trapped, format!("the adapter trapped: {trap}")),
        None => Error::new(ErrorKind::Trapped, format!("the adapter failed: {}", first_line(error))),
    }
    .hint("see the log at level debug; this is a bug in the adapter")
}
