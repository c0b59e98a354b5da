//! The export as one keeps it: connected when it is first used, connected again when the server was gone.
//!
//! NFSv3 has no sessions. A handle stays valid over a server restart, so a call that a lost connection left
//! unanswered is repeated on a new one; callers detect by the file's number that it was already executed (a new
//! name, a link). How long that is tried depends on when the server last answered: the host waits for one that was
//! there a moment ago, not for one that has been gone for the grant's `patience`, nor for one that
//! accepts calls without answering, so that the next backend can serve soon. Concurrent callers share one attempt
//! to connect; if it fails, it fails for all.
//!
//! Every call runs in a task of its own. Who waits for one may not be polled for long, as the pieces that are read ahead
//! for a reader that pauses are not: in the middle of a call it would keep what all share, the lock under which the export
//! is connected to and the places of the connection's window, and everybody else would wait for that reader.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::grant::NfsGrant;
use super::object::{Handle, attributes_after, handle};
use super::rpc::{Call, Caller, Connection, Failure, MAX_DATA, SMALL_RESULT};
use super::status::{Fault, Status};
use super::xdr::{Decoder, Encoder};
use tidelock_types::{Error, Platform, Result};

/// Between tries: from the first to the second, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// The programs and the versions of them that are spoken (RFC 1813; RFC 1833 for the port mapper).
const PORT_MAPPER: (u32, u32) = (100_000, 2);
const NFS: (u32, u32) = (100_003, 3);
const MOUNT: (u32, u32) = (100_005, 3);
/// Where port mappers listen.
const PORT_MAPPER_PORT: u16 = 111;

/// The minimum and the default size of a READ or WRITE in bytes, if a server reports another, or none.
const LEAST_DATA: u32 = 4 << 10;
const USUAL_DATA: u32 = 32 << 10;

/// One export.
#[derive(Debug)]
pub(super) struct Session(Arc<Export>);

#[derive(Debug)]
struct Export {
    grant: NfsGrant,
    caller: Caller,
    link: tokio::sync::Mutex<Link>,
    answered: Mutex<Option<Instant>>,
    platform: Platform,
}

/// The connection that there is, and the last failure to make one.
#[derive(Debug, Default)]
struct Link {
    mounted: Option<Arc<Mounted>>,
    failed: Option<(Instant, Failure)>,
}

/// A connection to the export, and the server's parameters.
#[derive(Debug)]
pub(super) struct Mounted {
    connection: Connection,
    /// The export's own directory.
    pub(super) root: Handle,
    /// The most bytes of a READ.
    pub(super) read: u32,
    /// The most bytes of a WRITE.
    pub(super) write: u32,
}

/// A waiting caller's view of the server.
#[derive(Debug, Default)]
struct Waiting {
    /// When it was first gone.
    since: Option<Instant>,
    /// How often we paused.
    pauses: u32,
    /// Whether it went in the middle of our call: it was there then.
    cut: bool,
}

impl Waiting {
    fn pause(&self) -> Duration {
        PAUSES[0].saturating_mul(2u32.saturating_pow(self.pauses)).min(PAUSES[1])
    }
}

impl Session {
    pub(super) fn new(grant: NfsGrant, platform: Platform) -> Self {
        Self(Arc::new(Export::new(grant, platform)))
    }

    pub(super) fn platform(&self) -> &Platform {
        &self.0.platform
    }

    pub(super) fn grant(&self) -> &NfsGrant {
        &self.0.grant
    }

    /// Makes an NFS call whose result has at most `most` bytes, repeating it if necessary, and returns the result behind the
    /// status of a success.
    pub(super) async fn call(
        &self,
        procedure: u32,
        head: Encoder,
        data: Vec<Bytes>,
        most: usize,
    ) -> Result<Decoder, Fault> {
        let call = Call { program: NFS.0, version: NFS.1, procedure, head: head.0.into(), data, most };
        let export = Arc::clone(&self.0);
        apart(async move { export.call(&call).await }).await
    }

    /// The export, waiting for a server that was there a moment ago.
    pub(super) async fn found(&self) -> Result<Arc<Mounted>> {
        let export = Arc::clone(&self.0);
        apart(async move { export.found().await }).await
    }

    /// Drops the connection and everything known through it.
    pub(super) async fn forget(&self, mounted: &Arc<Mounted>) {
        let (export, mounted) = (Arc::clone(&self.0), Arc::clone(mounted));
        let forgotten = async move {
            export.forget(&mounted).await;
            Ok::<_, Error>(())
        };
        // It does not fail.
        let _ = apart(forgotten).await;
    }
}

/// Runs work in a task of its own, which ends with this future.
async fn apart<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let ended = |error| Error::other("a call of the NFS server ended early").with_source(error).into();
    AbortOnDropHandle::new(tokio::spawn(work)).await.unwrap_or_else(|error| Err(ended(error)))
}

impl Export {
    fn new(grant: NfsGrant, platform: Platform) -> Self {
        let caller = match grant.user {
            Some(user) => Caller { uid: user.uid, gid: user.gid, groups: Vec::new() },
            None => Caller {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                groups: rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect(),
            },
        };
        Self { grant, caller, link: tokio::sync::Mutex::default(), answered: Mutex::new(None), platform }
    }

    async fn call(&self, call: &Call) -> Result<Decoder, Fault> {
        let mut waiting = Waiting::default();
        loop {
            let lost = match self.mounted().await {
                Ok(mounted) => match mounted.connection.call(call).await {
                    Ok(mut reply) => {
                        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.platform.now());
                        match reply.u32()? {
                            0 => return Ok(reply),
                            busy if Status(busy) == Status::JUKEBOX => Fault::Status(Status::JUKEBOX),
                            status => return Err(Fault::Status(Status(status))),
                        }
                    }
                    Err(Failure::Refused(error) | Failure::Silent(error)) => return Err(error.into()),
                    Err(Failure::Lost(error)) => {
                        self.forget(&mounted).await;
                        // Servers close idle connections: a closed one says nothing about a new one.
                        if !std::mem::replace(&mut waiting.cut, true) {
                            continue;
                        }
                        error.into()
                    }
                },
                Err(Failure::Refused(error) | Failure::Silent(error)) => return Err(error.into()),
                Err(Failure::Lost(error)) => error.into(),
            };
            self.wait(&mut waiting, lost).await?;
        }
    }

    async fn found(&self) -> Result<Arc<Mounted>> {
        let mut waiting = Waiting::default();
        loop {
            let error = match self.mounted().await {
                Ok(mounted) => return Ok(mounted),
                Err(Failure::Refused(error) | Failure::Silent(error)) => return Err(error),
                Err(Failure::Lost(error)) => error,
            };
            self.wait(&mut waiting, error.into()).await.map_err(|fault| fault.of("the export"))?;
        }
    }

    /// Waits before another try, or returns the error if there is none.
    async fn wait(&self, waiting: &mut Waiting, why: Fault) -> Result<(), Fault> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |since: Instant| self.platform.since(since) > self.grant.patience;
        let hopeless = match why {
            // A busy server answers: then the pause measures how long it has been busy.
            Fault::Status(_) => waiting.pause() >= PAUSES[1],
            // It may answer others all the time and never this call.
            Fault::Failed(_) => {
                let since = *waiting.since.get_or_insert_with(|| self.platform.now());
                gone(since) || (!waiting.cut && answered.is_none_or(gone))
            }
        };
        if hopeless {
            return Err(why);
        }
        tokio::time::sleep(waiting.pause()).await;
        waiting.pauses += 1;
        Ok(())
    }

    /// The connection that there is, or a new one.
    async fn mounted(&self) -> std::result::Result<Arc<Mounted>, Failure> {
        let asked = self.platform.now();
        let mut link = self.link.lock().await;
        if let Some(mounted) = link.mounted.as_ref().filter(|mounted| !mounted.connection.is_closed()) {
            return Ok(Arc::clone(mounted));
        }
        // Tried while we waited for the lock: one after the other, many would wait for ever.
        if let Some((_, failure)) = link.failed.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(failure.duplicate());
        }
        match self.mount().await {
            Ok(mounted) => {
                let mounted = Arc::new(mounted);
                link.mounted = Some(Arc::clone(&mounted));
                Ok(mounted)
            }
            Err(failure) => {
                link.failed = Some((self.platform.now(), failure.duplicate()));
                Err(failure)
            }
        }
    }

    async fn forget(&self, mounted: &Arc<Mounted>) {
        mounted.connection.close();
        let mut link = self.link.lock().await;
        if link.mounted.as_ref().is_some_and(|current| Arc::ptr_eq(current, mounted)) {
            link.mounted = None;
        }
    }

    async fn mount(&self) -> std::result::Result<Mounted, Failure> {
        let port = match self.grant.mount_port {
            Some(port) => port,
            None => self.ask_for_port(MOUNT).await?,
        };
        let root = self.ask_for_root(port).await?;
        let connection = self.connect(self.grant.port).await?;
        let mut mounted = Mounted { connection, root, read: USUAL_DATA, write: USUAL_DATA };
        const FSINFO: u32 = 19;
        let head = Encoder::default().opaque(&mounted.root.0);
        let call = Call {
            program: NFS.0,
            version: NFS.1,
            procedure: FSINFO,
            head: head.0.into(),
            data: Vec::new(),
            most: SMALL_RESULT,
        };
        let mut reply = mounted.connection.call(&call).await?;
        (mounted.read, mounted.write) = sizes(&mut reply).map_err(Failure::Refused)?;
        Ok(mounted)
    }

    async fn ask_for_root(&self, port: u16) -> std::result::Result<Handle, Failure> {
        let connection = self.connect(port).await?;
        let head = Encoder::default().opaque(self.grant.export.as_bytes());
        let call = Call {
            program: MOUNT.0,
            version: MOUNT.1,
            procedure: 1,
            head: head.0.into(),
            data: Vec::new(),
            most: SMALL_RESULT,
        };
        let mut reply = connection.call(&call).await?;
        self.root_of(&mut reply).map_err(Failure::Refused)
    }

    /// The error of a mount. Never `not-found`, which some callers treat as success.
    fn root_of(&self, reply: &mut Decoder) -> Result<Handle> {
        let NfsGrant { host, export, .. } = &self.grant;
        let error = match reply.u32()? {
            0 => return handle(reply),
            1 | 13 => Error::denied(format!("the NFS server denied mounting `{export}`")),
            status => Error::unavailable(format!("the NFS server does not export `{export}` (mount status {status})")),
        };
        Err(error.hint(format!("check the exports of {host} (`showmount -e {host}`), and that it serves NFSv3")))
    }

    async fn ask_for_port(&self, (program, version): (u32, u32)) -> std::result::Result<u16, Failure> {
        const GETPORT: u32 = 3;
        const TCP: u32 = 6;
        let hint = "give the port of the mount protocol as `mount_port`";
        let connection = self.connect(PORT_MAPPER_PORT).await.map_err(|failure| match failure {
            Failure::Lost(error) => Failure::Lost(error.hint(hint)),
            refused => refused,
        })?;
        let head = Encoder::default().u32(program).u32(version).u32(TCP).u32(0);
        let (program, version) = PORT_MAPPER;
        let call =
            Call { program, version, procedure: GETPORT, head: head.0.into(), data: Vec::new(), most: SMALL_RESULT };
        let port = connection.call(&call).await?.u32().map_err(Failure::Refused)?;
        u16::try_from(port).ok().filter(|port| *port != 0).ok_or_else(|| {
            Failure::Lost(Error::unavailable("the port mapper has no mount protocol over TCP").hint(hint))
        })
    }

    async fn connect(&self, port: u16) -> std::result::Result<Connection, Failure> {
        let shown = format!("{}:{port}", self.grant.host);
        let connecting = async {
            let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name does not resolve");
            for address in tokio::net::lookup_host((self.grant.host.as_str(), port)).await? {
                match dial(address, &self.platform).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let connected = match tokio::time::timeout(self.grant.connect_timeout, connecting).await {
            Ok(Err(error)) => match Error::of_system(format!("cannot connect to the NFS server {shown}"), &error) {
                Some(lacking) => return Err(Failure::Lost(lacking)),
                None => Err(error.to_string()),
            },
            Ok(Ok(stream)) => Ok(stream),
            Err(_) => Err("no answer".to_owned()),
        };
        match connected {
            Ok(stream) => Ok(Connection::new(stream, &self.caller, self.grant.stall_timeout, &self.platform)),
            Err(why) => Err(Failure::Lost(
                Error::unavailable(format!("cannot connect to the NFS server {shown}: {why}"))
                    .hint("check that it is running and that the configured ports are correct"),
            )),
        }
    }
}

/// Connects from a port below 1024 where this process may: many servers serve no others (`secure`).
async fn dial(address: SocketAddr, platform: &Platform) -> std::io::Result<TcpStream> {
    const TRIES: usize = 8;
    if !rustix::process::geteuid().is_root() {
        return TcpStream::connect(address).await;
    }
    for _ in 0..TRIES {
        let mut random = [0; 2];
        if platform.fill(&mut random).is_err() {
            break;
        }
        let port = 665 + u16::from_ne_bytes(random) % (1024 - 665);
        let (socket, own) = match address {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        };
        if socket.bind(own).is_err() {
            continue;
        }
        match socket.connect(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {}
            connected => return connected,
        }
    }
    TcpStream::connect(address).await
}

/// The most bytes of a READ and of a WRITE, from the reply to FSINFO.
fn sizes(reply: &mut Decoder) -> Result<(u32, u32)> {
    match reply.u32()? {
        0 => {}
        status => return Err(Status(status).error("querying the server's limits")),
    }
    attributes_after(reply)?;
    let (read_max, _read_preferred, _) = (reply.u32()?, reply.u32()?, reply.u32()?);
    let write_max = reply.u32()?;
    let sensible = |most| if most == 0 { USUAL_DATA } else { u32::clamp(most, LEAST_DATA, MAX_DATA) };
    Ok((sensible(read_max), sensible(write_max)))
}
