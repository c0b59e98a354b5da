//! What the host itself takes of the machine: memory, file descriptors, threads.
//!
//! The host of this suite is this process, so its figures in `/proc/self` are the host's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the figures are looked at during an attack.
const OFTEN: Duration = Duration::from_millis(5);

/// What the host may take for an attack: the guest's memory and what is held for it, and the compiler's for a component.
const MEMORY: u64 = 160 << 20;
const DESCRIPTORS: u64 = 120;
/// Those that do blocking work of the attacked backend and of the good one, as many as `blocking_jobs` lets each have, and some.
const THREADS: u64 = 2 * 32 + 8;

/// What may be left of it all some time after the attacks: memory that the allocator keeps, connections that are kept; and
/// for each backend that was opened its code, its folder and its connections.
const LEFT_MEMORY: u64 = 128 << 20;
const LEFT_DESCRIPTORS: u64 = 40;
const LEFT_THREADS: u64 = 24;
const BACKEND_MEMORY: u64 = 4 << 20;
const BACKEND_DESCRIPTORS: u64 = 6;
const SETTLE: Duration = Duration::from_secs(20);

/// The figures of a moment.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub memory: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Figures {
    /// Those of now.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        Self { memory: number("VmRSS:") << 10, descriptors, threads: number("Threads:") }
    }
}

/// Looks at the figures until it is stopped, and keeps the largest.
pub struct Watch {
    stop: Arc<AtomicBool>,
    largest: Arc<[AtomicU64; 3]>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub fn start() -> Self {
        let (stop, largest) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; 3]));
        let (stopped, seen) = (stop.clone(), largest.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Figures { memory, descriptors, threads } = Figures::now();
                for (largest, now) in seen.iter().zip([memory, descriptors, threads]) {
                    largest.fetch_max(now, Ordering::Relaxed);
                }
                std::thread::sleep(OFTEN);
            }
        });
        Self { stop, largest, thread }
    }

    /// The largest of each.
    pub fn stop(self) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let [memory, descriptors, threads] = [0, 1, 2].map(|at: usize| self.largest[at].load(Ordering::Relaxed));
        Figures { memory, descriptors, threads }
    }
}

/// What the host takes when nothing attacks it.
pub struct Rest {
    figures: Figures,
    /// Backends that were attacked from since.
    opened: AtomicU64,
}

impl Rest {
    pub fn now() -> Self {
        Self { figures: Figures::now(), opened: AtomicU64::new(0) }
    }

    /// The host took little for the attack, and gives it back.
    pub fn is_back(&self, before: Figures, most: Figures) -> Result<(), String> {
        let within = |what: &str, now: u64, before: u64, more: u64| match now > before + more {
            true => Err(format!("the host had {now} {what}, {before} before")),
            false => Ok(()),
        };
        within("bytes of memory", most.memory, before.memory, MEMORY)?;
        within("descriptors", most.descriptors, before.descriptors, DESCRIPTORS)?;
        within("threads", most.threads, before.threads, THREADS)?;
        let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        let (memory, descriptors) =
            (LEFT_MEMORY + opened * BACKEND_MEMORY, LEFT_DESCRIPTORS + opened * BACKEND_DESCRIPTORS);
        let ended = Instant::now();
        loop {
            let now = Figures::now();
            let settled = within("descriptors afterwards", now.descriptors, self.figures.descriptors, descriptors)
                .and_then(|()| within("threads afterwards", now.threads, self.figures.threads, LEFT_THREADS))
                .and_then(|()| within("bytes of memory afterwards", now.memory, self.figures.memory, memory));
            if settled.is_ok() || ended.elapsed() > SETTLE {
                return settled;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
