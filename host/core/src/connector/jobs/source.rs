//! Where a copy is read from. Only what is live counts, and what only lacks something: what is bad proves nothing before it is read to its end, and a restore
//! from cold storage costs money, which no job spends.

use std::fs::File;
use std::sync::Arc;

use futures::FutureExt as _;

use super::meter::Meter;
use crate::catalogue::{NewPack, Placement, PlacementState};
use crate::connector::Host;
use crate::connector::packs::{Caches, Sound, check_pack, needs_of};
use crate::connector::payload::PackFile;
use crate::connector::store::apart;
use crate::snapshot::{CheckedSource, FileSource, Identity, Source};
use crate::types::{Error, ErrorKind, Result, SnapshotId, Subject, blocking};

/// What a pack waits in while it is copied.
const COPY: &str = "a temporary copy of a pack";

impl Host {
    /// The placements of a snapshot that a copy may be read from, the first to be tried first; not this one. Those that lack what
    /// they take pages from are the last: another backend may have it.
    pub(super) async fn copies_of(&self, id: SnapshotId, except: Option<&Placement>) -> Result<Vec<Placement>> {
        let mut placements = self.readable(id).await?;
        placements.retain(|p| p.state == PlacementState::Live || p.is_lacking());
        placements.retain(|p| except.is_none_or(|not| (&p.backend, &p.object) != (&not.backend, &not.object)));
        Ok(placements)
    }

    /// Looks for the cause of a failure of a job at its source. Returns the failure if it lies there, in the backend or in what
    /// that has: another source may serve. A source that is damaged is marked, and is repaired in its turn.
    ///
    /// # Errors
    /// The failure, if it has another cause; errors of the catalogue.
    pub(super) async fn at_its_source(
        &self,
        error: Error,
        source: &Placement,
        target: &str,
        identity: &Arc<Identity>,
    ) -> Result<Error> {
        let of_object = error.operation() == Some("retrieve") && error.subject() == Subject::Object;
        let of_backend = source.backend != target && error.backend() == Some(&source.backend);
        if !of_object && !of_backend {
            return Err(error);
        }
        tracing::warn!(backend = source.backend, %error, "a job cannot go on from this copy");
        if of_object {
            self.verify_one(source, identity, true, None, &mut 0, &mut Sound::default()).await?;
        }
        Ok(error)
    }

    /// The image of a placement, every segment of it checked.
    pub(super) fn image_on(&self, placement: &Placement, identity: &Arc<Identity>, meter: &Arc<Meter>) -> Source {
        let (host, placement, meter) = (self.clone(), Arc::new(placement.clone()), meter.clone());
        let image = identity.clone();
        let open = move || {
            let (host, placement, identity) = (host.clone(), placement.clone(), image.clone());
            let meter = meter.clone();
            async move { Ok(meter.around(apart(host, placement, identity))) }.boxed()
        };
        Source::Checked(CheckedSource::new(identity.clone(), open))
    }

    /// The pack of a placement, in a file, every byte of it checked.
    ///
    /// # Errors
    /// `corrupt` if it is not the pack that was stored; errors of the backend.
    pub(super) async fn pack_on(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        meter: &Arc<Meter>,
    ) -> Result<Arc<PackFile>> {
        let pack = self.pack_of(placement, Caches::Bypass).await?;
        let objects = &self.backend(&placement.backend).await?.objects;
        let body = objects.get(&placement.object, None).await;
        let body = body.map_err(|error| error.on_backend(&placement.backend).during("retrieve"))?;
        let file = self.write_at_most(meter.around(body), placement.stored_bytes, COPY).await;
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::Corrupt if error.backend().is_none() => error.on_backend(&placement.backend).during("retrieve"),
            _ => error,
        })?;
        let (new, backend) = (NewPack { id: pack.id(), needs: needs_of(&pack) }, placement.backend.clone());
        let copy = |file: &File| file.try_clone().map_err(|error| Error::io(COPY, error));
        // What is checked is what is sent, or the attempt fails.
        let bytes = FileSource::own(copy(&file)?, COPY, None)?.identify(None).await?;
        let file = blocking(move || check_pack(&file, &pack, COPY).map(|()| file));
        let file = file.await.map_err(|error| error.on_backend(&backend).during("retrieve"))?;
        let file = FileSource::own(file, COPY, Some(bytes.id()))?;
        Ok(Arc::new(PackFile { file, identity: identity.clone(), pack: new, changed: None }))
    }
}
