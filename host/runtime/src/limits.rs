//! Limits of one operation of a backend, and the errors when one is exceeded.
//!
//! Every limit is enforced by the host outside the guest: memory, tables and instances by wasmtime's limiter, CPU by
//! epochs and by the time that the host spends on the guest's behalf, wall time and stalls by timers, the rest by
//! counters. An exceeded limit ends the operation, whatever the guest returns, with an error whose text is
//! `limit: NAME VALUE` (the kind is `timed-out` for `deadline` and `idle`, `limit` for all others), and the store is
//! thrown away. NAME is the key in the backend's `limits`, with blanks.
//!
//! Four limits are the engine's and the same for all backends, since they are fixed when code is compiled or memory is
//! set aside: `limit: stack`, `limit: components`, `limit: memories` and `limit: tables` (their number; their elements are
//! `table_elements`).
//!
//! The defaults carry adapters that bring an interpreter with them. One from Rust is made of two to four core instances,
//! one with CPython inside of 38; a slot for each is set aside in the pool whether or not it is used.

use std::time::Duration;

use super::engine::{COMPONENTS, MEMORIES, TABLES, WASM_STACK, first_line};
use tidelock_types::{Error, ErrorKind, format_bytes};

/// The limits of one backend. The defaults suit an adapter that steers and lets the host haul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one operation, all memories together, in bytes; bytes held by the host for the guest count too.
    pub memory: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Core instances of which a component may be made. An adapter from Rust has up to four, one from Python 38.
    pub instances: usize,
    /// Wall time of one operation, transfer included.
    pub deadline: Duration,
    /// Time in which the guest is waited for and neither a host call is begun or answered nor
    /// 1024 bytes move: a byte now and then is a stall too.
    pub idle: Duration,
    /// CPU time of the operation: the guest's code, and the host's computations for it.
    pub cpu: Duration,
    /// Operations of this backend at once; further ones wait.
    pub in_flight: usize,
    /// Host calls of one operation, all together.
    pub calls: u64,
    /// Concurrent host calls of one operation.
    pub calls_in_flight: usize,
    /// Bytes of strings and lists in one host call, or in the result of one export.
    pub call_bytes: usize,
    /// Open handles of streams, futures, host calls in progress and resources.
    pub handles: usize,
    /// Bytes that an operation may send through `http`, `bucket` and `directory`, URLs and headers included, beyond the
    /// input of a store.
    pub request_bytes: u64,
    /// Bytes of replies and files that an operation may read into its own memory, beyond those of the object that it
    /// stores or returns. Bytes that it passes on unread do not count.
    pub response_bytes: u64,
    /// Headers of one request or of one response.
    pub headers: usize,
    /// Names and values of the headers of one request or of one response, together.
    pub header_bytes: usize,
    /// Bytes of log that one operation may write.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 20_000,
            instances: 64,
            deadline: Duration::from_secs(3600),
            idle: Duration::from_secs(60),
            cpu: Duration::from_secs(30),
            in_flight: 64,
            calls: 1_000_000,
            calls_in_flight: 64,
            call_bytes: 16 << 20,
            handles: 1000,
            request_bytes: 1 << 30,
            response_bytes: 1 << 30,
            headers: tidelock_capabilities::http::MAX_HEADERS,
            header_bytes: tidelock_capabilities::http::MAX_HEADER_BYTES,
            log_bytes: 1 << 20,
        }
    }
}

/// Which limit was exceeded, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    Memory(u64),
    TableElements(u64),
    Instances(usize),
    Components,
    Memories,
    Tables,
    Stack,
    Deadline(Duration),
    Idle(Duration),
    Cpu(Duration),
    Calls(u64),
    CallsInFlight(usize),
    CallBytes(usize),
    Handles(usize),
    RequestBytes(u64),
    ResponseBytes(u64),
    LogBytes(usize),
    /// One that a capability keeps, in its words.
    Capability(String),
}

impl std::fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = |bytes: usize| format_bytes(bytes as u64);
        match self {
            Self::Memory(limit) => write!(f, "limit: memory {}", format_bytes(*limit)),
            Self::TableElements(limit) => write!(f, "limit: table elements {limit}"),
            Self::Instances(limit) => write!(f, "limit: instances {limit}"),
            Self::Components => write!(f, "limit: components {COMPONENTS}"),
            Self::Memories => write!(f, "limit: memories {MEMORIES}"),
            Self::Tables => write!(f, "limit: tables {TABLES}"),
            Self::Stack => write!(f, "limit: stack {}", bytes(WASM_STACK)),
            Self::Deadline(limit) => write!(f, "limit: deadline {limit:?}"),
            Self::Idle(limit) => write!(f, "limit: idle {limit:?}"),
            Self::Cpu(limit) => write!(f, "limit: cpu {limit:?}"),
            Self::Calls(limit) => write!(f, "limit: calls {limit}"),
            Self::CallsInFlight(limit) => write!(f, "limit: calls in flight {limit}"),
            Self::CallBytes(limit) => write!(f, "limit: call bytes {}", bytes(*limit)),
            Self::Handles(limit) => write!(f, "limit: handles {limit}"),
            Self::RequestBytes(limit) => write!(f, "limit: request bytes {}", format_bytes(*limit)),
            Self::ResponseBytes(limit) => write!(f, "limit: response bytes {}", format_bytes(*limit)),
            Self::LogBytes(limit) => write!(f, "limit: log bytes {}", bytes(*limit)),
            Self::Capability(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for LimitExceeded {}

impl LimitExceeded {
    /// Returns the limit that made wasmtime end a guest, if it was one. Where wasmtime has no type for it, the message is
    /// matched; the tests of hostile guests check that it still matches.
    pub(super) fn of_wasmtime(error: &wasmtime::Error, limits: &Limits) -> Option<Self> {
        if let Some(exceeded) = error.downcast_ref::<Self>() {
            return Some(exceeded.clone());
        }
        if let Some(wasmtime::Trap::StackOverflow) = error.downcast_ref::<wasmtime::Trap>() {
            return Some(Self::Stack);
        }
        let text = format!("{error:#}");
        let says = |words: &str| text.contains(words);
        if says("fuel allocated for hostcalls has been exhausted") {
            Some(Self::CallBytes(limits.call_bytes))
        } else if says("store handle limit exceeded") || says("resource table has no free keys") {
            Some(Self::Handles(limits.handles))
        } else if says("resource limit exceeded: instance count") {
            Some(Self::Instances(limits.instances))
        } else {
            None
        }
    }

    /// The limit of the engine that a component was refused for when it was compiled.
    pub(super) fn of_compiler(error: &wasmtime::Error, engine: &super::EngineOptions) -> Option<Self> {
        let text = format!("{error:#}");
        let says = |words: &str| text.contains(words);
        if says("core module instances, which exceeds the configured maximum") {
            Some(Self::Instances(super::engine::INSTANCES))
        } else if says("memories, which exceeds the configured maximum") {
            Some(Self::Memories)
        } else if says("tables, which exceeds the configured maximum") || says("defined tables count of") {
            Some(Self::Tables)
        } else if says("has a minimum element size of") {
            Some(Self::TableElements(engine.largest_table))
        } else if says("memory has a minimum byte size of") {
            Some(Self::Memory(engine.largest_memory))
        } else {
            None
        }
    }

    /// The error that an operation ends with.
    pub(super) fn error(&self) -> Error {
        let hint = match self {
            Self::Deadline(_) | Self::Idle(_) => "raise it in the backend's `limits` if the backend is slow",
            Self::Stack | Self::Components | Self::Memories | Self::Tables => {
                "fix the adapter: this limit is not configurable"
            }
            _ => "raise it in the backend's `limits` if you trust the adapter with more",
        };
        let kind = match self {
            Self::Deadline(_) | Self::Idle(_) => ErrorKind::TimedOut,
            _ => ErrorKind::Limit,
        };
        Error::new(kind, self.to_string()).hint(hint)
    }
}

/// Why a guest ended: the limit that was exceeded, or the trap. Texts hold no backtrace: those go to the log.
pub(super) fn why(error: &wasmtime::Error, limits: &Limits) -> Error {
    if let Some(exceeded) = LimitExceeded::of_wasmtime(error, limits) {
        return exceeded.error();
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Error::unavailable(format!("the sandbox has no capacity: {}", first_line(error)))
            .hint("lower `in_flight` of the backends: other operations use it all");
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => Error::new(ErrorKind::Trapped, format!("the adapter trapped: {trap}")),
        None => Error::new(ErrorKind::Trapped, format!("the adapter failed: {}", first_line(error))),
    }
    .hint("see the log at level debug; this is a bug in the adapter")
}
