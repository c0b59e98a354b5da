//! The bytes of a retrieve on their way to the reader, and the operation that goes on with them.
//!
//! A guest may still have to make the bytes, or to say how they ended, after it has answered: it runs on as a task beside
//! them ([`Guest`]), and the bytes are complete only if that ends without an error. Most guests have nothing left to do:
//! then the operation goes on with the bytes alone, from the moment at which the guest has ended.
//!
//! Whichever it is, the operation keeps its turn among those of the backend, and its limits, until the last byte or until
//! the body is dropped. A limit of time that is exceeded gives the turn back at once, whether or not anything reads.
//! Time in which the reader does not ask is the reader's: no stall, and not owed by anybody else.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use futures::stream::Stream;
use futures::task::AtomicWaker;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::operation::usage::{Turn, Usage, Wait, Waiting};
use tidelock_types::{Body, Error, ErrorKind, Result};

/// A guest that runs on beside its bytes. Dropping it ends the guest.
pub(crate) struct Guest {
    ended: oneshot::Receiver<Result<Turn>>,
    _task: AbortOnDropHandle<()>,
}

impl Guest {
    /// The rest of an operation as a task of its own. Needs a Tokio runtime.
    pub(crate) fn spawn(rest: impl Future<Output = Result<Turn>> + Send + 'static) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _ = end.send(rest.await);
        });
        Self { ended, _task: AbortOnDropHandle::new(task) }
    }
}

/// The guest's part of a retrieve, beside the bytes.
enum Beside {
    /// The guest.
    Guest(Guest),
    /// Nothing: the guest has ended without an error.
    Nothing { _turn: Turn },
    /// The guest has failed with this; the bytes that it made before are still to come.
    Failure(Error),
    /// All is over.
    End,
}

/// Bytes, and what goes on beside them.
pub(crate) struct Retrieval {
    body: Body,
    usage: Arc<Usage>,
    beside: Beside,
    /// How the bytes ended, while the guest has yet to end.
    over: Option<Result<()>>,
    reader: Arc<Reader>,
}

impl Retrieval {
    /// The bytes of a guest that runs on.
    pub(crate) fn with_guest(body: Body, usage: Arc<Usage>, guest: Guest) -> Self {
        Self::new(body, usage, Beside::Guest(guest))
    }

    /// The bytes of a guest that has ended without an error.
    pub(crate) fn without_guest(body: Body, usage: Arc<Usage>, turn: Turn) -> Self {
        Self::new(body, usage, Beside::Nothing { _turn: turn })
    }

    fn new(body: Body, usage: Arc<Usage>, beside: Beside) -> Self {
        let reader = Arc::new(Reader::new(usage.clone()));
        reader.is_waited_for(true);
        Self { body, usage, beside, over: None, reader }
    }

    /// Returns it as a body; `place` adds the backend and the operation to an error.
    pub(crate) fn into_body(self, place: impl Fn(Error) -> Error + Send + 'static) -> Body {
        let size = self.body.remaining();
        Body::new(self.map(move |chunk| chunk.map_err(&place)), size)
    }

    /// Takes note of a guest that has ended.
    fn look_at_guest(&mut self, context: &mut Context<'_>) {
        let Beside::Guest(guest) = &mut self.beside else { return };
        if let Poll::Ready(ended) = guest.ended.poll_unpin(context) {
            self.beside = match ended {
                Ok(Ok(turn)) => Beside::Nothing { _turn: turn },
                Ok(Err(error)) => Beside::Failure(error),
                Err(_) => Beside::Failure(cut_short()),
            };
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        // A guest that runs on is woken when it exceeds a limit, and reports the limit when it ends.
        if matches!(self.beside, Beside::Nothing { .. }) {
            self.usage.run_by(context.waker());
            if let Some(exceeded) = self.usage.exceeded() {
                return Poll::Ready(Some(Err(exceeded.error())));
            }
        }
        self.reader.is_waited_for(false);
        self.reader.waker.register(context.waker());
        let polled = self.body.poll_next_unpin(&mut Context::from_waker(&Waker::from(self.reader.clone())));
        if polled.is_ready() {
            self.reader.is_waited_for(true);
        }
        polled
    }
}

impl Stream for Retrieval {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if matches!(this.beside, Beside::End) {
            return Poll::Ready(None);
        }
        this.look_at_guest(context);
        if this.over.is_none() {
            match ready!(this.poll_body(context)) {
                Some(Ok(chunk)) => {
                    this.usage.of_object(chunk.len());
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Err(error)) if *error.kind() != ErrorKind::Cancelled => {
                    this.beside = Beside::End;
                    return Poll::Ready(Some(Err(error)));
                }
                // Bytes whose guest is gone: the reason of its end is more precise.
                Some(Err(_)) => this.over = Some(Err(cut_short())),
                None => this.over = Some(Ok(())),
            }
        }
        match std::mem::replace(&mut this.beside, Beside::End) {
            // Its outcome decides whether the bytes are complete; its end wakes the reader.
            guest @ Beside::Guest(_) => {
                this.beside = guest;
                // All bytes are taken, and it is the guest's turn.
                this.reader.is_waited_for(false);
                Poll::Pending
            }
            Beside::Failure(error) => Poll::Ready(Some(Err(error))),
            Beside::Nothing { .. } | Beside::End => Poll::Ready(this.over.take().and_then(Result::err).map(Err)),
        }
    }
}

/// An operation that was ended from outside, without a reason of its own.
pub(crate) fn cut_short() -> Error {
    Error::new(ErrorKind::Trapped, "the operation was cancelled")
}

/// The reader of the bytes: wakes it, and counts the time in which it is waited for.
struct Reader {
    waker: AtomicWaker,
    wait: Mutex<Wait>,
}

impl Reader {
    fn new(usage: Arc<Usage>) -> Self {
        Self { waker: AtomicWaker::new(), wait: Mutex::new(Wait::new(usage, Waiting::Outside)) }
    }

    fn is_waited_for(&self, waited: bool) {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner).set(waited);
    }
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // From now on the next step is the reader's.
        self.is_waited_for(true);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::operation::watchdog::Watchdog;
    use tidelock_types::{LimitExceeded, Limits};

    fn usage() -> Arc<Usage> {
        let limits = Limits { idle: Duration::from_secs(60), deadline: Duration::from_secs(3600), ..Limits::DEFAULT };
        Arc::new(Usage::new(&limits, Instant::now()))
    }

    fn bytes() -> Body {
        Body::new(futures::stream::iter([Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"cd"))]), None)
    }

    fn turns(usage: &Arc<Usage>) -> (Arc<tokio::sync::Semaphore>, Turn) {
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let all = Arc::new(tokio::sync::Semaphore::new(1));
        let turn = usage.take_turn([&turns, &all].map(|places| places.clone().try_acquire_owned().unwrap()));
        (turns, turn)
    }

    #[tokio::test]
    async fn the_turn_is_kept_to_the_last_byte() {
        let usage = usage();
        let (turns, turn) = turns(&usage);
        let mut body = Retrieval::without_guest(bytes(), usage, turn).into_body(|error| error);
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        assert_eq!(turns.available_permits(), 0);
        assert_eq!(body.next().await.unwrap().unwrap(), "cd");
        assert!(body.next().await.is_none());
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_guest_that_ends_early_leaves_the_limits_in_force() {
        let usage = usage();
        let (turns, turn) = turns(&usage);
        let guest = Guest::spawn(async { Ok(turn) });
        let mut body = Retrieval::with_guest(bytes(), usage.clone(), guest).into_body(|error| error);
        tokio::task::yield_now().await;
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        assert_eq!(turns.available_permits(), 0, "the bytes have its turn now");
        let watchdog = Watchdog::default();
        watchdog.begin(&usage);
        watchdog.look(usage.began() + Duration::from_secs(3600));
        assert_eq!(turns.available_permits(), 0, "the reader does not ask");
        usage.exceed(LimitExceeded::Deadline(Duration::from_secs(3600)));
        assert_eq!(turns.available_permits(), 1, "the deadline gives it back although nothing reads");
        let error = body.next().await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::TimedOut);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_guest_that_fails_at_the_end_fails_the_bytes() {
        let guest = Guest::spawn(async { Err(Error::corrupt("they were wrong")) });
        let body = Retrieval::with_guest(bytes(), usage(), guest).into_body(|error| error);
        assert_eq!(*body.collect(10).await.unwrap_err().kind(), ErrorKind::Corrupt);
        // Bytes that end because the guest is gone end in its error, not in theirs.
        let gone = Body::new(futures::stream::iter([Err(Error::new(ErrorKind::Cancelled, "gone"))]), None);
        let guest = Guest::spawn(async {
            tokio::task::yield_now().await;
            Err(Error::corrupt("they were wrong"))
        });
        let body = Retrieval::with_guest(gone, usage(), guest).into_body(|error| error);
        assert_eq!(*body.collect(10).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn bytes_that_lose_their_guest_without_a_reason_are_its_fault() {
        let usage = usage();
        let (_turns, turn) = turns(&usage);
        let gone = Body::new(futures::stream::iter([Err(Error::new(ErrorKind::Cancelled, "gone"))]), None);
        let body = Retrieval::without_guest(gone, usage, turn).into_body(|error| error);
        assert_eq!(*body.collect(10).await.unwrap_err().kind(), ErrorKind::Trapped);
    }

    #[tokio::test]
    async fn a_pausing_reader_stops_the_clock_of_a_running_guest_and_a_reading_one_does_not() {
        let (usage, watchdog) = (usage(), Watchdog::default());
        watchdog.begin(&usage);
        let guest = Guest::spawn(std::future::pending());
        let mut body = Retrieval::with_guest(bytes(), usage.clone(), guest).into_body(|error| error);
        let at = |hours: u64| usage.began() + Duration::from_secs(3600 * hours);
        watchdog.look(at(1));
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        watchdog.look(at(2));
        assert_eq!(body.next().await.unwrap().unwrap(), "cd");
        watchdog.look(at(3));
        assert!(usage.exceeded().is_none(), "{:?}", usage.exceeded());
        // The bytes are all taken: the guest has yet to say that they are.
        assert!(futures::poll!(body.next()).is_pending());
        watchdog.look(at(4));
        assert!(usage.exceeded().is_some());
    }

    #[tokio::test]
    async fn a_slow_reader_is_no_stall_and_a_slow_source_is() {
        let (usage, watchdog) = (usage(), Watchdog::default());
        let (_turns, turn) = turns(&usage);
        let (mut source, chunks) = futures::channel::mpsc::channel(4);
        let mut body = Retrieval::without_guest(Body::new(chunks, None), usage.clone(), turn).into_body(|error| error);
        watchdog.begin(&usage);
        let (at, minute) = (usage.began(), Duration::from_secs(61));
        assert!(futures::poll!(body.next()).is_pending());
        source.try_send(Ok(Bytes::from_static(b"ab"))).unwrap();
        watchdog.look(at + minute);
        watchdog.look(at + 2 * minute);
        assert!(usage.exceeded().is_none(), "the bytes are there, and the reader does not take them");
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        watchdog.look(at + 3 * minute);
        assert!(futures::poll!(body.next()).is_pending());
        watchdog.look(at + 4 * minute);
        watchdog.look(at + 5 * minute);
        assert!(usage.exceeded().is_some());
        assert_eq!(*body.next().await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
