//! A base for an image that is stored without one: the snapshot that has its name, else a recent one that has many pages in common.
//!
//! Only routes whose encoding is `pages`, and that wait for a backend, are looked at. What is found is compared as by an update, and taken if the pack saves
//! enough; the answer names it then. Nothing else follows from a name or a sketch, and
//! a backend gets the pack only if the image can be read back through it (`read_back.rs`).

use crate::catalogue::PlacementState;
use crate::config::{Ack, HOT};
use crate::connector::change::Change;
use crate::connector::change::{Stop, Stoppable};
use crate::connector::full::may_be_full;
use crate::connector::report::Stored;
use crate::connector::sketches::{recent, sketch};
use crate::connector::{Host, StoreOptions};
use crate::snapshot::pages::{Sketch, write_digests};
use crate::snapshot::{FileSource, Source};
use crate::types::{Encoding, Error, Result, SnapshotId, blocking};
use futures::FutureExt as _;

/// The fewest numbers that a sketch has to have in common, of all: about a quarter of the pages.
const LEAST_COMMON: usize = Sketch::MOST * 3 / 20;
/// Similar snapshots that are looked at, the most similar first.
const LOOKED_AT: usize = 8;

impl Host {
    /// Stores an image, as a change of a base if one is found that pays. A stream is looked at only if that is wanted: it is written to
    /// the data directory then.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(in crate::connector) async fn store_on_a_base(
        &self,
        source: Source,
        streams: bool,
        options: &StoreOptions,
    ) -> Result<Stored> {
        let route = self.route(options.route.as_deref())?;
        // What a push sends later nobody reads back, so what is acknowledged by this machine is kept and pushed whole.
        let looks = route.encoding == Encoding::Pages && !options.raw && route.ack != Ack::Local;
        let named = match &options.name {
            Some(name) if looks => self.inner.catalogue.named(name).await?,
            _ => None,
        };
        let path = self.sketches_path();
        let similar = match looks {
            true => blocking(move || Ok(recent(&path))).await?,
            false => Vec::new(),
        };
        let file = match source {
            source if !looks || !may_be_full(&source) || (named.is_none() && similar.is_empty()) => Err(source),
            Source::File(file) => Ok(file),
            stream if streams => Ok(self.spooled(stream).await?),
            stream => Err(stream),
        };
        let file = match file {
            Ok(file) => file,
            Err(source) => return self.store_on_route(source, Change::default(), options).boxed().await,
        };
        let began = self.inner.platform.now();
        let mut stored = match self.store_on(named, &file, options).boxed().await? {
            Some(stored) => stored,
            None => {
                let base = self.similar(&file, named, similar, options).boxed().await?;
                match self.store_on(base, &file, options).boxed().await? {
                    Some(stored) => stored,
                    None => self.store_on_route(Source::File(file), Change::default(), options).boxed().await?,
                }
            }
        };
        stored.seconds = self.inner.platform.since(began).as_secs_f64();
        Ok(stored)
    }

    /// Stores an image as the change of a base; `None` if there is none, if that does not pay, or if the image is stored already.
    async fn store_on(
        &self,
        base: Option<SnapshotId>,
        file: &FileSource,
        options: &StoreOptions,
    ) -> Result<Option<Stored>> {
        let Some(base) = base else { return Ok(None) };
        let Some(pack) = self.change_of(base, None, file, None, options).boxed().await? else { return Ok(None) };
        if self.inner.catalogue.get(pack.identity.id()).await?.is_some() {
            return Ok(None);
        }
        let bytes = pack.file.size();
        let change = Change { base: Some(base), pack: Some(&pack), read_back: true, ..Change::default() };
        let (mut stored, as_pack) = self.store_change(file.clone(), change, options).boxed().await?;
        stored.delta_bytes = Some(bytes).filter(|_| as_pack).or(Some(stored.stored_bytes));
        Ok(Some(stored))
    }

    /// A snapshot on the backends of the route that has many pages in common with an image; not this one.
    async fn similar(
        &self,
        file: &FileSource,
        except: Option<SnapshotId>,
        all: Vec<(SnapshotId, Sketch)>,
        options: &StoreOptions,
    ) -> Result<Option<SnapshotId>> {
        if all.is_empty() {
            return Ok(None);
        }
        let (stop, out) = (Stop::default(), self.temporary_file()?);
        let image = Stoppable { image: file.image()?, stop: stop.0.clone() };
        let place = self.inner.encoders.change(None).await?;
        let found = blocking(move || {
            let mut buffered = std::io::BufWriter::new(out);
            let identity = std::sync::Arc::new(write_digests(&image, 0, &mut buffered)?);
            let out = buffered.into_inner().map_err(|error| Error::io("page digests", error.into_error()))?;
            let own = sketch(&identity, &out)?;
            let common = |(id, other): (SnapshotId, Sketch)| (own.common(&other), id);
            let mut found: Vec<(usize, SnapshotId)> = all.into_iter().map(common).collect();
            found.retain(|(common, id)| *common >= LEAST_COMMON && Some(*id) != except);
            // Of equal ones, the latest stays first.
            found.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
            Ok((identity.id(), found))
        });
        let found = found.await;
        drop((stop, place));
        let (own, found) = found?;
        if self.inner.catalogue.get(own).await?.is_some() {
            return Ok(None);
        }
        let route = &self.route(options.route.as_deref())?.backends;
        for (_, id) in found.into_iter().take(LOOKED_AT) {
            let there = self.inner.catalogue.placements(id).await?;
            let usable = there.iter().any(|placement| {
                placement.state == PlacementState::Live
                    && placement.backend != HOT
                    && route.contains(&placement.backend)
            });
            if usable && self.inner.catalogue.get(id).await?.is_some() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}
