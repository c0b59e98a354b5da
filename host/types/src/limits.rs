//! The table of limits of one operation of an adapter.
//!
//! One row for each limit. The row gives the field of [`Limits`] with its default and its documentation, the key of the
//! configuration ([`LimitOverrides`]), the name in the error when it is exceeded ([`LimitExceeded`]), and the row of the table
//! in `docs/security.md`, which a test compares. A new limit is one row here, a line in `config/default.toml`, and its
//! enforcement.
//!
//! A limit counts bytes or things, or is a duration. The engine's own limits are in a separate table: they are
//! the same for all backends, since they are fixed when code is compiled or when memory is reserved.
//!
//! The defaults suit adapters with an interpreter. One in Rust has two to four core instances, one with CPython 38; a slot
//! for each is reserved in the pool whether or not it is used.

use std::fmt;
use std::time::Duration;

use super::{Error, ErrorKind, Result, format_bytes, format_duration};

/// The maximum of a count.
const MANY: u32 = 1 << 20;

/// One row of the table, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// The key in a backend's `limits`; errors name it with blanks for underscores.
    pub key: &'static str,
    /// The default.
    pub default: String,
    /// The bounded resource.
    pub bounds: &'static str,
    /// How.
    pub enforced: &'static str,
    /// Whether it is the engine's, and no key of the configuration.
    pub of_engine: bool,
}

/// Where the values of [`LimitOverrides`] are read from.
pub trait ReadLimits {
    /// A number of bytes.
    ///
    /// # Errors
    /// If it is there and is none.
    fn bytes(&self, key: &str) -> Result<Option<u64>>;

    /// A number from 1 to `most`.
    ///
    /// # Errors
    /// If it is there and is none.
    fn count(&self, key: &str, most: u32) -> Result<Option<u32>>;

    /// A duration longer than nothing.
    ///
    /// # Errors
    /// If it is there and is none.
    fn duration(&self, key: &str) -> Result<Option<Duration>>;
}

/// Conversion into the type of a field. What is more than the type can hold is as much as it can.
trait Fit<T> {
    fn fit(self) -> T;
}

impl Fit<u64> for u64 {
    fn fit(self) -> u64 {
        self
    }
}

impl Fit<usize> for u64 {
    fn fit(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

impl Fit<u64> for usize {
    fn fit(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}

impl Fit<u64> for u32 {
    fn fit(self) -> u64 {
        self.into()
    }
}

impl Fit<usize> for u32 {
    fn fit(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

impl Fit<Duration> for Duration {
    fn fit(self) -> Duration {
        self
    }
}

/// A value in the text of an error.
mod exceeded {
    use super::{Duration, Fit, format_bytes};

    pub(super) fn bytes(limit: impl Fit<u64>) -> String {
        format_bytes(limit.fit())
    }

    pub(super) fn count(limit: impl Fit<u64>) -> String {
        limit.fit().to_string()
    }

    pub(super) fn duration(limit: Duration) -> String {
        format!("{limit:?}")
    }
}

/// A value in the documentation.
mod documented {
    pub(super) use super::exceeded::{bytes, count};
    pub(super) use super::format_duration as duration;
}

macro_rules! limits {
    (
        backend { $(
            $(#[doc = $bounds:literal])+
            $key:ident($variant:ident): $kind:ident $type:ty = $default:expr $(, at most $most:expr)?;
            enforced $enforced:literal
        )+ }
        engine { $(
            $(#[doc = $engine_bounds:literal])+
            $engine_key:ident($engine_variant:ident): $engine_kind:ident $engine_type:ty = $constant:ident $value:expr;
            enforced $engine_enforced:literal
        )+ }
    ) => {
        /// The limits of one backend.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $bounds])+ pub $key: $type,)+
        }

        impl Limits {
            /// The defaults.
            pub const DEFAULT: Self = Self { $($key: $default,)+ };
        }

        /// The limits that are configured for one backend; `None` leaves the default.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct LimitOverrides {
            $($(#[doc = $bounds])+ pub $key: Option<$type>,)+
        }

        impl LimitOverrides {
            /// Reads all limits, in the order of the table.
            ///
            /// # Errors
            /// The first error of `source`.
            pub fn read(source: &impl ReadLimits) -> Result<Self> {
                Ok(Self { $($key: source.$kind(stringify!($key) $(, $most)?)?.map(Fit::fit),)+ })
            }

            /// Returns these limits, with `defaults` for missing ones.
            pub fn apply_to(&self, defaults: &Limits) -> Limits {
                Limits { $($key: self.$key.unwrap_or(defaults.$key),)+ }
            }
        }

        /// The keys of a backend's `limits`.
        pub const LIMITS: &[&str] = &[$(stringify!($key)),+];

        $($(#[doc = $engine_bounds])+ pub const $constant: $engine_type = $value;)+

        /// Which limit was exceeded, with its value.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum LimitExceeded {
            $($(#[doc = $bounds])+ $variant($type),)+
            $($(#[doc = $engine_bounds])+ $engine_variant,)+
            /// A limit of a capability, with its text.
            Capability(String),
        }

        /// `limit: NAME VALUE`.
        impl fmt::Display for LimitExceeded {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (key, value) = match self {
                    $(Self::$variant(limit) => (stringify!($key), exceeded::$kind(*limit)),)+
                    $(Self::$engine_variant => (stringify!($engine_key), exceeded::$engine_kind($constant)),)+
                    Self::Capability(text) => return f.write_str(text),
                };
                write!(f, "limit: {} {value}", key.replace('_', " "))
            }
        }

        impl LimitExceeded {
            /// Returns whether it is a limit of the engine, the same for all backends.
            fn is_of_engine(&self) -> bool {
                matches!(self, $(Self::$engine_variant)|+)
            }
        }

        /// All limits, as `docs/security.md` lists them.
        pub fn limit_rows() -> Vec<LimitRow> {
            vec![
                $(LimitRow {
                    key: stringify!($key),
                    default: documented::$kind(Limits::DEFAULT.$key),
                    bounds: concat!($($bounds),+),
                    enforced: $enforced,
                    of_engine: false,
                },)+
                $(LimitRow {
                    key: stringify!($engine_key),
                    default: documented::$engine_kind($constant),
                    bounds: concat!($($engine_bounds),+),
                    enforced: $engine_enforced,
                    of_engine: true,
                },)+
            ]
        }
    };
}

limits! {
    backend {
        /// Linear memory of an operation, and bytes that it puts into bodies held by the host.
        memory(Memory): bytes u64 = 64 << 20;
        enforced "checked before memory is allocated or grows; counted before bytes are copied"

        /// Elements of all tables.
        table_elements(TableElements): count u64 = 20_000, at most MANY;
        enforced "the same"

        /// Core instances of a component.
        instances(Instances): count usize = 64, at most MANY;
        enforced "counted when it is loaded, and when it is instantiated; at most 128 when it is compiled"

        /// Time that the adapter and its backend owe, beyond a second for each KiB of the object that moves.
        deadline(Deadline): duration Duration = Duration::from_secs(3600);
        enforced "a timer beside the guest, which stands while the source of a store or the reader of a retrieve is waited for"

        /// Time without progress of the guest (or, up to 30 s, of a server) in which fewer than 1024 bytes move.
        idle(Idle): duration Duration = Duration::from_secs(60);
        enforced "the same timer; answered calls count as progress, and the deadline ends guests that only pretend"

        /// Processor time, including the host's work for the guest, beyond a second for each 16 MiB of the object.
        cpu(Cpu): duration Duration = Duration::from_secs(30);
        enforced "code yields its thread every 10 ms; each poll is timed"

        /// Concurrent operations of the adapter that serves; further ones wait. With those of its predecessors that have not ended, at most twice as many.
        in_flight(InFlight): count usize = 64, at most MANY;
        enforced "a queue; each has a slot in the engine's pool"

        /// Host calls of an operation.
        calls(Calls): count u64 = 1_000_000, at most u32::MAX;
        enforced "counted; reading a body is a call, reading a stream is not"

        /// Concurrent host calls.
        calls_in_flight(CallsInFlight): count usize = 64, at most MANY;
        enforced "counted"

        /// Strings and lists in one host call, and in the result of an export.
        call_bytes(CallBytes): bytes usize = 16 << 20;
        enforced "counted before they are copied"

        /// Open streams, futures, calls and resources, and the pieces of bodies.
        handles(Handles): count usize = 1000, at most MANY;
        enforced "the engine's tables are bounded; pieces are counted, also in concatenated bodies"

        /// Bytes that the host holds for an operation: arguments and parts of requests, chunks that wait, prefixes and digests of taps, what is read ahead and gathered.
        held_bytes(HeldBytes): bytes u64 = 128 << 20;
        enforced "charged before they are held, refunded when they go"

        /// The same of all operations of the backend together.
        backend_held_bytes(BackendHeldBytes): bytes u64 = 4 << 30;
        enforced "the same"

        /// Replies and files that are open, and host calls under way: each can be a file descriptor.
        open_bodies(OpenBodies): count usize = 256, at most MANY;
        enforced "the same"

        /// The same of all operations of the backend together, at most its share of the process's file descriptors.
        backend_open_bodies(BackendOpenBodies): count usize = 4096, at most MANY;
        enforced "the same; file descriptors are divided among the backends, and where there are few, fewer operations run at once"

        /// Concurrent jobs of the backend on threads for blocking work (files, digests, reading pages of a bucket); further ones wait.
        blocking_jobs(BlockingJobs): count usize = 32, at most 512;
        enforced "a queue; a job counts until it has ended, its processor time as `cpu`, and one that nothing waits for is stopped"

        /// Bytes sent (URLs, headers, bodies, files, objects) beyond the input of `store`.
        request_bytes(RequestBytes): bytes u64 = 1 << 30;
        enforced "counted as they leave"

        /// Bytes of replies and files that the guest reads into its memory beyond those of the object.
        response_bytes(ResponseBytes): bytes u64 = 1 << 30;
        enforced "counted as they enter its memory"

        /// Headers of a request or a response.
        // The maximum is the capacity of header maps (2^15), with room for the host's own.
        headers(Headers): count usize = 256, at most 16 << 10;
        enforced "counted before they are sent or passed on"

        /// Names and values of those headers.
        header_bytes(HeaderBytes): bytes usize = 64 << 10;
        enforced "the same"

        /// Log of an operation, plus 64 bytes per line.
        log_bytes(LogBytes): bytes usize = 1 << 20;
        enforced "counted before a line is written; control characters are removed"
    }
    engine {
        /// Composed components that contain code.
        // Each can hold a stack, whatever its number of core instances, and stacks cost more than address space: each has
        // a guard page, and the number of mappings of a process is limited.
        components(Components): count u64 = COMPONENTS 16;
        enforced "counted when it is loaded; a component whose parts cannot be counted is refused"

        /// Linear memories of a component.
        // An adapter has one; a composed one has one per component.
        memories(Memories): count u32 = MEMORIES 4;
        enforced "when it is compiled"

        /// Tables of a component.
        // An adapter from Rust has one or two, one from Python 10.
        tables(Tables): count u32 = TABLES 64;
        enforced "when it is compiled"

        /// Taps around one stream of bytes.
        // Each digests all that passes.
        taps(Taps): count u32 = TAPS 32;
        enforced "counted when a stream is tapped"

        /// The stack of compiled code.
        // wasmtime's default; the same for all backends, since it is part of how code runs.
        stack(Stack): bytes usize = WASM_STACK 512 << 10;
        enforced "checked at every call"
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl std::error::Error for LimitExceeded {}

impl LimitExceeded {
    /// Returns the error of the operation: `timed-out` for `deadline` and `idle`, `limit` for all others.
    pub fn error(&self) -> Error {
        let (kind, hint) = match self {
            Self::Deadline(_) | Self::Idle(_) => {
                (ErrorKind::TimedOut, "raise it in the backend's `limits` if the backend is slow")
            }
            _ if self.is_of_engine() => (ErrorKind::Limit, "fix the adapter: this limit is not configurable"),
            _ => (ErrorKind::Limit, "raise it in the backend's `limits` if you trust the adapter with more"),
        };
        Error::new(kind, self.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_key_and_the_value() {
        let said = |exceeded: LimitExceeded| exceeded.to_string();
        assert_eq!(said(LimitExceeded::Memory(64 << 20)), "limit: memory 64 MiB");
        assert_eq!(said(LimitExceeded::CallsInFlight(64)), "limit: calls in flight 64");
        assert_eq!(said(LimitExceeded::Cpu(Duration::from_millis(250))), "limit: cpu 250ms");
        assert_eq!(said(LimitExceeded::Stack), "limit: stack 512 KiB");
        assert_eq!(*LimitExceeded::Idle(Duration::from_secs(1)).error().kind(), ErrorKind::TimedOut);
        assert_eq!(*LimitExceeded::Tables.error().kind(), ErrorKind::Limit);
    }

    #[test]
    fn unset_limits_have_their_defaults() {
        let given = LimitOverrides { memory: Some(1), ..LimitOverrides::default() };
        assert_eq!(given.apply_to(&Limits::DEFAULT), Limits { memory: 1, ..Limits::DEFAULT });
    }

    /// The table in `docs/security.md` matches the one here, except for its last column, the attacks.
    #[test]
    fn the_page_has_the_same_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (_, section) = page.split_once("\n## Limits\n").unwrap();
        let section = section.split("\n## ").next().unwrap_or_default();
        let mut listed: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        for row in limit_rows() {
            let whose = if row.of_engine { "engine: " } else { "" };
            let bounds = row.bounds.trim().trim_end_matches('.');
            let bounds = bounds[..1].to_lowercase() + &bounds[1..];
            let expected = format!("| `{}` | {whose}{} | {bounds} | {} | ", row.key, row.default, row.enforced);
            let before = listed.len();
            listed.retain(|line| !line.starts_with(&expected));
            assert_eq!(listed.len() + 1, before, "docs/security.md has no row that begins with\n{expected}");
        }
        assert!(listed.is_empty(), "these limits are on the page only: {listed:?}");
    }
}
