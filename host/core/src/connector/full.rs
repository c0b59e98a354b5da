//! An image that is encoded as a full pack while it is sent: nothing of it is written to this machine but the digests of its pages,
//! which the next update needs.
//!
//! What the pack is follows from the image, from the profile and from whether the image can be read again: of a stream, equal pages are
//! found only as far as compression does. It is known at the end of the reading, as the identity is. An attempt that begins again
//! encodes again, and so does a repair of one that others need (`jobs/remake.rs`). An upload that ends takes its encoder with it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::object_bytes::{Layout, ObjectBytes, again};
use super::packs::{EncoderRoom, needs_of};
use super::{Host, StoreOptions};
use crate::catalogue::{NewPack, Placement, PlacementState};
use crate::config::HOT;
use crate::snapshot::pages::{
    Encoded, FileImage, Image, Options, Profile, encode_full_with, encode_segments, full_memory,
};
use crate::snapshot::{Identity, Progress, Reading, SEGMENT, Source};
use crate::types::{Body, Encoding, Error, ErrorKind, Result, blocking};

/// Pieces of the pack that wait to be sent.
const READY: usize = 4;

/// The most threads of one encoder.
const MOST_THREADS: usize = 8;

/// The fewest bytes of an image that is stored as a full pack: of fewer, little can be saved.
const LEAST_FULL: u64 = if cfg!(test) { 1 } else { 64 << 10 };

/// An image to be sent as a full pack.
pub(super) struct FullPack {
    host: Host,
    source: Source,
    profile: Profile,
    backend: String,
    /// That of the first attempt.
    room: Arc<Mutex<Option<EncoderRoom>>>,
}

impl FullPack {
    /// The same once more, if it can be read again.
    pub(super) fn again(&self) -> Option<Self> {
        let (host, backend, room) = (self.host.clone(), self.backend.clone(), self.room.clone());
        Some(Self { host, source: again(&self.source)?, profile: self.profile, backend, room })
    }

    /// Begins to read once the bytes are asked for.
    pub(super) fn open(self, progress: Option<Progress>) -> ObjectBytes {
        let (tell, reading) = Reading::pair();
        let (made, pack) = oneshot::channel();
        let start = async move {
            let (send, receive) = mpsc::channel(READY);
            // In a task of its own: whoever polls the bytes may be within a call of a guest.
            tokio::spawn(async move {
                let encoded = self.encode(send.clone(), progress).await;
                match &encoded {
                    Ok((identity, pack)) => {
                        // Nobody may wait any more. Both are told before the end of the bytes is.
                        let _ = (tell.send(Ok(identity.clone())), made.send(pack.clone()));
                    }
                    Err(error) => {
                        let _ = tell.send(Err(error.duplicate()));
                        let _ = send.send(Err(error.duplicate())).await;
                    }
                }
            });
            stream::unfold(receive, |mut receive| async { receive.recv().await.map(|item| (item, receive)) })
        };
        let layout = Layout { encoding: Encoding::Pages, pack: None };
        ObjectBytes {
            body: Body::new(stream::once(start).flatten(), None),
            reading,
            size: None,
            layout,
            made: Some(pack),
        }
    }

    async fn encode(
        self,
        send: mpsc::Sender<Result<Bytes>>,
        progress: Option<Progress>,
    ) -> Result<(Identity, NewPack)> {
        let Self { host, source, profile, backend, room } = self;
        let room = room.lock().unwrap_or_else(PoisonError::into_inner).take();
        let room = match room {
            Some(room) => room,
            None => host.inner.encoders.smallest(&backend, |threads| memory(profile, threads)).await?,
        };
        let options = options(profile, room.threads);
        // A further copy of a stream: the first one has left them.
        let digests = !matches!(source, Source::Checked(_));
        let temporary = host.clone();
        let sidecar = blocking(move || Ok(digests.then(|| temporary.temporary_file().ok()).flatten())).await?;
        let (encoded, sidecar) = match source {
            Source::File(file) => {
                let image = Watched { image: file.image()?, send: send.clone() };
                let sink = send.clone();
                let work = move || {
                    with_sidecar(sidecar, |digests| {
                        encode_full_with(&image, &options, digests, &mut |bytes| give(&sink, bytes), &passed(progress))
                    })
                };
                let done = blocking(work).await?;
                file.check_unchanged(&done.0.identity).await?;
                done
            }
            other => {
                let (body, reading) = other.read(progress);
                let (handle, sink) = (Handle::current(), send.clone());
                let work = move || {
                    let mut segments = Segments { body, rest: Bytes::new(), handle, send: sink.clone() };
                    with_sidecar(sidecar, |digests| {
                        let mut next = || segments.next();
                        encode_segments(&mut next, &options, digests, &mut |bytes| give(&sink, bytes))
                    })
                };
                let done = blocking(work).await?;
                if reading.identity().await?.id() != done.0.identity.id() {
                    return Err(Error::other("the pack is of another image than was read"));
                }
                done
            }
        };
        if let Some(sidecar) = sidecar
            && let Err(error) = host.keep_page_digests(&encoded.identity, sidecar).await
        {
            tracing::warn!(%error, "cannot keep page digests");
        }
        drop(room);
        let pack = NewPack { id: encoded.pack.id(), needs: needs_of(&encoded.pack) };
        Ok((encoded.identity, pack))
    }
}

/// Returns whether an image can be stored as a full pack: not that of a device, which may be written to without a trace.
pub(super) fn may_be_full(source: &Source) -> bool {
    let device = matches!(source, Source::File(file) if file.is_device());
    !device && source.size().is_none_or(|size| size >= LEAST_FULL)
}

impl Host {
    /// An image that is sent to a backend as a full pack; the image as it was if there is no room for its encoder.
    pub(super) async fn full_pack(
        &self,
        backend: &str,
        source: Source,
        profile: Profile,
    ) -> std::result::Result<FullPack, Source> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let bytes = |threads| memory(profile, threads);
        match self.inner.encoders.full(backend, processors.min(MOST_THREADS), bytes).await {
            Some(room) => {
                let room = Arc::new(Mutex::new(Some(room)));
                Ok(FullPack { host: self.clone(), source, profile, backend: backend.to_owned(), room })
            }
            None => {
                tracing::warn!(backend, "too many images are encoded: this one is stored as it is");
                Err(source)
            }
        }
    }

    /// Returns whether an image is encoded as a full pack for a backend. A snapshot that it has as it is, or has had, goes there as
    /// it is: others may need that very object.
    pub(super) async fn sends_full_pack(
        &self,
        backend: &str,
        fits: bool,
        identity: Option<&Identity>,
        options: &StoreOptions,
    ) -> Result<bool> {
        // A hot image is read and compared in place, as it is.
        let asked = self.route(options.route.as_deref())?.encoding == Encoding::Pages && !options.raw && backend != HOT;
        if !asked || !fits || !self.takes_packs(backend).await? {
            return Ok(false);
        }
        let Some(identity) = identity else { return Ok(true) };
        let there = self.inner.catalogue.placements(identity.id()).await?;
        let as_it_is =
            |p: &Placement| p.backend == backend && p.state != PlacementState::Removing && p.encoding == Encoding::Raw;
        Ok(!there.iter().any(as_it_is))
    }
}

/// How packs of a profile are made here.
pub(super) fn options(profile: Profile, threads: usize) -> Options {
    Options { threads, ..Options::new(profile) }
}

/// What an encoder takes with so many threads, and what it has given that is not sent yet.
pub(super) fn memory(profile: Profile, threads: usize) -> usize {
    let (held, piece) = full_memory(&options(profile, threads));
    held + READY * piece
}

fn passed(progress: Option<Progress>) -> impl Fn(u64) {
    move |count| {
        if let Some(progress) = &progress {
            progress(count);
        }
    }
}

fn over() -> Error {
    Error::new(ErrorKind::Cancelled, "nothing waits for the pack any more")
}

fn give(send: &mpsc::Sender<Result<Bytes>>, bytes: Bytes) -> Result<()> {
    send.blocking_send(Ok(bytes)).map_err(|_| over())
}

/// Encodes with a file for page digests, and completes that.
fn with_sidecar(
    sidecar: Option<File>,
    encode: impl FnOnce(Option<&mut dyn Write>) -> Result<Encoded>,
) -> Result<(Encoded, Option<File>)> {
    let Some(file) = sidecar else { return Ok((encode(None)?, None)) };
    let fail = |error| Error::io("writing page digests", error);
    let mut out = BufWriter::new(file);
    let encoded = encode(Some(&mut out))?;
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    if let Some(header) = &encoded.digests_header {
        file.write_all_at(header, 0).map_err(fail)?;
    }
    Ok((encoded, Some(file)))
}

/// An image that cannot be read any more once nothing waits for it.
struct Watched {
    image: FileImage,
    send: mpsc::Sender<Result<Bytes>>,
}

impl Image for Watched {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if self.send.is_closed() { Err(over()) } else { self.image.read_at(buffer, offset) }
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<std::ops::Range<u64>>> {
        self.image.next_data(from, end)
    }
}

/// A body in segments, for an encoder. Reading blocks, and needs the runtime to go on elsewhere.
struct Segments {
    body: Body,
    rest: Bytes,
    handle: Handle,
    send: mpsc::Sender<Result<Bytes>>,
}

impl Segments {
    fn next(&mut self) -> Result<Option<Bytes>> {
        let mut pieces = Vec::new();
        let mut len = 0;
        while len < SEGMENT {
            if self.rest.is_empty() {
                let (body, send) = (&mut self.body, &self.send);
                let next = self.handle.block_on(async {
                    tokio::select! {
                        next = body.next() => next,
                        () = send.closed() => Some(Err(over())),
                    }
                });
                match next {
                    Some(bytes) => self.rest = bytes?,
                    None => break,
                }
            }
            let piece = self.rest.split_to(self.rest.len().min(SEGMENT - len));
            len += piece.len();
            pieces.push(piece);
        }
        Ok(match pieces.len() {
            0 => None,
            1 => pieces.pop(),
            _ => Some(pieces.concat().into()),
        })
    }
}
