//! Waiting on behalf of a guest: `tidelock:storage/timer`, since 0.1.1.
//!
//! A wait is a host call like any other: it counts against the limits of calls and of concurrent calls, and ends with
//! the operation. It is short, so that a guest that waits for ever has to repeat it.

use std::time::Duration;

use super::Host;
use super::bindings::tidelock::storage::timer as wit;
use super::call::{AsyncCaller, call};
use crate::operation::state::OperationState;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);

impl wit::Host for OperationState {}

impl wit::HostWithStore<OperationState> for Host {
    async fn wait(mut accessor: &AsyncCaller, milliseconds: u32) -> wasmtime::Result<()> {
        let time = Duration::from_millis(milliseconds.into()).min(LONGEST);
        let sleep = async move {
            tokio::time::sleep(time).await;
            Ok(())
        };
        // Where capabilities do not work, there is nothing to wait for either.
        call(&mut accessor, 0, |_| sleep).await.map(|_| ())
    }
}
