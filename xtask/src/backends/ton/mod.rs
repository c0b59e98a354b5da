//! TON: storage daemons on a private network, and a chain with toncenter's HTTP API.
//!
//! | module | server | contents |
//! | --- | --- | --- |
//! | [`network`] | `ton-network` | the hash table for finding daemons, and a liteserver that accepts connections |
//! | [`storage`] | `ton-storage`, `ton-storage-2` | tonutils-storage, the usual daemon; it needs a network |
//! | [`chain`] | `ton-chain` | toncenter's API over TON's own virtual machine |
//!
//! The first two are Go programs, built from modules pinned by digests; the third is a Node
//! program with packages of npm. Without Go or Node, [`why_not`] returns the reason.
//!
//! Nothing here contacts a host on the Internet: the network's configuration has only 127.0.0.1, and each daemon has its own
//! before it first starts. One thing is not on loopback: the daemon opens a second UDP socket, on a random port of every
//! address, and sends nothing through it unless a storage provider is requested.

pub mod chain;
pub mod network;
pub mod storage;

pub use chain::TonChain;
pub use network::TonNetwork;
pub use storage::TonStorage;

use std::time::Duration;

/// All are ready within 3 s; on a machine that also compiles, far later.
const PATIENCE: Duration = Duration::from_secs(180);

/// Why network and daemons cannot run here, if they cannot.
pub fn why_not() -> Option<String> {
    super::go::why_not().map(|why| format!("TON's network and storage daemon are built from Go modules, and {why}"))
}
