//! Work that waits for a disk or computes for long, off the threads that everything else runs on.
//!
//! The threads for such work are shared by the whole process. What an adapter causes is a [`job`]: counted against the
//! operation's processor time, bounded for each backend, so that no backend takes all threads, and told to stop when
//! nothing waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::account::Account;
use super::{Error, ErrorKind, Result};

/// Runs work on a thread that may wait. Dropping the future does not end work that has begun.
///
/// # Errors
/// Those of the work; `other` if the runtime shuts down or the work panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.map_err(|error| {
        let why = if error.is_panic() { "it panicked" } else { "the runtime is shutting down" };
        Error::other(format!("a task ended early: {why}")).with_source(error)
    })?
}

/// Asked by a job between two steps: whether it is still waited for.
#[derive(Clone)]
pub struct Stop {
    dropped: Arc<AtomicBool>,
    account: Arc<dyn Account>,
}

impl Stop {
    /// Returns whether the job has no purpose any more.
    pub fn is_asked(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) || self.account.is_over()
    }

    /// Fails if the job has no purpose any more.
    ///
    /// # Errors
    /// `cancelled`; no caller waits for it any more.
    pub fn check(&self) -> Result<()> {
        if self.is_asked() {
            return Err(Error::new(ErrorKind::Cancelled, "nothing waits for this work any more"));
        }
        Ok(())
    }
}

/// A job that was started. Dropping it requests the job to stop.
pub struct Job<T> {
    running: JoinHandle<Result<T>>,
    dropped: Arc<AtomicBool>,
}

impl<T> Job<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// Those of the work; `other` if the runtime shuts down or the work panics.
    pub async fn done(mut self) -> Result<T> {
        joined((&mut self.running).await)
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// Runs work of an operation on a thread that may wait, when there is a place for it among the jobs of its backend. The
/// place is held until the work has ended, also if nothing waits for it any more.
///
/// # Errors
/// As [`blocking`].
pub async fn job<T, F>(account: &Arc<dyn Account>, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Stop) -> Result<T> + Send + 'static,
{
    start_job(account, work).await?.done().await
}

/// Starts work as [`job`] does, and does not wait for its end.
///
/// # Errors
/// `cancelled` if the host has stopped.
pub async fn start_job<T, F>(account: &Arc<dyn Account>, work: F) -> Result<Job<T>>
where
    T: Send + 'static,
    F: FnOnce(&Stop) -> Result<T> + Send + 'static,
{
    let dropped = Arc::new(AtomicBool::new(false));
    let stop = Stop { dropped: dropped.clone(), account: account.clone() };
    let run = move |place: OwnedSemaphorePermit| {
        tokio::task::spawn_blocking(move || {
            let _place = place;
            stop.check()?;
            let began = thread_time();
            let outcome = work(&stop);
            stop.account.spends(thread_time().saturating_sub(began));
            outcome
        })
    };
    if let Ok(place) = account.jobs().clone().try_acquire_owned() {
        return Ok(Job { running: run(place), dropped });
    }
    // A place is given to whatever waited longest, whether or not it is polled again: a read-ahead of a reader that pauses
    // is not, and would keep the place for as long. A task takes it, and begins at once.
    let places = account.jobs().clone();
    let starting = tokio::spawn(async move { places.acquire_owned().await.map(run) });
    let mut waiting = Waiting { starting, dropped: Some(dropped.clone()) };
    let started = (&mut waiting.starting).await;
    waiting.dropped = None;
    let running = started.ok().and_then(Result::ok);
    let running = running.ok_or_else(|| Error::new(ErrorKind::Cancelled, "the host has stopped"))?;
    Ok(Job { running, dropped })
}

/// Waits for a place and starts a job. Dropping it ends the waiting, and requests a job that was started to stop.
struct Waiting<T> {
    starting: JoinHandle<T>,
    dropped: Option<Arc<AtomicBool>>,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.starting.abort();
        if let Some(dropped) = &self.dropped {
            dropped.store(true, Ordering::Relaxed);
        }
    }
}

/// The processor time of this thread: a disk that is slow is not the adapter's computing.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, PoisonError};

    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::LimitExceeded;

    struct Counting(Arc<Semaphore>, Mutex<Duration>);

    impl Account for Counting {
        fn spends(&self, time: Duration) {
            *self.1.lock().unwrap_or_else(PoisonError::into_inner) += time;
        }

        fn is_over(&self) -> bool {
            false
        }

        fn take(&self, _: u64, _: usize) -> Result<(), LimitExceeded> {
            Ok(())
        }

        fn give_back(&self, _: u64, _: usize) {}

        fn jobs(&self) -> &Arc<Semaphore> {
            &self.0
        }
    }

    fn account(places: usize) -> (Arc<Counting>, Arc<dyn Account>) {
        let counting = Arc::new(Counting(Arc::new(Semaphore::new(places)), Mutex::default()));
        (counting.clone(), counting)
    }

    #[tokio::test]
    async fn computing_is_counted_and_waiting_is_not() {
        let (counting, account) = account(1);
        job(&account, |_| {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        })
        .await
        .unwrap();
        let waited = *counting.1.lock().unwrap();
        job(&account, |_| {
            let began = thread_time();
            while thread_time() - began < Duration::from_millis(50) {}
            Ok(())
        })
        .await
        .unwrap();
        let computed = *counting.1.lock().unwrap() - waited;
        assert!(waited < Duration::from_millis(50) && computed >= Duration::from_millis(50), "{waited:?} {computed:?}");
    }

    #[tokio::test]
    async fn a_job_that_is_not_polled_keeps_no_place() {
        let (_, account) = account(1);
        let (end, ended) = channel::<()>();
        let first = start_job(&account, move |_| ended.recv().map_err(|_| Error::other("gone"))).await.unwrap();
        // As the reads ahead of a reader that pauses: they have begun to wait, and are not asked again.
        let mut paused: Vec<_> = (0..3).map(|_| Box::pin(job(&account, |_| Ok(())))).collect();
        for paused in &mut paused {
            assert!(paused.as_mut().now_or_never().is_none());
        }
        end.send(()).unwrap();
        first.done().await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), job(&account, |_| Ok(()))).await.expect("no place").unwrap();
        for paused in paused {
            paused.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_job_that_is_dropped_while_it_waits_is_not_run() {
        let (counting, account) = account(1);
        let place = counting.0.clone().try_acquire_owned().unwrap();
        let mut waiting = Box::pin(job(&account, |_| -> Result<()> { panic!("it was dropped") }));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        drop(place);
        job(&account, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_nothing_waits_for_stops_and_keeps_its_place_until_then() {
        let (counting, account) = account(1);
        let (began, has_began) = channel();
        let running = start_job(&account, move |stop| {
            began.send(()).unwrap();
            while !stop.is_asked() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        });
        let running = running.await.unwrap();
        tokio::task::spawn_blocking(move || has_began.recv()).await.unwrap().unwrap();
        drop(running);
        assert_eq!(counting.0.available_permits(), 0, "it is still there");
        // It takes the place when the first one has ended.
        job(&account, |_| Ok(())).await.unwrap();
    }
}
