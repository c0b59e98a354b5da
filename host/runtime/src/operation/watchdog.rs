//! The watchdog beside a guest: ends an operation that exceeds a limit, its CPU time or its deadline, or that stalls.
//!
//! A stall is a time in which the guest is waited for without progress: no host call begins or returns, and
//! fewer than [`PROGRESS`] bytes move. Time in which the operation waits for others does not count: a slow source
//! of a store, a slow reader of a retrieve, a host call in progress (those have their own timeouts), unless that call
//! in turn waits for the guest. A guest that keeps making calls does not stall: its deadline ends it.
//!
//! The deadline bounds the time that the adapter and its backend *owe*: all but the time in which the operation waits for a
//! party outside, the source of a store or the reader of a retrieve. Bytes of the object that move pay for it, [`RATE`] of
//! them for a second, and no more than is owed: there is no credit. So a transfer that moves is never ended, however long it
//! takes, one that all but stands still is, and an operation without bytes has its deadline and no more.
//!
//! CPU time is the duration of each poll of the operation: guest code (which yields its thread at every tick of the
//! engine) and the host's computations in between. It is wall time, since reading the thread's own
//! clock is a system call each time; on an overloaded machine it counts somewhat more than was used.
//!
//! The parts of an operation wake each other: a stream its reader, a guest that yields itself. As long as they do, it is
//! polled on, for at most [`TIME_SLICE`], before the thread goes back to the runtime: a pass through the runtime's queue, and
//! another thread that is woken for it, cost more than most of these steps.
//!
//! The engine's clock looks at every operation at each of its ticks. Timers of the runtime would do the same, but a new
//! timer usually wakes a sleeping thread to hear of it, which costs more than a small operation.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::coop::has_budget_remaining;

use super::usage::{Mark, Usage};
use tidelock_types::LimitExceeded;

/// The bytes that must move within each `idle` for an operation to count as going on. A byte a minute is a stall; a
/// line of 1 KiB in the default minute is slower than any that storage is worth having over.
pub(crate) const PROGRESS: u64 = 1024;

/// The bytes of an object that pay for a second that is owed.
const RATE: u64 = 1024;

/// How long an operation that wakes itself is polled on. Little beside a tick of the engine, which is how long a guest can
/// keep a thread anyway.
const TIME_SLICE: Duration = Duration::from_millis(1);

/// Runs a part of an operation under watch. A limit that was exceeded is the outcome, whatever the guest made of it.
pub(crate) async fn watched<T>(usage: &Arc<Usage>, work: impl Future<Output = T>) -> Result<T, LimitExceeded> {
    let mut work = pin!(work);
    let waker = Waker::from(usage.clone());
    std::future::poll_fn(|context| {
        // First, so that no exceeded limit is missed between the look at it and the wait.
        usage.run_by(context.waker());
        if let Some(exceeded) = usage.exceeded() {
            return Poll::Ready(Err(exceeded.clone()));
        }
        let began = Instant::now();
        let (polled, taken) = loop {
            usage.polls();
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
            let taken = began.elapsed();
            if polled.is_ready() || usage.exceeded().is_some() || usage.waits() {
                break (polled, taken);
            }
            if taken >= TIME_SLICE || !has_budget_remaining() {
                // It continues after the other tasks that wait for a thread.
                context.waker().wake_by_ref();
                break (polled, taken);
            }
        };
        // Whether the time was too long shows in the limit that is recorded as exceeded.
        let _ = usage.spends(taken);
        match (usage.exceeded(), polled) {
            (Some(exceeded), _) => Poll::Ready(Err(exceeded.clone())),
            (None, Poll::Ready(done)) => Poll::Ready(Ok(done)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// One operation, and how far it had come when it was last seen to go on.
struct Watch {
    usage: Weak<Usage>,
    last: Mark,
    since: Instant,
    /// When it was last looked at.
    looked: Instant,
    /// The time that it owes.
    owed: Duration,
    /// The bytes of the object that have paid.
    object: u64,
}

impl Watch {
    /// Checks the operation. Returns it if it is still running.
    fn look(&mut self, now: Instant) -> Option<(Arc<Usage>, Option<LimitExceeded>)> {
        let usage = self.usage.upgrade()?;
        let (mark, limits) = (usage.mark(), usage.limits());
        let passed = now.saturating_duration_since(self.looked);
        let paid = Duration::from_millis((mark.object - self.object).saturating_mul(1000) / RATE);
        (self.looked, self.object) = (now, mark.object);
        if !usage.waits_for_outside() {
            self.owed = self.owed.saturating_add(passed);
        }
        self.owed = self.owed.saturating_sub(paid);
        if usage.excused() || mark.steps != self.last.steps || mark.bytes - self.last.bytes >= PROGRESS {
            (self.last, self.since) = (mark, now);
        }
        let exceeded = if self.owed >= limits.deadline {
            Some(LimitExceeded::Deadline(limits.deadline))
        } else if now.saturating_duration_since(self.since) >= limits.idle {
            Some(LimitExceeded::Idle(limits.idle))
        } else {
            None
        };
        Some((usage, exceeded))
    }
}

/// All running operations of an engine.
#[derive(Default)]
pub(crate) struct Watchdog(Mutex<Vec<Watch>>);

impl Watchdog {
    /// Watches an operation until it ends.
    pub(crate) fn begin(&self, usage: &Arc<Usage>) {
        let (last, since) = (usage.mark(), usage.began());
        let watch = Watch {
            usage: Arc::downgrade(usage),
            object: last.object,
            last,
            since,
            looked: since,
            owed: Duration::ZERO,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
    }

    /// Looks at every operation, and forgets those that have ended.
    pub(crate) fn look(&self, now: Instant) {
        // What is woken, and what goes here with its last handle, is met without the lock.
        let mut seen = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|watch| match watch.look(now) {
            Some(found) => {
                seen.push(found);
                true
            }
            None => false,
        });
        for (usage, exceeded) in seen {
            if let Some(exceeded) = exceeded
                && usage.exceeded().is_none()
            {
                usage.exceed(exceeded);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::usage::{Wait, Waiting};
    use tidelock_types::Limits;

    fn limits() -> Limits {
        Limits { idle: Duration::from_secs(60), deadline: Duration::from_secs(3600), ..Limits::default() }
    }

    /// Runs an operation that moves a number of bytes at an interval of seconds.
    fn moving(every: u64, bytes: usize) -> Option<LimitExceeded> {
        let (watchdog, usage) = (Watchdog::default(), Arc::new(Usage::new(&limits(), Instant::now())));
        watchdog.begin(&usage);
        for second in 1..=4000 {
            if second % every == 0 {
                usage.carried(bytes);
            }
            watchdog.look(usage.began() + Duration::from_secs(second));
            if usage.exceeded().is_some() {
                break;
            }
        }
        usage.exceeded().cloned()
    }

    #[test]
    fn a_byte_now_and_then_is_a_stall() {
        let idle = Some(LimitExceeded::Idle(limits().idle));
        assert_eq!(moving(60, 1), idle);
        assert_eq!(moving(1, 1), idle);
        // What only looks alive runs to its deadline.
        assert_eq!(moving(20, 1024), Some(LimitExceeded::Deadline(limits().deadline)));
    }

    /// Runs an operation for a day, looking each second; `step` gets the second.
    fn for_a_day(mut step: impl FnMut(&Arc<Usage>, u64)) -> Option<(u64, LimitExceeded)> {
        let (watchdog, usage) = (Watchdog::default(), Arc::new(Usage::new(&limits(), Instant::now())));
        watchdog.begin(&usage);
        (1..=24 * 3600).find_map(|second| {
            usage.stepped();
            step(&usage, second);
            watchdog.look(usage.began() + Duration::from_secs(second));
            usage.exceeded().map(|exceeded| (second, exceeded.clone()))
        })
    }

    #[test]
    fn a_transfer_that_moves_is_never_cut_and_one_that_trickles_is() {
        let deadline = LimitExceeded::Deadline(limits().deadline);
        assert_eq!(for_a_day(|usage, _| usage.of_object(1024)), None);
        // Half of that pays for half of the time.
        assert_eq!(for_a_day(|usage, _| usage.of_object(512)), Some((7200, deadline.clone())));
        assert_eq!(for_a_day(|_, _| ()), Some((3600, deadline.clone())));
        // What moved before is no credit for what does not move later.
        let burst = for_a_day(|usage, second| {
            if second <= 10 {
                usage.of_object(1 << 40)
            }
        });
        assert_eq!(burst, Some((3610, deadline)));
    }

    #[test]
    fn time_in_which_others_are_waited_for_is_not_owed() {
        let mut outside = None;
        let ended = for_a_day(|usage, second| {
            let wait = outside.get_or_insert_with(|| Wait::new(usage.clone(), Waiting::Outside));
            // Nine seconds of ten.
            wait.set(second % 10 != 0);
        });
        assert_eq!(ended, Some((36_000, LimitExceeded::Deadline(limits().deadline))));
    }

    #[tokio::test]
    async fn an_exceeded_limit_is_the_outcome_whatever_the_work_returns() {
        let usage = Arc::new(Usage::new(&limits(), Instant::now()));
        let work = async {
            usage.exceed(LimitExceeded::Calls(1));
            "all is well"
        };
        assert_eq!(watched(&usage, work).await, Err(LimitExceeded::Calls(1)));
    }

    /// Wakes itself so many times before it is done, and counts how often it is polled.
    async fn wakes_itself(mut times: u32) {
        std::future::poll_fn(|context| {
            let done = times == 0;
            times = times.saturating_sub(1);
            context.waker().wake_by_ref();
            if done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[test]
    fn an_operation_that_wakes_itself_goes_on_at_once_but_not_for_long() {
        let usage = Arc::new(Usage::new(&limits(), Instant::now()));
        let mut context = Context::from_waker(Waker::noop());
        let few = pin!(watched(&usage, wakes_itself(3)));
        assert!(few.poll(&mut context).is_ready());
        let many = pin!(watched(&usage, wakes_itself(u32::MAX)));
        assert!(many.poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn an_operation_is_woken_from_elsewhere() {
        let usage = Arc::new(Usage::new(&limits(), Instant::now()));
        let (give, take) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            give.send(7)
        });
        assert_eq!(watched(&usage, take).await, Ok(Ok(7)));
    }

    #[tokio::test]
    async fn an_operation_that_waits_is_woken_to_its_end_and_forgotten() {
        let watchdog = Arc::new(Watchdog::default());
        let usage = Arc::new(Usage::new(&limits(), Instant::now()));
        watchdog.begin(&usage);
        let (clock, late) = (watchdog.clone(), usage.began() + limits().deadline);
        let looking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            clock.look(late);
        });
        let exceeded = watched(&usage, std::future::pending::<()>()).await;
        assert_eq!(exceeded, Err(LimitExceeded::Deadline(limits().deadline)));
        looking.join().unwrap();
        drop(usage);
        watchdog.look(late);
        assert!(watchdog.0.lock().unwrap().is_empty());
    }
}
