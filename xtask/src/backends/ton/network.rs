//! The network: a few nodes of the DHT and a liteserver, in one process of our own (`xtask/ton/network`).

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::PATIENCE;
use crate::backends::daemon::{Daemon, free_ports};
use crate::backends::go::{self, Program};
use crate::backends::state::Record;
use crate::{say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "ton-network";
/// The version of the Go module `tonutils-go`, which it is made with.
pub const VERSION: &str = "1.18.0";

const PROGRAM: Program = Program {
    name: "tonnetwork",
    what: "a TON network on tonutils-go 1.18.0",
    files: &[
        ("go.mod", include_str!("../../../ton/network/go.mod")),
        ("go.sum", include_str!("../../../ton/network/go.sum")),
        ("main.go", include_str!("../../../ton/network/main.go")),
    ],
    package: ".",
};

/// Nodes of the DHT: enough that each has others to tell of.
const NODES: usize = 3;

/// A network of one's own. Dropped, it is killed.
#[derive(Debug)]
pub struct TonNetwork {
    lite_port: u16,
    daemon: Daemon,
}

impl TonNetwork {
    /// Builds it if needed, starts it on free ports and waits until every node listens.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-ton-network-").tempdir().context("no temporary folder")?;
        Self::start_on_free_ports(&dir.keep(), true)
    }

    /// The same with its configuration and its log in `dir`, which stays.
    pub fn start_in(dir: &Path) -> Result<Self> {
        Self::start_on_free_ports(dir, false)
    }

    fn start_on_free_ports(dir: &Path, temporary: bool) -> Result<Self> {
        let program = install()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(&program, dir, temporary) {
                Err(error) if attempts > 0 => say!("trying other ports: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(program: &Path, dir: &Path, temporary: bool) -> Result<Self> {
        let ports = free_ports(NODES + 1)?;
        let (lite_port, ports) = ports.split_first().context("no port is free")?;
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let (lite, ports) = (lite_port.to_string(), ports.join(","));
        let out = config_in(dir).display().to_string();
        let arguments = ["run", "-dht", &ports, "-lite", &lite, "-out", &out].map(String::from).into();
        let daemon = Daemon::new(NAME, program, arguments, dir, temporary)?;
        let mut network = Self { lite_port: *lite_port, daemon };
        network.restart()?;
        skip::server("a TON network on tonutils-go", VERSION);
        Ok(network)
    }

    /// The file that describes the network to a daemon.
    pub fn config(&self) -> PathBuf {
        config_in(self.daemon.dir())
    }

    /// Kills it with SIGKILL: daemons find no new peers, and continue with those that they have.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on the same ports, as the same network.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let (config, port) = (self.config(), self.lite_port);
        let _ = std::fs::remove_file(&config);
        self.daemon.start(PATIENCE, || config.exists() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(in crate::backends) fn detach(self) -> Result<Record> {
        let settings = [("config".to_owned(), self.config().display().to_string())];
        Record::of(VERSION, self.daemon, settings.into_iter().collect())
    }
}

/// Where a network that works in `dir` writes its configuration.
pub(in crate::backends) fn config_in(dir: &Path) -> PathBuf {
    dir.join("global.config.json")
}

/// Its program, built if it is not there.
pub fn install() -> Result<PathBuf> {
    go::build(&PROGRAM)
}
