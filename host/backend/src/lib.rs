//! The interface between the connector and everything that stores objects, and the layers around it.
//!
//! A [`Backend`] stores, gives back, describes and deletes objects. The swap slot of the runtime is one; what wraps a
//! backend (counters, retries, a breaker, a hot tier, injected faults) is one too, and the connector cannot tell them
//! apart. [`layered`] composes a backend with its [`Layer`]s, in one order that is written down once ([`Position`]).
//!
//! The bytes of a put come as an [`Upload`]: an object that opens one *attempt* after another, each under a key of its
//! own whose intent is recorded before the first byte leaves, and that is told how each ended. So a retry needs to know
//! nothing of catalogues, and no attempt leaves an object without an owner.
//!
//! Nothing here depends on adapters, WebAssembly, catalogues or snapshots.

mod backend;
mod layers;
pub mod testing;
mod upload;

pub use backend::{Backend, BackendInfo, Operation};
pub use layers::{Layer, Metrics, OperationCounts, OperationMetrics, Position, Trace, layered};
pub use upload::{Upload, UploadAttempt, UploadSource};
