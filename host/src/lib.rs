//! Tidelock: a storage connector for schedulers of agents and virtual machines.
#![warn(missing_docs)]

pub mod capabilities;
pub mod catalogue;
pub mod config;
pub mod snapshot;
pub mod types;
mod runtime;
