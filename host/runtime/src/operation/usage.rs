//! State of an operation outside its store: signs of progress, parties that are waited for, bytes against their budgets,
//! the hint of a failed host call, and the limit that was exceeded, if one was.
//!
//! Bytes move in streams that outlive access to the store, so their counters are here, shared. An exceeded
//! limit is recorded once, and wakes the watchdog, which ends the operation.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::held::{BackendUsage, Held};
use tidelock_types::{Account, Error, LimitExceeded, Limits};

/// The maximum length of a hint that is kept, in bytes: ours are shorter, but some contain text of a guest.
const ADVICE: usize = 512;

/// The nanoseconds of processor time that an operation has for each byte of its object beyond its limit: a second for
/// 16 MiB. An image may be of any size, and every byte of it has to be moved and may have to be digested.
const OBJECT_BYTE: u64 = 60;

/// Signs of progress of one operation, and what it has used.
pub(crate) struct Usage {
    limits: Limits,
    began: Instant,
    exceeded: OnceLock<LimitExceeded>,
    /// The task that runs the operation.
    operation: AtomicWaker,
    /// Whether the operation is being polled, and whether it was woken since: see [`Usage::polls`].
    polling: AtomicU8,
    /// The operation's places among those of its generation and of its backend, until it ends or a limit ends it.
    places: Mutex<Option<[OwnedSemaphorePermit; 2]>>,
    /// Host calls begun and answered.
    steps: AtomicU64,
    /// Bytes that went into or out of the guest, and of its input.
    bytes: AtomicU64,
    /// Streams that wait for an outside party: a slow source, a slow reader.
    outside: AtomicU32,
    /// Host calls in progress. They have their own timeouts, and a disk may take its time to sync.
    calls: AtomicU32,
    /// Host calls and readers that wait for the guest to go on.
    guest: AtomicU32,
    /// Bytes of the object that it takes in or gives out.
    object: AtomicU64,
    /// Bytes that it has sent.
    sent: AtomicU64,
    /// Bytes of replies and files that it has read for itself.
    read: AtomicU64,
    /// Nanoseconds on a thread.
    cpu: AtomicU64,
    /// What is held for it now, and for all operations of its backend.
    held: Held,
    backend: Arc<BackendUsage>,
    /// The message of the last host call that failed with something that helps, and that.
    advice: Mutex<Option<(String, String)>>,
}

/// The party that is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Waiting {
    /// Somebody who is neither guest nor backend.
    Outside,
    /// A host call.
    Call,
    /// The guest.
    Guest,
    /// Nobody yet: the guest keeps bytes that it made to itself. Excuses nothing, and accuses nobody.
    Nobody,
}

/// How far an operation has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) steps: u64,
    pub(crate) bytes: u64,
    pub(crate) object: u64,
}

impl Usage {
    /// The usage of an operation of a backend of its own.
    #[cfg(test)]
    pub(crate) fn new(limits: &Limits, began: Instant) -> Self {
        Self::of(BackendUsage::new(limits), limits, began)
    }

    /// The usage of an operation of this backend.
    pub(crate) fn of(backend: Arc<BackendUsage>, limits: &Limits, began: Instant) -> Self {
        let none = || AtomicU64::new(0);
        Self {
            limits: limits.clone(),
            began,
            exceeded: OnceLock::new(),
            operation: AtomicWaker::new(),
            polling: AtomicU8::new(polling::WAITS),
            places: Mutex::default(),
            steps: none(),
            bytes: none(),
            outside: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            guest: AtomicU32::new(0),
            object: none(),
            sent: none(),
            read: none(),
            cpu: none(),
            held: Held::default(),
            backend,
            advice: Mutex::default(),
        }
    }

    /// What the operation may take.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When the operation began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Notes that a limit was exceeded, and wakes the operation to its end. The first one counts.
    pub(crate) fn exceed(&self, exceeded: LimitExceeded) {
        let _ = self.exceeded.set(exceeded);
        self.end_turn();
        self.operation.wake();
    }

    /// Takes the operation's place among those of its backend, and gives it back when the turn is dropped, or at once when a
    /// limit is exceeded: then others go on, whether or not anything looks at this operation again.
    pub(crate) fn take_turn(self: &Arc<Self>, places: [OwnedSemaphorePermit; 2]) -> Turn {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = Some(places);
        if self.exceeded().is_some() {
            self.end_turn();
        }
        Turn(self.clone())
    }

    fn end_turn(&self) {
        drop(self.places.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Says who is to be woken when a limit is exceeded.
    pub(crate) fn run_by(&self, operation: &Waker) {
        self.operation.register(operation);
    }

    /// Notes that the operation is being polled. From now on being woken is noted, and wakes nobody.
    pub(super) fn polls(&self) {
        self.polling.swap(polling::POLLED, Ordering::AcqRel);
    }

    /// Notes that the operation waits, unless it was woken while it was polled. From now on being woken wakes who runs it.
    pub(super) fn waits(&self) -> bool {
        self.polling.compare_exchange(polling::POLLED, polling::WAITS, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The limit that was exceeded, if one did.
    pub(crate) fn exceeded(&self) -> Option<&LimitExceeded> {
        self.exceeded.get()
    }

    /// A host call was begun or answered.
    pub(crate) fn stepped(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A host call failed.
    pub(crate) fn failed(&self, error: &Error) {
        if let Some(advice) = error.advice().filter(|advice| advice.len() <= ADVICE) {
            let known = (error.message().to_owned(), advice.to_owned());
            *self.advice.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
    }

    /// An adapter's error, with what helps if it passes on what a host call said. The interface has no place for that: a
    /// guest is told what went wrong, and what to do is for whoever runs the host.
    pub(crate) fn advised(&self, error: Error) -> Error {
        let known = self.advice.lock().unwrap_or_else(PoisonError::into_inner).take();
        match known {
            Some((message, advice)) if error.advice().is_none() && error.message().contains(&message) => {
                error.hint(advice)
            }
            _ => error,
        }
    }

    /// Bytes moved into or out of the guest.
    pub(crate) fn carried(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the object itself: of the input that was taken, or of the answer that was given.
    pub(crate) fn of_object(&self, bytes: usize) {
        self.carried(bytes);
        self.object.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that the operation sends.
    ///
    /// # Errors
    /// The limit, if they are too many.
    pub(crate) fn sends(&self, bytes: usize) -> Result<(), LimitExceeded> {
        let limit = self.limits.request_bytes;
        self.within(&self.sent, bytes, limit).map_err(|()| self.broken(LimitExceeded::RequestBytes(limit)))
    }

    /// Counts bytes of a reply that the guest reads.
    ///
    /// # Errors
    /// The limit, if they are too many.
    pub(crate) fn reads(&self, bytes: usize) -> Result<(), LimitExceeded> {
        let limit = self.limits.response_bytes;
        self.within(&self.read, bytes, limit).map_err(|()| self.broken(LimitExceeded::ResponseBytes(limit)))
    }

    /// Counts time on a thread.
    ///
    /// # Errors
    /// The limit, if it is too long.
    pub(crate) fn spends(&self, time: Duration) -> Result<(), LimitExceeded> {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let all = self.cpu.fetch_add(time, Ordering::Relaxed).saturating_add(time);
        let limit = self.limits.cpu;
        let for_object = self.object.load(Ordering::Relaxed).saturating_mul(OBJECT_BYTE);
        if Duration::from_nanos(all.saturating_sub(for_object)) > limit {
            Err(self.broken(LimitExceeded::Cpu(limit)))
        } else {
            Ok(())
        }
    }

    fn within(&self, counter: &AtomicU64, bytes: usize, limit: u64) -> Result<(), ()> {
        let bytes = bytes as u64;
        let all = counter.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if all > limit.saturating_add(self.object.load(Ordering::Relaxed)) { Err(()) } else { Ok(()) }
    }

    fn broken(&self, exceeded: LimitExceeded) -> LimitExceeded {
        self.exceed(exceeded.clone());
        exceeded
    }

    /// How far it has come.
    pub(crate) fn mark(&self) -> Mark {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Mark { steps: now(&self.steps), bytes: now(&self.bytes), object: now(&self.object) }
    }

    /// Returns whether standing still is nobody's fault here. A guest that lets a host call wait for it has no excuse.
    pub(crate) fn excused(&self) -> bool {
        let some = |count: &AtomicU32| count.load(Ordering::Relaxed) > 0;
        some(&self.outside) || (some(&self.calls) && !some(&self.guest))
    }

    /// Returns whether it waits for the source of a store or the reader of a retrieve.
    pub(crate) fn waits_for_outside(&self) -> bool {
        self.outside.load(Ordering::Relaxed) > 0
    }

    fn counter(&self, whom: Waiting) -> Option<&AtomicU32> {
        match whom {
            Waiting::Outside => Some(&self.outside),
            Waiting::Call => Some(&self.calls),
            Waiting::Guest => Some(&self.guest),
            Waiting::Nobody => None,
        }
    }
}

impl Account for Usage {
    fn spends(&self, time: Duration) {
        // Whether it was too long shows in the limit that is recorded as exceeded.
        let _ = self.spends(time);
    }

    fn is_over(&self) -> bool {
        self.exceeded().is_some()
    }

    fn take(&self, bytes: u64, open: usize) -> Result<(), LimitExceeded> {
        let limits = &self.limits;
        let own = self.held.take(bytes, open);
        let all = self.backend.held.take(bytes, open);
        let exceeded = if own.bytes > limits.held_bytes {
            LimitExceeded::HeldBytes(limits.held_bytes)
        } else if all.bytes > limits.backend_held_bytes {
            LimitExceeded::BackendHeldBytes(limits.backend_held_bytes)
        } else if own.open > limits.open_bodies {
            LimitExceeded::OpenBodies(limits.open_bodies)
        } else if all.open > limits.backend_open_bodies {
            LimitExceeded::BackendOpenBodies(limits.backend_open_bodies)
        } else {
            return Ok(());
        };
        self.give_back(bytes, open);
        Err(self.broken(exceeded))
    }

    fn give_back(&self, bytes: u64, open: usize) {
        self.held.give_back(bytes, open);
        self.backend.held.give_back(bytes, open);
    }

    fn jobs(&self) -> &Arc<Semaphore> {
        &self.backend.jobs
    }
}

/// What [`Usage::polling`] can be.
mod polling {
    /// It waits to be woken.
    pub(super) const WAITS: u8 = 0;
    /// It is being polled.
    pub(super) const POLLED: u8 = 1;
    /// It was woken, and who runs it knows or will look.
    pub(super) const WOKEN: u8 = 2;
}

/// What wakes an operation. Its parts wake each other while it is polled, which needs no more than a note that there is
/// something to do: waking a task that is running would put it at the end of the runtime's queue and wake another thread.
impl Wake for Usage {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.polling.swap(polling::WOKEN, Ordering::AcqRel) == polling::WAITS {
            self.operation.wake();
        }
    }
}

/// An operation's place among those of its backend.
pub(crate) struct Turn(Arc<Usage>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}

/// Says that something waits for somebody; takes it back when dropped.
pub(crate) struct Wait {
    usage: Arc<Usage>,
    whom: Waiting,
    said: bool,
}

impl Wait {
    pub(crate) fn new(usage: Arc<Usage>, whom: Waiting) -> Self {
        Self { usage, whom, said: false }
    }

    pub(crate) fn set(&mut self, waiting: bool) {
        if waiting == self.said {
            return;
        }
        self.said = waiting;
        let Some(counter) = self.usage.counter(self.whom) else { return };
        if waiting {
            counter.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A wait for whoever reads bytes of the guest: who that is can change while it lasts.
pub(crate) struct ReaderWait(Mutex<Wait>);

impl ReaderWait {
    pub(crate) fn new(usage: Arc<Usage>, reader: Waiting) -> Self {
        Self(Mutex::new(Wait::new(usage, reader)))
    }

    pub(crate) fn set(&self, waiting: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(waiting);
    }

    /// From now on somebody else reads.
    pub(crate) fn becomes(&self, reader: Waiting) {
        let mut wait = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = wait.said;
        wait.set(false);
        wait.whom = reader;
        wait.set(waiting);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests;
