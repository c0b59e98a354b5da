//! Request bodies: images, deltas and components.
//!
//! A body is complete only if HTTP says so: all of an announced length, or the last chunk of a chunked one. Any other
//! end is an error of the stream, and a stream that failed is never stored. A client that stalls while its body is read
//! is disconnected; time in which the body is not read does not count.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http_body::Body as _;
use tokio::time::Instant;
use tokio_util::io::StreamReader;

use super::problem::Problem;
use super::room::Share;
use super::shared::Shared;
use tidelock::runtime::MAX_COMPONENT_BYTES;
use tidelock::snapshot::StreamSource;
use tidelock::types::{Error, ErrorKind, Result, format_bytes};
use tidelock::{Delta, Source};

/// Bytes that a client must send within the idle time: single bytes are a stall too.
const PACE: usize = 1 << 10;

/// The name of the body in errors.
const NAME: &str = "the request body";

/// A body as an image, and its share of the bytes of uploads. Without a length and without bytes it is one only if that is
/// allowed: so comes also what a program sends that failed.
pub(super) fn image(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    allow_empty: bool,
) -> Result<(Source, Arc<Share>), Problem> {
    plain(headers)?;
    let announced = headers.contains_key(CONTENT_LENGTH);
    let size = body.size_hint().exact().filter(|_| announced);
    let (pieces, share) = counted(shared, body, size)?;
    let source = StreamSource::new(StreamReader::new(pieces), NAME);
    let source = match size {
        Some(size) => source.of_size(size),
        None if allow_empty => source.allow_empty(),
        None => source,
    };
    Ok((Source::Stream(source), share))
}

/// Returns a body as the output of `zstd --patch-from`, and its share of the bytes of uploads.
pub(super) fn delta(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<(Delta, Arc<Share>), Problem> {
    plain(headers)?;
    let size = body.size_hint().exact();
    let (pieces, share) = counted(shared, body, size)?;
    let pieces = pieces.map(|piece| piece.map_err(|error| Error::io(format_args!("reading {NAME}"), error)));
    Ok((Delta::ZstdBody(tidelock::Body::new(pieces, None)), share))
}

/// Reads a component into memory, up to its maximum size. Waits while too many others are in memory.
pub(super) async fn component(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    plain(headers)?;
    let too_large = || {
        let what = format!("a component has at most {}", format_bytes(MAX_COMPONENT_BYTES));
        Problem::from(Error::invalid(what)).status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if body.size_hint().lower() > MAX_COMPONENT_BYTES {
        return Err(too_large());
    }
    let room = shared.components.acquire().await;
    let _room = room.map_err(|_| Error::new(ErrorKind::Cancelled, "the daemon is stopping"))?;
    let mut pieces = pieces(body, shared.idle).boxed();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Error::io(format_args!("reading {NAME}"), error))?;
        if (bytes.len() + piece.len()) as u64 > MAX_COMPONENT_BYTES {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Refuses bodies that mean something else than their bytes.
fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let error = Error::unsupported("the body has a Content-Encoding").hint("send the bytes without an encoding");
        return Err(Problem::from(error).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Error::invalid("a range of a snapshot cannot be replaced").hint("send the whole image").into());
    }
    Ok(())
}

/// The bytes of a body. They are taken of the room as they come: who announces many has none of it yet. Only what can
/// never fit is refused at once.
fn counted(
    shared: &Shared,
    body: Body,
    size: Option<u64>,
) -> Result<(BoxStream<'static, io::Result<Bytes>>, Arc<Share>), Problem> {
    let share = shared.uploads.share();
    if !share.could_take(size.unwrap_or(0))
        && let Some(problem) = share.refusal()
    {
        return Err(problem);
    }
    let (received, held) = (shared.metrics.received(), share.clone());
    let counted = pieces(body, shared.idle).map(move |piece| {
        let piece = piece?;
        received.inc_by(piece.len() as u64);
        if !held.take(piece.len() as u64) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "there is no room for further bytes"));
        }
        Ok(piece)
    });
    Ok((counted.boxed(), share))
}

/// A body and the client's patience account: how long it may still be waited for until it has sent [`PACE`] more.
struct Incoming {
    stream: BodyDataStream,
    left: Duration,
    since: usize,
}

fn pieces(body: Body, idle: Duration) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let start = Incoming { stream: body.into_data_stream(), left: idle, since: 0 };
    unfold(Some(start), move |incoming| async move {
        let mut incoming = incoming?;
        let waited = Instant::now();
        match tokio::time::timeout(incoming.left, incoming.stream.next()).await {
            Ok(Some(Ok(piece))) => {
                incoming.since += piece.len();
                if incoming.since >= PACE {
                    (incoming.left, incoming.since) = (idle, 0);
                } else {
                    incoming.left = incoming.left.saturating_sub(waited.elapsed());
                }
                Some((Ok(piece), Some(incoming)))
            }
            Ok(Some(Err(error))) => Some((Err(broken(&error)), None)),
            Ok(None) => None,
            Err(_) => {
                let what = format!("almost no bytes received for {} s", idle.as_secs_f32());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, what)), None))
            }
        }
    })
}

/// The innermost cause is the real one; outer ones only say "error reading a body".
fn broken(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("it ended early: {cause}"))
}
