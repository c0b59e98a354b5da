//! Storing an image as a change of another one: what has changed is found here, and sent as a pack.
//!
//! The base is compared page by page, or by the digests of its pages where these are kept on this machine; where the caller
//! knows which parts can have changed, only those are read. A backend gets the pack if it has what the pack takes pages from,
//! so that no copy depends on another backend than its own; any other one gets the image as it is. So does every backend if
//! the pack would save little, or would need too many others.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::packs::{Caches, needs_of};
use super::payload::PackFile;
use super::report::Stored;
use super::store::Change;
use super::{Host, Image, StoreOptions, data_dir};
use crate::catalogue::{NewPack, Placement, PlacementState};
use crate::snapshot::pages::{Base, Chain, Encoded, FileImage, Options, PageDigests, Profile, encode_delta};
use crate::snapshot::{DirtyRanges, FileSource, Identity, Source, pages};
use crate::types::{Error, ErrorKind, Result, SnapshotId, blocking};

/// The most sources of a pack: beyond it, the image is stored whole.
pub(super) const MAX_SOURCES: usize = 64;
/// The most runs of pages per GiB that a map may have, and at least.
const RUNS_PER_GIB: u64 = 65_536;
const RUNS: u64 = 65_536;
/// A pack above this percentage of the image's data is not stored, nor is one of an image of less than 100 bytes.
const MAX_PACK_PERCENT: u64 = 80;
/// The most bytes of page digests that are kept.
const MAX_DIGEST_BYTES: u64 = 1 << 30;

/// What an image is compared with.
struct BaseOf {
    chain: Chain,
    identity: Arc<Identity>,
    image: Arc<dyn pages::Image>,
    digests: Option<PageDigests>,
}

impl Host {
    /// Stores an image as a change of another one: of what both have, nothing is sent. The backend keeps the lineage where it
    /// can.
    ///
    /// # Errors
    /// `not-found` for an unknown base; otherwise as [`Self::store`].
    pub async fn update(&self, base: SnapshotId, source: Source, options: StoreOptions) -> Result<Stored> {
        self.known(base).await?;
        self.update_from(base, source, None, &options).await
    }

    /// As [`Self::update`], where all changes since the base are known to lie in these ranges: nothing else is read. A change
    /// outside of them is not stored.
    ///
    /// # Errors
    /// As [`Self::update`]; `invalid` for an image that is not a file.
    pub async fn update_dirty(
        &self,
        base: SnapshotId,
        source: FileSource,
        dirty: DirtyRanges,
        options: StoreOptions,
    ) -> Result<Stored> {
        self.known(base).await?;
        self.update_from(base, Source::File(source), Some(dirty), &options).await
    }

    async fn update_from(
        &self,
        base: SnapshotId,
        source: Source,
        dirty: Option<DirtyRanges>,
        options: &StoreOptions,
    ) -> Result<Stored> {
        let began = self.inner.platform.now();
        if options.raw {
            let change = Change { base: Some(base), pack: None };
            let mut stored = self.store_on_route(source, change, options).await?;
            stored.delta_bytes = Some(stored.stored_bytes);
            return Ok(stored);
        }
        let source = match source {
            Source::File(file) => file,
            // A backend that is sent the image, and not the change, reads it once more.
            other => self.spooled(other).await?,
        };
        let pack = self.change_of(base, None, &source, dirty, options).await?;
        let change = Change { base: Some(base), pack: pack.as_ref() };
        let mut stored = self.store_on_route(Source::File(source), change, options).await?;
        stored.delta_bytes = Some(pack.map_or(stored.stored_bytes, |pack| pack.file.size()));
        stored.seconds = self.inner.platform.since(began).as_secs_f64();
        Ok(stored)
    }

    /// The change of an image against a base, as a pack; `None` if the image is to be stored whole. `at_hand` has the proven
    /// bytes of the base, if they are on this machine.
    ///
    /// # Errors
    /// Errors of reading the image.
    pub(super) async fn change_of(
        &self,
        base: SnapshotId,
        at_hand: Option<File>,
        new: &FileSource,
        dirty: Option<DirtyRanges>,
        options: &StoreOptions,
    ) -> Result<Option<Arc<PackFile>>> {
        if new.is_device() {
            // It is read twice, and nothing would show that it was written to between.
            return Ok(None);
        }
        let base = match self.base_of(base, at_hand, options).await {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%base, %error, "cannot read the base: the image is stored whole");
                return Ok(None);
            }
        };
        let out = self.temporary_file()?;
        let (stop, new_size) = (Stop::default(), new.size());
        let image = Stoppable { image: new.image()?, stop: stop.0.clone() };
        let dirty = dirty.map(|dirty| dirty.as_slice().to_vec());
        let identity_of_base = base.identity.clone();
        // Without those of the base, the image would have to be read whole for them.
        let with_digests = dirty.is_none() || base.digests.is_some();
        let sidecar = if with_digests { self.temporary_file().ok() } else { None };
        // Each takes some hundred MiB of memory, and all processors.
        let place = self.inner.encoders.acquire().await;
        let place = place.map_err(|error| Error::other("the host stops").with_source(error))?;
        let encoded = blocking(move || encode(&image, &base, dirty.as_deref(), out, sidecar)).await;
        drop((stop, place));
        let (encoded, out, sidecar) = match encoded {
            Ok(Some(done)) => done,
            Ok(None) => return Ok(None),
            // A base that is damaged on every backend, or too many sources: nothing is wrong with the image.
            Err(error) if is_base_failure(&error) => {
                tracing::warn!(base = %identity_of_base.id(), %error, "the image is stored whole");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        new.check_unchanged(&encoded.identity).await?;
        if let Some(sidecar) = sidecar
            && let Err(error) = self.keep_page_digests(&encoded.identity, sidecar).await
        {
            tracing::warn!(%error, "cannot keep page digests");
        }
        let counts = &encoded.counts;
        let data = (counts.unchanged + counts.moved + counts.repeated + counts.stored) * pages::PAGE_BYTES;
        let worth = encoded.pack.stored() <= data.min(new_size) / 100 * MAX_PACK_PERCENT;
        if !worth || !is_cheap_to_read(&encoded, new_size) {
            return Ok(None);
        }
        let pack = NewPack { id: encoded.pack.id(), needs: needs_of(&encoded.pack) };
        let file = FileSource::own(out, "the pack")?;
        Ok(Some(Arc::new(PackFile { file, identity: Arc::new(encoded.identity), pack })))
    }

    /// What an image is compared with; `None` if no backend of the route could use a pack against it.
    async fn base_of(&self, id: SnapshotId, at_hand: Option<File>, options: &StoreOptions) -> Result<Option<BaseOf>> {
        let route = self.route(options.route.as_deref())?.backends.clone();
        let mut placements = self.inner.catalogue.placements(id).await?;
        placements.retain(|p| p.state == PlacementState::Live && route.contains(&p.backend));
        placements.sort_by_key(|p| route.iter().position(|name| *name == p.backend));
        for placement in placements {
            if !self.takes_packs(&placement.backend).await? {
                continue;
            }
            return self.base_on(&placement, at_hand).await.map(Some);
        }
        Ok(None)
    }

    async fn base_on(&self, placement: &Placement, at_hand: Option<File>) -> Result<BaseOf> {
        let id = placement.snapshot;
        let chain = self.chain(self.pack_of(placement, Caches::Use).await?, &placement.backend, Caches::Use).await?;
        let identity = self.identity_of(id).await?;
        let image: Arc<dyn pages::Image> = match at_hand {
            Some(file) => Arc::new(FileImage::new(file, identity.size(), "a temporary copy of the base")),
            None => Arc::new(StoredImage { image: self.open(id).await?, runtime: tokio::runtime::Handle::current() }),
        };
        let digests = self.page_digests(&identity).await;
        Ok(BaseOf { chain, identity, image, digests })
    }

    /// Whether packs can be stored on a backend: it keeps labels, which tell a pack from an image of the same bytes when a
    /// catalogue is rebuilt, and gives any part of an object at once.
    pub(super) async fn takes_packs(&self, backend: &str) -> Result<bool> {
        let info = self.backend(backend).await?.objects.info();
        Ok(info.features.labels && info.features.ranges && !info.archive)
    }

    /// A stream as a file without a name.
    async fn spooled(&self, source: Source) -> Result<FileSource> {
        let (body, reading) = source.read(None);
        let file = self.write_out(body, "a temporary copy of the image").await?;
        reading.identity().await?;
        FileSource::own(file, "a temporary copy of the image")
    }

    fn digests_path(&self, id: SnapshotId) -> PathBuf {
        self.inner.data_dir.join("page-digests").join(id.to_string())
    }

    /// The page digests of a snapshot, if they are kept here and are sound.
    async fn page_digests(&self, identity: &Arc<Identity>) -> Option<PageDigests> {
        let (path, identity) = (self.digests_path(identity.id()), identity.clone());
        let open = move || {
            let fail = |error| Error::io(path.display(), error);
            let file = File::open(&path).map_err(fail)?;
            let size = file.metadata().map_err(fail)?.len();
            PageDigests::open(Box::new(FileImage::new(file, size, path.display().to_string())), identity)
        };
        blocking(open).await.ok()
    }

    /// Keeps the page digests of a snapshot, and lets those go that were written longest ago.
    pub(super) async fn keep_page_digests(&self, identity: &Identity, written: File) -> Result<()> {
        let path = self.digests_path(identity.id());
        blocking(move || {
            let kept = keep_digests(&path, written, MAX_DIGEST_BYTES);
            kept.map_err(|error| Error::io(path.display(), error))
        })
        .await
    }
}

/// Copies a file to a path in a folder whose files have at most so many bytes; one that has more itself is not kept.
fn keep_digests(path: &std::path::Path, mut written: File, most: u64) -> std::io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    let size = written.metadata()?.len();
    if size > most {
        return Ok(());
    }
    data_dir::make(dir)?;
    make_room(dir, most - size)?;
    written.rewind()?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    std::io::copy(&mut written.take(size), &mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the oldest files until the others have at most so many bytes.
fn make_room(dir: &std::path::Path, most: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        files.push((about.modified()?, about.len(), entry.path()));
    }
    files.sort();
    let mut all: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in files {
        if all <= most {
            break;
        }
        std::fs::remove_file(path)?;
        all -= len;
    }
    Ok(())
}

/// Whether what went wrong is the base's fault, or the format's: the image can be stored whole.
fn is_base_failure(error: &Error) -> bool {
    error.backend().is_some() || matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// Whether the map is not in too many pieces.
fn is_cheap_to_read(encoded: &Encoded, size: u64) -> bool {
    let runs = encoded.pack.map().runs().len() as u64;
    encoded.pack.sources().len() <= MAX_SOURCES && runs <= RUNS.max((size >> 30).saturating_mul(RUNS_PER_GIB))
}

/// Writes the change, and the page digests of the image if there is a file for them; `None` if it is not worth its base, or if
/// there is no room for it.
fn encode(
    new: &Stoppable,
    base: &BaseOf,
    dirty: Option<&[Range<u64>]>,
    out: File,
    sidecar: Option<File>,
) -> Result<Option<(Encoded, File, Option<File>)>> {
    let fail = |error| Error::io("a temporary copy of the delta", error);
    let (mut out, mut sidecar) = (std::io::BufWriter::new(out), sidecar.map(std::io::BufWriter::new));
    let parts = Base {
        chain: &base.chain,
        identity: &base.identity,
        image: Some(&*base.image),
        digests: base.digests.as_ref(),
    };
    let (most, mut written, mut given_up) = (pages::Image::size(new) / 100 * MAX_PACK_PERCENT, 0, false);
    let mut sink = |bytes: bytes::Bytes| {
        written += bytes.len() as u64;
        let result = match written <= most {
            true => out.write_all(&bytes).map_err(fail),
            false => Err(Error::unsupported("the change is as large as the image")),
        };
        given_up = result.is_err();
        result
    };
    let digests = sidecar.as_mut().map(|sidecar| sidecar as &mut dyn Write);
    let encoded = encode_delta(new, &parts, dirty, &Options::new(Profile::Compact), digests, &mut sink);
    let encoded = match encoded {
        Err(error) if given_up => {
            tracing::debug!(%error, "the image is stored whole");
            return Ok(None);
        }
        encoded => encoded?,
    };
    let out = out.into_inner().map_err(|error| fail(error.into_error()))?;
    let sidecar = sidecar.map(std::io::BufWriter::into_inner).transpose().map_err(|error| fail(error.into_error()))?;
    Ok(Some((encoded, out, sidecar)))
}

/// Ends an encoder when it is dropped: nothing waits for it any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An image that cannot be read any more once that is wanted.
struct Stoppable {
    image: FileImage,
    stop: Arc<AtomicBool>,
}

impl pages::Image for Stoppable {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Cancelled, "nothing waits for the change any more")),
            false => self.image.read_at(buffer, offset),
        }
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        self.image.next_data(from, end)
    }
}

/// A stored image, for an encoder. Reading blocks, and needs the runtime to go on elsewhere.
struct StoredImage {
    image: Image,
    runtime: tokio::runtime::Handle,
}

impl pages::Image for StoredImage {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let wanted = buffer.len();
        match self.runtime.block_on(self.image.read_at(offset, buffer))? {
            filled if filled == wanted => Ok(()),
            filled => Err(Error::corrupt(format!("the base ends {} bytes early", wanted - filled))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_digests_are_bounded_whatever_one_file_has() {
        let dir = tempfile::tempdir().unwrap();
        let of = |len: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(len).unwrap();
            file
        };
        let kept = |name: &str, len| keep_digests(&dir.path().join("d").join(name), of(len), 10).unwrap();
        let there = || -> Vec<u64> {
            let files = std::fs::read_dir(dir.path().join("d")).into_iter().flatten();
            files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
        };
        kept("huge", 11);
        assert_eq!(there(), [0u64; 0]);
        kept("first", 6);
        kept("huge", 1 << 40);
        assert_eq!(there(), [6]);
        kept("second", 7);
        assert_eq!(there(), [7]);
        kept("third", 3);
        assert_eq!(there().iter().sum::<u64>(), 10);
    }
}
