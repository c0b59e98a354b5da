//! The host in which hostile and well-behaved backends meet.
//!
//! One host with the backend `good` (the adapter `fs`) and one backend for each attack, over one engine and one runtime.
//! Two workers store and read objects on `good` all the time and record the latency of each operation; a failed one
//! fails the current attack.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use tidelock::config::Config;
use tidelock::{Error, Host, Result, Source, StoreOptions, Stored};
use tidelock_tests::data::noise;
use tidelock_tests::program::guest;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::host::{Figures, Rest, Watch};
use crate::planted::{Planted, backend};
use crate::server::Server;

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(120);

/// The size at which the attacker attacks.
pub const CUE: usize = 13;

/// Operations of the well-behaved backend that an attack has to go on for.
const OPERATIONS: usize = 50;

/// What comes after a failure.
type AttackResult = std::result::Result<(), String>;

/// The operation on a hostile backend.
pub enum Ask {
    /// To store an object at which it attacks.
    Store,
    /// To store properly, and to give it back.
    Retrieve,
    /// Nothing of the backend: something of its own.
    Own(fn(&Arena) -> LocalBoxFuture<'_, Result<()>>),
}

/// Where a hostile component comes from.
pub enum Component {
    /// This guest (`attacker`, or `sync`), this act, and its target. `{server}` in the target is the server's address, and
    /// `{outside}` that of one that is not granted.
    Attacker(&'static str, &'static str, &'static str),
    /// A component that is made for this attack.
    Made(fn() -> Vec<u8>),
}

/// One attack.
pub struct Attack {
    pub name: &'static str,
    pub component: Component,
    /// The backend's limits, as in the configuration.
    pub limits: &'static str,
    pub ask: Ask,
    /// The kinds of error that it may end in, by name.
    pub kind: &'static str,
    /// What the error has to say.
    pub says: &'static str,
    /// What is put into the backend's folder before.
    pub prepare: Option<fn(&Path)>,
    /// What has to hold afterwards.
    pub after: Option<fn(&Arena) -> AttackResult>,
}

impl Attack {
    /// The guest `attacker` while it stores.
    pub fn store(
        name: &'static str,
        act: &'static str,
        limits: &'static str,
        ends: (&'static str, &'static str),
    ) -> Self {
        Self {
            name,
            component: Component::Attacker("attacker", act, ""),
            limits,
            ask: Ask::Store,
            kind: ends.0,
            says: ends.1,
            prepare: None,
            after: None,
        }
    }

    /// The guest `attacker` while it gives back.
    pub fn retrieve(
        name: &'static str,
        act: &'static str,
        limits: &'static str,
        ends: (&'static str, &'static str),
    ) -> Self {
        Self { ask: Ask::Retrieve, ..Self::store(name, act, limits, ends) }
    }

    /// With a target.
    pub fn at(mut self, target: &'static str) -> Self {
        if let Component::Attacker(_, _, of) = &mut self.component {
            *of = target;
        }
        self
    }

    /// By the guest of synchronous functions.
    pub fn sync(mut self) -> Self {
        if let Component::Attacker(guest, _, _) = &mut self.component {
            *guest = "sync";
        }
        self
    }

    /// With something in its folder.
    pub fn prepared(mut self, prepare: fn(&Path)) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// With something that has to hold afterwards.
    pub fn then(mut self, after: fn(&Arena) -> AttackResult) -> Self {
        self.after = Some(after);
        self
    }

    /// A component that is made for it, while it is loaded.
    pub fn load(
        name: &'static str,
        made: fn() -> Vec<u8>,
        limits: &'static str,
        ends: (&'static str, &'static str),
    ) -> Self {
        Self { component: Component::Made(made), ..Self::store(name, "", limits, ends) }
    }

    fn backend(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// What the workers have seen.
#[derive(Default)]
struct Seen {
    /// When an operation began, and how long it took.
    times: Vec<(Instant, Duration)>,
    failures: Vec<String>,
}

/// How the well-behaved backend fared under an attack.
struct Note {
    name: String,
    line: String,
    p99: Duration,
}

/// The host, the server, and the workers.
pub struct Arena {
    pub host: Host,
    pub server: Server,
    /// Of an origin that is not granted.
    pub outside: Server,
    pub dir: tempfile::TempDir,
    pub calm: Mutex<Vec<Duration>>,
    runtime: Runtime,
    seen: Arc<Mutex<Seen>>,
    turn: Mutex<()>,
    notes: Mutex<Vec<Note>>,
    rest: Rest,
    seeds: AtomicU64,
}

impl Arena {
    /// Opens the host. The hostile backends open when they are first asked.
    pub fn open(attacks: &[Attack]) -> Self {
        // There are far more backends here than anywhere else, and each has its share.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let all = rustix::process::Rlimit { current: limit.maximum, ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            // So that the threads of an attack are gone soon after it.
            .thread_keep_alive(Duration::from_millis(100))
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (server, outside) = runtime.block_on(async { (Server::start().await, Server::start().await) });
        let mut text = "data_dir = \"data\"\n[backends.good]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"objects/good\" }\n[routes.default]\nbackends = [\"good\"]\n".to_owned();
        std::fs::write(dir.path().join("kept"), "a file outside of every grant").unwrap();
        for attack in attacks {
            let folder = dir.path().join("objects").join(attack.backend());
            std::fs::create_dir_all(&folder).unwrap();
            symlink("../../kept", folder.join("way-out")).unwrap();
            symlink("../..", folder.join("way-up")).unwrap();
            if let Some(prepare) = attack.prepare {
                prepare(&folder);
            }
            let (adapter, settings) = match &attack.component {
                Component::Attacker(name, act, target) => {
                    let target = target
                        .replace("{server}", &server.origin)
                        .replace("{port}", &server.port.to_string())
                        .replace("{outside}", &outside.origin)
                        .replace("{outside_host}", outside.origin.trim_start_matches("http://"));
                    (guest(name), format!("act = '{act}', target = '{target}'"))
                }
                Component::Made(make) => {
                    let path = dir.path().join(format!("{}.wasm", attack.name));
                    std::fs::write(&path, make()).unwrap();
                    (path, String::new())
                }
            };
            text += &backend(&attack.backend(), &adapter, &server.origin, &settings, attack.limits);
        }
        let config = Config::parse(&text, dir.path()).unwrap();
        let host = runtime.block_on(Host::start_lazily(&config, Arc::new(Planted))).unwrap();
        let mut arena = Self {
            host,
            server,
            outside,
            dir,
            calm: Mutex::default(),
            runtime,
            seen: Arc::default(),
            turn: Mutex::new(()),
            notes: Mutex::default(),
            rest: Rest::now(),
            seeds: AtomicU64::new(1 << 32),
        };
        for worker in 0..2 {
            arena.runtime.spawn(work(arena.host.clone(), arena.seen.clone(), worker));
        }
        // The first ones find everything cold.
        arena.wait_for(Instant::now(), OPERATIONS);
        let began = Instant::now();
        arena.wait_for(began, 2 * OPERATIONS);
        *arena.calm.lock().unwrap() = arena.taken_since(began);
        arena.rest = Rest::now();
        arena
    }

    /// Attacks until the well-behaved backend has gone on for a while, at least twice.
    pub fn run(&self, attack: &Attack) -> AttackResult {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Figures::now();
        let watch = Watch::start();
        let began = Instant::now();
        let (mut rounds, mut said) = (0, String::new());
        while rounds < 2 || (self.taken_since(began).len() < OPERATIONS && began.elapsed() < PATIENCE) {
            rounds += 1;
            let ended = self.runtime.block_on(async { timeout(PATIENCE, self.round(attack)).await });
            let error = match ended {
                Err(_) => return Err("it hangs".into()),
                Ok(Ok(())) => return Err("it was taken for a success".into()),
                Ok(Err(error)) => error,
            };
            let named = attack.kind.split('|').any(|kind| kind == error.kind().name());
            if !named || !error.message().contains(attack.says) {
                return Err(format!("it has to end in {} ({}), not in {error:?}", attack.says, attack.kind));
            }
            said = error.message().chars().take(80).collect();
            if let Some(Err(why)) = attack.after.map(|after| after(self)) {
                return Err(why);
            }
        }
        let failures = std::mem::take(&mut self.seen.lock().unwrap().failures);
        if !failures.is_empty() {
            return Err(format!("the well-behaved backend failed: {failures:?}"));
        }
        let progress = self.taken_since(began).len();
        if progress < OPERATIONS {
            return Err(format!("the well-behaved backend did only {progress} operations in {:?}", began.elapsed()));
        }
        let most = watch.stop();
        self.note(attack.name, rounds, &said, began, before, most);
        self.rest.is_back(before, most)
    }

    async fn round(&self, attack: &Attack) -> Result<()> {
        let backend = attack.backend();
        match attack.ask {
            Ask::Store => self.store(&backend, CUE).await.map(drop),
            Ask::Retrieve => {
                let stored =
                    self.store(&backend, 300_000).await.unwrap_or_else(|error| panic!("a proper store: {error:?}"));
                let retrieved = self.host.retrieve(stored.id, None).await?;
                retrieved.body.collect(1 << 30).await.map(drop)
            }
            Ask::Own(act) => act(self).await,
        }
    }

    /// Stores new bytes on a backend.
    pub async fn store(&self, backend: &str, size: usize) -> Result<Stored> {
        let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
        store(&self.host, Some(backend), &noise(size, seed)).await
    }

    fn taken_since(&self, began: Instant) -> Vec<Duration> {
        let seen = self.seen.lock().unwrap();
        let since = seen.times.iter().filter(|(at, _)| *at >= began);
        since.map(|(_, took)| *took).collect()
    }

    fn wait_for(&self, began: Instant, operations: usize) {
        while self.taken_since(began).len() < operations {
            assert!(
                began.elapsed() < PATIENCE,
                "the well-behaved backend stands still: {:?}",
                self.seen.lock().unwrap().failures
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn note(&self, name: &str, rounds: usize, said: &str, began: Instant, before: Figures, most: Figures) {
        let taken = self.taken_since(began);
        let p99 = percentile(&taken, 99);
        let line = format!(
            "hostile: {name}: {rounds} times `{said}`; fs meanwhile: {} operations, p50 {:.1} ms, p99 {:.1} ms; \
             the host: {} MiB of {}, {} descriptors of {}, {} threads of {}",
            taken.len(),
            ms(percentile(&taken, 50)),
            ms(p99),
            most.memory.saturating_sub(before.memory) >> 20,
            most.memory >> 20,
            most.descriptors.saturating_sub(before.descriptors),
            most.descriptors,
            most.threads.saturating_sub(before.threads),
            most.threads
        );
        self.notes.lock().unwrap().push(Note { name: name.to_owned(), line, p99 });
    }

    /// Says how the well-behaved backend fared, under each attack and over all.
    pub fn summary(&self) {
        let mut notes = std::mem::take(&mut *self.notes.lock().unwrap());
        for note in &notes {
            eprintln!("{}", note.line);
        }
        notes.sort_by_key(|note| note.p99);
        let calm = self.calm.lock().unwrap();
        let p99s: Vec<Duration> = notes.iter().map(|note| note.p99).collect();
        let mut text = format!(
            "hostile: {} attacks contained; p99 of fs: {:.1} ms undisturbed, {:.1} ms under the median attack",
            notes.len(),
            ms(percentile(&calm, 99)),
            ms(percentile(&p99s, 50))
        );
        if let Some(Note { name, p99, .. }) = notes.last() {
            let _ = write!(text, ", {:.1} ms under the worst ({name})", ms(*p99));
        }
        eprintln!("{text}");
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

/// Stores bytes that can be read again, as a file's can.
pub async fn store(host: &Host, route: Option<&str>, bytes: &[u8]) -> Result<Stored> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let options = StoreOptions { route: route.map(str::to_owned), ..StoreOptions::default() };
    host.store(Source::open(file.path()).await?, options).await
}

/// What a well-behaved client does.
async fn work(host: Host, seen: Arc<Mutex<Seen>>, worker: u64) {
    for round in 0.. {
        let bytes = noise(64 << 10, worker << 40 | round);
        let note = |began: Instant, outcome: Result<(), Error>| {
            let mut seen = seen.lock().unwrap();
            match outcome {
                Ok(()) => seen.times.push((began, began.elapsed())),
                Err(error) => seen.failures.push(format!("{error:?}")),
            }
        };
        let began = Instant::now();
        let stored = store(&host, None, &bytes).await;
        let id = stored.as_ref().map(|stored| stored.id).ok();
        note(began, stored.map(drop));
        let Some(id) = id else { continue };
        let began = Instant::now();
        let read = async {
            let found = host.retrieve(id, None).await?.body.collect(1 << 20).await?;
            if found == bytes { Ok(()) } else { Err(Error::corrupt("other bytes came back")) }
        };
        note(began, read.await);
        let _ = host.remove(id).await;
    }
}
