//! Bytes on their way: [`Data`] comes in, [`Body`] goes anywhere.
//!
//! Three things are kept true here so that no adapter has to think of them:
//!
//! - A stream of the host is handed on as a handle. [`Data::forward`] and a `Body` that a capability gave never put a
//!   byte into the adapter's memory.
//! - The end of a stream is not success. A `Body` ends well only when its writer says so; one that is dropped half-way,
//!   by an early return or a panic, ends in an error.
//! - Nothing is read without a limit.

use wit_bindgen::rt::async_support::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};

use crate::Error;
use crate::bindings::{wit_future, wit_stream};

/// How much is asked for at once when an adapter reads for itself.
const CHUNK: usize = 64 << 10;

/// How a body ended.
type Ending = Result<(), Error>;

/// The bytes that `store` and `incremental_update` are given.
///
/// They have no ending of their own: when their source fails, the host drops the adapter's whole instance. So an end
/// that is seen is the real end.
#[derive(Debug)]
pub struct Data {
    stream: StreamReader<u8>,
}

impl Data {
    /// Hands the bytes on unread, at no cost per byte.
    pub fn forward(self) -> Body {
        // Dropping the writer makes the future resolve with the default.
        let (_, ended) = wit_future::new(|| Ok(()));
        Body { stream: self.stream, ended }
    }

    /// All bytes, for objects that are known to be small. `invalid` if there are more than `limit`.
    pub async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let (bytes, complete) = read_up_to(&mut self.stream, limit).await;
        if complete { Ok(bytes) } else { Err(too_long()) }
    }

    /// The next bytes, at most 64 KiB; `None` at the end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        next_chunk(&mut self.stream).await
    }
}

impl From<StreamReader<u8>> for Data {
    fn from(stream: StreamReader<u8>) -> Self {
        Self { stream }
    }
}

/// Bytes, and how they ended.
#[derive(Debug)]
pub struct Body {
    stream: StreamReader<u8>,
    ended: FutureReader<Ending>,
}

impl Body {
    /// A body of the adapter's own bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::from_writer(async move |writer| writer.write(bytes).await)
    }

    /// A body that is made while it is read. It ends as `write` ends: well if that returns `Ok`, with its error if not,
    /// and with an error of its own if `write` never returns.
    pub fn from_writer<F>(write: F) -> Self
    where
        F: AsyncFnOnce(&mut BodyWriter) -> Ending + 'static,
    {
        let (bytes, stream) = wit_stream::new();
        let (ending, ended): (FutureWriter<Ending>, _) =
            wit_future::new(|| Err(Error::other("the adapter stopped before the end of the bytes")));
        wit_bindgen::spawn_local(async move {
            let mut writer = BodyWriter { stream: bytes };
            let result = write(&mut writer).await;
            drop(writer);
            // It fails only if the reader has gone, and then nobody wants to know.
            let _ = ending.write(result).await;
        });
        Self { stream, ended }
    }

    /// All bytes, for replies that are known to be small. `invalid` if there are more than `limit`, and the body's own
    /// error if it broke off.
    pub async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let (bytes, complete) = read_up_to(&mut self.stream, limit).await;
        if !complete {
            return Err(too_long());
        }
        self.ended.await.map(|()| bytes)
    }

    /// The first bytes, however the body goes on: for reasons and the like, never for objects.
    pub async fn read_at_most(mut self, limit: usize) -> Vec<u8> {
        read_up_to(&mut self.stream, limit).await.0
    }

    /// The next bytes, at most 64 KiB. `None` at the end; then ask [`Body::finish`] whether it was the end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        next_chunk(&mut self.stream).await
    }

    /// How the body ended. To be asked after the last byte.
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.stream);
        self.ended.await
    }

    /// The handles, as the bindings want them.
    pub fn into_parts(self) -> (StreamReader<u8>, FutureReader<Ending>) {
        (self.stream, self.ended)
    }
}

impl From<(StreamReader<u8>, FutureReader<Ending>)> for Body {
    fn from((stream, ended): (StreamReader<u8>, FutureReader<Ending>)) -> Self {
        Self { stream, ended }
    }
}

impl From<Body> for (StreamReader<u8>, FutureReader<Ending>) {
    fn from(body: Body) -> Self {
        body.into_parts()
    }
}

/// Where the bytes of [`Body::from_writer`] go.
#[derive(Debug)]
pub struct BodyWriter {
    stream: StreamWriter<u8>,
}

impl BodyWriter {
    /// Gives bytes to the reader and returns when it has taken them all; an error if the reader has gone.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        let left = self.stream.write_all(bytes).await;
        if left.is_empty() { Ok(()) } else { Err(Error::other("the reader went away before the end of the bytes")) }
    }

    /// Copies another body to its end, and fails as it fails. The bytes cross the adapter's memory: a body that is sent
    /// as it is should be handed on instead.
    pub async fn copy(&mut self, mut body: Body) -> Result<(), Error> {
        while let Some(bytes) = body.next().await {
            self.write(bytes).await?;
        }
        body.finish().await
    }
}

/// Up to `limit` bytes, and whether the stream ended with them.
async fn read_up_to(stream: &mut StreamReader<u8>, limit: usize) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        // One byte more than the limit tells a stream that fits from one that does not.
        let room = limit.saturating_add(1).saturating_sub(all.len());
        if room == 0 {
            all.truncate(limit);
            return (all, false);
        }
        let (status, bytes) = stream.read(Vec::with_capacity(room.min(CHUNK))).await;
        all.extend_from_slice(&bytes);
        if !matches!(status, StreamResult::Complete(_)) {
            return (all, true);
        }
    }
}

async fn next_chunk(stream: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    loop {
        let (status, bytes) = stream.read(Vec::with_capacity(CHUNK)).await;
        match status {
            StreamResult::Complete(_) if bytes.is_empty() => {}
            StreamResult::Complete(_) => return Some(bytes),
            StreamResult::Dropped | StreamResult::Cancelled => return None,
        }
    }
}

fn too_long() -> Error {
    Error::invalid("there are more bytes than the adapter takes at once")
}
