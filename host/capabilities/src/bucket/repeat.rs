//! Requests that are sent again: after a moment, and only where that cannot do anything twice.
//!
//! One failed request in ten thousand is normal for a large service, and an upload of 10,000 parts must not end with it. So
//! a request is repeated when the server answers that it is busy or broken, and when the connection breaks after it was
//! made. It is not repeated when there is no connection, or when the server is silent: the caller has other backends.
//!
//! All requests here can be repeated. What could meet its own success (a put on the condition that the key is free,
//! completing an upload) calls [`Pace::doubtful`] afterwards.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::client::BucketInner;
use super::errors::{retry_after, status};
use crate::stall::Clock;
use tidelock_types::{Platform, Result};

/// How often a request is sent before it fails.
const ATTEMPTS: u32 = 4;
/// The longest pause before the second attempt; it doubles for each further one.
const PAUSE: Duration = Duration::from_millis(300);
/// A longer pause that a server requests is not waited for here, where parts are in memory.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The result of one of the SDK's requests.
pub(super) type Answer<T, E> = std::result::Result<T, SdkError<E, HttpResponse>>;

/// The attempts at one request.
pub(super) struct Pace<'a> {
    platform: &'a Platform,
    made: u32,
    /// Whether an attempt failed in a way that leaves open whether the server did what it was asked for.
    pub(super) doubtful: bool,
}

impl<'a> Pace<'a> {
    pub(super) fn new(platform: &'a Platform) -> Self {
        Self { platform, made: 0, doubtful: false }
    }

    /// How long to wait before the next attempt; `None` if there is to be none.
    fn after<E: ProvideErrorMetadata>(&mut self, error: &SdkError<E, HttpResponse>) -> Option<Duration> {
        self.made += 1;
        let asked = match error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
                let status = status(error)?;
                self.doubtful |= status >= 500;
                if !passes(status, super::errors::code(error)) {
                    return None;
                }
                retry_after(error, self.platform.since_epoch())
            }
            // Without a connection nothing was done, and another backend is sooner.
            SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() || failure.is_user() => {
                return None;
            }
            SdkError::DispatchFailure(_) => {
                self.doubtful = true;
                None
            }
            _ => return None,
        };
        if self.made >= ATTEMPTS || asked.is_some_and(|asked| asked > LONGEST_PAUSE) {
            return None;
        }
        Some(asked.unwrap_or_default().max(self.jitter()))
    }

    /// A random time up to the present pause ("full jitter"), so that many clients do not come back together.
    fn jitter(&self) -> Duration {
        let most = PAUSE * 2u32.saturating_pow(self.made.saturating_sub(1));
        let mut dice = [0; 2];
        match self.platform.fill(&mut dice) {
            Ok(()) => most.mul_f64(f64::from(u16::from_le_bytes(dice)) / f64::from(u16::MAX)),
            Err(_) => most,
        }
    }
}

/// Returns whether a refusal may pass by itself within moments.
fn passes(status: u16, code: Option<&str>) -> bool {
    match code.unwrap_or_default() {
        // A connection that was too slow for the server, or broke on its side; status 400.
        "RequestTimeout" | "IncompleteBody" => true,
        _ => matches!(status, 429 | 500 | 502 | 503 | 504),
    }
}

impl BucketInner {
    /// Sends a request until it has a final answer, or returns the last failure. The clock is for the body of the
    /// request: see [`crate::stall`].
    ///
    /// # Errors
    /// `unavailable` if the server is silent for `limit`. Such a request is not repeated.
    pub(super) async fn ask<T, E, F>(
        &self,
        pace: &mut Pace<'_>,
        limit: Duration,
        mut send: impl FnMut(&Clock) -> F,
    ) -> Result<Answer<T, E>>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Answer<T, E>>,
    {
        loop {
            let clock = Clock::new();
            let error = match clock.watch(limit, send(&clock)).await? {
                Ok(done) => return Ok(Ok(done)),
                Err(error) => error,
            };
            match pace.after(&error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(Err(error)),
            }
        }
    }

    /// The same for a request without a body whose earlier attempts do not matter.
    pub(super) async fn ask_plainly<T, E, F>(&self, mut send: impl FnMut() -> F) -> Result<Answer<T, E>>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Answer<T, E>>,
    {
        self.ask(&mut Pace::new(&self.platform), self.stall_timeout, |_| send()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_repeated() {
        for (status, code) in [(503, None), (429, None), (500, Some("InternalError")), (400, Some("RequestTimeout"))] {
            assert!(passes(status, code), "{status} {code:?}");
        }
        for (status, code) in
            [(400, None), (403, None), (404, None), (412, None), (501, None), (507, None), (301, None)]
        {
            assert!(!passes(status, code), "{status}");
        }
    }

    #[test]
    fn pauses_grow_and_are_random() {
        let platform = Platform::system();
        let mut pace = Pace::new(&platform);
        for (made, most) in [(1, PAUSE), (2, PAUSE * 2), (3, PAUSE * 4)] {
            pace.made = made;
            let pauses: Vec<_> = (0..20).map(|_| pace.jitter()).collect();
            assert!(pauses.iter().all(|pause| *pause <= most) && pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
