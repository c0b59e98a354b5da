//! The sandbox: compiles adapters, runs their operations in instances of their own, and swaps one generation of an
//! adapter for the next while operations run.
//!
//! `component` is what comes in and `trust` whether it may; `engine` compiles and keeps the clock; `limits`, `state`,
//! `usage` and `watch` bound what an operation takes; `stream` and `bodies` move bytes; `wit` is all that is particular to a version
//! of the WIT package; `check` and `needs` refuse what may not run; `adapter` runs operations; `swap` knows which generation serves and
//! replaces it, and is a `Backend` (`tidelock-backend`) for everybody else. Nothing here knows what a snapshot is.

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
    Canary, Event, History, HistoryEntry, HistoryRow, InMemorySwapLog, KEPT, OnStage, ROWS, Serving, Slot, SlotOptions,
    Stage, StageTime, SwapLog, SwapOptions, SwapPolicy, SwapReport,
};
pub use trust::{MAX_SIGNATURE_BYTES, MAX_SIGNATURES, SecretKey, Signature, Trust, parse_signatures};
