//! Kubo, the reference daemon of IPFS: RPC, gateway, and exchange of blocks with peers.
//!
//! It is built from its Go module, which `xtask/kubo` requires in one version and pins by digests, down to the last
//! dependency; so it needs a Go toolchain, and some minutes once. It uses no network afterwards: nodes are
//! created with the profile `test`, have no bootstrap peers and no routing, and listen on 127.0.0.1 alone.
//!
//! Two nodes of [`Kubo::pair`] have only each other as peers: each finds the blocks of the other.
//!
//! Limits: needs Go; [`why_not`] returns the reason if it is missing.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::daemon::{Daemon, free_ports};
use super::go::{self, Program};
use super::http::send;
use super::state::Record;
use crate::run::capture;
use crate::{say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "kubo";
/// The version of the Go module, as in `xtask/kubo/go.mod`.
pub const VERSION: &str = "0.43.0";

const PROGRAM: Program = Program {
    name: NAME,
    what: "Kubo 0.43.0",
    files: &[
        ("go.mod", include_str!("../../kubo/go.mod")),
        ("go.sum", include_str!("../../kubo/go.sum")),
        ("tools.go", include_str!("../../kubo/tools.go")),
    ],
    package: "github.com/ipfs/kubo/cmd/ipfs",
};

/// It is ready in 0.3 s; on a machine that also compiles, far later.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node of one's own. Dropped, it is killed and its repository is gone (unless it was given a folder).
#[derive(Debug)]
pub struct Kubo {
    /// The RPC, as in `http://127.0.0.1:12345`. It needs no credentials.
    pub rpc: String,
    /// The gateway.
    pub gateway: String,
    /// The port of the RPC.
    pub port: u16,
    /// The port of the gateway.
    pub gateway_port: u16,
    /// The name by which peers know it.
    pub peer: String,
    swarm: u16,
    daemon: Daemon,
}

/// Why it cannot be built here, if it cannot.
pub fn why_not() -> Option<String> {
    go::why_not()
}

impl Kubo {
    /// Installs it if needed, starts a node in a temporary folder on free ports and waits until it answers. It has no peers.
    pub fn start() -> Result<Self> {
        Self::alone(&temporary_dir()?, true)
    }

    /// The same with its repository and its log in `dir`, which stays.
    pub fn start_in(dir: &Path) -> Result<Self> {
        Self::alone(dir, false)
    }

    /// Two nodes whose only peers are each other.
    pub fn pair() -> Result<(Self, Self)> {
        Self::both([&temporary_dir()?, &temporary_dir()?], true)
    }

    /// The same, in two folders below `dir`, which stays.
    pub fn pair_in(dir: &Path) -> Result<(Self, Self)> {
        Self::both([&dir.join("first"), &dir.join("second")], false)
    }

    // What failed has taken its temporary folder with it, so each attempt makes its repository anew.
    fn alone(dir: &Path, temporary: bool) -> Result<Self> {
        on_free_ports(|| {
            let mut node = Self::settle(dir, temporary)?;
            node.restart()?;
            Ok(node)
        })
    }

    fn both(dirs: [&Path; 2], temporary: bool) -> Result<(Self, Self)> {
        on_free_ports(|| {
            let mut first = Self::settle(dirs[0], temporary)?;
            let mut second = Self::settle(dirs[1], temporary)?;
            first.introduce(&second)?;
            second.introduce(&first)?;
            first.restart()?;
            second.restart()?;
            second.connect(&first)?;
            Ok((first, second))
        })
    }

    /// Makes a repository with ports of its own, and describes its daemon.
    fn settle(dir: &Path, temporary: bool) -> Result<Self> {
        let ipfs = prepared(dir)?;
        let [port, gateway_port, swarm] = free_ports(3)?[..] else { bail!("too few ports are free") };
        let peer = configure(dir, |config| {
            config["Addresses"] = json!({
                "API": format!("/ip4/127.0.0.1/tcp/{port}"),
                "Gateway": format!("/ip4/127.0.0.1/tcp/{gateway_port}"),
                "Swarm": [format!("/ip4/127.0.0.1/tcp/{swarm}")],
                "Announce": [], "AppendAnnounce": [], "NoAnnounce": [],
            });
            isolate(config);
        })?;
        // HOME is its folder, so that the repository is where it looks for one.
        let daemon = Daemon::new(NAME, &ipfs, vec!["daemon".into()], dir, temporary)?;
        let [rpc, gateway] = [port, gateway_port].map(|port| format!("http://127.0.0.1:{port}"));
        Ok(Self { rpc, gateway, port, gateway_port, peer, swarm, daemon })
    }

    fn introduce(&self, other: &Self) -> Result<()> {
        let known = json!([{ "ID": other.peer, "Addrs": [format!("/ip4/127.0.0.1/tcp/{}", other.swarm)] }]);
        configure(self.daemon.dir(), |config| config["Peering"] = json!({ "Peers": known })).map(drop)
    }

    /// Connects it to another node, and waits until it is.
    pub fn connect(&self, other: &Self) -> Result<()> {
        self.ask(&format!("swarm/connect?arg=/ip4/127.0.0.1/tcp/{}/p2p/{}", other.swarm, other.peer)).map(drop)
    }

    /// Asks the RPC; the answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        send(self.port, "POST", &format!("/api/v0/{command}"), &[], "")
    }

    /// Kubo's own command line, on this node.
    pub fn ipfs(&self) -> Command {
        let mut command = Command::new(self.daemon.program());
        command.env("IPFS_PATH", repository(self.daemon.dir())).env("HOME", self.daemon.dir());
        command
    }

    /// Kills it with SIGKILL. What it stored stays; connections are cut and new ones refused.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on the same ports with the same repository (killing it first if it runs) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        let (rpc, gateway) = (self.port, self.gateway_port);
        self.daemon
            .start(PATIENCE, || listens(gateway) && listens(rpc) && send(rpc, "POST", "/api/v0/id", &[], "").is_ok())?;
        skip::server("Kubo", VERSION);
        Ok(())
    }

    /// Stops it for a while: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.daemon.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.daemon.resume()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(super) fn detach(self) -> Result<Record> {
        let settings = [("rpc", self.rpc), ("gateway", self.gateway), ("peer", self.peer)];
        let settings = settings.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Record::of(VERSION, self.daemon, settings)
    }
}

fn temporary_dir() -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("tidelock-kubo-").tempdir().context("no temporary folder")?.keep())
}

fn on_free_ports<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    let mut attempts = 3;
    loop {
        attempts -= 1;
        match start() {
            Err(error) if attempts > 0 => say!("trying other ports: {error:#}"),
            result => return result,
        }
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn repository(dir: &Path) -> PathBuf {
    dir.join(".ipfs")
}

/// The program, and a repository in `dir`, made if it is not there.
fn prepared(dir: &Path) -> Result<PathBuf> {
    if let Some(why) = why_not() {
        bail!(why);
    }
    let ipfs = install()?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if repository(dir).join("config").exists() {
        return Ok(ipfs);
    }
    let mut init = Command::new(&ipfs);
    init.args(["init", "--empty-repo", "--profile", "test"]);
    capture(init.env("IPFS_PATH", repository(dir)).env("HOME", dir))?;
    Ok(ipfs)
}

/// Changes the configuration of a repository. Returns the name of its peer.
fn configure(dir: &Path, change: impl FnOnce(&mut Value)) -> Result<String> {
    let file = repository(dir).join("config");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut config: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    change(&mut config);
    fs::write(&file, config.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    let peer = config["Identity"]["PeerID"].as_str();
    Ok(peer.with_context(|| format!("{} names no peer", file.display()))?.to_owned())
}

/// Whatever would look for, or tell, anybody outside.
fn isolate(config: &mut Value) {
    config["Bootstrap"] = json!([]);
    config["Routing"] = json!({ "Type": "none" });
    config["Discovery"]["MDNS"]["Enabled"] = json!(false);
    config["AutoTLS"] = json!({ "Enabled": false });
    config["AutoConf"] = json!({ "Enabled": false });
    config["DNS"] = json!({ "Resolvers": {} });
    config["Swarm"]["DisableNatPortMap"] = json!(true);
    config["Swarm"]["RelayClient"] = json!({ "Enabled": false });
    config["Swarm"]["RelayService"] = json!({ "Enabled": false });
    config["Swarm"]["Transports"] = json!({ "Network": {
        "QUIC": false, "WebTransport": false, "WebRTCDirect": false, "Websocket": false,
    } });
    config["HTTPRetrieval"] = json!({ "Enabled": false });
    config["Plugins"] = json!({ "Plugins": { "telemetry": { "Disabled": true, "Config": { "Mode": "off" } } } });
}

/// The program, built into the cache if it is not there.
pub fn install() -> Result<PathBuf> {
    go::build(&PROGRAM)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn add(node: &Kubo, bytes: &str) -> Result<String> {
        let file = node.daemon.dir().join("file");
        fs::write(&file, bytes)?;
        Ok(capture(node.ipfs().args(["add", "-Q", "--cid-version=1"]).arg(&file))?.trim().to_owned())
    }

    #[test]
    fn it_serves_dies_and_comes_back_with_its_pins() -> Result<()> {
        if let Some(why) = why_not() {
            skip::skip("it_serves_dies_and_comes_back_with_its_pins", &why);
            return Ok(());
        }
        let (mut first, second) = Kubo::pair()?;
        assert!(first.ask("version")?.contains(VERSION));
        let cid = add(&first, "kept by one, had by both")?;
        // The second has it from the first.
        assert_eq!(second.ask(&format!("cat?arg={cid}&timeout=60s"))?, "kept by one, had by both");
        // A third one, without peers, does not.
        let stranger = Kubo::start()?;
        assert!(stranger.ask(&format!("cat?arg={cid}&timeout=1s")).is_err());
        assert_eq!(stranger.ask("swarm/peers")?.trim(), "{\"Peers\":null}");

        let pid = first.pid();
        first.kill();
        assert!(!listens(first.port) && listens(second.port) && first.pid().is_none());
        first.restart()?;
        assert_ne!(first.pid(), pid);
        assert!(first.ask(&format!("pin/ls?arg={cid}"))?.contains("recursive"));
        second.connect(&first)?;

        let (dir, port) = (first.daemon.dir().to_path_buf(), first.port);
        drop(first);
        let began = Instant::now();
        while listens(port) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!listens(port) && !dir.exists());
        Ok(())
    }
}
