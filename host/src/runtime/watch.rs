//! The watch beside a guest: ends an operation that runs past its deadline or that stalls.
//!
//! A stall is a time in which nothing moved: no byte, no host call begun or answered. Time in which the operation waits
//! for somebody else does not count: a slow source of a store, a slow reader of a retrieve, a host call under way (those
//! have timeouts of their own), unless that call in turn waits for the guest.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::limits::{Limits, Struck};
use super::state::Progress;

/// Runs an operation under watch.
pub(super) async fn watched<T>(
    limits: &Limits,
    progress: &Arc<Progress>,
    work: impl Future<Output = T>,
) -> Result<T, Struck> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        struck = watch(limits, progress) => Err(struck),
    }
}

async fn watch(limits: &Limits, progress: &Progress) -> Struck {
    let began = Instant::now();
    let step = (limits.idle / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let (mut moves, mut since) = (progress.moves(), began);
    loop {
        let left = limits.deadline.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Struck::Deadline(limits.deadline);
        }
        sleep(step.min(left)).await;
        if progress.moves() != moves || progress.excused() {
            (moves, since) = (progress.moves(), Instant::now());
        } else if since.elapsed() >= limits.idle {
            return Struck::Idle(limits.idle);
        }
    }
}
