//! Files and directories of a server as replies have them: handles and attributes.

use bytes::Bytes;

use super::xdr::{Decoder, malformed};
use tidelock_types::Result;

/// The longest handle (`NFS3_FHSIZE`).
const MAX_HANDLE: usize = 64;

/// A server's handle of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle(pub(super) Bytes);

/// The type of a handle's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Other,
}

/// Its attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) kind: Kind,
    pub(super) size: u64,
    /// Its number: two names of one file have the same.
    pub(super) number: u64,
    /// When its bytes changed, in seconds since 1970.
    pub(super) modified: u32,
    /// When anything of it changed, its names among it. Only the server sets this.
    pub(super) changed: u32,
}

/// A handle. It is kept for longer than the record around it, and must not hold that in memory.
pub(super) fn handle(reply: &mut Decoder) -> Result<Handle> {
    let handle = reply.opaque(MAX_HANDLE)?;
    if handle.is_empty() {
        return Err(malformed());
    }
    Ok(Handle(Bytes::copy_from_slice(&handle)))
}

pub(super) fn attributes(reply: &mut Decoder) -> Result<Attributes> {
    let kind = match reply.u32()? {
        1 => Kind::File,
        2 => Kind::Directory,
        5 => Kind::Link,
        _ => Kind::Other,
    };
    // Mode, links, owner, group.
    reply.take(16)?;
    let size = reply.u64()?;
    // Bytes used, device, file system.
    reply.take(24)?;
    let number = reply.u64()?;
    // When it was read.
    reply.take(8)?;
    let (modified, _) = (reply.u32()?, reply.u32()?);
    let (changed, _) = (reply.u32()?, reply.u32()?);
    Ok(Attributes { kind, size, number, modified, changed })
}

/// Attributes that a server may leave out (`post_op_attr`).
pub(super) fn attributes_after(reply: &mut Decoder) -> Result<Option<Attributes>> {
    if reply.flag()? { attributes(reply).map(Some) } else { Ok(None) }
}
