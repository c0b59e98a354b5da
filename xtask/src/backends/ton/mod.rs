//! TON: storage daemons on a network of their own, and a chain with toncenter's HTTP API.
//!
//! | module | server | what it is |
//! | --- | --- | --- |
//! | [`network`] | `ton-network` | the hash table by which daemons find each other, and a liteserver that takes connections |
//! | [`storage`] | `ton-storage`, `ton-storage-2` | tonutils-storage, the daemon that people run; it needs a network |
//! | [`chain`] | `ton-chain` | toncenter's API over TON's own virtual machine |
//!
//! The first two are Go programs, built from modules with the digests of all that they are made of; the third is a Node
//! program with packages of npm. Where Go or Node is missing, [`why_not`] says so.
//!
//! Nothing here asks a host on the Internet: the network's configuration names 127.0.0.1 alone, and each daemon has its own
//! before it first starts. One thing is not on loopback: the daemon opens a second UDP socket, on a random port of every
//! address, and sends nothing through it unless somebody asks it for a storage provider.

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
