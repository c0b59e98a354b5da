//! Sockets: their permissions, and replacing stale ones.
//!
//! A Unix socket has mode 0600 before any client can connect: it is created, restricted, and only then listened on. A
//! stale socket of a dead process is replaced; if a live one answers, this is an error. Concurrent starts are
//! serialised by a lock on `PATH.lock`, which is held while the socket exists and is left behind empty: removing it
//! would allow two holders.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, recv, socket_with};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::visitors::Origin;
use tidelock::config::Listen;
use tidelock::types::{Error, Result, blocking};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listening socket.
pub(super) enum Listener {
    Unix {
        listener: UnixListener,
        /// Removes the socket when dropped.
        _place: Place,
    },
    Tcp(TcpListener),
}

/// A client.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Opens the socket and returns its address: `unix:/path`, or `http://address:port`.
    pub(super) async fn open(listen: &Listen) -> Result<(Self, String)> {
        match listen {
            Listen::Unix(path) => {
                // The path may be relative, to fit a socket's 107 bytes; clients may be elsewhere.
                let shown = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
                let shown = shown.display().to_string();
                let path = path.clone();
                let (socket, place) = blocking(move || open_unix(&path)).await?;
                let listener = UnixListener::from_std(socket).map_err(|error| Error::io(&shown, error))?;
                Ok((Self::Unix { listener, _place: place }, format!("unix:{shown}")))
            }
            Listen::Tcp(address) => open_tcp(*address).await,
        }
    }

    /// The next client, and where it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Origin)> {
        match self {
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let origin = stream.peer_cred().map_or(Origin::Unknown, |peer| Origin::User(peer.uid()));
                Ok((Stream::Unix(stream), origin))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Heads and short answers should not wait for more to come.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), address.ip().into()))
            }
        }
    }
}

impl Stream {
    /// Waits until a client has sent something, which stays to be read. Returns false if it has gone instead.
    pub(super) async fn has_spoken(&self) -> bool {
        let mut byte = [0];
        let peeked = match self {
            Self::Tcp(stream) => stream.peek(&mut byte).await,
            Self::Unix(stream) => {
                let peek = || Ok(recv(stream, &mut byte[..], RecvFlags::PEEK)?.0);
                stream.async_io(Interest::READABLE, peek).await
            }
        };
        peeked.is_ok_and(|bytes| bytes > 0)
    }
}

impl Listener {
    /// Closes the socket and returns the clients that had connected by then: closing resets connections not yet accepted.
    pub(super) fn close(self) -> Vec<Stream> {
        let waiting = match self {
            Self::Unix { listener, _place: place } => {
                // First, so that no further client connects in vain.
                drop(place);
                let next = |listener: &std::os::unix::net::UnixListener| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Unix(UnixStream::from_std(stream)?))
                };
                listener.into_std().map(|listener| knocked(|| next(&listener)))
            }
            Self::Tcp(listener) => {
                let next = |listener: &std::net::TcpListener| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Tcp(TcpStream::from_std(stream)?))
                };
                listener.into_std().map(|listener| knocked(|| next(&listener)))
            }
        };
        waiting.unwrap_or_default()
    }
}

/// Accepts pending connections; the sockets do not block, so the first error means that there are no more.
fn knocked(mut next: impl FnMut() -> io::Result<Stream>) -> Vec<Stream> {
    std::iter::from_fn(|| next().ok()).take(BACKLOG as usize).collect()
}

async fn open_tcp(address: SocketAddr) -> Result<(Listener, String)> {
    let fail = |error: io::Error| {
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        let made = Error::io(format!("cannot listen on {address}"), error);
        if taken { made.hint("choose another port with --listen; another program uses this one") } else { made }
    };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the token and all data are sent unencrypted; use a proxy with TLS");
    }
    Ok((Listener::Tcp(listener), format!("http://{address}")))
}

/// A socket's path, as long as it is ours.
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The lock is released after this, so that no other process's socket is removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open_unix(path: &Path) -> Result<(std::os::unix::net::UnixListener, Place)> {
    let shown = path.display();
    let fail = |error: io::Error| Error::io(format!("cannot listen on {shown}"), error);
    let lock = lock(path)?;
    clear(path)?;
    let address = SocketAddrUnix::new(path)
        .map_err(|error| fail(error.into()).hint("choose a shorter path: a Unix socket's has at most 107 bytes"))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(|e| fail(e.into()))?;
    bind(&socket, &address).map_err(|error| fail(error.into()))?;
    let place = Place { path: path.to_owned(), _lock: lock };
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail)?;
    listen(&socket, BACKLOG).map_err(|error| fail(error.into()))?;
    Ok((socket.into(), place))
}

fn lock(path: &Path) -> Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let fail = |error: io::Error| Error::io(beside.display(), error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(taken(path)),
        Err(std::fs::TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// Removes a stale socket.
fn clear(path: &Path) -> Result<()> {
    let fail = |error: io::Error| Error::io(path.display(), error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => {
            let what = format!("{} exists and is not a socket", path.display());
            return Err(Error::conflict(what).hint("remove it, or listen elsewhere"));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing a stale socket");
            std::fs::remove_file(path).map_err(fail)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
        Ok(_) => Err(taken(path)),
    }
}

fn taken(path: &Path) -> Error {
    Error::conflict(format!("another process listens on {}", path.display()))
        .hint("stop it first, or choose another socket with --listen unix:PATH")
}

macro_rules! both {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Unix($stream) => $call,
            Self::Tcp($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        both!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        both!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        both!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let at = Listen::Unix(path.clone());
        let (listener, shown) = Listener::open(&at).await.unwrap();
        assert_eq!(shown, format!("unix:{}", path.display()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Listener::open(&at).await.err().unwrap();
        assert_eq!(error.kind().name(), "conflict");
        assert!(path.exists(), "the living one keeps it");
        drop(listener);
        assert!(!path.exists());
        Listener::open(&at).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_knocked_before_the_end_is_heard() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (listener, _) = Listener::open(&Listen::Unix(path.clone())).await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        let waiting = listener.close();
        assert!(waiting.len() == 1 && UnixStream::connect(&path).await.is_err());
        for mut stream in waiting {
            stream.write_all(b"heard").await.unwrap();
        }
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "heard");
        let (listener, at) = Listener::open(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let client = TcpStream::connect(at.trim_start_matches("http://")).await.unwrap();
        assert_eq!(listener.close().len(), 1);
        drop(client);
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        // Dropping it closes the socket and leaves its path, as a kill does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::open(&Listen::Unix(path.clone())).await.unwrap());
        // A living one of a program that knows nothing of the lock.
        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(Listener::open(&Listen::Unix(path.clone())).await.is_err());
        drop(living);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody's work").unwrap();
        let error = Listener::open(&Listen::Unix(path.clone())).await.err().unwrap();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's work");
    }
}
