//! Reading: pieces at their offsets, as large as the server gives them, several at once.
//!
//! The first piece is read before the file is returned. A file that was replaced between lookup and reading
//! is looked up again then, so that readers of small files never notice.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::StreamExt;

use super::calls::READ_FRAME;
use super::object::Handle;
use super::rpc::MAX_DATA;
use super::session::Session;
use super::status::{Fault, Status};
use super::tree::{TRIES, info};
use tidelock_types::files::File;
use tidelock_types::{Body, ByteRange, Error, Result};

/// Pieces requested or waiting to be consumed.
const AHEAD: usize = 4;

/// The most bytes that are held for `len` bytes that are read, if that is known: of each piece the result of a READ and,
/// where the server gives less than was asked for, what it gave before; and the piece that is looked at.
pub(super) fn holds(len: Option<u64>) -> u64 {
    let piece = u64::from(MAX_DATA).min(len.unwrap_or(u64::MAX));
    let ahead = len.unwrap_or(u64::MAX).min(AHEAD as u64 * u64::from(MAX_DATA));
    ahead.saturating_mul(2).saturating_add(piece).saturating_add((AHEAD * READ_FRAME) as u64)
}

/// The most bytes that are held while a file is opened to read `len` bytes of it, if that is known: the first piece.
pub(super) fn open_holds(len: Option<u64>) -> u64 {
    u64::from(MAX_DATA).min(len.unwrap_or(u64::MAX)).saturating_add(READ_FRAME as u64)
}

/// Opens a file at a checked path.
pub(super) async fn open(session: &Arc<Session>, path: &str, range: ByteRange) -> Result<File> {
    for _ in 0..TRIES {
        let (file, found) = session.file(path).await?;
        let most = u64::from(session.found().await?.read);
        let info = info(&found);
        let (start, len) = range.within(info.size)?;
        let first = match piece(session, &file, start, len.min(most)).await {
            Ok(first) => first,
            Err(fault) if fault.is_stale() => continue,
            Err(fault) => return Err(fault.of(format!("reading `{path}`"))),
        };
        let (session, path): (_, Arc<str>) = (Arc::clone(session), path.into());
        let rest = (1..len.div_ceil(most)).map(move |index| {
            let (session, file, path) = (Arc::clone(&session), file.clone(), Arc::clone(&path));
            let from = index * most;
            async move {
                let piece = piece(&session, &file, start + from, most.min(len - from)).await;
                piece.map_err(|fault| fault.of(format!("reading `{path}`")))
            }
        });
        let first = futures::stream::iter((len > 0).then_some(Ok(first)));
        return Ok(File { info, body: Body::new(first.chain(futures::stream::iter(rest).buffered(AHEAD)), Some(len)) });
    }
    Err(Status::STALE.error(format!("reading `{path}`")))
}

/// Reads a range of a file, in as many calls as the server needs; each at most of the server's maximum.
async fn piece(session: &Session, file: &Handle, start: u64, len: u64) -> Result<Bytes, Fault> {
    let shorter = || Error::unavailable("a file was truncated while it was read").hint("try again");
    let mut gathered = BytesMut::new();
    while (gathered.len() as u64) < len {
        let offset = start + gathered.len() as u64;
        // At most `MAX_DATA`.
        let wanted = (len - gathered.len() as u64) as u32;
        let read = session.read(file, offset, wanted).await?;
        if u64::from(wanted) == len && read.data.len() as u64 == len {
            // As nearly always: nothing is copied.
            return Ok(read.data);
        }
        if read.data.is_empty() {
            return Err(shorter().into());
        }
        // Room for the piece at once: a buffer that grows may be twice as large.
        gathered.reserve((len - gathered.len() as u64) as usize);
        gathered.extend_from_slice(&read.data);
        if read.end && (gathered.len() as u64) < len {
            return Err(shorter().into());
        }
    }
    Ok(gathered.freeze())
}
