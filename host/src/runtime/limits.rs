//! What one operation of one backend may take, and how it says so when a limit strikes.
//!
//! Every limit is enforced by the host outside the guest: memory, tables and instances by wasmtime's limiter, CPU by
//! epochs, wall time and stalls by timers, the rest by counters in the store's state. A limit that strikes ends the
//! operation with an error of kind `limit` whose text is `limit: NAME VALUE`, and the store is thrown away.

use std::time::Duration;

use crate::types::format_bytes;

/// The limits of one backend. The defaults suit an adapter that steers and lets the host haul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one operation, all memories together, in bytes.
    pub memory: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Wall time of one operation, transfer included.
    pub deadline: Duration,
    /// Time without a byte moved, a host call made or a host call answered.
    pub idle: Duration,
    /// Time on a CPU, counted in steps of the engine's tick.
    pub cpu: Duration,
    /// Operations of this backend at once; further ones wait.
    pub in_flight: usize,
    /// Host calls of one operation under way at once.
    pub host_calls: usize,
    /// Bytes of log that one operation may write.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 20_000,
            deadline: Duration::from_secs(3600),
            idle: Duration::from_secs(60),
            cpu: Duration::from_secs(30),
            in_flight: 64,
            host_calls: 64,
            log_bytes: 64 << 10,
        }
    }
}

/// Which limit struck, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Struck {
    Memory(u64),
    TableElements(u64),
    Deadline(Duration),
    Idle(Duration),
    Cpu(Duration),
    HostCalls(usize),
}

impl std::fmt::Display for Struck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("limit: ")?;
        match self {
            Self::Memory(bytes) => write!(f, "memory {}", format_bytes(*bytes)),
            Self::TableElements(count) => write!(f, "table elements {count}"),
            Self::Deadline(time) => write!(f, "deadline {time:?}"),
            Self::Idle(time) => write!(f, "idle {time:?}"),
            Self::Cpu(time) => write!(f, "cpu {time:?}"),
            Self::HostCalls(count) => write!(f, "host calls in flight {count}"),
        }
    }
}

impl std::error::Error for Struck {}
