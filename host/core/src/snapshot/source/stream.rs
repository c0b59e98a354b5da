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
}

impl StreamSource {
    /// A reader, with its name for errors, for example `standard input`.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, name: impl Into<String>) -> Self {
        Self { reader: Box::new(reader), name: name.into(), size: None }
    }

    /// Returns a source with an announced size. Fewer bytes are an error, never a shorter image; further ones
    /// are not read.
    #[must_use]
    pub fn of_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
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
        let mut bytes = BytesMut::with_capacity(SEGMENT);
        while bytes.len() < SEGMENT {
            let room = SEGMENT - bytes.len();
            let read = self.reader.read_buf(&mut (&mut bytes).limit(room)).await;
            if read.map_err(|error| Error::io(format!("reading {}", self.name), error))? == 0 {
                break;
            }
        }
        Ok(bytes.freeze())
    }
}
