//! Everything specific to a version of the WIT package: bindings, conversions, glue to the capabilities.
//!
//! Code outside this folder uses the host's own types. A further version of the package gets its own bindings
//! and reuses the rest; within `0.1.x` the package only gains interfaces (existing ones never change: ADR 7) that a guest
//! may import, so that a component built against any earlier `0.1.x` keeps loading.

mod bindings;
mod body;
mod call;
mod capabilities;
pub(super) mod convert;
mod exports;
mod granted;
mod grants;
mod sync;
mod taps;
#[cfg(test)]
mod tests;
mod timer;

use body::WitBody;
pub(super) use exports::{Exports, REQUIRED_EXPORT, is_adapter_export, surface};

use super::operation::state::OperationState;
use wasmtime::component::{HasData, Linker};

/// Selects the store's state as the data of the capabilities.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut OperationState;
}

/// A linker with all that a guest may import: our capabilities, and WASI 0.2 with nothing granted.
///
/// # Errors
/// If two definitions collide: a mistake in this file, not in a guest.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<OperationState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    bindings::Host_::add_to_linker::<OperationState, Host>(&mut linker, |state| state)?;
    Ok(linker)
}
