//! Hot packs: what of an image is not in its hot base, as it is.

use std::ops::Range;
use std::sync::Arc;

use crate::catalogue::PlacementState;
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::change::BaseOf;
use crate::connector::packs::Caches;
use crate::connector::payload::PackFile;
use crate::snapshot::pages::{Options, Profile};
use crate::snapshot::{FileSource, pages};
use crate::types::{Result, SnapshotId};

impl Host {
    /// The change of an image against a base that is hot, as a pack of pages as they are; `None` if the base is not hot, or if
    /// the image is better kept whole.
    ///
    /// # Errors
    /// Errors of reading the image and of the base.
    pub(super) async fn hot_pack(
        &self,
        base: SnapshotId,
        new: &FileSource,
        changed: Option<&[Range<u64>]>,
    ) -> Result<Option<Arc<PackFile>>> {
        if new.is_device() {
            return Ok(None);
        }
        let Some(view) = self.hot_view(base).await? else { return Ok(None) };
        let placements = self.inner.catalogue.placements(base).await?;
        let Some(placement) = placements.iter().find(|p| p.backend == HOT && p.state == PlacementState::Live) else {
            return Ok(None);
        };
        let chain = self.chain(self.pack_of(placement, Caches::Use).await?, HOT, Caches::Use).await?;
        let identity = self.identity_of(base).await?;
        let digests = self.page_digests(&identity).await;
        let base = BaseOf { chain, identity, image: view as Arc<dyn pages::Image>, digests };
        let options = Options { level: 0, ..Options::new(Profile::Random) };
        self.pack_against(base, new, changed.map(<[_]>::to_vec), options, false).await
    }
}
