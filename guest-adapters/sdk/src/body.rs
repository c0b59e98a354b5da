//! Streams of bytes: [`Data`] is the input of a store, [`Body`] any other stream.
//!
//! Guarantees for adapters:
//!
//! - A stream of the host is handed on as a handle. [`Data::forward`] and a `Body` that a capability gave never put a
//!   byte into the adapter's memory.
//! - The end of a stream is not success. A `Body` ends well only when its writer says so; one that is dropped half-way,
//!   by an early return or a panic, ends in an error.
//! - Nothing is read without a limit.
//!
//! A component may not read a future of its own making if that carries more than a number. So the ending of a body that
//! was made here stays an ordinary value of the adapter's until the body is handed to the host.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use wit_bindgen::rt::async_support::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};

use crate::Error;
use crate::bindings::{wit_future, wit_stream};

/// How much is asked for at once when an adapter reads for itself.
const CHUNK: usize = 64 << 10;

/// The result of a body.
type Ending = Result<(), Error>;

/// The bytes that `store` and `incremental_update` are given.
///
/// They have no ending of their own: when their source fails, the host drops the adapter's whole instance. So an end
/// that is seen is the real end.
#[derive(Debug)]
pub struct Data {
    stream: Bytes,
}

impl Data {
    /// Returns the bytes as a body, unread, at no cost per byte.
    pub fn forward(self) -> Body {
        Body { stream: self.stream, end: End::Sound }
    }

    /// Returns all bytes, of objects that are known to be small. Fails with `invalid` if there are more than `limit`.
    pub async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let (bytes, complete) = self.stream.up_to(limit).await;
        if complete { Ok(bytes) } else { Err(too_long()) }
    }

    /// Returns the next bytes, at most 64 KiB; `None` at the end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.stream.next().await
    }
}

impl From<StreamReader<u8>> for Data {
    fn from(stream: StreamReader<u8>) -> Self {
        Self { stream: stream.into() }
    }
}

/// A stream of bytes, with a result at its end.
#[derive(Debug)]
pub struct Body {
    stream: Bytes,
    end: End,
}

/// The source of a body's result.
#[derive(Debug)]
enum End {
    /// There is none: an end that is seen is the real one.
    Sound,
    /// The host.
    Host(FutureReader<Ending>),
    /// This adapter, in a writer of its own.
    Local(Rc<Slot>),
    /// This adapter, once it has looked at what passed.
    Checked(Checked),
}

/// A result that is still to be computed.
struct Checked(Pin<Box<dyn Future<Output = Ending>>>);

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checked")
    }
}

/// The result of a local writer, on its way to the reader.
#[derive(Debug, Default)]
struct Slot {
    /// The result, if it comes before the reader asks.
    result: RefCell<Option<Ending>>,
    /// The future to resolve, if the host has asked.
    ask: RefCell<Option<FutureWriter<Ending>>>,
    /// The local task that waits for it.
    waiting: RefCell<Option<std::task::Waker>>,
}

impl Slot {
    /// Waits for the writer's result.
    async fn left(&self) -> Ending {
        std::future::poll_fn(|context| match self.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                self.waiting.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Body {
    /// Returns a body of these bytes.
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
        let slot = Rc::new(Slot::default());
        let told = Rc::clone(&slot);
        wit_bindgen::spawn_local(async move {
            let mut writer = BodyWriter { stream: bytes };
            let result = write(&mut writer).await;
            let ask = told.ask.take();
            match ask {
                Some(ask) => {
                    drop(writer);
                    // It fails only if the reader has gone, and then the result is not needed.
                    let _ = ask.write(result).await;
                }
                // The writer is dropped after this, so a reader that sees the end of the stream finds the result.
                None => {
                    told.result.replace(Some(result));
                    if let Some(waker) = told.waiting.take() {
                        waker.wake();
                    }
                }
            }
        });
        Self { stream: stream.into(), end: End::Local(slot) }
    }

    /// The same bytes, unread, that end well only if they do of themselves and `check` finds nothing wrong with them:
    /// for bytes that pass a tap, whose digests are known after the last one. `check` is asked after that.
    #[must_use]
    pub fn checked<F>(self, check: F) -> Self
    where
        F: Future<Output = Result<(), Error>> + 'static,
    {
        let Self { stream, end } = self;
        let ending = async move {
            match end {
                End::Sound => {}
                End::Host(ended) => ended.await?,
                End::Local(slot) => slot.left().await?,
                End::Checked(ending) => ending.0.await?,
            }
            check.await
        };
        Self { stream, end: End::Checked(Checked(Box::pin(ending))) }
    }

    /// Returns all bytes, of replies that are known to be small. Fails with `invalid` if there are more than `limit`, and
    /// with the body's own error.
    pub async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let (bytes, complete) = self.stream.up_to(limit).await;
        if !complete {
            return Err(too_long());
        }
        self.finish().await.map(|()| bytes)
    }

    /// Returns the first bytes, whether or not there are more: for reasons and the like, never for objects.
    pub async fn read_at_most(mut self, limit: usize) -> Vec<u8> {
        self.stream.up_to(limit).await.0
    }

    /// Returns the next bytes, at most 64 KiB; `None` at the end. Then [`Body::finish`] tells whether the stream is complete.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.stream.next().await
    }

    /// Returns the result of the body. Call it after the last byte.
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.stream);
        match self.end {
            End::Sound => Ok(()),
            End::Host(ended) => ended.await,
            End::Local(slot) => slot.result.take().unwrap_or_else(unfinished),
            End::Checked(ending) => ending.0.await,
        }
    }

    /// Returns the handles, for the bindings.
    pub fn into_parts(self) -> (StreamReader<u8>, FutureReader<Ending>) {
        let ended = match self.end {
            // Dropping the writer makes the future resolve with the default.
            End::Sound => wit_future::new(|| Ok(())).1,
            End::Host(ended) => ended,
            End::Local(slot) => {
                let (ask, ended) = wit_future::new(unfinished);
                match slot.result.take() {
                    Some(result) => wit_bindgen::spawn_local(async move {
                        let _ = ask.write(result).await;
                    }),
                    None => drop(slot.ask.replace(Some(ask))),
                }
                ended
            }
            End::Checked(ending) => {
                let (ask, ended) = wit_future::new(unfinished);
                wit_bindgen::spawn_local(async move {
                    let _ = ask.write(ending.0.await).await;
                });
                ended
            }
        };
        (self.stream.into_reader(), ended)
    }
}

/// The result of a writer that was dropped before its end.
fn unfinished() -> Ending {
    Err(Error::other("the adapter stopped before the end of the bytes"))
}

impl From<(StreamReader<u8>, FutureReader<Ending>)> for Body {
    fn from((stream, ended): (StreamReader<u8>, FutureReader<Ending>)) -> Self {
        Self { stream: stream.into(), end: End::Host(ended) }
    }
}

impl From<Body> for (StreamReader<u8>, FutureReader<Ending>) {
    fn from(body: Body) -> Self {
        body.into_parts()
    }
}

/// The writer of [`Body::from_writer`].
#[derive(Debug)]
pub struct BodyWriter {
    stream: StreamWriter<u8>,
}

impl BodyWriter {
    /// Writes bytes, and returns when the reader has taken them all. Fails if the reader has gone.
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

/// A stream that remembers whether its end was seen: such a one cannot be handed on any more.
#[derive(Debug)]
struct Bytes {
    stream: StreamReader<u8>,
    over: bool,
}

impl Bytes {
    /// Some bytes, at most `room`, which is not 0; none only at the end.
    async fn read(&mut self, room: usize) -> Vec<u8> {
        while !self.over {
            let (status, bytes) = self.stream.read(Vec::with_capacity(room.min(CHUNK))).await;
            self.over = !matches!(status, StreamResult::Complete(_));
            if !bytes.is_empty() {
                return bytes;
            }
        }
        Vec::new()
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.read(CHUNK).await;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Up to `limit` bytes, and whether the stream ended with them.
    async fn up_to(&mut self, limit: usize) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        // One byte more than the limit tells a stream that fits from one that does not.
        while all.len() <= limit {
            let bytes = self.read((limit - all.len()).saturating_add(1)).await;
            if bytes.is_empty() {
                return (all, true);
            }
            all.extend_from_slice(&bytes);
        }
        all.truncate(limit);
        (all, false)
    }

    /// What is left, for the host.
    fn into_reader(self) -> StreamReader<u8> {
        // An empty stream of its own stands for one whose end was seen.
        if self.over { wit_stream::new().1 } else { self.stream }
    }
}

impl From<StreamReader<u8>> for Bytes {
    fn from(stream: StreamReader<u8>) -> Self {
        Self { stream, over: false }
    }
}

fn too_long() -> Error {
    Error::invalid("there are more bytes than the adapter takes at once")
}
