//! What the host itself takes of the machine: memory, file descriptors, threads.
//!
//! The host of this suite is this process, so its figures in `/proc/self` are the host's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the figures are looked at during an attack.
const OFTEN: Duration = Duration::from_millis(5);

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
