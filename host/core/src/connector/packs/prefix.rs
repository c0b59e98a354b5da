//! The prefix of a frame while it is put together, and pages of decoded frames.

use std::sync::Arc;

use bytes::Bytes;

use super::room::{Held, Room};
use crate::snapshot::PAGE;
use crate::snapshot::pages::{Chain, FramePart, FrameRef};
use crate::types::{Error, Result};

/// A prefix that is filled.
pub(super) struct Prefix {
    pub(super) parts: Vec<FramePart>,
    pub(super) bytes: Held,
}

impl Prefix {
    /// Room for the prefix of a frame; `None` if there is none. May block.
    pub(super) fn new(chain: &Chain, at: FrameRef, room: &Arc<Room>) -> Result<Option<Self>> {
        let parts = chain.prefix(at);
        let pages: usize = parts.iter().map(|part| part.len as usize).sum();
        Ok(room.space(pages * PAGE)?.map(|bytes| Self { parts, bytes }))
    }

    /// Takes what it needs of the pages of a frame. May block.
    pub(super) fn fill(&self, at: FrameRef, pages: &Bytes) -> Result<()> {
        let mut to = 0;
        for part in &self.parts {
            if part.frame == at {
                self.bytes.write(to, pages_of(pages, *part)?)?;
            }
            to += part.len as usize * PAGE;
        }
        Ok(())
    }

    /// Its bytes. May block.
    pub(super) fn all(&self) -> Result<Vec<u8>> {
        self.bytes.all()
    }

    /// The number of its bytes.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len as usize * PAGE).sum()
    }
}

/// Pages of a decoded frame.
pub(super) fn pages_of(frame: &Bytes, part: FramePart) -> Result<&[u8]> {
    let pages = (part.first as usize * PAGE)..((part.first + part.len) as usize * PAGE);
    frame.get(pages).ok_or_else(|| Error::corrupt("a frame of the pack is shorter than its pages"))
}
