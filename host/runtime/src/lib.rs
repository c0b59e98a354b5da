//! The sandbox: compiles adapters, runs their operations in instances of their own, and swaps one generation of an
//! adapter for the next while operations run.
//!
//! `component` is a component as it is loaded and `trust` its verification; `engine` compiles and advances epochs;
//! `limits`, `state`, `usage` and `watchdog` bound an operation's resources; `stream` and `body_handle` move bytes; `wit`
//! has everything specific to a version of the WIT package; `check` and `needs` reject invalid components; `adapter` runs
//! operations; `swap` holds the current generation and replaces it. Nothing here depends on snapshots.

mod adapter;
mod body_handle;
mod check;
mod component;
mod engine;
mod inspect;
mod limits;
pub mod manifest;
mod needs;
mod state;
mod stream;
mod swap;
mod trust;
mod usage;
mod watchdog;
mod wit;

pub use adapter::{Adapter, BackendSpec};
pub use component::{Component, MAX_COMPONENT_BYTES, signatures_beside};
pub use engine::{CompiledFrom, ComponentDigest, Engine, EngineOptions};
pub use inspect::{Inspection, SignatureInfo};
pub use inspect::{inspect, refusals};
pub use limits::Limits;
pub use manifest::Manifest;
pub use needs::Needs;
pub use swap::{
    Attempt, Canary, Counts, Event, Generation, History, HistoryEntry, HistoryRow, InMemorySwapLog, KEPT, OnStage,
    ROWS, RollbackThreshold, Slot, SlotOptions, Stage, StageTime, SwapLog, SwapOptions, SwapPolicy, SwapReport,
    by_chance, is_worse,
};
pub use trust::{MAX_SIGNATURE_BYTES, MAX_SIGNATURES, SecretKey, Signature, Trust, parse_signatures};
