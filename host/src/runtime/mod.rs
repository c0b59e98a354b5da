//! The sandbox: compiles adapters, runs their operations in instances of their own, and swaps one generation of an
//! adapter for the next while operations run.
//!
//! `component` is what comes in and `trust` whether it may; `engine` compiles and keeps the clock; `limits`, `state`,
//! `progress` and `watch` bound what an operation takes; `stream` and `held` move bytes; `wit` is all that is particular to a version
//! of the WIT package; `check` and `needs` refuse what may not run; `adapter` runs operations; `swap` knows which generation serves and
//! replaces it. Nothing here knows what a snapshot is.

mod adapter;
pub mod builtin;
mod check;
mod component;
mod engine;
mod held;
mod inspect;
mod limits;
pub mod manifest;
mod needs;
mod progress;
mod state;
mod stream;
mod swap;
mod trust;
mod watch;
mod wit;

pub use adapter::{Adapter, BackendSpec};
pub use component::{Component, MOST_COMPONENT_BYTES, signatures_beside};
pub use engine::{CompiledFrom, Digest, Engine, EngineOptions};
pub use inspect::{Inspection, SignatureInfo};
pub(crate) use inspect::{inspect, refusals};
pub use limits::Limits;
pub use manifest::Manifest;
pub use needs::Needs;
pub use swap::{
    Canary, Counts, Event, Generation, History, HistoryEntry, HistoryRow, InMemory, KEPT, Ledger, OnStage, ROWS, Rule,
    Slot, SlotOptions, Stage, StageTime, SwapOptions, SwapPolicy, SwapReport, Turn, by_chance, is_worse,
};
pub use trust::{MOST_SIGNATURE_BYTES, MOST_SIGNATURES, SecretKey, Signature, Trust, parse_signatures};
