//! Importing packs. A pack takes pages from objects that were stored before it, so it is read once all that come before it are
//! recorded, and once more at the end if that was not enough.

use super::examine::{self, Examined, Finding, Found};
use super::report::Meter;
use super::{LeftState, Run};
use crate::catalogue::{ImportItem, NewPack, Placement, PlacementState};
use crate::connector::change::MAX_SOURCES;
use crate::connector::packs::Caches;
use crate::connector::packs::{Sound, needs_of};
use crate::types::{Encoding, ErrorKind, ObjectStat, Result, SnapshotId};

impl Run<'_> {
    /// Records what was examined, in order: packs once all before them are recorded.
    pub(super) async fn record_in_order(&mut self, examined: Vec<Examined>) -> Result<()> {
        let mut ready = Vec::new();
        for one in examined {
            if !matches!(one.finding, Finding::Pack) {
                ready.push(one);
                continue;
            }
            self.record(std::mem::take(&mut ready)).await?;
            self.silent = 0;
            match self.examine_pack(&one.item).await {
                Finding::Pack => self.packs.push(one.item.number),
                finding => self.record_pack(one.item, finding).await?,
            }
        }
        self.record(ready).await
    }

    /// Records what was found in a pack, which waits if something that it needs is gone since it was looked for.
    async fn record_pack(&mut self, item: ImportItem, finding: Finding) -> Result<()> {
        let number = item.number;
        match self.record(vec![Examined { item, finding }]).await {
            Err(error) if *error.kind() == ErrorKind::Conflict => {
                tracing::info!(%error, "the pack waits");
                self.packs.push(number);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Examines and records the packs that came before what they take pages from.
    pub(super) async fn late_packs(&mut self) -> Result<()> {
        loop {
            let (mut waiting, before) = (std::mem::take(&mut self.packs), self.report.imported);
            waiting.sort_unstable();
            for number in waiting {
                let Some(item) = self.queue.page(number - 1, 1).await?.pop() else { continue };
                match self.examine_pack(&item).await {
                    Finding::Pack => self.packs.push(number),
                    finding => self.record_pack(item, finding).await?,
                }
                self.meter.done(self.report.done());
            }
            if self.packs.is_empty() || self.report.imported == before {
                break;
            }
        }
        for number in std::mem::take(&mut self.packs) {
            let Some(item) = self.queue.page(number - 1, 1).await?.pop() else { continue };
            let why = "it takes pages from a snapshot of which this backend has no sound object";
            self.report.leave(item.object, LeftState::Unreachable, why);
            self.meter.done(self.report.done());
        }
        Ok(())
    }

    /// Reads a pack. One whose sources are not known yet stays [`Finding::Pack`].
    async fn examine_pack(&self, item: &ImportItem) -> Finding {
        self.pack(item).await.unwrap_or_else(examine::judge)
    }

    async fn pack(&self, item: &ImportItem) -> Result<Finding> {
        let stat = self.objects.stat(&item.object).await?;
        let placement = placement(self.backend, item, &stat);
        let pack = self.host.open_unknown_pack(&placement).await?;
        if pack.sources().len() > MAX_SOURCES {
            let why = format!("it takes pages from {} packs, more than any update makes", pack.sources().len());
            return Ok(Finding::Left(LeftState::Unreachable, why));
        }
        let needs = needs_of(&pack);
        if self.host.missing_of(self.backend, &needs, &mut Sound::default()).await?.is_some() {
            return Ok(Finding::Pack);
        }
        let id = pack.id();
        let chain = self.host.chain(pack, self.backend, Caches::Bypass).await?;
        let meter: &Meter = &self.meter;
        let identity = self.host.prove_pack(&placement, chain, |bytes| meter.read(bytes)).await?;
        let pack = NewPack { id, needs };
        Ok(Finding::Snapshot(Box::new(Found { identity, encoding: Encoding::Pages, pack: Some(pack), stat })))
    }
}

/// A pack as if it were recorded. What it holds is not known yet.
fn placement(backend: &str, item: &ImportItem, stat: &ObjectStat) -> Placement {
    Placement {
        snapshot: SnapshotId::from_bytes([0; 32]),
        backend: backend.to_owned(),
        object: item.object.clone(),
        encoding: Encoding::Pages,
        pack: None,
        state: PlacementState::Live,
        reason: None,
        since: 0,
        version: 0,
        stored_bytes: stat.size,
        created: 0,
    }
}
