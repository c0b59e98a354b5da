//! The procedures of NFSv3 (RFC 1813) that are used, and their results.

use bytes::Bytes;

use super::object::{Attributes, Handle, attributes, attributes_after, handle};
use super::rpc::{MAX_DATA, SMALL_RESULT};
use super::session::Session;
use super::status::Fault;
use super::xdr::{Decoder, Encoder, malformed};
use tidelock_types::{Result, owned_if_sparse};

/// The longest name that is taken from a listing.
const MAX_NAME: usize = 4096;
/// The modes of what is made: an image of a machine's memory is for its owner alone.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes of a directory listing per call.
const LISTING: u32 = 64 << 10;
/// The most bytes of a listing that are taken: some servers count the names alone.
const LARGEST_LISTING: usize = 2 * LISTING as usize;
/// The most bytes that are held of a listing while its names are looked at: the reply, and for each name, which has at least
/// 28 bytes there, a slice of it, in a list that may have room for twice as many.
pub(super) const LISTING_HOLDS: u64 =
    LARGEST_LISTING as u64 + (LARGEST_LISTING / 28) as u64 * 2 * size_of::<Bytes>() as u64;
/// The most bytes of a READ's result beside its data.
pub(super) const READ_FRAME: usize = 512;

/// The result of a READ.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) data: Bytes,
    pub(super) end: bool,
}

/// The stability of written bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// May be fewer than were sent.
    pub(super) count: u32,
    /// No commit is needed.
    pub(super) durable: bool,
    /// Changes when the server may have lost uncommitted bytes.
    pub(super) verifier: u64,
}

/// A part of a listing. Its names keep the record; [`Self::at`] is all that is needed to go on.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) names: Vec<Bytes>,
    pub(super) at: Position,
    pub(super) end: bool,
}

/// A position in a listing; the default is its start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    pub(super) cookie: u64,
    pub(super) verifier: u64,
}

/// Weak cache consistency data, which is not used (`wcc_data`).
fn skip_consistency(reply: &mut Decoder) -> Result<()> {
    if reply.flag()? {
        reply.take(24)?;
    }
    attributes_after(reply).map(drop)
}

fn at(directory: &Handle, name: &str) -> Encoder {
    Encoder::default().opaque(&directory.0).opaque(name.as_bytes())
}

/// New attributes (`sattr3`): a mode or none, neither owner nor size nor times; `now` sets the time of modification.
fn new_attributes(head: Encoder, mode: Option<u32>, now: bool) -> Encoder {
    let head = match mode {
        Some(mode) => head.u32(1).u32(mode),
        None => head.u32(0),
    };
    head.u32(0).u32(0).u32(0).u32(0).u32(u32::from(now))
}

impl Session {
    async fn simple(&self, procedure: u32, head: Encoder) -> Result<Decoder, Fault> {
        self.call(procedure, head, Vec::new(), SMALL_RESULT).await
    }

    pub(super) async fn attributes(&self, of: &Handle) -> Result<Attributes, Fault> {
        let mut reply = self.simple(1, Encoder::default().opaque(&of.0)).await?;
        Ok(attributes(&mut reply)?)
    }

    /// Has the server set the time of modification to its own, now.
    pub(super) async fn touch(&self, file: &Handle) -> Result<(), Fault> {
        let head = new_attributes(Encoder::default().opaque(&file.0), None, true);
        self.simple(2, head.u32(0)).await.map(drop)
    }

    pub(super) async fn lookup(&self, directory: &Handle, name: &str) -> Result<(Handle, Attributes), Fault> {
        let mut reply = self.simple(3, at(directory, name)).await?;
        let handle = handle(&mut reply)?;
        let attributes = match attributes_after(&mut reply)? {
            Some(attributes) => attributes,
            None => self.attributes(&handle).await?,
        };
        Ok((handle, attributes))
    }

    pub(super) async fn read(&self, file: &Handle, offset: u64, count: u32) -> Result<Piece, Fault> {
        let head = Encoder::default().opaque(&file.0).u64(offset).u32(count);
        let most = (count as usize).saturating_add(READ_FRAME);
        let mut reply = self.call(6, head, Vec::new(), most).await?;
        let whole = reply.left();
        attributes_after(&mut reply)?;
        let (given, end) = (reply.u32()?, reply.flag()?);
        let data = reply.opaque(MAX_DATA as usize)?;
        if data.len() != given as usize || given > count {
            return Err(malformed().into());
        }
        reply.end()?;
        Ok(Piece { data: owned_if_sparse(data, whole), end })
    }

    /// Writes `data`, at most as much as the server takes at once; `durable` asks that it be safe before it answers.
    pub(super) async fn write(
        &self,
        file: &Handle,
        offset: u64,
        data: Vec<Bytes>,
        durable: bool,
    ) -> Result<Written, Fault> {
        const UNSTABLE: u32 = 0;
        const FILE_SYNC: u32 = 2;
        // At most `MAX_DATA`.
        let len = data.iter().map(Bytes::len).sum::<usize>() as u32;
        let how = if durable { FILE_SYNC } else { UNSTABLE };
        let head = Encoder::default().opaque(&file.0).u64(offset).u32(len).u32(how).u32(len);
        let mut reply = self.call(7, head, data, SMALL_RESULT).await?;
        skip_consistency(&mut reply)?;
        let written = Written { count: reply.u32()?, durable: reply.u32()? == FILE_SYNC, verifier: reply.u64()? };
        reply.end()?;
        if written.count > len || (written.count == 0 && len > 0) {
            return Err(malformed().into());
        }
        Ok(written)
    }

    /// Makes a file that was not there.
    pub(super) async fn create(&self, directory: &Handle, name: &str) -> Result<Handle, Fault> {
        const GUARDED: u32 = 1;
        let head = new_attributes(at(directory, name).u32(GUARDED), Some(FILE_MODE), false);
        let mut reply = self.simple(8, head).await?;
        self.made(&mut reply, directory, name).await
    }

    /// Makes a directory that was not there.
    pub(super) async fn make_directory(&self, directory: &Handle, name: &str) -> Result<Handle, Fault> {
        let mut reply = self.simple(9, new_attributes(at(directory, name), Some(DIRECTORY_MODE), false)).await?;
        self.made(&mut reply, directory, name).await
    }

    async fn made(&self, reply: &mut Decoder, directory: &Handle, name: &str) -> Result<Handle, Fault> {
        if reply.flag()? {
            return Ok(handle(reply)?);
        }
        self.lookup(directory, name).await.map(|(handle, _)| handle)
    }

    pub(super) async fn remove(&self, directory: &Handle, name: &str) -> Result<(), Fault> {
        self.simple(12, at(directory, name)).await.map(drop)
    }

    pub(super) async fn rename(&self, from: (&Handle, &str), to: (&Handle, &str)) -> Result<(), Fault> {
        let head = at(from.0, from.1).opaque(&to.0.0).opaque(to.1.as_bytes());
        self.simple(14, head).await.map(drop)
    }

    /// Gives a file a further name, if that is free.
    pub(super) async fn link(&self, file: &Handle, to: (&Handle, &str)) -> Result<(), Fault> {
        let head = Encoder::default().opaque(&file.0).opaque(&to.0.0).opaque(to.1.as_bytes());
        self.simple(15, head).await.map(drop)
    }

    /// Some names of a directory behind a position. That it gets on is for the caller to see to.
    pub(super) async fn names(&self, directory: &Handle, after: Position) -> Result<Names, Fault> {
        let Position { cookie, verifier } = after;
        let head = Encoder::default().opaque(&directory.0).u64(cookie).u64(verifier).u32(LISTING);
        let mut reply = self.call(16, head, Vec::new(), LARGEST_LISTING).await?;
        attributes_after(&mut reply)?;
        let at = Position { cookie, verifier: reply.u64()? };
        let mut found = Names { names: Vec::new(), at, end: false };
        while reply.flag()? {
            reply.u64()?;
            found.names.push(reply.opaque(MAX_NAME)?);
            found.at.cookie = reply.u64()?;
        }
        found.end = reply.flag()?;
        reply.end()?;
        Ok(found)
    }

    /// Commits a range of a file, and returns the verifier.
    pub(super) async fn commit(&self, file: &Handle, offset: u64, count: u32) -> Result<u64, Fault> {
        let mut reply = self.simple(21, Encoder::default().opaque(&file.0).u64(offset).u32(count)).await?;
        skip_consistency(&mut reply)?;
        let verifier = reply.u64()?;
        reply.end()?;
        Ok(verifier)
    }
}
