//! What the benchmarks share: data that does not compress, numbers that are not averages, servers whose disk is memory,
//! and the peers.
//!
//! A figure stands next to its peer's from the same run: machines differ from hour to hour, ratios within a run hardly.
//! Contestants take turns, and whoever was first in one round is last in the next, so that none always meets a server
//! that has just done the same. What is compared is the median; means follow the one round that went wrong.
//!
//! Each benchmark is a program in `bin/`, run by `cargo xtask bench NAME`, which sets up what it needs.

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
pub mod stats;
pub mod swap;
pub mod transfer;

/// A MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// A GiB in bytes.
pub const GIB: u64 = 1 << 30;
