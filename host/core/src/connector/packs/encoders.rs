//! What those who make packs hold at once, and how many they are.
//!
//! An image that is sent as a full pack is encoded as fast as the backend takes it and the source gives it, so its encoder may
//! stand still for as long as either does. What all of them hold is bounded, and what those of one backend hold by half of
//! that. Where there is no room for an encoder with all its threads, there may be for one with a single thread; and where
//! there is none for that, the image is sent as it is rather than that it waits for others.
//!
//! A change against a base is written to a file. It waits for nobody but the backend of its base, if that is not at hand; so
//! each of these has places of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::{Budget, Budgets, Share};
use crate::types::{Error, Result};

/// The most bytes that the encoders of full packs hold.
const FULL: usize = 768 << 20;
/// Those of one backend.
const FULL_EACH: usize = FULL / 2;
/// How long a store waits for room for the smallest encoder before the image is sent as it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// The changes against bases on one backend, or at hand, that are made at once: each takes some hundred MiB, and all processors.
const CHANGES: usize = 2;

/// The budgets of encoders.
pub(crate) struct Encoders {
    full: Budget,
    full_of: Budgets,
    changes: Mutex<HashMap<Option<String>, Arc<Semaphore>>>,
}

impl Default for Encoders {
    fn default() -> Self {
        Self { full: Budget::new(FULL), full_of: Budgets::new(FULL_EACH), changes: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for an encoder of a full pack. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::connector) struct EncoderRoom {
    /// The threads that it has room for.
    pub(in crate::connector) threads: usize,
    _shares: [Share; 2],
}

impl Encoders {
    /// Room for an encoder that sends to a backend, with at most so many threads; `bytes` says what it takes with some of them.
    /// `None` if there is none for a while.
    pub(in crate::connector) async fn full(
        &self,
        backend: &str,
        threads: usize,
        bytes: impl Fn(usize) -> usize,
    ) -> Option<EncoderRoom> {
        let of = self.full_of.of(backend);
        for threads in [threads, 1] {
            if let (Some(own), Some(all)) = (of.try_take(bytes(threads)), self.full.try_take(bytes(threads))) {
                return Some(EncoderRoom { threads, _shares: [own, all] });
            }
        }
        tokio::time::timeout(PATIENCE, self.smallest(backend, &bytes)).await.ok()?.ok()
    }

    /// Waits for room for the smallest encoder.
    pub(in crate::connector) async fn smallest(
        &self,
        backend: &str,
        bytes: impl Fn(usize) -> usize,
    ) -> Result<EncoderRoom> {
        // In this order: whoever waits for room on a backend has none of the others'.
        let own = self.full_of.of(backend).take(bytes(1)).await?;
        let all = self.full.take(bytes(1)).await?;
        Ok(EncoderRoom { threads: 1, _shares: [own, all] })
    }

    /// Waits for a place to make a change against a base that is read from this backend, or is at hand.
    pub(in crate::connector) async fn change(&self, base: Option<&str>) -> Result<OwnedSemaphorePermit> {
        let places = {
            let mut changes = lock(&self.changes);
            let places = changes.entry(base.map(str::to_owned));
            places.or_insert_with(|| Arc::new(Semaphore::new(CHANGES))).clone()
        };
        places.acquire_owned().await.map_err(|error| Error::other("the host stops").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn encoders_of_one_backend_have_half_and_what_has_no_room_goes_without() {
        let encoders = Encoders::default();
        let bytes = |threads: usize| threads * (100 << 20);
        let of = async |backend: &str| encoders.full(backend, 3, bytes).await.map(|room| (room.threads, room));
        let first = of("stalled").await;
        assert_eq!(first.as_ref().map(|(threads, _)| *threads), Some(3));
        assert!(of("stalled").await.is_none());
        let other = of("good").await;
        assert_eq!(other.as_ref().map(|(threads, _)| *threads), Some(3));
        let third = of("third").await;
        assert_eq!(third.as_ref().map(|(threads, _)| *threads), Some(1));
        assert!(of("fourth").await.is_none());
        drop(other);
        assert_eq!(of("good").await.map(|(threads, _)| threads), Some(3));
        // Of a change, only the backend of its base is waited for.
        let _places = [encoders.change(Some("stalled")).await, encoders.change(Some("stalled")).await];
        assert!(encoders.change(Some("stalled")).now_or_never().is_none());
        assert!(encoders.change(Some("good")).now_or_never().is_some_and(|place| place.is_ok()));
        assert!(encoders.change(None).now_or_never().is_some_and(|place| place.is_ok()));
    }
}
