//! Conversion of `body` of the WIT package, a stream and the future that says how it ended, to and from [`Body`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, Stream};
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, FutureConsumer, FutureReader, HasData, Lift, Source, StreamReader};

use super::bindings::tidelock::storage::types as wit;
use crate::guest_parts::GuestParts;
use crate::operation::state::OperationState;
use crate::operation::usage::{ReaderWait, Usage, Waiting};
use crate::stream::{GuestBytes, HostBody, waits_for_guest};
use tidelock_types::{Body, Error, ErrorKind, Passing, Result, Stage};

use super::convert;

/// A body as it crosses the border: a stream and how it ended.
pub(super) type WitBody = (StreamReader<u8>, FutureReader<std::result::Result<(), wit::Error>>);

/// A value that travels in a future of a guest's, once.
pub(super) struct Once<T> {
    give: Option<oneshot::Sender<T>>,
    /// Resolved when the value has come, whether or not it is taken.
    come: Option<oneshot::Sender<()>>,
}

impl<T> Once<T> {
    pub(super) fn new(come: Option<oneshot::Sender<()>>) -> (Self, oneshot::Receiver<T>) {
        let (give, take) = oneshot::channel();
        (Self { give: Some(give), come }, take)
    }
}

impl<T: Lift + Send + 'static> FutureConsumer<OperationState> for Once<T> {
    type Item = T;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<OperationState>,
        mut source: Source<'_, T>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut value = None;
        source.read(store, &mut value)?;
        if let (Some(value), Some(give)) = (value, self.give.take()) {
            let _ = give.send(value);
            let _ = self.come.take().map(|come| come.send(()));
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes a body from a guest. Bytes of the host that the guest only passed on come back natively; others are
/// read from the guest as fast as the body is read. The body ends without an error only if the guest's future does too.
/// The second value resolves when the guest's part is over and the store may be dropped. `reader` is the reading party.
pub(super) fn accept<D: HasData>(
    accessor: &Accessor<OperationState, D>,
    body: WitBody,
    reader: Waiting,
) -> wasmtime::Result<(Body, GuestParts)> {
    accessor.with(|access| accept_in(access, body, reader))
}

/// As [`accept`], where the store is at hand.
pub(super) fn accept_in(
    mut store: impl wasmtime::AsContextMut<Data = OperationState>,
    (stream, ended): WitBody,
    reader: Waiting,
) -> wasmtime::Result<(Body, GuestParts)> {
    let usage = store.as_context().data().usage.clone();
    let (over, is_over) = oneshot::channel();
    Ok(match HostBody::recover(stream, &mut store) {
        Ok((body, mut parts)) => {
            // The bytes need no guest, unless others that it makes lie below: its part is over when it has said how
            // they ended.
            let (once, how) = Once::new(Some(over));
            ended.pipe(&mut store, once)?;
            parts.read_by(reader);
            parts.add(is_over, None);
            (body.through(Ending { how: ending(how, None, usage).boxed(), waiting: None }), parts)
        }
        Err(stream) => {
            // A guest may report how its bytes ended before it has given them all, so the report is awaited after the
            // last one.
            let (once, how) = Once::new(None);
            ended.pipe(&mut store, once)?;
            let wait = Arc::new(ReaderWait::new(usage.clone(), reader));
            let (bytes, chunks) = GuestBytes::new(wait.clone());
            stream.pipe(&mut store, bytes)?;
            let ending = ending(how, Some(over), usage.clone());
            let mut parts = GuestParts::default();
            parts.add(is_over, Some(wait));
            (Body::new(waits_for_guest(chunks, usage).chain(ending), None), parts)
        }
    })
}

/// The guest's word on how a body ended, at the end of its bytes.
struct Ending {
    how: BoxStream<'static, Result<Bytes>>,
    waiting: Option<Passing>,
}

impl Stage for Ending {
    fn take(&mut self, passing: Passing) {
        self.waiting = Some(passing);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Passing> {
        match self.waiting.take() {
            Some(None) => {
                self.waiting = Some(None);
                let how = ready!(self.how.poll_next_unpin(cx));
                self.waiting = None;
                Poll::Ready(how)
            }
            Some(passing) => Poll::Ready(passing),
            None => Poll::Pending,
        }
    }
}

/// How a body ended, as a stream behind its bytes: nothing, or an error.
fn ending(
    how: oneshot::Receiver<std::result::Result<(), wit::Error>>,
    over: Option<oneshot::Sender<()>>,
    usage: Arc<Usage>,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let ending = async move {
        let how = how.await;
        let _ = over.map(|over| over.send(()));
        match how {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(convert::error_in(error))),
            Err(_) => Some(Err(gone())),
        }
    };
    let ending = Box::pin(futures::stream::once(ending).filter_map(std::future::ready));
    waits_for_guest(ending, usage)
}

/// The end of bytes whose guest was dropped. The operation has the real reason.
fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the adapter ended without reporting how its bytes ended")
}

/// Passes a body to a guest. `parts` is what it needs of the guest itself.
pub(super) fn give<D: HasData>(
    accessor: &Accessor<OperationState, D>,
    body: Body,
    parts: GuestParts,
) -> wasmtime::Result<WitBody> {
    accessor.with(|access| give_in(access, body, parts))
}

/// As [`give`], with access to the store.
pub(super) fn give_in(
    mut store: impl wasmtime::AsContextMut<Data = OperationState>,
    body: Body,
    parts: GuestParts,
) -> wasmtime::Result<WitBody> {
    let (host, ended) = HostBody::new(body, parts);
    let stream = StreamReader::new(&mut store, host)?;
    let future = FutureReader::new(&mut store, async move {
        Ok::<_, wasmtime::Error>(match ended.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(convert::error_out(&error)),
            Err(_) => Err(wit::Error::Other("the stream was dropped before its end".into())),
        })
    })?;
    Ok((stream, future))
}

/// Returns the outcome of a host call as the guest gets it.
pub(super) fn outcome<T>(result: Result<T>) -> std::result::Result<T, wit::Error> {
    result.map_err(|error| convert::error_out(&error))
}
