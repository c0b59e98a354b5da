//! The segments of an image that were read last, and those that are being read.
//!
//! Small reads one after the other mostly lie in the same segment, and several readers often want the same one at once.
//! So the last [`KEPT`] segments stay in memory, and a segment that is on its way is fetched once for all who wait for
//! it: whoever polls drives the fetch, all get its outcome, and it is dropped with the last of them. A failure is not
//! kept: the next reader tries again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::types::{Error, Result};

/// Segments that are kept: two, so that a read across a boundary does not push out what the next one needs.
pub(super) const KEPT: usize = 2;

type Fetch = BoxFuture<'static, Result<Bytes, Arc<Error>>>;

/// The segments of one image.
#[derive(Default)]
pub(super) struct SegmentCache {
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    /// In the order of their last use, the latest last.
    kept: Vec<(u64, Bytes)>,
    /// Owned by those who wait.
    on_their_way: Vec<(u64, WeakShared<Fetch>)>,
}

impl SegmentCache {
    /// A segment, fetched unless it is here or on its way.
    ///
    /// # Errors
    /// Those of the fetch.
    pub(super) async fn get(&self, number: u64, fetch: impl FnOnce() -> Fetch) -> Result<Bytes> {
        let shared = {
            let mut state = self.state();
            if let Some(bytes) = state.kept(number) {
                return Ok(bytes);
            }
            state.join(number, fetch)
        };
        let outcome = shared.clone().await;
        self.state().arrived(number, &shared, outcome.as_ref().ok());
        drop(shared);
        // The failure is that of every reader; the last one also gets what caused it.
        outcome.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(|shared| shared.duplicate()))
    }

    /// Returns whether a segment is here or on its way.
    pub(super) fn has(&self, number: u64) -> bool {
        let state = self.state();
        let under_way = |(wanted, fetch): &(u64, WeakShared<Fetch>)| *wanted == number && fetch.upgrade().is_some();
        state.kept.iter().any(|(kept, _)| *kept == number) || state.on_their_way.iter().any(under_way)
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    fn kept(&mut self, number: u64) -> Option<Bytes> {
        let at = self.kept.iter().position(|(kept, _)| *kept == number)?;
        let used = self.kept.remove(at);
        let bytes = used.1.clone();
        self.kept.push(used);
        Some(bytes)
    }

    /// The fetch of a segment that is under way, or a new one.
    fn join(&mut self, number: u64, fetch: impl FnOnce() -> Fetch) -> Shared<Fetch> {
        let under_way = self.on_their_way.iter().find(|(wanted, _)| *wanted == number);
        if let Some(shared) = under_way.and_then(|(_, fetch)| fetch.upgrade()) {
            return shared;
        }
        // Those without a waiter at their end are gone.
        self.on_their_way.retain(|(wanted, fetch)| *wanted != number && fetch.upgrade().is_some());
        let shared = fetch().shared();
        self.on_their_way.extend(shared.downgrade().map(|weak| (number, weak)));
        shared
    }

    /// Ends a fetch, for the first task that gets its outcome.
    fn arrived(&mut self, number: u64, fetch: &Shared<Fetch>, bytes: Option<&Bytes>) {
        let this = |weak: &WeakShared<Fetch>| weak.upgrade().is_some_and(|other| other.ptr_eq(fetch));
        let Some(at) = self.on_their_way.iter().position(|(wanted, weak)| *wanted == number && this(weak)) else {
            return;
        };
        self.on_their_way.swap_remove(at);
        if let Some(bytes) = bytes {
            if self.kept.len() == KEPT {
                self.kept.remove(0);
            }
            self.kept.push((number, bytes.clone()));
        }
    }
}

impl fmt::Debug for SegmentCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let numbers = |(number, _): &(u64, Bytes)| *number;
        f.debug_struct("SegmentCache").field("kept", &state.kept.iter().map(numbers).collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl Counter {
        /// A fetch of a byte, when the gate opens.
        fn fetch(&self, byte: u8, gate: Option<oneshot::Receiver<()>>) -> Fetch {
            let count = self.0.clone();
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(gate) = gate {
                    gate.await.map_err(|_| Arc::new(Error::unavailable("the gate is gone")))?;
                }
                Ok(Bytes::from(vec![byte]))
            }
            .boxed()
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn the_last_ones_are_kept() {
        let (cache, counter) = (SegmentCache::default(), Counter::default());
        for (number, fetched) in [(0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (1, 4), (2, 5)] {
            let bytes = cache.get(number, || counter.fetch(number as u8, None)).await.unwrap();
            assert_eq!((bytes[0], counter.count()), (number as u8, fetched), "segment {number}");
            assert!(cache.state().kept.len() <= KEPT && cache.state().on_their_way.is_empty());
        }
    }

    #[tokio::test]
    async fn those_who_come_at_once_share_a_fetch() {
        let (cache, counter) = (SegmentCache::default(), Counter::default());
        let (open, gate) = oneshot::channel();
        let mut gate = Some(gate);
        let readers: Vec<_> = (0..50)
            .map(|_| {
                let gate = gate.take();
                cache.get(7, || counter.fetch(7, gate))
            })
            .collect();
        let opened = async {
            tokio::task::yield_now().await;
            open.send(()).unwrap();
        };
        let (found, ()) = futures::join!(futures::future::join_all(readers), opened);
        assert!(found.into_iter().all(|bytes| bytes.unwrap()[..] == [7]));
        assert_eq!(counter.count(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_that_of_all_and_is_not_kept() {
        let (cache, counter) = (SegmentCache::default(), Counter::default());
        let failing = || {
            async {
                // So that the second comes meanwhile.
                tokio::task::yield_now().await;
                Err(Arc::new(Error::unavailable("gone").on_backend("cloud")))
            }
            .boxed()
        };
        let (first, second) = futures::join!(cache.get(0, failing), cache.get(0, || counter.fetch(0, None)));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert_eq!((error.message(), error.backend()), ("gone", Some("cloud")));
        }
        assert_eq!(counter.count(), 0);
        cache.get(0, || counter.fetch(0, None)).await.unwrap();
        assert_eq!(counter.count(), 1);
    }

    #[tokio::test]
    async fn a_fetch_ends_with_the_last_who_waits_and_not_before() {
        let (cache, counter) = (SegmentCache::default(), Counter::default());
        let (open, gate) = oneshot::channel();
        let mut first = Box::pin(cache.get(0, || counter.fetch(0, Some(gate))));
        let mut second = Box::pin(cache.get(0, || unreachable!("it is on its way")));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(!open.is_closed());
        drop(second);
        assert!(open.is_closed(), "nobody waits, and it goes on");
        cache.get(0, || counter.fetch(0, None)).await.unwrap();
        assert_eq!(counter.count(), 2);
    }
}
