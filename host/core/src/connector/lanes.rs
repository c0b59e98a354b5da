//! Work on several backends, on each beside the others: one that trickles, says nothing or fails delays its own alone.
//!
//! Each backend is a domain of trust of its own. Whoever looks at what is on several has a lane for each, in which one thing
//! is done after the other, and puts together what the lanes have found once all have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};

use crate::snapshot::Progress;
use crate::types::Result;

/// The most backends that are worked on at once. Beyond so many, some wait until others are done.
pub(super) const AT_ONCE: usize = 64;

/// Does all of it, and returns the results in the order of the work.
///
/// # Errors
/// The first one that occurs. What is left is dropped then.
pub(super) fn beside<'a, T: Send + 'a>(work: Vec<BoxFuture<'a, Result<T>>>) -> BoxFuture<'a, Result<Vec<T>>> {
    let numbered = work.into_iter().enumerate();
    let numbered = numbered.map(|(number, one)| one.map_ok(move |result| (number, result)));
    let done = stream::iter(numbered).buffer_unordered(AT_ONCE).try_collect::<Vec<(usize, T)>>();
    let in_order = done.map_ok(|mut done| {
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    });
    in_order.boxed()
}

/// What all lanes have read together.
pub(super) struct Tally {
    read: AtomicU64,
    progress: Progress,
}

impl Tally {
    /// A callback for each lane that is told what this one has read; `None` if nobody wants to know.
    pub(super) fn of_lanes(progress: Option<Progress>) -> impl Fn() -> Option<Progress> {
        let tally = progress.map(|progress| Arc::new(Self { read: AtomicU64::new(0), progress }));
        move || {
            let (tally, before) = (tally.clone()?, AtomicU64::new(0));
            let lane: Progress = Arc::new(move |read| {
                let more = read.saturating_sub(before.swap(read, Ordering::Relaxed));
                (tally.progress)(tally.read.fetch_add(more, Ordering::Relaxed).saturating_add(more));
            });
            Some(lane)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::types::Error;

    #[tokio::test]
    async fn what_never_ends_keeps_nobody_from_ending() {
        let (done, others) = (Arc::new(AtomicU64::new(0)), AT_ONCE as u64 - 1);
        let mut work: Vec<BoxFuture<'_, Result<u64>>> = vec![futures::future::pending().boxed()];
        for number in 0..others {
            let done = done.clone();
            work.push(async move { Ok(done.fetch_add(1, Ordering::Relaxed).max(number)) }.boxed());
        }
        assert!(beside(work).now_or_never().is_none());
        assert_eq!(done.load(Ordering::Relaxed), others);
        let later = async { Ok(tokio::task::yield_now().map(|()| 1).await) };
        assert_eq!(beside(vec![later.boxed(), async { Ok(2) }.boxed()]).await.unwrap(), [1, 2]);
        let fails = async { Err(Error::unavailable("the catalogue")) };
        assert!(beside(vec![futures::future::pending::<Result<u64>>().boxed(), fails.boxed()]).await.is_err());
    }

    #[test]
    fn the_bytes_of_all_lanes_are_told_together() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = told.clone();
        let lanes = Tally::of_lanes(Some(Arc::new(move |read| hears.lock().unwrap().push(read))));
        let (one, other) = (lanes().unwrap(), lanes().unwrap());
        one(5);
        other(2);
        one(6);
        assert_eq!(*told.lock().unwrap(), [5, 7, 8]);
        assert!(Tally::of_lanes(None)().is_none());
    }
}
