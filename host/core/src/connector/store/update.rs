//! Storing an image as a change of another one: `change.rs` finds what has changed, and backends that have the base get it as
//! a pack.

use futures::FutureExt as _;

use super::Change;
use crate::connector::report::Stored;
use crate::connector::{Host, StoreOptions};
use crate::snapshot::{DirtyRanges, FileSource, Source};
use crate::types::{Result, SnapshotId};

impl Host {
    /// Stores an image as a change of another one: of what both have, nothing is sent. The backend keeps the lineage where it
    /// can.
    ///
    /// # Errors
    /// `not-found` for an unknown base; otherwise as [`Self::store`].
    pub async fn update(&self, base: SnapshotId, source: Source, options: StoreOptions) -> Result<Stored> {
        self.known(base).await?;
        self.update_from(base, source, None, &options).boxed().await
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
        self.update_from(base, Source::File(source), Some(dirty), &options).boxed().await
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
            let change = Change { base: Some(base), ..Change::default() };
            let mut stored = self.store_on_route(source, change, options).boxed().await?;
            stored.delta_bytes = Some(stored.stored_bytes);
            return Ok(stored);
        }
        let source = match source {
            Source::File(file) => file,
            // A backend that is sent the image, and not the change, reads it once more.
            other => self.spooled(other).await?,
        };
        let pack = self.change_of(base, None, &source, dirty.as_ref(), options).boxed().await?;
        let pack_bytes = pack.as_ref().map(|pack| pack.file.size());
        let changed = dirty.as_ref().map(DirtyRanges::as_slice);
        let change = Change { base: Some(base), pack: pack.as_ref(), changed, ..Change::default() };
        let (mut stored, as_pack) = self.store_change(source, change, options).boxed().await?;
        stored.delta_bytes = pack_bytes.filter(|_| as_pack).or(Some(stored.stored_bytes));
        stored.seconds = self.inner.platform.since(began).as_secs_f64();
        Ok(stored)
    }

    /// Stores an image as a change: as its pack, or whole if there is none, or if the disk does not give it back as
    /// it was written. Returns whether the pack was used.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(in crate::connector) async fn store_change(
        &self,
        image: FileSource,
        change: Change<'_>,
        options: &StoreOptions,
    ) -> Result<(Stored, bool)> {
        if let Some(pack) = change.pack {
            match self.store_on_route(Source::File(image.clone()), change, options).boxed().await {
                Err(error) if pack.file.is_damaged() => {
                    tracing::warn!(%error, "the image is stored whole");
                }
                outcome => return outcome.map(|stored| (stored, true)),
            }
        }
        let change = Change { pack: None, ..change };
        Ok((self.store_on_route(Source::File(image), change, options).boxed().await?, false))
    }
}

#[cfg(test)]
mod tests;
