//! What the process has once, divided among the backends: file descriptors, and threads for blocking work.
//!
//! A backend that takes all that it may leaves the others theirs. Where there is little, its limits are lowered to its
//! share, and fewer operations run at once.

use rustix::process::{Resource, getrlimit};

use crate::config::Config;
use crate::types::Limits;

/// Of the descriptors, the part that is not for adapters: the catalogue, images, the clients of a daemon.
const OWN_PART: u64 = 4;

/// Descriptors for each operation that may run at once: an object, its other copy, a connection, a file that is written.
const FOR_OPERATION: usize = 4;

/// Threads for blocking work that all backends together may take. A runtime has 512 by default.
const JOBS: usize = 448;

/// The share of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    open_bodies: usize,
    jobs: usize,
}

impl Share {
    /// Of a process with so many descriptors.
    fn of(descriptors: u64, backends: usize) -> Self {
        let backends = backends.max(1);
        let all = descriptors - descriptors / OWN_PART;
        let open_bodies = usize::try_from(all).unwrap_or(usize::MAX) / backends;
        Self { open_bodies: open_bodies.max(1), jobs: (JOBS / backends).max(1) }
    }

    fn lower(self, limits: &Limits) -> (usize, usize, usize) {
        let open = limits.backend_open_bodies.min(self.open_bodies);
        let in_flight = limits.in_flight.min((self.open_bodies / FOR_OPERATION).max(1));
        (open, in_flight, limits.blocking_jobs.min(self.jobs))
    }
}

/// The configuration with the limits of each backend lowered to its share of what this process has.
pub(super) fn divided(config: &Config) -> Config {
    // None is no limit.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let share = Share::of(descriptors, config.backends.len());
    let mut config = config.clone();
    for (name, backend) in &mut config.backends {
        let limits = backend.limits.apply_to(&Limits::DEFAULT);
        let (open, in_flight, jobs) = share.lower(&limits);
        if in_flight < limits.in_flight {
            tracing::info!(
                backend = name,
                descriptors,
                in_flight,
                "few file descriptors: fewer operations run at once"
            );
        }
        backend.limits.backend_open_bodies = Some(open);
        backend.limits.in_flight = Some(in_flight);
        backend.limits.blocking_jobs = Some(jobs);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_its_share_and_no_limit_is_raised() {
        let plenty = Share::of(1 << 20, 2);
        assert_eq!(plenty.lower(&Limits::DEFAULT), (4096, 64, 32));
        assert_eq!(Share::of(u64::MAX, 1).lower(&Limits::DEFAULT), (4096, 64, 32));
        // 768 descriptors for ten backends.
        assert_eq!(Share::of(1024, 10).lower(&Limits::DEFAULT), (76, 19, 32));
        assert_eq!(Share::of(1024, 100).lower(&Limits::DEFAULT), (7, 1, 4));
        assert_eq!(Share::of(0, 0).lower(&Limits::DEFAULT), (1, 1, 32));
    }
}
