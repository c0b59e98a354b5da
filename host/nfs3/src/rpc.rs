//! Remote procedure calls over one TCP connection (ONC RPC, RFC 5531): several at once, replies in any order.
//!
//! One task sends, one receives. A call whose caller gives up keeps its place in the window until its reply comes or the
//! connection ends, so a server that answers nothing cannot make the table of pending calls grow.
//!
//! **Malicious servers.** A record is at most [`RECORD`] long, whatever its number of fragments, and a result at most as
//! long as its call allows; an unexpected or malformed reply closes the connection; so does a call that is not answered in time, and
//! a window without progress. No call waits for a closed connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::xdr::{Decoder, Encoder, padding};
use tidelock_types::{Error, Platform, Result, owned_if_sparse};

/// The most bytes of data that one READ or WRITE carries.
pub(super) const MAX_DATA: u32 = 1 << 20;
/// The maximum length of a record: data and its framing.
const RECORD: usize = MAX_DATA as usize + (16 << 10);
/// The most fragments of one record. Servers send one.
const FRAGMENTS: usize = 256;
/// The most bytes of a result that has neither data nor names: handles, attributes, flavors of authentication.
pub(super) const SMALL_RESULT: usize = 4 << 10;
/// Calls at once on a connection.
const WINDOW: usize = 16;
/// The longest verifier of a reply (RFC 5531, section 8.2).
const VERIFIER: usize = 400;

/// One call: which procedure, and its arguments. The data of a WRITE stays in the pieces that it came in.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    pub(super) head: Bytes,
    pub(super) data: Vec<Bytes>,
    /// The most bytes of its result, with the status. A longer one is malformed: who waits for a result and is not polled
    /// for long keeps it.
    pub(super) most: usize,
}

/// The reason why there is no reply. The call may have been executed, unless it was rejected.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection, or it was closed.
    Lost(Error),
    /// The server had its time to answer and did not.
    Silent(Error),
    /// The server refused to do it.
    Refused(Error),
}

impl Failure {
    /// A copy for another waiting call.
    pub(super) fn duplicate(&self) -> Self {
        match self {
            Self::Lost(error) => Self::Lost(error.duplicate()),
            Self::Silent(error) => Self::Silent(error.duplicate()),
            Self::Refused(error) => Self::Refused(error.duplicate()),
        }
    }
}

/// The caller: `AUTH_SYS`, the numeric ids of a user and of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl Caller {
    fn credential(&self) -> Vec<u8> {
        let mut body = Encoder::default().u32(0).opaque(b"tidelock").u32(self.uid).u32(self.gid);
        // RFC 5531 allows 16.
        let groups = &self.groups[..self.groups.len().min(16)];
        body = body.u32(groups.len() as u32);
        for group in groups {
            body = body.u32(*group);
        }
        Encoder::default().u32(1).opaque(&body.0).u32(0).u32(0).0
    }
}

type Waiting = HashMap<u32, (oneshot::Sender<Bytes>, OwnedSemaphorePermit)>;

/// A connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    credential: Vec<u8>,
    patience: Duration,
    window: Arc<Semaphore>,
    outgoing: mpsc::Sender<Vec<Bytes>>,
    pending: Arc<PendingCalls>,
    tasks: [JoinHandle<()>; 2],
}

/// The calls that wait for a reply.
#[derive(Debug)]
struct PendingCalls(Mutex<Calls>);

#[derive(Debug)]
struct Calls {
    /// `None` when the connection has ended.
    waiting: Option<Waiting>,
    /// The number of the last call.
    xid: u32,
    /// How many were answered.
    answered: u64,
}

impl PendingCalls {
    /// Servers remember for a while what they answered to which number on which port, and answer the same again: a
    /// connection that follows another does not begin with its numbers.
    fn new(platform: &Platform) -> Self {
        let mut random = [0; 4];
        // Where there is none, the numbers begin where they always do.
        let _ = platform.fill(&mut random);
        Self(Mutex::new(Calls { waiting: Some(HashMap::new()), xid: u32::from_ne_bytes(random), answered: 0 }))
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, sender: oneshot::Sender<Bytes>, permit: OwnedSemaphorePermit) -> Option<u32> {
        let mut calls = self.calls();
        calls.xid = calls.xid.wrapping_add(1);
        let xid = calls.xid;
        calls.waiting.as_mut()?.insert(xid, (sender, permit));
        Some(xid)
    }

    /// Hands a record to its call; false if there is none.
    fn deliver(&self, record: Bytes) -> bool {
        let Ok(xid) = Decoder::new(record.clone()).u32() else { return false };
        let mut calls = self.calls();
        let Some((sender, _)) = calls.waiting.as_mut().and_then(|waiting| waiting.remove(&xid)) else { return false };
        calls.answered = calls.answered.wrapping_add(1);
        // The caller may have been dropped.
        let _ = sender.send(record);
        true
    }

    /// From here on no caller waits.
    fn close(&self) {
        self.calls().waiting = None;
    }
}

impl Connection {
    /// Takes a stream into use. A call that is not answered within `patience` ends the connection.
    pub(super) fn new(stream: TcpStream, caller: &Caller, patience: Duration, platform: &Platform) -> Self {
        // Where this fails, small calls are slower.
        let _ = stream.set_nodelay(true);
        let (reading, writing) = stream.into_split();
        let (outgoing, frames) = mpsc::channel(WINDOW);
        let pending = Arc::new(PendingCalls::new(platform));
        let tasks = [
            tokio::spawn(send(writing, frames, Arc::clone(&pending))),
            tokio::spawn(receive(reading, Arc::clone(&pending))),
        ];
        let window = Arc::new(Semaphore::new(WINDOW));
        Self { credential: caller.credential(), patience, window, outgoing, pending, tasks }
    }

    /// Makes a call and returns the procedure's result.
    pub(super) async fn call(&self, call: &Call) -> std::result::Result<Decoder, Failure> {
        let closed = || {
            Failure::Lost(
                Error::unavailable("the NFS server closed the connection")
                    .hint("check that the server is running, and its log"),
            )
        };
        let permit = self.place().await?.ok_or_else(closed)?;
        match tokio::time::timeout(self.patience, self.exchange(call, permit)).await {
            Ok(Some(record)) => opened(record, call.most).map_err(Failure::Refused),
            Ok(None) => Err(closed()),
            Err(_) => Err(self.silent()),
        }
    }

    /// A slot in the window: waited for while the server answers any call. Many callers and a slow server are not an
    /// error.
    async fn place(&self) -> std::result::Result<Option<OwnedSemaphorePermit>, Failure> {
        let mut acquiring = std::pin::pin!(Arc::clone(&self.window).acquire_owned());
        loop {
            let before = self.pending.calls().answered;
            match tokio::time::timeout(self.patience, &mut acquiring).await {
                Ok(permit) => return Ok(permit.ok()),
                Err(_) if self.pending.calls().answered == before => return Err(self.silent()),
                Err(_) => {}
            }
        }
    }

    fn silent(&self) -> Failure {
        self.close();
        Failure::Silent(
            Error::unavailable(format!("the NFS server has not answered for {:?}", self.patience))
                .hint("check that the server responds and that no firewall drops its packets"),
        )
    }

    async fn exchange(&self, call: &Call, permit: OwnedSemaphorePermit) -> Option<Bytes> {
        let (sender, receiver) = oneshot::channel();
        // From entering the pending to handing over nothing waits: a call that is in the pending will be sent.
        let slot = self.outgoing.reserve().await.ok()?;
        let xid = self.pending.enter(sender, permit)?;
        slot.send(self.frame(xid, call));
        receiver.await.ok()
    }

    /// The record of a call: one fragment.
    fn frame(&self, xid: u32, call: &Call) -> Vec<Bytes> {
        const CALL: u32 = 0;
        const RPC_VERSION: u32 = 2;
        let head = Encoder::default().u32(xid).u32(CALL).u32(RPC_VERSION);
        let mut head = head.u32(call.program).u32(call.version).u32(call.procedure).0;
        head.extend(&self.credential);
        head.extend(&call.head);
        let data: usize = call.data.iter().map(Bytes::len).sum();
        let len = head.len() + data + padding(data);
        // Far below 2^31: data is at most `MAX_DATA`, names and handles are short.
        let mark = 0x8000_0000 | len as u32;
        let head = [&mark.to_be_bytes()[..], &head].concat();
        let mut frame = vec![Bytes::from(head)];
        frame.extend(call.data.iter().cloned());
        frame.push(Bytes::from_static(&[0; 3][..padding(data)]));
        frame
    }

    /// Returns whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.pending.calls().waiting.is_none()
    }

    /// Closes the connection: waiting calls fail, and so do later ones.
    pub(super) fn close(&self) {
        self.pending.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

async fn send(mut stream: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<Bytes>>, pending: Arc<PendingCalls>) {
    while let Some(frame) = frames.recv().await {
        for part in &frame {
            if stream.write_all(part).await.is_err() {
                return pending.close();
            }
        }
    }
}

async fn receive(mut stream: OwnedReadHalf, pending: Arc<PendingCalls>) {
    while let Some(record) = record(&mut stream).await {
        if !pending.deliver(record) {
            break;
        }
    }
    pending.close();
}

/// The next record; nothing when the stream ends or holds none.
async fn record(stream: &mut OwnedReadHalf) -> Option<Bytes> {
    let mut record = BytesMut::new();
    for _ in 0..FRAGMENTS {
        let mark = stream.read_u32().await.ok()?;
        let (last, len) = (mark & 0x8000_0000 != 0, (mark & 0x7fff_ffff) as usize);
        let have = record.len();
        if len > RECORD - have {
            return None;
        }
        record.resize(have + len, 0);
        stream.read_exact(&mut record[have..]).await.ok()?;
        if last {
            // Of several fragments there may be room for twice as much.
            let room = record.capacity();
            return Some(owned_if_sparse(record.freeze(), room));
        }
    }
    None
}

/// Decodes the reply behind the header of the call: a result of at most so many bytes.
fn opened(record: Bytes, most: usize) -> Result<Decoder> {
    const REPLY: u32 = 1;
    let mut reply = Decoder::new(record);
    let (_xid, kind, denied) = (reply.u32()?, reply.u32()?, reply.u32()?);
    if kind != REPLY {
        return Err(super::xdr::malformed());
    }
    if denied != 0 {
        let authentication = reply.u32()? == 1;
        return Err(match authentication {
            true => Error::denied(format!("the NFS server rejected the credentials (auth_stat {})", reply.u32()?))
                .hint("allow AUTH_SYS (`sec=sys`) on the export for this machine"),
            false => Error::unsupported("the NFS server uses another version of RPC"),
        });
    }
    let _flavor = reply.u32()?;
    reply.opaque(VERIFIER)?;
    match reply.u32()? {
        0 if reply.left() > most => Err(super::xdr::malformed()),
        0 => Ok(reply),
        1 | 2 => Err(Error::unsupported("the server does not offer version 3 of NFS or of its mount protocol")
            .hint("check the port in the URL and `mount_port`, and that the server serves NFSv3 over TCP")),
        3 => Err(Error::unsupported("the NFS server does not support a procedure of NFSv3")),
        4 => Err(Error::other("the NFS server could not decode a call")),
        _ => Err(Error::unavailable("the NFS server reported an internal error")),
    }
}
