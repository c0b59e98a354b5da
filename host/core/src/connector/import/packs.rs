//! Importing packs, once the objects that hold their images as they are have been recorded: a pack takes pages from earlier
//! ones. They come one at a time, in the order in which they were stored.

use super::examine::{self, Examined, Finding, Found};
use super::report::Meter;
use super::{LeftState, Run};
use crate::catalogue::{ImportItem, NewPack, Placement, PlacementState};
use crate::snapshot::identify;
use crate::types::{Encoding, ObjectStat, Result, SnapshotId};

impl Run<'_> {
    /// Examines and records the packs that were found.
    pub(super) async fn packs(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.packs) {
            let Some(item) = self.queue.page(number - 1, 1).await?.pop() else { continue };
            let finding = match self.pack(&item).await {
                Ok(finding) => finding,
                Err(error) => examine::judge(error),
            };
            self.record(vec![Examined { item, finding }]).await?;
            self.meter.done(self.report.done());
        }
        Ok(())
    }

    async fn pack(&self, item: &ImportItem) -> Result<Finding> {
        let stat = self.objects.stat(&item.object).await?;
        let placement = placement(self.backend, item, &stat);
        let pack = std::sync::Arc::new(self.host.open_unknown_pack(&placement).await?);
        let mut needs: Vec<SnapshotId> = pack.sources().iter().map(|source| source.snapshot).collect();
        needs.sort_unstable();
        needs.dedup();
        for needed in &needs {
            if self.host.object_on(self.backend, *needed).await?.is_none() {
                let why = format!("it takes pages from snapshot {needed}, of which this backend has no sound object");
                return Ok(Finding::Left(LeftState::Unreachable, why));
            }
        }
        let (id, snapshot, size) = (pack.id(), pack.snapshot(), pack.size());
        let chain = self.host.chain(pack, self.backend).await?;
        let meter: &Meter = &self.meter;
        let mut before = 0;
        let body = self.host.pack_body(placement, std::sync::Arc::new(chain), 0..size);
        let identity = identify(body, |passed| {
            meter.read(passed - before);
            before = passed;
            Ok(())
        })
        .await?;
        if identity.id() != snapshot {
            let why = format!("it is a pack that says it holds {snapshot}, and holds {}", identity.id());
            return Ok(Finding::Left(LeftState::Damaged, why));
        }
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
