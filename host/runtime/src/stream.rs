//! Bytes between the host and a guest.
//!
//! [`HostBody`] is a host body as a guest sees it, a `stream<u8>`. When the guest returns that stream to the host
//! unread, [`HostBody::recover`] returns the body itself, and its bytes never enter guest memory. [`GuestBytes`] is the
//! opposite: bytes from a guest become chunks in a short queue. Both count the bytes that cross guest memory.
//!
//! [`input`] wraps the argument of a store: when its source fails, the operation is notified and the stream neither ends
//! nor yields an error, so that no adapter can mistake a broken source for a short object.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::stream::Stream;
use tokio::sync::oneshot;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamReader, StreamResult, VecBuffer};
use wasmtime::{AsContextMut as _, StoreContextMut};

use super::body_handle::CHUNK;
use super::guest_parts::GuestParts;
use super::operation::state::OperationState;
use super::operation::usage::{ReaderWait, Usage, Wait, Waiting};
use tidelock_types::{Body, Charge, Error, LimitExceeded, Result};

/// Chunks that wait between a guest and the reader of its bytes.
const QUEUE: usize = 1;

/// A host body as a guest sees it.
pub(super) struct HostBody {
    body: Body,
    /// The rest of a chunk that did not fit the guest's buffer.
    rest: Bytes,
    /// Resolves the stream's future with how it ended.
    end: Option<oneshot::Sender<Result<()>>>,
    /// Whether the bytes that the guest reads count as read from a backend.
    reply: bool,
    /// The parts of the guest that the bytes need: a body of the host's may depend on bytes that the guest makes.
    parts: GuestParts,
}

impl HostBody {
    /// The stream's side and the future's side of a body.
    pub(super) fn new(body: Body, parts: GuestParts) -> (Self, oneshot::Receiver<Result<()>>) {
        let (end, ended) = oneshot::channel();
        (Self { body, rest: Bytes::new(), end: Some(end), reply: true, parts }, ended)
    }

    /// A body whose failure cannot be reported to the guest, because its source is an [`input`].
    pub(super) fn without_end(body: Body) -> Self {
        Self { body, rest: Bytes::new(), end: None, reply: false, parts: GuestParts::default() }
    }

    /// The body behind a stream that the host made and a guest handed back, with what it needs of the guest, or the stream
    /// again if a guest made it.
    pub(super) fn recover(
        stream: StreamReader<u8>,
        store: impl wasmtime::AsContextMut,
    ) -> std::result::Result<(Body, GuestParts), StreamReader<u8>> {
        stream.try_into::<HostBody>(store).map(HostBody::into_body)
    }

    fn into_body(self) -> (Body, GuestParts) {
        // From here on errors travel in the body itself.
        if let Some(end) = self.end {
            let _ = end.send(Ok(()));
        }
        (self.body.unread(self.rest), self.parts)
    }

    fn finish(&mut self, how: Result<()>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some(end) = self.end.take() {
            let _ = end.send(how);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl StreamProducer<OperationState> for HostBody {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, OperationState>,
        destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        while self.rest.is_empty() {
            match self.body.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(chunk))) => self.rest = chunk,
                Poll::Ready(Some(Err(error))) => return self.finish(Err(error)),
                Poll::Ready(None) => return self.finish(Ok(())),
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let capacity = self.rest.len().min(CHUNK);
        let reply = self.reply;
        let mut direct = destination.as_direct(store.as_context_mut(), capacity);
        let room = direct.remaining();
        let count = room.len().min(self.rest.len());
        room[..count].copy_from_slice(&self.rest[..count]);
        direct.mark_written(count);
        store.data().crossed(count);
        if reply {
            store.data().usage.reads(count)?;
        }
        self.rest.advance(count);
        Poll::Ready(Ok(StreamResult::Completed))
    }

    fn try_into(me: Pin<Box<Self>>, wanted: TypeId) -> std::result::Result<Box<dyn Any>, Pin<Box<Self>>> {
        if wanted == TypeId::of::<Self>() { Ok(Pin::into_inner(me) as Box<Self>) } else { Err(me) }
    }
}

/// The host's end of a stream that a guest makes.
pub(super) struct GuestBytes {
    queue: mpsc::Sender<(Bytes, Charge)>,
    reader: Arc<ReaderWait>,
}

impl GuestBytes {
    /// Returns the consumer, and its chunks. They end when the stream ends: the stream's future says whether that was the
    /// end of the bytes. `reader` is the wait for the party that takes chunks.
    pub(super) fn new(reader: Arc<ReaderWait>) -> (Self, impl Stream<Item = Result<Bytes>> + Send + Unpin + use<>) {
        let (queue, chunks) = mpsc::channel(QUEUE);
        // What was taken is the reader's.
        (Self { queue, reader }, chunks.map(|(bytes, _)| Ok(bytes)))
    }
}

impl Drop for GuestBytes {
    fn drop(&mut self) {
        self.reader.set(false);
    }
}

impl StreamConsumer<OperationState> for GuestBytes {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<OperationState>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        match self.queue.poll_ready(context) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => {
                self.reader.set(true);
                return Poll::Pending;
            }
            // The reader is gone.
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => self.reader.set(false),
        }
        let mut direct = source.as_direct(store.as_context_mut());
        let ready = direct.remaining();
        let count = ready.len().min(CHUNK);
        let chunk = Bytes::copy_from_slice(&ready[..count]);
        direct.mark_read(count);
        store.data().crossed(count);
        let held = Charge::bytes(&store.data().account(), count as u64)?;
        if count > 0 && self.queue.start_send((chunk, held)).is_err() {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The operation's state of its input.
pub(super) struct InputWatch {
    seen: AtomicU64,
    ended: AtomicBool,
    size: Option<u64>,
}

impl InputWatch {
    /// Returns whether every byte was taken, as far as that can be known.
    pub(super) fn drained(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.size == Some(self.seen())
    }

    /// The bytes taken so far.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }
}

/// The bytes of a store on their way to an adapter. If their source fails, `failed` gets the error and the stream stays
/// pending for ever: the operation must then be dropped.
pub(super) fn input(body: Body, usage: Arc<Usage>) -> (Body, Arc<InputWatch>, oneshot::Receiver<Error>) {
    let size = body.remaining();
    let watch = Arc::new(InputWatch { seen: AtomicU64::new(0), ended: AtomicBool::new(false), size });
    let (fail, failed) = oneshot::channel();
    let stream = Input {
        body,
        watch: watch.clone(),
        fail: Some(fail),
        source: Wait::new(usage.clone(), Waiting::Outside),
        usage,
    };
    (Body::new(stream, size), watch, failed)
}

struct Input {
    body: Body,
    watch: Arc<InputWatch>,
    fail: Option<oneshot::Sender<Error>>,
    source: Wait,
    usage: Arc<Usage>,
}

impl Stream for Input {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.fail.is_none() {
            return Poll::Pending;
        }
        let polled = self.body.poll_next_unpin(context);
        self.source.set(polled.is_pending());
        match polled {
            Poll::Ready(Some(Ok(chunk))) => {
                self.usage.of_object(chunk.len());
                self.watch.seen.fetch_add(chunk.len() as u64, Ordering::AcqRel);
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(fail) = self.fail.take() {
                    let _ = fail.send(error);
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.watch.ended.store(true, Ordering::Release);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Counts the passing bytes, and ends with the error of a limit that they exceed.
pub(super) fn counted<F>(body: Body, mut count: F) -> Body
where
    F: FnMut(usize) -> std::result::Result<(), LimitExceeded> + Send + 'static,
{
    let size = body.remaining();
    let chunks = body.map(move |chunk| {
        let chunk = chunk?;
        count(chunk.len()).map_err(|exceeded| exceeded.error())?;
        Ok(chunk)
    });
    Body::new(chunks, size)
}

/// Marks the time in which a stream waits for the guest.
pub(super) fn waits_for_guest<S: Stream + Unpin>(stream: S, usage: Arc<Usage>) -> impl Stream<Item = S::Item> {
    let (mut stream, mut wait) = (stream, Wait::new(usage, Waiting::Guest));
    futures::stream::poll_fn(move |context| {
        let polled = stream.poll_next_unpin(context);
        wait.set(polled.is_pending());
        polled
    })
}
