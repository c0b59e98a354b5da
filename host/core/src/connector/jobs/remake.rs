//! A pack that is lost and that others need, encoded again from its image.
//!
//! What takes pages from a pack needs that very pack. What a pack is follows from the image, from what it is a change of, from its
//! profile and from the way in which the image was read: a stream is read once, so that fewer equal pages are found. These are tried
//! one after the other until the pack has the id that is wanted; so what is configured now does not matter.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::this_run::Run;
use crate::catalogue::{NewPack, Placement, PlacementState};
use crate::connector::Host;
use crate::connector::full;
use crate::connector::packs::needs_of;
use crate::connector::payload::PackFile;
use crate::snapshot::pages::{Encoded, FileImage, Image, Options, Profile, encode_full, encode_segments};
use crate::snapshot::{FileSource, Identifier, Identity, SEGMENT};
use crate::types::{Error, PackId, Result, SnapshotId, blocking};

/// What a pack waits in while it is sent.
const PACK: &str = "a temporary copy of a pack";

/// A full pack that was written.
struct Full {
    encoded: Encoded,
    file: File,
    /// The identity of its own bytes.
    bytes: SnapshotId,
}

impl Host {
    /// The pack that a bad placement was, made again from a good copy of its image. `None` if nothing needs it, or if none comes out
    /// that is the same.
    ///
    /// # Errors
    /// Errors of reading the copy.
    pub(super) async fn remade_pack(
        &self,
        bad: &Placement,
        source: &Placement,
        identity: &Arc<Identity>,
        run: &Run,
    ) -> Result<Option<Arc<PackFile>>> {
        let Some(wanted) = bad.pack else { return Ok(None) };
        if self.inner.catalogue.dependents(&bad.backend, bad.snapshot).await?.is_empty() {
            return Ok(None);
        }
        let image = self.spooled(self.image_on(source, identity, &run.meter)).await?;
        match self.inner.catalogue.needs_of(&bad.backend, &bad.object).await?.is_empty() {
            true => self.full_again(&bad.backend, wanted, &image).await,
            false => self.change_again(bad, wanted, &image, run).await,
        }
    }

    async fn full_again(&self, backend: &str, wanted: PackId, image: &FileSource) -> Result<Option<Arc<PackFile>>> {
        for profile in [Profile::Compact, Profile::Random] {
            for once in [false, true] {
                let (file, image) = (self.temporary_file()?, image.image()?);
                let room = self.inner.encoders.smallest(backend, |threads| full::memory(profile, threads)).await?;
                let options = full::options(profile, room.threads);
                let Full { encoded, file, bytes } = blocking(move || encode(&image, &options, once, file)).await?;
                drop(room);
                if encoded.pack.id() == wanted {
                    let pack = NewPack { id: wanted, needs: needs_of(&encoded.pack) };
                    let file = FileSource::own(file, PACK, Some(bytes))?;
                    let identity = Arc::new(encoded.identity);
                    return Ok(Some(Arc::new(PackFile { file, identity, pack, changed: None })));
                }
            }
        }
        Ok(None)
    }

    /// The same for a change: against the recorded base, or another snapshot that it takes pages from, as these lie there.
    async fn change_again(
        &self,
        bad: &Placement,
        wanted: PackId,
        image: &FileSource,
        run: &Run,
    ) -> Result<Option<Arc<PackFile>>> {
        let catalogue = &self.inner.catalogue;
        let recorded = catalogue.get_kept(bad.snapshot).await?.and_then(|snapshot| snapshot.base);
        let mut needs = catalogue.needs_of(&bad.backend, &bad.object).await?;
        needs.sort_by_key(|need| Some(need.snapshot) != recorded);
        for need in needs {
            let mut there = catalogue.placements(need.snapshot).await?;
            there.retain(|p| p.backend == bad.backend && p.state == PlacementState::Live && p.is_pack(need.pack));
            let Some(base) = there.first() else { continue };
            let identity = self.identity_of(base.snapshot).await?;
            let bytes = self.spooled(self.image_on(base, &identity, &run.meter)).await?;
            for profile in [Profile::Compact, Profile::Random] {
                let base = self.base_on(base, Some(Arc::new(bytes.image()?))).await?;
                let made = self.pack_against(base, image, None, Options::new(profile), false).await?;
                if made.as_ref().is_some_and(|made| made.pack.id == wanted) {
                    return Ok(made);
                }
            }
        }
        Ok(None)
    }
}

/// Writes a full pack of an image, which is read `once` as a stream is.
fn encode(image: &FileImage, options: &Options, once: bool, file: File) -> Result<Full> {
    let fail = |error| Error::io(PACK, error);
    let mut out = std::io::BufWriter::new(file);
    let mut written = Identifier::new();
    let mut sink = |bytes: Bytes| {
        written.update(&bytes);
        out.write_all(&bytes).map_err(fail)
    };
    let encoded = match once {
        false => encode_full(image, options, None, &mut sink)?,
        true => {
            let mut at = 0;
            let mut next = || {
                let len = (image.size() - at).min(SEGMENT as u64);
                let mut bytes = vec![0; len as usize];
                image.read_at(&mut bytes, at)?;
                at += len;
                Ok((len > 0).then(|| bytes.into()))
            };
            encode_segments(&mut next, options, None, &mut sink)?
        }
    };
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    Ok(Full { encoded, file, bytes: written.finish().id() })
}
