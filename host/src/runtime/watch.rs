//! The watch beside a guest: ends an operation that a limit strikes, that takes too much time on threads, that runs past
//! its deadline, or that stalls.
//!
//! A stall is a time in which the guest is waited for and nothing comes of it: no host call is begun or answered, and
//! fewer than [`PROGRESS`] bytes move. Time in which the operation waits for somebody else does not count: a slow source
//! of a store, a slow reader of a retrieve, a host call under way (those have timeouts of their own), unless that call in
//! turn waits for the guest. A guest that keeps making calls does not stall: its deadline ends it.
//!
//! Time on threads is what each poll of the operation takes: guest code (which gives its thread back at every tick of the
//! engine) and what the host computes for it in between. It is read off the wall, since asking for the thread's own
//! clock is a system call each time; on a machine that is short of processors it counts somewhat more than was used.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::limits::{Limits, Struck};
use super::progress::Progress;

/// The bytes that must move within each `idle` for an operation to count as going on. A byte a minute is a stall; a
/// line of 1 KiB in the default minute is slower than any that storage is worth having over.
pub(super) const PROGRESS: u64 = 1024;

/// Runs an operation under watch. A limit that has struck is the outcome, whatever the guest made of it.
pub(super) async fn watched<T>(
    limits: &Limits,
    progress: &Arc<Progress>,
    work: impl Future<Output = T>,
) -> Result<T, Struck> {
    let done = tokio::select! {
        biased;
        struck = progress.until_struck() => Err(struck),
        done = timed(progress, work) => done,
        struck = watch(limits, progress) => Err(struck),
    };
    match progress.struck() {
        Some(struck) => Err(struck.clone()),
        None => done,
    }
}

/// Counts the time that each poll takes.
async fn timed<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T, Struck> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let began = std::time::Instant::now();
        let polled = work.as_mut().poll(context);
        match (progress.spends(began.elapsed()), polled) {
            (_, Poll::Ready(done)) => Poll::Ready(Ok(done)),
            (Err(struck), Poll::Pending) => Poll::Ready(Err(struck)),
            (Ok(()), Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

async fn watch(limits: &Limits, progress: &Progress) -> Struck {
    let began = Instant::now();
    let step = (limits.idle / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let (mut last, mut since) = (progress.mark(), began);
    loop {
        let left = limits.deadline.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Struck::Deadline(limits.deadline);
        }
        sleep(step.min(left)).await;
        let mark = progress.mark();
        if progress.excused() || mark.steps != last.steps || mark.bytes - last.bytes >= PROGRESS {
            (last, since) = (mark, Instant::now());
        } else if since.elapsed() >= limits.idle {
            return Struck::Idle(limits.idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { idle: Duration::from_secs(60), deadline: Duration::from_secs(3600), ..Limits::default() }
    }

    async fn moving(every: Duration, bytes: usize) -> Result<(), Struck> {
        let limits = limits();
        let progress = Arc::new(Progress::new(&limits));
        let moves = async {
            loop {
                sleep(every).await;
                progress.carried(bytes);
            }
        };
        watched(&limits, &progress, moves).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_a_stall() {
        let idle = Err(Struck::Idle(limits().idle));
        assert_eq!(moving(Duration::from_secs(60), 1).await, idle);
        assert_eq!(moving(Duration::from_secs(1), 1).await, idle);
        // What is merely slow goes on to its deadline.
        assert_eq!(moving(Duration::from_secs(20), 1024).await, Err(Struck::Deadline(limits().deadline)));
    }

    #[tokio::test]
    async fn a_strike_is_the_outcome_whatever_the_work_says() {
        let limits = limits();
        let progress = Arc::new(Progress::new(&limits));
        let work = async {
            progress.strike(Struck::Calls(1));
            "all is well"
        };
        assert_eq!(watched(&limits, &progress, work).await, Err(Struck::Calls(1)));
    }
}
