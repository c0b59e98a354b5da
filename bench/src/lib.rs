//! Shared code of the benchmarks: incompressible data, quantiles, servers with disks in memory,
//! and the peers.
//!
//! A figure is listed beside its peer's from the same run: machines vary over time, ratios within a run hardly do.
//! Clients alternate, and the first in one round is the last in the next, so that none always meets a server
//! that has just done the same. Medians are compared; means follow single outliers.
//!
//! Each benchmark is a program in `bin/`, run by `cargo xtask bench NAME`, which sets up its dependencies.

pub mod backends;
pub mod bare_call;
pub mod data;
pub mod in_memory;
pub mod layout;
pub mod overhead;
pub mod peak;
pub mod peers;
pub mod place;
pub mod report;
pub mod snapshots;
pub mod stats;
pub mod swap;
pub mod transfer;

/// A MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// A GiB in bytes.
pub const GIB: u64 = 1 << 30;
