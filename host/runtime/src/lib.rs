//! The sandbox: compiles adapters, runs their operations in instances of their own, and swaps one generation of an
//! adapter for the next while operations run.
//!
//! `component` is what comes in, `signature` what others say of it, and `trust` whether it may; `engine` compiles, and
//! `sandbox` has what guests run in and keeps the clock; `operation` bounds what one operation takes; `stream`,
//! `guest_parts` and `body_handle` move bytes; `wit` is all that is particular to a version of the WIT package;
//! `check`, `needs` and `nesting` refuse what may not run; `adapter` runs operations; `swap` holds the generation that
//! serves and replaces it, and is a `Backend` (`tidelock-backend`) for everything above. Nothing here knows what a
//! snapshot is. Imports among the modules go one way.

mod adapter;
mod body_handle;
mod check;
mod component;
mod digest;
mod engine;
mod guest_parts;
mod inspect;
pub mod manifest;
mod needs;
mod nesting;
mod operation;
mod retrieval;
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
pub use engine::{CompiledFrom, Engine, EngineOptions, catches_panics};
pub use inspect::{Inspection, SignatureInfo};
pub use inspect::{inspect, refusals};
pub use manifest::Manifest;
pub use needs::Needs;
pub use sandbox::Sandbox;
pub use signature::{MAX_SIGNATURE_BYTES, MAX_SIGNATURES, SecretKey, Signature, parse_signatures};
pub use stage::{OnStage, Stage, StageTime, SwapReport};
pub use swap::{
    Canary, Event, History, HistoryEntry, HistoryRow, InMemorySwapLog, KEPT, ROWS, Serving, Slot, SlotOptions, SwapLog,
    SwapOptions, SwapPolicy,
};
pub use tidelock_types::{LimitExceeded, LimitOverrides, Limits};
pub use trust::Trust;
