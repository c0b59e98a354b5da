//! tonutils-storage, the usual daemon: it creates bags from files, seeds them and fetches them from others.
//!
//! Its API is HTTP, without bytes of bags: a bag's files are in a folder shared with it. Its
//! configuration is written before its first start (see [`super`]).
//!
//! Limits: it announces a bag in the network within about a second, and looks for others about as often. What it fetches
//! goes through a protocol over UDP at some 20 MB/s on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{PATIENCE, network};
use crate::backends::daemon::{Daemon, free_ports};
use crate::backends::go::{self, Program};
use crate::backends::http::send;
use crate::backends::state::Record;
use crate::run::run;
use crate::{say, skip};

/// Names on the command line and in the state file, of a first and a second one.
pub const NAMES: [&str; 2] = ["ton-storage", "ton-storage-2"];
/// The version of the Go module `tonutils-storage`.
pub const VERSION: &str = "1.4.1";
/// The header `authorization` for its API: the user `tidelock` with the password `test`.
pub const AUTHORIZATION: &str = "Basic dGlkZWxvY2s6dGVzdA==";

const PROGRAM: Program = Program {
    name: "tonutils-storage",
    what: "tonutils-storage 1.4.1",
    files: &[
        ("go.mod", include_str!("../../../ton/daemon/go.mod")),
        ("go.sum", include_str!("../../../ton/daemon/go.sum")),
    ],
    package: "github.com/xssnick/tonutils-storage/cli",
};

/// A daemon of one's own. Dropped, it is killed and its bags are gone (unless it was given a folder).
#[derive(Debug)]
pub struct TonStorage {
    /// Its API, as in `http://127.0.0.1:12345`.
    pub endpoint: String,
    /// The port of that.
    pub port: u16,
    daemon: Daemon,
}

impl TonStorage {
    /// Builds it if needed, starts it in a temporary folder as a member of a network, and waits until its API answers.
    pub fn start(network: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-ton-storage-").tempdir().context("no temporary folder")?;
        Self::start_on_free_ports(NAMES[0], network, &dir.keep(), true)
    }

    /// The same under one of [`NAMES`], with its bags and its log in `dir`, which stays.
    pub fn start_in(name: &'static str, network: &Path, dir: &Path) -> Result<Self> {
        Self::start_on_free_ports(name, network, dir, false)
    }

    fn start_on_free_ports(name: &'static str, network: &Path, dir: &Path, temporary: bool) -> Result<Self> {
        let program = install()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(&program, name, network, dir, temporary) {
                Err(error) if attempts > 0 => say!("trying other ports: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(program: &Path, name: &'static str, network: &Path, dir: &Path, temporary: bool) -> Result<Self> {
        let ports = free_ports(2)?;
        let (api, listen) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let db = dir.join("db");
        for folder in [&db, &dir.join("shared")] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let path = |path: &Path| path.display().to_string();
        let mut configure = Command::new(network::install()?);
        configure.args(["daemon-config", "-listen", &listen, "-downloads", &path(&dir.join("downloads"))]);
        run(configure.arg("-out").arg(db.join("config.json")))?;
        let arguments: [&str; 12] = [
            "--db",
            &path(&db),
            "--network-config",
            &path(network),
            "--api",
            &api,
            "--api-login",
            "tidelock",
            "--api-password",
            "test",
            "--daemon",
            "--threads=2",
        ];
        let daemon = Daemon::new(name, program, arguments.map(String::from).into(), dir, temporary)?;
        let mut server = Self { endpoint: format!("http://{api}"), port: ports[0], daemon };
        server.restart()?;
        skip::server("tonutils-storage", VERSION);
        Ok(server)
    }

    /// Asks its API: a method, a path below `/api/v1/`, and JSON or nothing. The body of a success.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        ask(self.port, method, path, body)
    }

    /// Has it read a bag from end to end and waits for that. It reads a new bag once more by itself, in the background, and
    /// forgets what it finds damaged: whoever is to damage a file first waits for the two.
    pub fn verify(&self, bag: &str) -> Result<()> {
        for _ in 0..2 {
            let said = self.ask("POST", "verify", &format!("{{\"bag_id\":\"{bag}\"}}"))?;
            anyhow::ensure!(said.contains("true"), "the bag {bag} is not whole: {said}");
        }
        Ok(())
    }

    /// The folder that is shared with it. Its own name for it is the same.
    pub fn shared(&self) -> PathBuf {
        self.daemon.dir().join("shared")
    }

    /// Kills it with SIGKILL. Its bags stay; connections are refused.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on the same ports with the same bags (killing it first if it runs) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let port = self.port;
        self.daemon.start(PATIENCE, || ask(port, "GET", "list", "").is_ok())
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
    pub(in crate::backends) fn detach(self) -> Result<Record> {
        let settings = [
            ("daemon_endpoint", self.endpoint.clone()),
            ("shared_path", self.shared().display().to_string()),
            ("authorization", AUTHORIZATION.into()),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Record::of(VERSION, self.daemon, settings)
    }
}

fn ask(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let headers = [format!("Authorization: {AUTHORIZATION}"), "Content-Type: application/json".into()];
    send(port, method, &format!("/api/v1/{path}"), &headers.each_ref().map(String::as_str), body)
}

/// Its program, built if it is not there.
pub fn install() -> Result<PathBuf> {
    go::build(&PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::super::{TonNetwork, why_not};
    use super::*;

    const BYTES: &[u8] = b"hello ton storage\n";

    /// Makes a bag of a file in the shared folder; its id.
    fn create(server: &TonStorage, name: &str) -> Result<String> {
        let path = server.shared().join(name);
        std::fs::write(&path, BYTES)?;
        let body = serde_json::json!({ "path": path, "description": "" }).to_string();
        let said: serde_json::Value = serde_json::from_str(&server.ask("POST", "create", &body)?)?;
        Ok(said["bag_id"].as_str().context("no bag_id")?.to_owned())
    }

    fn details(server: &TonStorage, bag: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&server.ask("GET", &format!("details?bag_id={bag}"), "")?)?)
    }

    #[test]
    fn a_bag_outlives_the_daemon_and_reaches_the_other_one() -> Result<()> {
        if let Some(why) = why_not() {
            skip::skip("a_bag_outlives_the_daemon_and_reaches_the_other_one", &why);
            return Ok(());
        }
        let mut network = TonNetwork::start()?;
        let mut first = TonStorage::start(&network.config())?;
        let second = TonStorage::start(&network.config())?;
        let bag = create(&first, "hello.txt")?;
        assert_eq!(bag, "fdce766a62d2299420794298bb7515284a9ba40e52a6dcfa16d5559f7acf4be1");
        assert!(send(first.port, "GET", "/api/v1/list", &[], "").is_err(), "without a password");
        first.kill();
        assert!(first.ask("GET", "list", "").is_err());
        network.restart()?;
        first.restart()?;
        assert_eq!(details(&first, &bag)?["completed"], true);
        let path = second.shared().join("fetched");
        let body = serde_json::json!({ "bag_id": bag, "path": path, "download_all": true }).to_string();
        second.ask("POST", "add", &body)?;
        let began = std::time::Instant::now();
        while details(&second, &bag)?["completed"] != true {
            assert!(began.elapsed() < PATIENCE, "the second daemon never got it: {}", details(&second, &bag)?);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(std::fs::read(path.join(&bag).join("hello.txt"))?, BYTES);
        let dir = first.shared();
        drop(first);
        assert!(!dir.exists());
        Ok(())
    }
}
