//! The metadata of packs: fetched from the end of an object, proven, and kept for those that were read last.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Caches;
use super::shares::{Part, Share, UNIT};
use crate::catalogue::{Need, Placement};
use crate::connector::Host;
use crate::connector::recent::{Recent, Weighed};
use crate::snapshot::Identity;
use crate::snapshot::pages::{Chain, HEADER_BYTES, Limits, Opened, Pack, PackSource, is_raw};
use crate::types::{ByteRange, Encoding, Error, ErrorKind, PackId, Result, SnapshotId, blocking};

/// The bytes at the end of a pack that are fetched first: with them comes the whole metadata of most deltas.
const TAIL: u64 = 64 << 10;

/// The most packs of which the metadata is kept.
const PACKS: usize = 64;
/// The most bytes that these take.
const KEPT: usize = 64 << 20;
/// The bytes in memory of a segment of an object that is no pack.
const RAW_SEGMENT: usize = 128;

/// Metadata of packs by id.
pub(crate) type RecentPacks = Recent<Pack>;

impl Weighed for Pack {
    type Id = PackId;
    const MOST: usize = KEPT;
    const COUNT: usize = PACKS;

    fn id(&self) -> PackId {
        self.id()
    }

    fn weight(&self) -> usize {
        self.memory()
    }
}

/// A source of a pack.
enum Found {
    Pack(Arc<Pack>),
    /// Another backend may have it.
    Elsewhere(String),
}

/// All of them, or the first backend that may have one besides those that were to be asked.
enum Sources {
    All(Vec<Arc<Pack>>),
    Elsewhere(String),
}

impl Host {
    /// Returns the pack of a placement; for a raw object, an equivalent pack of depth 0.
    ///
    /// # Errors
    /// `corrupt` if the object is not that pack; `not-found` if the snapshot is gone; errors of the backend.
    pub(in crate::connector) async fn pack_of(&self, placement: &Placement, caches: Caches) -> Result<Arc<Pack>> {
        self.part_of(placement, caches, Part::First).await
    }

    /// As [`Self::pack_of`], of a placement that need not be recorded yet.
    ///
    /// # Errors
    /// As [`Self::pack_of`].
    pub(in crate::connector) async fn pack_of_copy(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        caches: Caches,
    ) -> Result<Arc<Pack>> {
        match placement.encoding {
            Encoding::Raw => self.pack_of_image(identity.clone(), &placement.backend, Part::First).await,
            _ => self.pack_of(placement, caches).await,
        }
    }

    async fn part_of(&self, placement: &Placement, caches: Caches, part: Part<'_>) -> Result<Arc<Pack>> {
        if placement.encoding == Encoding::Raw {
            return self.raw_pack(placement.snapshot, &placement.backend, part).await;
        }
        let known = placement.pack.filter(|_| caches == Caches::Use);
        if let Some(pack) = known.and_then(|id| self.pack_at_hand(id)) {
            return Ok(pack);
        }
        // Sources have the turn of their chain.
        let _turn = match (known, part) {
            (Some(id), Part::First) => Some(self.inner.pack_shares.opening.of((placement.backend.clone(), id)).await),
            _ => None,
        };
        if let Some(pack) = known.and_then(|id| self.pack_at_hand(id)) {
            return Ok(pack);
        }
        let mut opened = self.open_pack_object(placement, placement.pack, caches, part).await;
        // The object may be right, and the catalogue wrong.
        if opened.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Corrupt)
            && let Ok(Some(now)) = Box::pin(self.amended_as(placement, part)).await
        {
            opened = self.open_pack_object(&now, now.pack, caches, part).await;
        }
        let pack = opened.map_err(|error| error.on_backend(&placement.backend).during("retrieve"))?;
        self.keep_pack(&pack);
        Ok(pack)
    }

    fn pack_at_hand(&self, id: PackId) -> Option<Arc<Pack>> {
        self.inner.recent_packs.get(id).or_else(|| self.inner.pack_shares.live(id))
    }

    pub(super) fn keep_pack(&self, pack: &Arc<Pack>) {
        self.inner.pack_shares.is_live(pack);
        // A larger one is shared by those that read it, and goes with them.
        if pack.weight() <= KEPT / 2 {
            self.inner.recent_packs.put(pack.clone());
        }
    }

    /// Opens the pack in an object that the catalogue does not know. Its content is unproven.
    ///
    /// # Errors
    /// As [`Self::pack_of`].
    pub(in crate::connector) async fn open_unknown_pack(&self, placement: &Placement) -> Result<Arc<Pack>> {
        self.open_unknown_part(placement, Part::First).await
    }

    pub(super) async fn open_unknown_part(&self, placement: &Placement, part: Part<'_>) -> Result<Arc<Pack>> {
        let opened = self.open_pack_object(placement, None, Caches::Bypass, part).await;
        opened.map_err(|error| error.on_backend(&placement.backend))
    }

    /// A pack with its sources.
    ///
    /// # Errors
    /// `unavailable` if a source cannot be had: its own placements are marked, as far as they are at fault. `unsupported` if the
    /// metadata of all of them exceeds the limit.
    pub(in crate::connector) async fn chain(&self, pack: Arc<Pack>, backend: &str, caches: Caches) -> Result<Chain> {
        if pack.sources().is_empty() {
            return Chain::new(pack, Vec::new());
        }
        // One that needs another backend waits with its like, and holds up no chain that does not.
        let mut through = BTreeSet::from([backend.to_owned()]);
        let sources = loop {
            match self.sources_of(&pack, backend, caches, &through).await? {
                Sources::All(sources) => break sources,
                Sources::Elsewhere(other) => through.insert(other),
            };
        };
        blocking(move || Chain::new(pack, sources)).await
    }

    /// The sources of a pack, as far as these backends have them.
    async fn sources_of(
        &self,
        pack: &Pack,
        backend: &str,
        caches: Caches,
        through: &BTreeSet<String>,
    ) -> Result<Sources> {
        // Names of backends have no line breaks.
        let key = through.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let _turn = self.inner.pack_shares.chains.of(key.clone()).await;
        let (mut sources, mut held) = (Vec::with_capacity(pack.sources().len()), 0usize);
        for source in pack.sources() {
            let part = Part::Source { held, through: &key };
            match self.source_pack(source, backend, caches, part, through).await? {
                Found::Pack(source) => {
                    held = held.saturating_add(source.memory().next_multiple_of(UNIT));
                    sources.push(source);
                }
                Found::Elsewhere(other) => return Ok(Sources::Elsewhere(other)),
            }
        }
        Ok(Sources::All(sources))
    }

    /// Where the bytes of a pack are, those of one backend first, or alone if a copy is to be proven.
    pub(in crate::connector) async fn placements_for(
        &self,
        id: PackId,
        snapshot: SnapshotId,
        backend: &str,
        caches: Caches,
    ) -> Result<Vec<Placement>> {
        let mut placements = match is_raw(id, snapshot) {
            true => self.readable(snapshot).await?,
            false => self.readable_of(self.inner.catalogue.placements_of_pack(id).await?)?,
        };
        if placements.is_empty() && !is_raw(id, snapshot) {
            // The catalogue may be wrong about one of the snapshot's objects.
            for other in self.readable(snapshot).await? {
                placements.extend(Box::pin(self.amended(&other)).await.ok().flatten());
            }
        }
        placements.retain(|placement| placement.pack == (!is_raw(id, snapshot)).then_some(id));
        placements.retain(|placement| caches == Caches::Use || placement.backend == backend);
        placements.sort_by_key(|placement| placement.backend != backend);
        Ok(placements)
    }

    async fn source_pack(
        &self,
        source: &PackSource,
        backend: &str,
        caches: Caches,
        part: Part<'_>,
        through: &BTreeSet<String>,
    ) -> Result<Found> {
        if is_raw(source.id, source.snapshot) {
            let raw = self.raw_pack(source.snapshot, backend, part).await;
            return raw.map(Found::Pack).map_err(|error| match error.kind() {
                ErrorKind::Unsupported => error,
                _ => without_source(source.snapshot, Some(error)),
            });
        }
        if caches == Caches::Use
            && let Some(pack) = self.pack_at_hand(source.id)
        {
            return Ok(Found::Pack(pack));
        }
        let mut last = None;
        for placement in self.placements_for(source.id, source.snapshot, backend, caches).await? {
            if !through.contains(&placement.backend) {
                return Ok(Found::Elsewhere(placement.backend));
            }
            let failed = match self.part_of(&placement, caches, part).await {
                Ok(pack) => return Ok(Found::Pack(pack)),
                Err(error) => error,
            };
            let again = || self.part_of(&placement, Caches::Bypass, part);
            match self.source_failed(&placement, failed, again).await {
                Ok(pack) => return Ok(Found::Pack(pack)),
                Err(error) => last = Some(error),
            }
        }
        match last {
            // It is not the fault of an object.
            Some(error) if *error.kind() == ErrorKind::Unsupported => Err(error),
            last => Err(without_source(source.snapshot, last)),
        }
    }

    /// Records what the failure of a source says of its object. If that says that it is damaged, it is read once more, as any
    /// other object is (`damage.rs`): what was damaged on its way condemns nothing, and what comes then is returned.
    ///
    /// # Errors
    /// The failure.
    pub(super) async fn source_failed<T, F: Future<Output = Result<T>>>(
        &self,
        placement: &Placement,
        error: Error,
        again: impl FnOnce() -> F,
    ) -> Result<T> {
        match error.kind() {
            ErrorKind::NotFound => Err(match self.note_missing(placement, error.duplicate()).await {
                Ok(found) => found,
                Err(_) => error,
            }),
            ErrorKind::Corrupt => {
                let again = again().await;
                let noted = match &again {
                    Ok(_) => self.note_wrong_once(placement, &error).await,
                    Err(again) if *again.kind() == ErrorKind::Corrupt => {
                        self.note_damage(placement, again.message()).await.map(drop)
                    }
                    // It cannot be read any more: nothing is known but that it gave wrong bytes.
                    Err(_) => self.note_wrong_once(placement, &error).await,
                };
                if let Err(other) = noted {
                    tracing::warn!(backend = placement.backend, error = %other, "cannot record what was found");
                }
                again.map_err(|_| error)
            }
            _ => Err(error),
        }
    }

    async fn raw_pack(&self, id: SnapshotId, backend: &str, part: Part<'_>) -> Result<Arc<Pack>> {
        if let Some(pack) = self.pack_at_hand(PackId::from_bytes(*id.as_bytes())) {
            return Ok(pack);
        }
        let identity = match self.identity_of(id).await {
            Err(error) if *error.kind() == ErrorKind::Corrupt => self.identity_by_reading(id, error).await?,
            identity => identity?,
        };
        self.pack_of_image(identity, backend, part).await
    }

    /// An image as it is, as a pack of depth 0.
    async fn pack_of_image(&self, identity: Arc<Identity>, backend: &str, part: Part<'_>) -> Result<Arc<Pack>> {
        let bytes = identity.segments().len() * RAW_SEGMENT;
        let pack = self.charged(backend, bytes, part, move || Ok(Arc::new(Pack::raw(&identity)?))).await?;
        self.keep_pack(&pack);
        Ok(pack)
    }

    /// The header says nothing that the footer does not say as well, so a read does without it: what proves itself is not
    /// refused. Where the object itself is to be proven, it is checked too.
    async fn open_pack_object(
        &self,
        placement: &Placement,
        known: Option<PackId>,
        caches: Caches,
        part: Part<'_>,
    ) -> Result<Arc<Pack>> {
        let (object, limits) = (placement.stored_bytes, Limits::DEFAULT);
        let mut from = object.saturating_sub(TAIL);
        // Without a share: nobody waits for a backend with one. A backend has one such fetch at a time (`opening`, chains).
        let mut tail = self.fetch(placement, from, object - from).await?;
        let head = match caches {
            Caches::Bypass if from == 0 => Some(tail.clone()),
            Caches::Bypass => Some(self.fetch(placement, 0, HEADER_BYTES).await?),
            Caches::Use => None,
        };
        let (pack, mut share) = loop {
            let share = self.metadata_share(&placement.backend, Pack::opening(&tail, object, limits), part).await?;
            match blocking(move || Pack::open(&tail, object, known, limits)).await? {
                Opened::Pack(pack) => break (pack, share),
                Opened::Longer { from: earlier } if earlier < from => from = earlier,
                Opened::Longer { .. } => return Err(Error::corrupt("the footer of the pack names no metadata")),
            }
            drop(share);
            tail = self.fetch(placement, from, object - from).await?;
        };
        if let Some(head) = head {
            pack.check_header(&head)?;
        }
        share.shrink(pack.memory());
        Ok(pack.charged(share))
    }

    /// Makes a pack that may take so many bytes while it is made.
    async fn charged(
        &self,
        backend: &str,
        bytes: usize,
        part: Part<'_>,
        make: impl FnOnce() -> Result<Arc<Pack>> + Send + 'static,
    ) -> Result<Arc<Pack>> {
        let mut share = self.metadata_share(backend, bytes, part).await?;
        let pack = blocking(make).await?;
        share.shrink(pack.memory());
        Ok(pack.charged(share))
    }

    async fn metadata_share(&self, backend: &str, bytes: usize, part: Part<'_>) -> Result<Share> {
        self.inner.pack_shares.metadata(backend, bytes, part, || self.inner.recent_packs.forget()).await
    }

    /// Some bytes of an object, in memory. The caller bounds them.
    ///
    /// # Errors
    /// `corrupt` if there are fewer.
    pub(in crate::connector) async fn fetch(&self, placement: &Placement, start: u64, len: u64) -> Result<Bytes> {
        let objects = &self.backend(&placement.backend).await?.objects;
        let most = usize::try_from(len).map_err(|_| Error::invalid(format!("{len} bytes do not fit into memory")))?;
        let fetched = async {
            let body = objects.get(&placement.object, Some(ByteRange::of(start, len))).await?;
            body.collect(most).await
        };
        let bytes = fetched.await.map_err(|error| error.on_backend(objects.name()).during("retrieve"))?;
        match bytes.len() == most {
            true => Ok(bytes),
            false => Err(Error::corrupt(format!("the object ends {} bytes early", most - bytes.len()))
                .on_backend(objects.name())
                .during("retrieve")),
        }
    }
}

/// What a pack needs on its backend.
pub(in crate::connector) fn needs_of(pack: &Pack) -> Vec<Need> {
    pack.sources().iter().map(|source| Need { snapshot: source.snapshot, pack: source.id }).collect()
}

/// Why a pack cannot be read although its own object can. It says nothing about that object.
pub(super) fn without_source(snapshot: SnapshotId, last: Option<Error>) -> Error {
    let what = format!("snapshot {snapshot}, which this one takes pages from, cannot be read");
    match last {
        Some(error) => {
            let told = Error::unavailable(format!("{what}: {}", error.message()));
            let told = error.backend().map_or(told.duplicate(), |backend| told.on_backend(backend));
            told.with_source(error)
        }
        None => Error::unavailable(format!("{what}: no configured backend holds it")),
    }
}
