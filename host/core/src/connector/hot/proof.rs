//! The proof of a hot copy: its own bytes, read back before it is recorded.
//!
//! That the page digests of a snapshot are kept says nothing about a file: they may have come from another copy, or from the
//! image as it was read. A pack is proven by the digests of its frames. What it takes pages from was proven when it was stored,
//! and may have rotted since: so it is read as well, unless a backend holds it too. Then it stays there until the pack is on a
//! backend itself.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::catalogue::{Placement, PlacementState};
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::packs::{Caches, check_pack};
use crate::snapshot::Identity;
use crate::snapshot::pages::{Pack, write_digests};
use crate::types::{Error, ErrorKind, Result, blocking};

/// What a hot file is called in errors.
const FILE: &str = "a hot image";

impl Host {
    /// Reads a hot copy back, which need not be recorded yet. Keeps the page digests of its image, if there are none.
    ///
    /// # Errors
    /// `corrupt` if it is not what was stored; other errors if that cannot be told.
    pub(in crate::connector) fn prove_hot<'a>(
        &'a self,
        placement: &'a Placement,
        identity: &'a Arc<Identity>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.keep_digests_of(placement, identity).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if *error.kind() == ErrorKind::Corrupt => return Err(error),
                Err(error) => tracing::info!(%error, "page digests of a hot image are not kept"),
            }
            if placement.pack.is_some() {
                let pack = self.pack_of(placement, Caches::Bypass).await?;
                if pack.snapshot() != identity.id() || pack.size() != identity.size() {
                    return Err(Error::corrupt("the hot object is a pack of another image").on_backend(HOT));
                }
                if self.is_held_elsewhere(&pack).await? && self.check_hot_file(placement, pack).await? {
                    return Ok(());
                }
            }
            self.prove(placement, identity).await
        })
    }

    /// Makes and keeps the page digests of a hot image, which proves it. Returns whether it has: not if there are some, or if it
    /// does not lie as it is.
    async fn keep_digests_of(&self, placement: &Placement, identity: &Arc<Identity>) -> Result<bool> {
        if self.page_digests(identity).await.is_some() {
            return Ok(false);
        }
        let Some(view) = self.view_of(placement.clone(), identity.clone()).await? else { return Ok(false) };
        let file = self.temporary_file()?;
        let written = blocking(move || {
            let mut out = std::io::BufWriter::new(file);
            let found = write_digests(&*view, 0, &mut out)?;
            let fail = |error| Error::io("page digests", error);
            Ok((found.id(), out.into_inner().map_err(|error| fail(error.into_error()))?))
        });
        let (found, file) = written.await?;
        if found != identity.id() {
            return Err(Error::corrupt("the hot image is not what was stored").on_backend(HOT));
        }
        if let Err(error) = self.keep_page_digests(identity, file).await {
            tracing::info!(%error, "page digests of a hot image are not kept");
        }
        Ok(true)
    }

    /// Returns whether a backend has a copy of everything that a hot pack takes pages from.
    async fn is_held_elsewhere(&self, pack: &Pack) -> Result<bool> {
        for source in pack.sources() {
            let placements = self.inner.catalogue.placements(source.snapshot).await?;
            if !placements.iter().any(|p| p.backend != HOT && p.state == PlacementState::Live) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes sure that the file of a hot pack is that pack to the byte. Returns whether it could: not if there is no such file.
    async fn check_hot_file(&self, placement: &Placement, pack: Arc<Pack>) -> Result<bool> {
        let (backend, object) = (self.backend(HOT).await?.objects.clone(), placement.object.clone());
        let check = move || match backend.local_file(&object) {
            Some(file) => check_pack(&file, &pack, FILE).map(|()| true),
            None => Ok(false),
        };
        blocking(check).await.map_err(|error| error.on_backend(HOT).during("retrieve"))
    }
}
