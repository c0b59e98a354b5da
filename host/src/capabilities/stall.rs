//! Stalls: the other side neither takes nor gives a byte for too long.
//!
//! A fixed timeout on a request would punish large bodies, and the timeouts of HTTP clients on "reading" run while a
//! long upload is still going out. So each request carries a [`Clock`] that is wound by every chunk that leaves, and that
//! stands still while *we* are the ones who wait (for the source of the body). Responses are watched chunk by chunk.
//!
//! "Leaves" means: is taken by the client's write buffer, which holds some hundred KiB at most.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use tokio::time::Instant;

use crate::types::{Body, Error, Result};

/// When the other side last showed life.
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

    /// Runs a future until it is done or the other side has shown no life for `limit`.
    ///
    /// # Errors
    /// `unavailable` on a stall.
    pub(super) async fn watch<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(future);
        loop {
            // While the clock stands, look again after a whole limit: it may have been wound and stalled since.
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

/// A body that fails when its next chunk takes longer than `limit`.
pub(super) fn watched(body: Body, limit: Duration) -> Body {
    let size = body.remaining();
    let stream = futures::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(limit, body.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(stalled(limit)), None)),
        }
    });
    Body::new(stream, size)
}

fn stalled(limit: Duration) -> Error {
    Error::unavailable(format!("the other side neither took nor gave a byte for {} s", limit.as_secs_f32()))
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
        let silent = Body::new(futures::stream::pending(), None);
        assert!(watched(silent, Duration::from_secs(30)).next().await.unwrap().is_err());
    }
}
