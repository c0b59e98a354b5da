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
//!
//! The engine's clock looks at every operation at each of its ticks. Timers of the runtime would do the same, but a new
//! timer usually wakes a sleeping thread to hear of it, which costs more than a small operation.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Instant;

use super::limits::Struck;
use super::progress::{Mark, Progress};

/// The bytes that must move within each `idle` for an operation to count as going on. A byte a minute is a stall; a
/// line of 1 KiB in the default minute is slower than any that storage is worth having over.
pub(super) const PROGRESS: u64 = 1024;

/// Runs a part of an operation under watch. A limit that has struck is the outcome, whatever the guest made of it.
pub(super) async fn watched<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T, Struck> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        // First, so that no strike falls between the look at it and the wait.
        progress.run_by(context.waker());
        if let Some(struck) = progress.struck() {
            return Poll::Ready(Err(struck.clone()));
        }
        let began = Instant::now();
        let polled = work.as_mut().poll(context);
        // Whether the time was too long shows in the strike.
        let _ = progress.spends(began.elapsed());
        match (progress.struck(), polled) {
            (Some(struck), _) => Poll::Ready(Err(struck.clone())),
            (None, Poll::Ready(done)) => Poll::Ready(Ok(done)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// One operation, and how far it had come when it was last seen to go on.
struct Watch {
    progress: Weak<Progress>,
    last: Mark,
    since: Instant,
}

impl Watch {
    /// Looks at the operation. Gives it back if it is still under way.
    fn look(&mut self, now: Instant) -> Option<(Arc<Progress>, Option<Struck>)> {
        let progress = self.progress.upgrade()?;
        let (mark, limits) = (progress.mark(), progress.limits());
        if progress.excused() || mark.steps != self.last.steps || mark.bytes - self.last.bytes >= PROGRESS {
            (self.last, self.since) = (mark, now);
        }
        let struck = if now.saturating_duration_since(progress.began()) >= limits.deadline {
            Some(Struck::Deadline(limits.deadline))
        } else if now.saturating_duration_since(self.since) >= limits.idle {
            Some(Struck::Idle(limits.idle))
        } else {
            None
        };
        Some((progress, struck))
    }
}

/// All operations of an engine that are under way.
#[derive(Default)]
pub(super) struct Watches(Mutex<Vec<Watch>>);

impl Watches {
    /// Watches an operation until it ends.
    pub(super) fn begin(&self, progress: &Arc<Progress>) {
        let watch = Watch { progress: Arc::downgrade(progress), last: progress.mark(), since: progress.began() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
    }

    /// Looks at every operation, and forgets those that have ended.
    pub(super) fn look(&self, now: Instant) {
        // What is woken, and what goes here with its last handle, is met without the lock.
        let mut seen = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|watch| match watch.look(now) {
            Some(found) => {
                seen.push(found);
                true
            }
            None => false,
        });
        for (progress, struck) in seen {
            if let Some(struck) = struck
                && progress.struck().is_none()
            {
                progress.strike(struck);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::limits::Limits;

    fn limits() -> Limits {
        Limits { idle: Duration::from_secs(60), deadline: Duration::from_secs(3600), ..Limits::default() }
    }

    /// What becomes of an operation that moves so many bytes each so many seconds.
    fn moving(every: u64, bytes: usize) -> Option<Struck> {
        let (watches, progress) = (Watches::default(), Arc::new(Progress::new(&limits())));
        watches.begin(&progress);
        for second in 1..=4000 {
            if second % every == 0 {
                progress.carried(bytes);
            }
            watches.look(progress.began() + Duration::from_secs(second));
            if progress.struck().is_some() {
                break;
            }
        }
        progress.struck().cloned()
    }

    #[test]
    fn a_byte_now_and_then_is_a_stall() {
        let idle = Some(Struck::Idle(limits().idle));
        assert_eq!(moving(60, 1), idle);
        assert_eq!(moving(1, 1), idle);
        // What is merely slow goes on to its deadline.
        assert_eq!(moving(20, 1024), Some(Struck::Deadline(limits().deadline)));
    }

    #[tokio::test]
    async fn a_strike_is_the_outcome_whatever_the_work_says() {
        let progress = Progress::new(&limits());
        let work = async {
            progress.strike(Struck::Calls(1));
            "all is well"
        };
        assert_eq!(watched(&progress, work).await, Err(Struck::Calls(1)));
    }

    #[tokio::test]
    async fn an_operation_that_waits_is_woken_to_its_end_and_forgotten() {
        let watches = Arc::new(Watches::default());
        let progress = Arc::new(Progress::new(&limits()));
        watches.begin(&progress);
        let (clock, late) = (watches.clone(), progress.began() + limits().deadline);
        let looking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            clock.look(late);
        });
        let struck = watched(&progress, std::future::pending::<()>()).await;
        assert_eq!(struck, Err(Struck::Deadline(limits().deadline)));
        looking.join().unwrap();
        drop(progress);
        watches.look(late);
        assert!(watches.0.lock().unwrap().is_empty());
    }
}
