//! The sandbox: compiles adapters, runs their operations in instances of their own, and swaps one generation of an
//! adapter for the next while operations run.
//!
//! `component` is a component as it is loaded, `signature` its signatures, and `trust` their verification; `engine`
//! compiles, and `sandbox` has the pool in which guests run and advances epochs; `operation` bounds an operation's
//! resources; `stream` and `body_handle` move bytes; `wit` has everything specific to a version of the WIT package; `check`
//! and `needs` reject invalid components; `adapter` runs operations; `swap` holds the current generation and replaces it.
//! Nothing here depends on snapshots. Imports among the modules go one way.

mod adapter;
mod body_handle;
mod check;
mod component;
mod digest;
mod engine;
mod inspect;
pub mod manifest;
mod needs;
mod operation;
mod sandbox;
mod signature;
mod stage;
mod stream;
mod swap;
mod trust;
mod wit;

pub use adapter::{Adapter, BackendSpec};
pub use component::{Component, MAX_COMPONENT_BYTES, signatures_beside};
pub use digest::ComponentDigest;
pub use engine::{CompiledFrom, Engine, EngineOptions};
pub use inspect::{Inspection, SignatureInfo};
pub use inspect::{inspect, refusals};
pub use manifest::Manifest;
pub use needs::Needs;
pub use sandbox::Sandbox;
pub use signature::{MAX_SIGNATURE_BYTES, MAX_SIGNATURES, SecretKey, Signature, parse_signatures};
pub use stage::{OnStage, Stage, StageTime, SwapReport};
pub use swap::{
    Attempt, Canary, Counts, Event, Generation, History, HistoryEntry, HistoryRow, InMemorySwapLog, KEPT, ROWS,
    RollbackThreshold, Slot, SlotOptions, SwapLog, SwapOptions, SwapPolicy, by_chance, is_worse,
};
pub use tidelock_types::{LimitExceeded, LimitOverrides, Limits};
pub use trust::Trust;
