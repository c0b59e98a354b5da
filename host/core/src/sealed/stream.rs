//! Bodies that are sealed on their way out and opened on their way in.
//!
//! Both take the bytes as they come, hold at most what came last and a chunk, and give on a chunk once it is complete.
//! Nothing is given on that was not proven.

use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;

use super::format::{CHUNK, HEADER, Header, ObjectKey, SEALED_CHUNK, TAG, opened_size, sealed_size};
use crate::types::{Body, ByteRange, Error, Result};

/// Seals a body.
pub(super) fn sealed(body: Body, header: Header, key: ObjectKey) -> Body {
    let size = body.remaining().map(sealed_size);
    let sealer = Sealer { body, key, waiting: BytesMut::new(), number: 0, ended: false };
    let chunks = futures::stream::try_unfold(sealer, Sealer::next);
    Body::new(futures::stream::iter([Ok(Bytes::from(header.to_bytes()))]).chain(chunks), size)
}

/// Takes what comes until more than so many bytes are waiting. Returns whether the body has ended before.
async fn fill(waiting: &mut BytesMut, body: &mut Body, bytes: u64) -> Result<bool> {
    while waiting.len() as u64 <= bytes {
        match body.next().await {
            Some(chunk) => waiting.extend_from_slice(&chunk?),
            None => return Ok(true),
        }
    }
    Ok(false)
}

struct Sealer {
    body: Body,
    key: ObjectKey,
    /// What is not sealed yet.
    waiting: BytesMut,
    number: u64,
    ended: bool,
}

impl Sealer {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        if self.ended {
            return Ok(None);
        }
        // One byte more than a chunk tells that it is not the last one.
        self.ended = fill(&mut self.waiting, &mut self.body, CHUNK).await?;
        let mut out = Vec::with_capacity(self.waiting.len() + (self.waiting.len() / CHUNK as usize + 1) * TAG as usize);
        while self.waiting.len() as u64 > CHUNK {
            let chunk = self.waiting.split_to(CHUNK as usize);
            self.seal(&mut out, &chunk, false)?;
        }
        if self.ended {
            let chunk = self.waiting.split();
            self.seal(&mut out, &chunk, true)?;
        }
        Ok(Some((out.into(), self)))
    }

    fn seal(&mut self, out: &mut Vec<u8>, chunk: &[u8], last: bool) -> Result<()> {
        let from = out.len();
        out.extend_from_slice(chunk);
        self.key.seal(self.number, last, out, from)?;
        self.number += 1;
        Ok(())
    }
}

/// Reads the header of an object, and returns the rest.
pub(super) async fn header(mut body: Body, backend: &str) -> Result<(Header, Body)> {
    let mut first = BytesMut::new();
    fill(&mut first, &mut body, HEADER - 1).await?;
    if (first.len() as u64) < HEADER {
        return Err(Error::corrupt("a sealed object ends within its header").on_backend(backend));
    }
    let rest = first.split_off(HEADER as usize).freeze();
    let header = Header::parse(&first).map_err(|error| error.on_backend(backend))?;
    Ok((header, body.unread(rest)))
}

/// The part of an object that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The first chunk.
    first: u64,
    /// Bytes of it that are not wanted.
    skip: u64,
    /// The bytes that are wanted; `None` is all from there on.
    len: Option<u64>,
    /// Whether the whole object is read.
    whole: bool,
}

impl Window {
    /// The whole object.
    pub(super) fn whole() -> Self {
        Self { first: 0, skip: 0, len: None, whole: true }
    }

    /// A range that is not empty.
    pub(super) fn of(range: ByteRange) -> Self {
        let len = range.end.map(|end| end.saturating_sub(range.start));
        Self { first: range.start / CHUNK, skip: range.start % CHUNK, len, whole: false }
    }

    /// The bytes of the object to be read for it.
    pub(super) fn sealed(&self) -> ByteRange {
        let at = |chunk: u64| HEADER.saturating_add(chunk.saturating_mul(SEALED_CHUNK));
        let chunks = self.len.map(|len| self.skip.saturating_add(len).div_ceil(CHUNK));
        ByteRange { start: at(self.first), end: chunks.map(|chunks| at(self.first.saturating_add(chunks))) }
    }
}

/// Opens a body that begins with the first chunk of a window.
pub(super) fn opened(body: Body, key: ObjectKey, window: Window, backend: &str) -> Result<Body> {
    let size = match body.remaining() {
        None => None,
        Some(sealed) => Some(size_of(sealed, window).map_err(|error| error.on_backend(backend))?),
    };
    let opener = Opener {
        body,
        key,
        waiting: BytesMut::new(),
        number: window.first,
        skip: window.skip,
        left: window.len.unwrap_or(u64::MAX),
        whole: window.whole,
        ended: false,
        backend: backend.to_owned(),
    };
    Ok(Body::new(futures::stream::try_unfold(opener, Opener::next), size))
}

/// The bytes of a window, if so many of the object came for it.
fn size_of(sealed: u64, window: Window) -> Result<u64> {
    // Whatever part of an object this is, its chunks have the sizes of those of a whole one.
    let wrong = || Error::corrupt(format!("{sealed} bytes are no part of a sealed object"));
    let opened = match sealed {
        0 if !window.whole => 0,
        _ => sealed.checked_add(HEADER).and_then(opened_size).ok_or_else(wrong)?,
    };
    let after = opened.checked_sub(window.skip).ok_or_else(|| past_the_end(window.first, opened, window.skip))?;
    Ok(after.min(window.len.unwrap_or(u64::MAX)))
}

fn past_the_end(first: u64, opened: u64, skip: u64) -> Error {
    let at = first.saturating_mul(CHUNK);
    let (start, size) = (at.saturating_add(skip), at.saturating_add(opened));
    Error::invalid(format!("the range begins past the end: at {start} of {size} bytes"))
}

struct Opener {
    body: Body,
    key: ObjectKey,
    /// What is not opened yet.
    waiting: BytesMut,
    number: u64,
    skip: u64,
    left: u64,
    whole: bool,
    ended: bool,
    backend: String,
}

impl Opener {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        if self.ended {
            return Ok(None);
        }
        self.ended = fill(&mut self.waiting, &mut self.body, SEALED_CHUNK).await?;
        let mut out = BytesMut::with_capacity(self.waiting.len());
        while self.waiting.len() as u64 > SEALED_CHUNK {
            let mut chunk = self.waiting.split_to(SEALED_CHUNK as usize);
            let plain = self.key.open(self.number, false, &mut chunk).ok_or_else(|| self.damaged())?;
            out.extend_from_slice(plain);
            self.number += 1;
        }
        if self.ended {
            self.last(&mut out)?;
        }
        let skipped = self.skip.min(out.len() as u64);
        self.skip -= skipped;
        out.advance(skipped as usize);
        if self.ended && self.skip > 0 {
            let at = self.number.saturating_mul(CHUNK);
            return Err(past_the_end(0, at, self.skip).on_backend(&self.backend));
        }
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len()));
        self.left -= out.len() as u64;
        Ok(Some((out.freeze(), self)))
    }

    /// Opens the last chunk that came: the last one of the object, or one in its middle where a part was read.
    fn last(&mut self, out: &mut BytesMut) -> Result<()> {
        let mut chunk = self.waiting.split();
        if chunk.is_empty() && !self.whole {
            return Ok(());
        }
        let mut again = match chunk.len() as u64 == SEALED_CHUNK && !self.whole {
            true => chunk.clone(),
            false => BytesMut::new(),
        };
        let plain = match self.key.open(self.number, true, &mut chunk) {
            Some(plain) => Some(plain),
            None if !again.is_empty() => self.key.open(self.number, false, &mut again),
            None => None,
        };
        out.extend_from_slice(plain.ok_or_else(|| self.damaged())?);
        Ok(())
    }

    fn damaged(&self) -> Error {
        Error::corrupt(format!("chunk {} of a sealed object is damaged, or the object was cut there", self.number))
            .on_backend(&self.backend)
    }
}
