//! The load: clients that store an image, read it back and compare, and remove old ones, one operation after another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::Result;
use tidelock::{Host, SnapshotId, Source, StoreOptions};
use tokio::task::JoinHandle;

use super::{BACKENDS, Shared};
use crate::data;

/// What a client does.
pub const OPERATIONS: [&str; 3] = ["store", "retrieve", "remove"];
const STORE: usize = 0;
const RETRIEVE: usize = 1;
const REMOVE: usize = 2;
/// Room for so many operations from the start, so that making room is not measured.
const LAPS: usize = 1 << 21;
/// How many images a client keeps.
const KEEPS: usize = 12;
/// The most failures that are printed.
const TOLD: usize = 5;

/// In which part of the run an operation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Window {
    /// Before anything counts.
    WarmUp,
    /// No swaps.
    Quiet,
    /// Swaps.
    Swaps,
}

/// One operation that succeeded. Small: a hundred thousand of them shall not show in the memory that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Lap {
    /// Which of [`BACKENDS`].
    pub backend: u8,
    /// Which of [`OPERATIONS`].
    pub operation: u8,
    /// When it began.
    pub window: Window,
    /// The duration.
    pub ms: f32,
}

/// What the load came to.
#[derive(Debug, Default)]
pub struct Ended {
    /// What succeeded and counts.
    pub laps: Vec<Lap>,
    /// How many failed, at whatever time.
    pub failed: u64,
    /// How many images came back wrong.
    pub wrong: u64,
    /// What the first failures were.
    pub failures: Vec<String>,
}

impl Ended {
    /// The times of some operations.
    pub fn times(&self, which: impl Fn(&Lap) -> bool) -> Vec<f64> {
        self.laps.iter().filter(|lap| which(lap)).map(|lap| f64::from(lap.ms)).collect()
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Common>,
    clients: Vec<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Common {
    window: AtomicU8,
    stop: AtomicBool,
    count: AtomicU64,
    ended: Shared<Ended>,
}

impl Load {
    /// Starts so many clients with images of so many bytes, half of them on each backend.
    pub fn start(host: &Host, clients: usize, size: u64) -> Self {
        let shared = Arc::new(Common::default());
        lock(&shared.ended).laps.reserve(LAPS);
        let client = |number: usize| {
            let backend = number % BACKENDS.len();
            let client = Client { host: host.clone(), backend, size, shared: shared.clone() };
            tokio::spawn(client.work())
        };
        Self { clients: (0..clients).map(client).collect(), shared }
    }

    /// What begins from here on counts in this window.
    pub fn enter(&self, window: Window) {
        self.shared.window.store(window as u8, Ordering::Relaxed);
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Lets every client end what it does.
    pub async fn stop(self) -> Result<Ended> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await??;
        }
        Ok(std::mem::take(&mut *lock(&self.shared.ended)))
    }
}

struct Client {
    host: Host,
    backend: usize,
    size: u64,
    shared: Arc<Common>,
}

impl Client {
    async fn work(self) -> Result<()> {
        let mut bytes = data::random(self.size)?;
        let mut kept = VecDeque::new();
        let file = tempfile::NamedTempFile::new_in("/dev/shm").or_else(|_| tempfile::NamedTempFile::new())?;
        let mut round = 0_u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            // Another image each time: the same one would not be stored again.
            bytes[..8].copy_from_slice(&round.to_le_bytes());
            round += 1;
            std::fs::write(file.path(), &bytes)?;
            let stored = self.timed(STORE, async {
                let options =
                    StoreOptions { route: Some(BACKENDS[self.backend].0.to_owned()), ..StoreOptions::default() };
                self.host.store(Source::open(file.path()).await?, options).await
            });
            if let Some(stored) = stored.await {
                kept.push_back((stored.id, bytes[..8].to_vec()));
            }
            if let Some((id, head)) = kept.front().cloned() {
                self.read(id, &head, &bytes).await;
            }
            if kept.len() > KEEPS
                && let Some((id, _)) = kept.pop_front()
            {
                self.timed(REMOVE, self.host.remove(id)).await;
            }
        }
        Ok(())
    }

    /// Reads an image back; all images of a client differ in their first eight bytes alone.
    async fn read(&self, id: SnapshotId, head: &[u8], bytes: &[u8]) {
        let most = bytes.len();
        let found = self.timed(RETRIEVE, async { self.host.retrieve(id, None).await?.body.collect(most).await });
        if let Some(found) = found.await
            && (found.len() != bytes.len() || found[..8] != *head || found[8..] != bytes[8..])
        {
            self.with(|ended| ended.wrong += 1);
        }
    }

    async fn timed<T>(&self, operation: usize, work: impl Future<Output = tidelock::Result<T>>) -> Option<T> {
        let window = match self.shared.window.load(Ordering::Relaxed) {
            0 => Window::WarmUp,
            1 => Window::Quiet,
            _ => Window::Swaps,
        };
        let began = Instant::now();
        let outcome = work.await;
        let ms = began.elapsed().as_secs_f32() * 1e3;
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(answer) => {
                if window != Window::WarmUp {
                    let lap = Lap { backend: self.backend as u8, operation: operation as u8, window, ms };
                    self.with(|ended| ended.laps.push(lap));
                }
                Some(answer)
            }
            Err(error) => {
                self.with(|ended| {
                    ended.failed += 1;
                    if ended.failures.len() < TOLD {
                        ended.failures.push(format!("{}: {error:?}", OPERATIONS[operation]));
                    }
                });
                None
            }
        }
    }

    fn with(&self, change: impl FnOnce(&mut Ended)) {
        change(&mut lock(&self.shared.ended));
    }
}

fn lock<T>(shared: &Shared<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
