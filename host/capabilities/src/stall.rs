//! Stalls: no byte moves in either direction for too long.
//!
//! A fixed timeout on a request would punish large bodies, and the timeouts of HTTP clients on "reading" run while a
//! long upload is still going out. So each request carries a [`Clock`] that is reset by every chunk that leaves, and that
//! is paused while *we* wait (for the source of the body). Responses are timed chunk by chunk.
//!
//! "Leaves" means: is taken by the client's write buffer, which holds some hundred KiB at most.
//!
//! Single bytes do not count: while we wait for it, a response must bring [`PROGRESS`] bytes within each limit.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use tokio::time::Instant;

use tidelock_types::{Body, Error, Result};

/// The bytes that a response must bring in the time that may pass without any. In the default half minute that is a line
/// slower than any that storage is worth having over.
const PROGRESS: usize = 1024;

/// When the other side last made progress.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Mutex<Option<Instant>>>);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }

    /// A byte was taken: from now on the other side is waited for.
    pub(super) fn wind(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// We wait for our own source.
    pub(super) fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a future until it is done or the other side has made no progress for `limit`.
    ///
    /// # Errors
    /// `unavailable` on a stall.
    pub(super) async fn watch<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(future);
        loop {
            // If the clock is paused, check again after a whole limit: it may have been reset and stalled since.
            let until = self.last().unwrap_or_else(Instant::now) + limit;
            tokio::select! {
                biased;
                done = &mut future => return Ok(done),
                () = tokio::time::sleep_until(until) => {
                    if self.last().is_some_and(|last| last + limit <= Instant::now()) {
                        return Err(stalled(limit));
                    }
                }
            }
        }
    }
}

/// A body whose chunks wind the clock as they leave, and stop it while the source has none.
pub(super) fn winding(body: Body, clock: Clock) -> impl Stream<Item = Result<bytes::Bytes>> + Send + 'static {
    let mut body = body;
    futures::stream::poll_fn(move |cx| {
        let polled = body.poll_next_unpin(cx);
        match &polled {
            std::task::Poll::Pending => clock.stop(),
            std::task::Poll::Ready(_) => clock.wind(),
        }
        polled
    })
}

/// Returns a body that fails when it brings fewer than [`PROGRESS`] bytes within `limit`, unless they are its last. Time
/// in which it is not polled does not count.
pub(super) fn watched(body: Body, limit: Duration) -> Body {
    let size = body.remaining();
    let state = Some((body, limit, 0));
    let stream = futures::stream::unfold(state, move |state| async move {
        let (mut body, left, came) = state?;
        let began = Instant::now();
        match tokio::time::timeout(left, body.next()).await {
            Ok(Some(Ok(chunk))) => {
                let came = chunk.len().saturating_add(came);
                let next = if came >= PROGRESS { (limit, 0) } else { (left.saturating_sub(began.elapsed()), came) };
                Some((Ok(chunk), Some((body, next.0, next.1))))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(stalled(limit)), None)),
        }
    });
    Body::new(stream, size)
}

fn stalled(limit: Duration) -> Error {
    Error::unavailable(format!("the peer transferred almost no bytes for {} s", limit.as_secs_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_is_not_a_stall() {
        let slow = futures::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            (n < 3).then(|| (Ok(bytes::Bytes::from_static(b"x")), n + 1))
        });
        let clock = Clock::new();
        let sent = Box::pin(winding(Body::new(slow, None), clock.clone())).count();
        assert_eq!(clock.watch(Duration::from_secs(30), sent).await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_stall() {
        let clock = Clock::new();
        clock.wind();
        let error = clock.watch(Duration::from_secs(30), futures::future::pending::<()>()).await.unwrap_err();
        assert!(error.to_string().contains("30 s"), "{error}");
        let trickle = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok(bytes::Bytes::from_static(b"x")), ()))
        });
        let seen = StreamExt::collect::<Vec<_>>(watched(Body::new(trickle, None), Duration::from_secs(30))).await;
        assert_eq!((seen.len(), seen[3].is_err()), (4, true), "three bytes in half a minute are as good as none");
        let slow = futures::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            (n < 9).then(|| (Ok(bytes::Bytes::from(vec![0; 1024])), n + 1))
        });
        assert_eq!(
            watched(Body::new(slow, None), Duration::from_secs(30)).collect(1 << 20).await.unwrap().len(),
            9 << 10
        );
        let silent = Body::new(futures::stream::pending(), None);
        assert!(watched(silent, Duration::from_secs(30)).next().await.unwrap().is_err());
    }
}
