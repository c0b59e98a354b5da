//! Real servers for tests, benchmarks and manual use: installed into the cache, started on loopback.
//!
//! A test starts its own with [`Seaweed::start`]: free ports, a temporary folder, killed when the value is dropped and
//! also when the test's process dies. `cargo xtask backends up` starts one of each kind that outlives it and records
//! them; `down` kills exactly those processes.
//!
//! Another kind of server is a module beside [`seaweed`], built on [`daemon::Daemon`], and a variant of [`Kind`].

pub mod daemon;
pub mod ganesha;
mod go;
mod http;
pub mod kubo;
pub mod moto;
pub(crate) mod node;
pub(crate) mod python;
pub mod seaweed;
pub mod state;
pub mod ton;

use std::path::Path;

use anyhow::{Context, Result};

use crate::say;

pub use ganesha::Ganesha;
pub use kubo::Kubo;
pub use moto::{Moto, Restores};
pub use seaweed::Seaweed;
pub use state::{Record, down, status, up};
pub use ton::{TonChain, TonNetwork, TonStorage};

/// A kind of server that can be installed and started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SeaweedFS: an S3 service.
    Seaweed,
    /// moto: S3 with an archive that has to be restored from.
    Moto,
    /// NFS-Ganesha: an NFSv3 server.
    Ganesha,
    /// Kubo: two nodes of IPFS.
    Kubo,
    /// A TON network of this machine alone.
    TonNetwork,
    /// tonutils-storage: a TON storage daemon, in that network.
    TonStorage,
    /// A second one, to fetch from the first.
    SecondTonStorage,
    /// toncenter's API over a TON chain of its own.
    TonChain,
}

impl Kind {
    /// Every kind, what others need first.
    pub const ALL: [Self; 8] = [
        Self::Seaweed,
        Self::Moto,
        Self::Ganesha,
        Self::Kubo,
        Self::TonNetwork,
        Self::TonStorage,
        Self::SecondTonStorage,
        Self::TonChain,
    ];

    /// Its name on the command line and in the state file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seaweed => seaweed::NAME,
            Self::Moto => moto::NAME,
            Self::Ganesha => ganesha::NAME,
            Self::Kubo => kubo::NAME,
            Self::TonNetwork => ton::network::NAME,
            Self::TonStorage => ton::storage::NAMES[0],
            Self::SecondTonStorage => ton::storage::NAMES[1],
            Self::TonChain => ton::chain::NAME,
        }
    }

    /// Returns whether it is what the adapter of this name is tested against.
    pub fn serves(self, adapter: &str) -> bool {
        match self {
            Self::Seaweed => adapter == "s3",
            Self::Moto => adapter == "glacier",
            Self::Ganesha => adapter == "nfs",
            Self::Kubo => adapter == "ipfs",
            Self::TonNetwork | Self::TonStorage | Self::SecondTonStorage | Self::TonChain => adapter == "ton",
        }
    }

    /// Why it cannot run on this machine, if it cannot.
    pub fn why_not(self) -> Option<String> {
        match self {
            Self::Ganesha => ganesha::why_not(),
            Self::Kubo => kubo::why_not(),
            Self::TonNetwork | Self::TonStorage | Self::SecondTonStorage => ton::why_not(),
            Self::TonChain => ton::chain::why_not(),
            _ => None,
        }
    }

    /// Installs what it needs; quick when that is done.
    pub fn install(self) -> Result<()> {
        match self {
            Self::Seaweed => seaweed::install().map(drop),
            Self::Moto => moto::install().map(drop),
            Self::Ganesha => ganesha::install(),
            Self::Kubo => installed(self, || kubo::install().map(drop)),
            Self::TonNetwork => installed(self, || ton::network::install().map(drop)),
            Self::TonStorage | Self::SecondTonStorage => installed(self, || ton::storage::install().map(drop)),
            Self::TonChain => installed(self, || ton::chain::install().map(drop)),
        }
    }

    /// Starts one that outlives this process, or as many as belong together, keeping data and logs in `dir`.
    fn start_detached(self, dir: &Path) -> Result<Vec<Record>> {
        let record = match self {
            Self::Seaweed => {
                let server = Seaweed::start_in(dir)?;
                server.create_bucket(seaweed::BUCKET)?;
                server.detach()?
            }
            Self::Moto => Moto::start_in(dir)?.detach()?,
            Self::Ganesha => Ganesha::start_in(dir)?.detach()?,
            Self::TonNetwork => TonNetwork::start_in(dir)?.detach()?,
            Self::TonStorage | Self::SecondTonStorage => {
                // Servers have their folders side by side.
                let network = dir.parent().context("a server's folder is below another")?.join(ton::network::NAME);
                TonStorage::start_in(self.name(), &ton::network::config_in(&network), dir)?.detach()?
            }
            Self::TonChain => TonChain::start_in(dir)?.detach()?,
            Self::Kubo => {
                let (first, second) = Kubo::pair_in(dir)?;
                return Ok(vec![first.detach()?, second.detach()?]);
            }
        };
        Ok(vec![record])
    }
}

/// Installs a kind where it can run; prints why not, once, where it cannot.
fn installed(kind: Kind, install: impl FnOnce() -> Result<()>) -> Result<()> {
    match kind.why_not() {
        Some(why) => {
            say!("{why}: tests with it will be skipped");
            Ok(())
        }
        None => install(),
    }
}
