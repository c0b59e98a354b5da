//! What an object says of itself, where the catalogue says something else.
//!
//! A pack proves its metadata by its id, and names its snapshot. Its size follows from its footer, and what it needs from its
//! sources. So where a row of the catalogue differs from an object that is a pack of the same snapshot, the row is damaged:
//! it is corrected, and condemns nothing. The bytes of the snapshot are proven in any case. Segment digests that are
//! damaged follow from the bytes of an object that holds its snapshot as it is: they lead to its id, or they do not.

use std::sync::Arc;

use super::metadata::needs_of;
use super::shares::Part;
use crate::catalogue::{Need, NewPack, Placement};
use crate::connector::Host;
use crate::snapshot::{Identity, identify};
use crate::types::{Encoding, Error, Result, SnapshotId};

impl Host {
    /// Looks at an object that is recorded as a pack. If it is one of the recorded snapshot, and another one than is
    /// recorded, of another size or with other needs, corrects the record and returns it.
    ///
    /// # Errors
    /// `corrupt` if it is no pack; errors of the backend and of the catalogue.
    pub(in crate::connector) async fn amended(&self, placement: &Placement) -> Result<Option<Placement>> {
        self.amended_as(placement, Part::First).await
    }

    pub(super) async fn amended_as(&self, placement: &Placement, part: Part<'_>) -> Result<Option<Placement>> {
        if placement.encoding != Encoding::Pages {
            return Ok(None);
        }
        let stat = self.backend(&placement.backend).await?.objects.stat(&placement.object).await?;
        let found = Placement { pack: None, stored_bytes: stat.size, ..placement.clone() };
        let pack = self.open_unknown_part(&found, part).await?;
        if pack.snapshot() != placement.snapshot {
            return Ok(None);
        }
        let (id, catalogue) = (pack.id(), &self.inner.catalogue);
        let (needs, recorded) = (needs_of(&pack), catalogue.needs_of(&placement.backend, &placement.object).await?);
        let has_all = |some: &[Need], of: &[Need]| of.iter().all(|need| some.contains(need));
        let as_recorded = placement.pack == Some(id)
            && placement.stored_bytes == stat.size
            && has_all(&needs, &recorded)
            && has_all(&recorded, &needs);
        if as_recorded {
            return Ok(None);
        }
        let (backend, object) = (&placement.backend, &placement.object);
        match catalogue.amend(placement, NewPack { id, needs }, stat.size).await {
            Ok(true) => {
                tracing::warn!(backend, %object, "the catalogue said something else of the object: it is corrected")
            }
            Ok(false) => {}
            // What was found holds all the same.
            Err(error) => tracing::warn!(backend, %object, %error, "cannot correct what is recorded of the object"),
        }
        self.keep_pack(&pack);
        let now = catalogue.placement_of(backend, object).await?.filter(|now| now.snapshot == placement.snapshot);
        Ok(now.map(|now| Placement { pack: Some(id), stored_bytes: stat.size, ..now }))
    }

    /// Returns whether an object has the bytes that it must have, or the catalogue was wrong about that.
    pub(in crate::connector) async fn has_its_size(&self, placement: &Placement, expected: u64, found: u64) -> bool {
        let amended =
            async { self.amended(placement).await.is_ok_and(|now| now.is_some_and(|now| now.stored_bytes == found)) };
        found == expected || Box::pin(amended).await
    }

    /// The identity of a snapshot whose recorded digests are damaged, from an object that holds it as it is, and records it.
    ///
    /// # Errors
    /// `damaged` if there is none.
    pub(super) async fn identity_by_reading(&self, id: SnapshotId, damaged: Error) -> Result<Arc<Identity>> {
        let Some(snapshot) = self.inner.catalogue.get_kept(id).await? else { return Err(damaged) };
        for placement in self.readable(id).await?.into_iter().filter(|found| found.encoding == Encoding::Raw) {
            let read = async {
                let body = self.backend(&placement.backend).await?.objects.get(&placement.object, None).await?;
                identify(body, |passed| match passed <= snapshot.size {
                    true => Ok(()),
                    false => Err(Error::corrupt("it is longer than its snapshot")),
                })
                .await
            };
            match read.await {
                Ok(identity) if identity.id() == id => {
                    if let Err(error) = self.inner.catalogue.mend_segments(id, identity.segments().to_bytes()).await {
                        tracing::warn!(%id, %error, "cannot correct the digests of the snapshot");
                    }
                    let identity = Arc::new(identity);
                    self.inner.recent_digests.put(identity.clone());
                    return Ok(identity);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(backend = placement.backend, %error, "cannot read the snapshot"),
            }
        }
        Err(damaged)
    }
}
