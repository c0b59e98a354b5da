//! Reading a snapshot from whichever of its placements can be read, byte by byte.
//!
//! A read takes the placements in the order of `Host::readable`. When one fails, for whatever reason that is not the
//! request's own, the next one goes on at the byte where it stopped: what has been passed on was checked, so the reader
//! cannot tell. A placement that gave bytes and then failed in a way that may pass is tried again once the others have
//! failed, as long as it gets further each time. What the failure says about the object is recorded (`damage.rs`).
//!
//! Placements that are suspect or bad are read last rather than never: bytes prove themselves. One that gives the whole
//! snapshot, to its very end, is live again: every byte of it has been compared and its length is right, which is all that
//! a deep verification finds out.
//!
//! A restore from cold storage costs money. It is asked for only if every other placement is known to be lost: one on a
//! backend that is away, or that refuses now, may come back.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use crate::catalogue::{Placement, PlacementState};
use crate::connector::Host;
use crate::connector::damage::Finding;
use crate::connector::packs::Caches;
use crate::snapshot::Identity;
use crate::types::{Body, ByteRange, Encoding, Error, ErrorKind, ObjectId, Result, Retry};

/// The object that is read, and its placements.
#[derive(Clone)]
pub(super) struct ImageSource {
    pub(super) host: Host,
    pub(super) identity: Arc<Identity>,
}

impl ImageSource {
    /// The bytes of a range, or all of them, and the backend that the first of them comes from. Returns when that is there.
    ///
    /// # Errors
    /// `invalid` for a range that begins past the end; the failure of the placements. The body may end in that, too.
    pub(super) async fn stream(&self, range: Option<ByteRange>) -> Result<(Body, String)> {
        let (at, len) = range.unwrap_or_default().within(self.identity.size())?;
        let mut reading = Reading {
            source: self.clone(),
            whole: range.is_none(),
            start: at,
            at,
            end: at + len,
            current: None,
            first: None,
            failed: Vec::new(),
            troubles: Troubles::default(),
            over: false,
        };
        let first = reading.next().await.transpose()?;
        let backend = reading.first.clone().unwrap_or_default();
        let rest = stream::unfold(reading, |mut reading| async move {
            let item = reading.next().await?;
            Some((item, reading))
        });
        let body = stream::iter(first.map(Ok)).chain(rest);
        Ok((Body::new(body, Some(len)), backend))
    }

    /// Some bytes in memory. The caller bounds them.
    pub(super) async fn read_whole(&self, start: u64, len: u64) -> Result<Bytes> {
        let most = usize::try_from(len).map_err(|_| super::short(len))?;
        let (body, _) = self.stream(Some(ByteRange::of(start, len))).await?;
        let bytes = body.collect(most).await?;
        if bytes.len() == most { Ok(bytes) } else { Err(super::short(len)) }
    }

    /// One placement, with every byte checked.
    pub(super) async fn open(&self, placement: &Placement, range: Option<ByteRange>, caches: Caches) -> Result<Body> {
        self.host.open_placement(placement, &self.identity, range, caches).await
    }
}

impl std::fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageSource").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A read under way.
struct Reading {
    source: ImageSource,
    /// Whether the snapshot is read rather than a range: the object is then asked for as a whole, so that one that is too
    /// long is noticed.
    whole: bool,
    /// The first byte, the next one, and the end.
    start: u64,
    at: u64,
    end: u64,
    current: Option<Current>,
    /// The backend that was opened last before the first byte came.
    first: Option<String>,
    failed: Vec<Failed>,
    troubles: Troubles,
    over: bool,
}

/// The placement that is being read.
struct Current {
    placement: Placement,
    body: Body,
    /// The byte at which it was opened.
    from: u64,
}

/// A placement that has failed.
struct Failed {
    backend: String,
    object: ObjectId,
    /// Whether it may be tried again when no other is left.
    again: bool,
    /// The byte at which it was damaged: what follows may be right.
    damaged_at: Option<u64>,
}

/// The failures of the placements that were tried.
#[derive(Default)]
struct Troubles {
    cold: Vec<Placement>,
    /// A placement may come back: the first of these failures.
    away: Option<Error>,
    /// None of those that are lost will: the first of these failures.
    lost: Option<Error>,
}

/// A placement that is not live may become so by what it gives: then it has to be this one that gives it. Not so a pack, whose pages
/// may come from anywhere: only `verify --deep` makes it live again.
fn caches_for(placement: &Placement) -> Caches {
    if proves_itself(placement) { Caches::Bypass } else { Caches::Use }
}

/// Returns whether a read of a placement proves that very object.
fn proves_itself(placement: &Placement) -> bool {
    placement.state != PlacementState::Live && placement.encoding == Encoding::Raw
}

impl Reading {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.over {
            return None;
        }
        loop {
            let Some(current) = &mut self.current else {
                if self.at == self.end && self.at > 0 {
                    self.over = true;
                    return None;
                }
                if let Err(error) = self.open().await {
                    self.over = true;
                    return Some(Err(error));
                }
                continue;
            };
            match current.body.next().await {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Some(Ok(chunk));
                }
                Some(Err(error)) => {
                    let Current { placement, from, .. } = self.current.take()?;
                    let further = self.at > from;
                    if let Err(error) = self.failed(&placement, error, further).await {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
                // A checked body that ends has given all.
                None => {
                    self.over = true;
                    self.heal().await;
                    return None;
                }
            }
        }
    }

    /// Opens the next placement that can be opened, at the next byte.
    ///
    /// # Errors
    /// Why there is none.
    async fn open(&mut self) -> Result<()> {
        while let Some(placement) = self.candidate().await? {
            let host = &self.source.host;
            if let Err(error) = host.open_backend(&placement.backend).await {
                // A backend that cannot be opened proves nothing about its objects.
                tracing::warn!(backend = placement.backend, %error, "cannot open the backend");
                self.put_aside(&placement, false, None);
                self.troubles.away.get_or_insert(error);
                continue;
            }
            match self.source.open(&placement, self.range(), caches_for(&placement)).await {
                Ok(body) => {
                    self.begin(placement, body);
                    return Ok(());
                }
                Err(error) => self.failed(&placement, error, false).await?,
            }
        }
        self.none_left().await
    }

    fn begin(&mut self, placement: Placement, body: Body) {
        if self.at > self.start {
            let (backend, byte) = (&placement.backend, self.at);
            tracing::info!(backend, byte, "the read continues from another placement");
        }
        if self.at == self.start {
            self.first = Some(placement.backend.clone());
        }
        self.current = Some(Current { placement, body, from: self.at });
    }

    /// Returns the range that is left to be read; `None` for the whole object.
    fn range(&self) -> Option<ByteRange> {
        let whole = self.whole && self.at == 0;
        (!whole).then(|| ByteRange::of(self.at, self.end - self.at))
    }

    /// The placement to be tried next: one that has not failed, or else one that may be tried again.
    async fn candidate(&mut self) -> Result<Option<Placement>> {
        let mut readable = self.source.host.readable(self.source.identity.id()).await?;
        let is = |failed: &Failed, placement: &Placement| {
            failed.backend == placement.backend && failed.object == placement.object
        };
        if let Some(new) = readable.iter().position(|placement| !self.failed.iter().any(|f| is(f, placement))) {
            return Ok(Some(readable.swap_remove(new)));
        }
        let may = |failed: &Failed| failed.again || failed.damaged_at.is_some_and(|at| at < self.at);
        let again = self.failed.iter().position(|failed| may(failed) && readable.iter().any(|p| is(failed, p)));
        let Some(failed) = again.map(|at| self.failed.remove(at)) else { return Ok(None) };
        Ok(readable.into_iter().find(|placement| is(&failed, placement)))
    }

    fn put_aside(&mut self, placement: &Placement, again: bool, damaged_at: Option<u64>) {
        let (backend, object) = (placement.backend.clone(), placement.object.clone());
        self.failed.push(Failed { backend, object, again, damaged_at });
    }

    /// Takes note of a failure. `further` says whether the placement has given bytes before it.
    ///
    /// # Errors
    /// The failure, if no other placement would do better.
    async fn failed(&mut self, placement: &Placement, error: Error, further: bool) -> Result<()> {
        if !error.another_may_serve() {
            return Err(error);
        }
        if matches!(error.kind(), ErrorKind::Archived(_)) {
            tracing::info!(backend = placement.backend, "the placement is in cold storage");
            self.put_aside(placement, false, None);
            self.troubles.cold.push(placement.clone());
            return Ok(());
        }
        tracing::warn!(backend = placement.backend, %error, "cannot read the placement");
        let damaged_at = (*error.kind() == ErrorKind::Corrupt).then_some(self.at);
        self.put_aside(placement, further && error.retry() != Retry::Never, damaged_at);
        let Finding { error, lost } =
            self.source.host.examine_failure(placement, &self.source.identity, self.at, error).await;
        let noted = if lost { &mut self.troubles.lost } else { &mut self.troubles.away };
        noted.get_or_insert(error);
        Ok(())
    }

    /// No placement is left: asks for a restore if that is the only way.
    ///
    /// # Errors
    /// Why the snapshot cannot be read now, unless it has just become readable.
    async fn none_left(&mut self) -> Result<()> {
        let (host, id) = (self.source.host.clone(), self.source.identity.id());
        let Troubles { mut cold, away, lost } = std::mem::take(&mut self.troubles);
        host.cheapest_first(&mut cold);
        match (away, cold.into_iter().next()) {
            (Some(error), None) => Err(error),
            (Some(error), Some(cold)) => {
                let (away, cold) = (error.backend().unwrap_or("a backend").to_owned(), cold.backend);
                Err(error.and(format!("the copy on `{cold}` is in cold storage, and a restore costs money")).hint(
                    format!(
                        "try again when `{away}` is back; take it out of the configuration to restore from `{cold}`"
                    ),
                ))
            }
            (None, Some(placement)) => {
                host.ask_for_restore(id, &placement).await?;
                let body = self.source.open(&placement, self.range(), caches_for(&placement)).await?;
                self.begin(placement, body);
                Ok(())
            }
            (None, None) => match lost {
                Some(error) if error.advice().is_none() => {
                    Err(error.hint("store the image again if you still have it"))
                }
                Some(error) => Err(error),
                None => Err(host.why_unreadable(id).await?),
            },
        }
    }

    /// A placement that was not live and has given the whole snapshot is live again.
    async fn heal(&mut self) {
        let Some(Current { placement, from: 0, .. }) = self.current.take() else { return };
        // What only lacks something may have been completed by another backend, and is no copy for that.
        if !self.whole || !proves_itself(&placement) || placement.is_lacking() {
            return;
        }
        match self.source.host.inner.catalogue.transition(&placement, PlacementState::Live, None).await {
            Ok(true) => tracing::info!(backend = placement.backend, "the placement was read whole, and is live again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot record that a placement is live again"),
        }
    }
}
