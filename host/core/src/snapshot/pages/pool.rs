//! Threads that work for one encoder: jobs are begun in the order in which they are given, and their results taken in that
//! order, so that what comes out does not depend on the number of threads.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::scan::Buffers;
use super::zst::Compressor;
use crate::types::{Error, Result};

/// What a thread keeps between jobs.
#[derive(Default)]
pub(super) struct Worker {
    compressor: Option<Compressor>,
    pub(super) buffers: Buffers,
}

impl Worker {
    /// Its compressor, made when it is first wanted.
    pub(super) fn compressor(&mut self) -> Result<&mut Compressor> {
        match &mut self.compressor {
            Some(compressor) => Ok(compressor),
            none => Ok(none.insert(Compressor::new()?)),
        }
    }
}

type Job<'env> = Box<dyn FnOnce(&mut Worker) + Send + 'env>;

struct Queue<'env> {
    jobs: VecDeque<Job<'env>>,
    closed: bool,
}

/// The threads, while they are wanted. Dropping it lets them end after the jobs that they have.
pub(super) struct Pool<'scope, 'env> {
    shared: &'scope Shared<'env>,
}

/// What a pool shares with its threads.
pub(super) struct Shared<'env> {
    queue: Mutex<Queue<'env>>,
    changed: Condvar,
}

impl<'env> Shared<'env> {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(Queue { jobs: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<'env>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut worker = Worker::default();
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job(&mut worker);
                queue = self.lock();
            } else if queue.closed {
                return;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The result of a job, now or later.
pub(super) struct Pending<T>(Receiver<Result<T>>);

impl<T> Pending<T> {
    /// Blocks until the job is done.
    pub(super) fn take(self) -> Result<T> {
        self.0.recv().unwrap_or_else(|_| Err(Error::other("a thread of the encoder ended early")))
    }
}

impl<'scope, 'env: 'scope> Pool<'scope, 'env> {
    /// Starts threads. Returns `unavailable` if the system has none left.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared<'env>,
        threads: usize,
    ) -> Result<Self> {
        let pool = Self { shared };
        for _ in 0..threads.max(1) {
            let thread = std::thread::Builder::new().name("tidelock-pages".into());
            let started = thread.spawn_scoped(scope, || shared.work());
            started.map_err(|error| Error::io("cannot start a thread", error))?;
        }
        Ok(pool)
    }

    /// Has a thread do this.
    pub(super) fn give<T: Send + 'env>(&self, work: impl FnOnce(&mut Worker) -> Result<T> + Send + 'env) -> Pending<T> {
        let (tell, told): (SyncSender<Result<T>>, _) = sync_channel(1);
        let job: Job<'env> = Box::new(move |worker| {
            // Nobody may wait any more.
            let _ = tell.send(work(worker));
        });
        self.shared.lock().jobs.push_back(job);
        self.shared.changed.notify_one();
        Pending(told)
    }
}

impl Drop for Pool<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.jobs.clear();
        queue.closed = true;
        self.shared.changed.notify_all();
    }
}

/// As many threads as there are processors, at most 16.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(16)
}
