//! Pipes, sockets and standard input: bytes that come once and end when they end.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::segment::{SEGMENT, segment_digest};
use super::{AHEAD, Piece, Progress, Reading, Tee};
use crate::types::{Body, Error, Result, blocking};

/// Bytes that can be read once.
pub struct StreamSource {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    name: String,
    size: Option<u64>,
    /// Whether no bytes at all are an image.
    may_be_empty: bool,
    /// What was read before the body was asked for.
    first: Option<Bytes>,
}

impl StreamSource {
    /// A reader, with its name for errors, for example `standard input`. If it has no bytes at all, that is an error: see
    /// [`Self::allow_empty`].
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, name: impl Into<String>) -> Self {
        Self { reader: Box::new(reader), name: name.into(), size: None, may_be_empty: false, first: None }
    }

    /// Returns a source with an announced size. Fewer bytes are an error, never a shorter image; further ones
    /// are not read.
    #[must_use]
    pub fn of_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Returns a source for which no bytes at all are an image of no bytes. Otherwise they are one only if a size of 0 was
    /// announced: a program that fails before its first byte looks the same to whoever reads its output.
    #[must_use]
    pub fn allow_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// Waits for the first segment.
    pub(super) async fn started(mut self) -> Result<Self> {
        self.first = Some(self.segment().await?);
        Ok(self)
    }

    /// The number of bytes, if it was announced.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns the bytes in segments, and their identity. Runs on a Tokio runtime.
    pub fn read(self, progress: Option<Progress>) -> (Body, Reading) {
        let size = self.size;
        let filled = stream::unfold(Some(self), |source| async move {
            let mut source = source?;
            match source.segment().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) if bytes.len() < SEGMENT => Some((Ok(bytes), None)),
                Ok(bytes) => Some((Ok(bytes), Some(source))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let hashed = filled
            .map(|bytes: Result<Bytes>| async move {
                let bytes = bytes?;
                blocking(move || Ok(Piece { digest: segment_digest(&bytes), bytes })).await
            })
            .buffered(AHEAD);
        let (body, reading) = Tee::start(hashed, None, size, progress);
        (Body::new(body, size), reading)
    }

    /// The next segment; short or empty at the end.
    async fn segment(&mut self) -> Result<Bytes> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity(SEGMENT);
        while bytes.len() < SEGMENT {
            let room = SEGMENT - bytes.len();
            let read = self.reader.read_buf(&mut (&mut bytes).limit(room)).await;
            if read.map_err(|error| Error::io(format!("reading {}", self.name), error))? == 0 {
                break;
            }
        }
        // After the first segment, nothing is the end.
        let may_be_empty = std::mem::replace(&mut self.may_be_empty, true) || self.size.is_some();
        if bytes.is_empty() && !may_be_empty {
            return Err(Error::invalid(format!("{} has no bytes", self.name))
                .hint("check the program that writes it; an image of no bytes has to be allowed (--allow-empty)"));
        }
        Ok(bytes.freeze())
    }
}
