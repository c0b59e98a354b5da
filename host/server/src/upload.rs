//! Request bodies: images, deltas and components.
//!
//! A body is complete only if HTTP says so: all of an announced length, or the last chunk of a chunked one. Any other
//! end is an error of the stream, and a stream that failed is never stored. A client that stalls while its body is read
//! is disconnected; time in which the body is not read does not count.
//!
//! A component is received into a file and read into memory when it is its backend's turn (`adapters.rs`), so that clients
//! who are slow, or swaps that take long, fill no memory and hold nobody off.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRAILER};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http_body::Body as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_util::io::StreamReader;

use super::problem::Problem;
use super::room::Share;
use super::shared::Shared;
use tidelock::runtime::MAX_COMPONENT_BYTES;
use tidelock::snapshot::StreamSource;
use tidelock::types::{Error, Result, blocking, format_bytes};
use tidelock::{Delta, Source};

/// Bytes that a client must send within the idle time: single bytes are a stall too.
const PACE: usize = 1 << 10;

/// The name of the body in errors.
const NAME: &str = "the request body";

/// The name of what a component is received into.
const STAGED: &str = "a temporary copy of the component";

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

/// A component that has arrived: in a file without a name, and with its share of the bytes of uploads until it is dropped.
pub(super) struct StagedComponent {
    file: File,
    len: u64,
    _share: Arc<Share>,
}

impl StagedComponent {
    /// Reads it into memory.
    pub(super) async fn read(self) -> Result<Vec<u8>> {
        blocking(move || {
            let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
            self.file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io(STAGED, error))?;
            Ok(bytes)
        })
        .await
    }
}

/// Receives a component into a file, up to its maximum size. However slow its client is, it takes neither memory nor the
/// turn of another.
pub(super) async fn component(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<StagedComponent, Problem> {
    plain(headers)?;
    let too_large = || {
        let what = format!("a component has at most {}", format_bytes(MAX_COMPONENT_BYTES));
        Problem::from(Error::invalid(what)).status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if body.size_hint().lower() > MAX_COMPONENT_BYTES {
        return Err(too_large());
    }
    let size = body.size_hint().exact();
    let (mut pieces, share) = counted(shared, body, size)?;
    let host = shared.host.clone();
    let mut file = tokio::fs::File::from_std(blocking(move || host.temporary_file()).await?);
    let staging = |error| Error::io(STAGED, error);
    let mut len = 0;
    while let Some(piece) = pieces.next().await {
        let piece = match (piece, share.refusal()) {
            (_, Some(refusal)) => return Err(refusal),
            (piece, None) => piece.map_err(|error| Error::io(format_args!("reading {NAME}"), error))?,
        };
        len += piece.len() as u64;
        if len > MAX_COMPONENT_BYTES {
            return Err(too_large());
        }
        file.write_all(&piece).await.map_err(staging)?;
    }
    file.flush().await.map_err(staging)?;
    Ok(StagedComponent { file: file.into_std().await, len, _share: share })
}

/// Headers that ask for a check or a condition which is not made here: they are refused, never passed over.
const UNCHECKED: [&str; 7] =
    ["content-md5", "digest", "content-digest", "repr-digest", "if-match", "if-none-match", "if-unmodified-since"];
/// Those of S3: checksums of the body, and of its parts.
const CHECKSUMS: [&str; 3] = ["x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-content-sha256"];

/// Returns whether a header asks for a check or a condition which is not made here.
fn is_unchecked(name: &str) -> bool {
    UNCHECKED.contains(&name) || CHECKSUMS.iter().any(|checksum| name.starts_with(checksum))
}

/// The elements of all headers of a name, each of which may be a list.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> + '_ {
    headers.get_all(name).iter().flat_map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.split(',').map(|element| element.trim().to_owned()).collect::<Vec<_>>()
    })
}

/// Returns whether a body of this type is a form: what `curl -F` and `curl -d` send, an envelope or an image without its
/// line ends.
fn is_form(kind: &str) -> bool {
    kind.starts_with("multipart/") || kind.split(';').next().map(str::trim) == Some("application/x-www-form-urlencoded")
}

/// Refuses bodies that mean something else than their bytes, and those that come with what is not checked here.
fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    if elements(headers, CONTENT_ENCODING).any(|encoding| !encoding.is_empty() && encoding != "identity") {
        let error = Error::unsupported("the body has a Content-Encoding").hint("send the bytes without an encoding");
        return Err(Problem::from(error).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if elements(headers, CONTENT_TYPE).any(|kind| is_form(&kind)) {
        let error = Error::unsupported("the body is a form").hint("send the bytes themselves: `curl -T FILE URL`");
        return Err(Problem::from(error).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let names = headers.keys().map(|name| name.as_str().to_owned());
    if let Some(name) = names.chain(elements(headers, TRAILER)).find(|name| is_unchecked(name)) {
        let error = Error::unsupported(format!("the header `{name}` is not supported"))
            .hint("leave it out; the id in the answer tells which bytes were stored");
        return Err(Problem::from(error).status(StatusCode::NOT_IMPLEMENTED));
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
    io::Error::new(io::ErrorKind::InvalidInput, format!("it ended early: {cause}"))
}
