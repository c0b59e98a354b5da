//! NFS-Ganesha: an independent NFSv3 server in user space, with `libnfs` as a second client.
//!
//! Debian's packages are unpacked into the cache; nothing of the system changes. Ganesha needs root, since it opens files
//! by handle, and a port mapper to register with. Both run in mount and process namespaces of their own: the port mapper
//! listens on a socket in a private `/run` and on no port, several servers run side by side, and killing the one process
//! that is their parent here kills them all.
//!
//! The version follows from Debian's release; apt verifies that Debian built it: see [`Archive`].
//!
//! Limits: not available without root, or off Debian; [`why_not`] returns the reason.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::daemon::{Daemon, free_ports};
use super::state::Record;
use crate::apt::{self, Archive};
use crate::run::{capture, works};
use crate::{cache, say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "ganesha";

/// The packages that are unpacked, with the libraries that the system lacks.
const PACKAGES: [&str; 4] = ["nfs-ganesha", "nfs-ganesha-vfs", "rpcbind", "libnfs-utils"];
/// The cache entry. Another layout is another name.
const ENTRY: &str = "ganesha-debian-1";
/// It is ready in 0.3 s; on a machine that also compiles, much later.
const PATIENCE: Duration = Duration::from_secs(300);
/// The number of overlay file systems (`OVERLAYFS_SUPER_MAGIC`), as containers have them for a root.
const OVERLAY: u64 = 0x794c_7630;

/// Starts both, as process 1 of their namespace. `$1` is where the packages were unpacked, `$2` the server's folder.
/// The port mapper alone sees a list of transports with nothing in it but the socket: with others it would listen on
/// every address. `-s` has it run as `daemon`, since its own user is made by installing the package. Where the system has
/// no such list at all, a copy of `/etc` with that of the packages takes its place.
const START: &str = r#"set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/ganesha /run/rpcbind
if [ ! -e /etc/netconfig ]; then
  cp -a /etc /run/etc
  cp "$1/etc/netconfig" /run/etc/
  mount --bind /run/etc /etc
fi
echo 'local tpi_cots_ord - loopback - - -' > "$2/netconfig"
unshare --mount sh -c 'mount --bind "$2/netconfig" /etc/netconfig && exec "$1/sbin/rpcbind" -f -s' sh "$1" "$2" &
until [ -S /run/rpcbind.sock ]; do kill -0 "$!"; sleep 0.05; done
exec "$1/usr/bin/ganesha.nfsd" -F -L "$2/ganesha.log" -f "$2/ganesha.conf" -N EVENT -p /run/ganesha/pid
"#;

/// A Ganesha of one's own with one export. Dropped, it is killed and its files are gone (unless it was given a folder).
#[derive(Debug)]
pub struct Ganesha {
    /// The port of NFS on 127.0.0.1.
    pub port: u16,
    /// The port of the mount protocol.
    pub mount_port: u16,
    root: PathBuf,
    daemon: Daemon,
}

/// Why there can be no such server here, if there cannot.
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("NFS-Ganesha needs root: it opens files by handle".into());
    }
    if apt::find("apt-get").is_none() {
        return Some("NFS-Ganesha comes from Debian's packages, and this is another system".into());
    }
    let namespaces = ["--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/run"];
    if !works(Command::new("unshare").args(namespaces)) {
        return Some("NFS-Ganesha and its port mapper need namespaces of their own, which are not allowed here".into());
    }
    if !opens_by_handle() {
        return Some("NFS-Ganesha opens files by handle, which is not allowed here (CAP_DAC_READ_SEARCH)".into());
    }
    let temporary = std::env::temp_dir();
    if rustix::fs::statfs(&temporary).is_ok_and(|found| found.f_type as u64 == OVERLAY) {
        let place = temporary.display();
        return Some(format!(
            "NFS-Ganesha cannot export {place}: an overlay has no handles; set TMPDIR to another place"
        ));
    }
    None
}

/// Returns whether this process may: root of a container often may not. Where it cannot be told, the start of the
/// server will.
fn opens_by_handle() -> bool {
    const CAP_DAC_READ_SEARCH: u32 = 2;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_none_or(|mask| mask & 1 << CAP_DAC_READ_SEARCH != 0)
}

impl Ganesha {
    /// Installs it if needed, starts it in a temporary folder on free ports and waits until it takes connections.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-ganesha-").tempdir().context("no temporary folder")?;
        Self::start_on_free_ports(&dir.keep(), true)
    }

    /// The same with its files and its log in `dir`, which stays.
    pub fn start_in(dir: &Path) -> Result<Self> {
        Self::start_on_free_ports(dir, false)
    }

    fn start_on_free_ports(dir: &Path, temporary: bool) -> Result<Self> {
        if let Some(why) = why_not() {
            bail!(why);
        }
        let root = unpacked()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(&root, dir, temporary) {
                Err(error) if attempts > 0 => say!("trying other ports: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(root: &Path, dir: &Path, temporary: bool) -> Result<Self> {
        let ports = free_ports(4)?;
        let unshare = apt::program("unshare", "util-linux", "to start NFS-Ganesha")?;
        let mut arguments: Vec<String> =
            ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "env"].map(String::from).into();
        arguments.push(format!("LD_LIBRARY_PATH={}", libraries(root)?));
        arguments.extend(["sh", "-c", START, "sh"].map(String::from));
        arguments.extend([root, dir].map(|path| path.display().to_string()));
        let daemon = Daemon::new(NAME, &unshare, arguments, dir, temporary)?;
        fs::create_dir_all(dir.join("export"))?;
        fs::write(dir.join("ganesha.conf"), configuration(root, dir, &ports)?)?;
        let mut server = Self { port: ports[0], mount_port: ports[1], root: root.to_path_buf(), daemon };
        server.restart()?;
        skip::server("NFS-Ganesha", &version(root)?);
        Ok(server)
    }

    /// Kills it with SIGKILL. The files stay; connections are cut and new ones refused.
    pub fn kill(&mut self) {
        self.daemon.kill();
        // The children follow their parent in a moment; until then they have the ports.
        let began = Instant::now();
        while (listens(self.port) || listens(self.mount_port)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it again on the same ports with the same files (killing it first if it runs) and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let (port, mount_port) = (self.port, self.mount_port);
        let log = self.daemon.dir().join("ganesha.log");
        let _ = fs::remove_file(&log);
        let up = || fs::read_to_string(&log).is_ok_and(|text| text.contains("NFS SERVER INITIALIZED"));
        self.daemon.start(PATIENCE, || up() && listens(port) && listens(mount_port))
    }

    /// Stops it for a while: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Signals the server, which is a child of the process that was started.
    fn signal(&self, signal: Signal) -> Result<()> {
        let parent = self.daemon.pid().context("Ganesha does not run")?;
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let child: i32 = children.split_whitespace().next().context("Ganesha does not run")?.parse()?;
        Ok(kill_process(Pid::from_raw(child).context("Ganesha does not run")?, signal)?)
    }

    /// The exported folder, as a path of the server.
    pub fn export(&self) -> PathBuf {
        self.daemon.dir().join("export")
    }

    /// The export as a configuration names it.
    pub fn url(&self) -> String {
        format!("nfs://127.0.0.1:{}{}", self.port, self.export().display())
    }

    /// A path below the export as the tools of `libnfs` name it.
    pub fn libnfs_url(&self, path: &str) -> String {
        let Self { port, mount_port, .. } = self;
        format!("nfs://127.0.0.1{}/{path}?nfsport={port}&mountport={mount_port}", self.export().display())
    }

    /// A tool of `libnfs` (`nfs-ls`, `nfs-cp`, `nfs-cat`): another client than ours.
    pub fn tool(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.root.join("usr/bin").join(name));
        command.env("LD_LIBRARY_PATH", libraries(&self.root)?);
        Ok(command)
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(super) fn detach(self) -> Result<Record> {
        let settings = [("nfs", self.url()), ("mount_port", self.mount_port.to_string())];
        let settings = settings.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Record::of(&version(&self.root)?, self.daemon, settings)
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Attributes are never taken from a cache: tests change files behind the server's back.
fn configuration(root: &Path, dir: &Path, ports: &[u16]) -> Result<String> {
    let plugins = folder_with(root, "ganesha/libfsalvfs.so")?.join("ganesha");
    Ok(format!(
        r#"NFS_CORE_PARAM {{
  Bind_addr = 127.0.0.1; Protocols = 3; Plugins_Dir = "{plugins}";
  NFS_Port = {}; MNT_Port = {}; NLM_Port = {}; Rquota_Port = {};
  Enable_NLM = false; Enable_UDP = false; Enable_RQUOTA = false;
}}
NFSv4 {{ RecoveryBackend = fs; Graceless = true; Only_Numeric_Owners = true; UseGetpwnam = true; }}
EXPORT_DEFAULTS {{ Attr_Expiration_Time = 0; }}
EXPORT {{
  Export_Id = 1; Path = "{export}"; Pseudo = /export; Squash = No_Root_Squash; Access_Type = RW;
  SecType = sys; Transports = TCP; Protocols = 3; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"#,
        ports[0],
        ports[1],
        ports[2],
        ports[3],
        plugins = plugins.display(),
        export = dir.join("export").display(),
    ))
}

/// The folders of unpacked libraries, for the dynamic linker.
fn libraries(root: &Path) -> Result<String> {
    let common = folder_with(root, "ganesha/libfsalvfs.so")?;
    let multiarch = common.file_name().unwrap_or_default();
    let all = [root.join("usr/lib/ganesha"), root.join("lib").join(multiarch), common];
    Ok(all.map(|folder| folder.display().to_string()).join(":"))
}

/// The folder of libraries that holds this: Debian has one for each architecture.
fn folder_with(root: &Path, file: &str) -> Result<PathBuf> {
    let lib = root.join("usr/lib");
    let folders = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let found = folders.flatten().map(|folder| folder.path()).find(|folder| folder.join(file).exists());
    found.with_context(|| format!("the unpacked packages hold no {file}: Debian's packaging changed"))
}

/// The version that Debian has, installed if it is not there.
pub fn installed_version() -> Result<String> {
    version(&unpacked()?)
}

fn version(root: &Path) -> Result<String> {
    let mut command = Command::new(root.join("usr/bin/ganesha.nfsd"));
    let said = capture(command.arg("-v").env("LD_LIBRARY_PATH", libraries(root)?))?;
    let version = said.lines().find_map(|line| line.split_once("Release = V"));
    Ok(version.map_or("of an unknown version", |(_, version)| version.trim()).to_owned())
}

/// Installs it if it can run here; otherwise prints why not, once.
pub fn install() -> Result<()> {
    match why_not() {
        Some(why) => say!("{why}: tests with it will be skipped"),
        None => drop(unpacked()?),
    }
    Ok(())
}

/// Where the packages are unpacked.
fn unpacked() -> Result<PathBuf> {
    let entry = cache::install(ENTRY, "NFS-Ganesha from Debian's packages", |partial| {
        let root = partial.join("root");
        cache::empty_dir(&root)?;
        let mut archive = Archive::new(&partial.join("apt"))?;
        let mut result = unpack(&archive, &root);
        if let Err(error) = &result {
            say!("the system's package lists do not do: {error:#}");
            archive.refresh()?;
            cache::empty_dir(&root)?;
            result = unpack(&archive, &root);
        }
        result?;
        let _ = fs::remove_dir_all(partial.join("apt"));
        let version = version(&root)?;
        say!("unpacked NFS-Ganesha {version}");
        Ok(())
    })?;
    Ok(entry.join("root"))
}

fn unpack(archive: &Archive, root: &Path) -> Result<()> {
    let mut names: Vec<String> = PACKAGES.map(String::from).into();
    if let Some(unknown) = names.iter().find(|name| !archive.knows(name)) {
        bail!("there is no package {unknown}");
    }
    let missing = archive.missing_libraries(&names)?;
    // Perl's belong to scripts that are not run.
    names.extend(missing.into_iter().filter(|name| !name.ends_with("-perl")));
    archive.unpack(&names, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_dies_and_comes_back_with_its_files() -> Result<()> {
        if let Some(why) = why_not() {
            skip::skip("it_serves_dies_and_comes_back_with_its_files", &why);
            return Ok(());
        }
        let mut first = Ganesha::start()?;
        let second = Ganesha::start()?;
        assert_ne!(first.url(), second.url());
        fs::write(first.export().join("seen"), "by libnfs")?;
        let seen = |server: &Ganesha| capture(server.tool("nfs-cat")?.arg(server.libnfs_url("seen")));
        assert_eq!(seen(&first)?, "by libnfs");
        assert!(seen(&second).is_err());
        first.kill();
        assert!(!listens(first.port) && listens(second.port));
        first.restart()?;
        assert_eq!(seen(&first)?, "by libnfs");
        let (dir, port) = (first.export(), first.port);
        drop(first);
        assert!(!dir.exists());
        let began = Instant::now();
        while listens(port) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!listens(port));
        Ok(())
    }
}
