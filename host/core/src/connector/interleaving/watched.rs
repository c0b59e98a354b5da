//! A catalogue whose calls are points of the scheduler. It also notes what was recorded and what was
//! removed, in the order in which it happened, and can be made to skip one of its checks.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;

use super::{events::*, scheduler::Points};
use crate::catalogue::{
    Adopted, BegunRemoval, Catalogue, Claim, Commit, Committed, Container, ExpiredOwner, Forgotten, ImportQueue,
    Intent, Need, NewPack, NewPlacement, OwnerToken, Placement, PlacementState, RemovalScope, Sharing, Snapshot,
    SnapshotPage, SqliteCatalogue, Standing, Stats, SwapRow,
};
use crate::types::{ObjectId, PackId, Result, SnapshotId};

/// The catalogue of all hosts of a run.
pub(super) struct WatchedCatalogue {
    pub(super) inner: SqliteCatalogue,
    pub(super) points: Arc<Points>,
    pub(super) without: Without,
    pub(super) events: Mutex<Vec<Event>>,
}

impl WatchedCatalogue {
    fn note(&self, id: SnapshotId, what: Happened) {
        self.events.lock().unwrap().push(Event { id, what });
    }

    async fn commit_watched(&self, mut store: Commit) -> Result<Committed> {
        self.points.point("commit").await;
        if self.without == Without::Reliance {
            store.relies_on.clear();
        }
        if self.without == Without::Needs {
            for placement in &mut store.placements {
                let Some(pack) = &mut placement.pack else { continue };
                let mut there = Vec::new();
                for need in std::mem::take(&mut pack.needs) {
                    let known = Catalogue::placements(&self.inner, need.snapshot).await?;
                    let live = |p: &Placement| p.backend == placement.backend && p.state == PlacementState::Live;
                    there.extend(known.iter().any(live).then_some(need));
                }
                pack.needs = there;
            }
        }
        let id = store.snapshot.id;
        let committed = Catalogue::commit(&self.inner, store).await?;
        self.note(id, Happened::Recorded(self.points.task()));
        Ok(committed)
    }

    async fn begin_removal_watched(&self, id: SnapshotId, scope: RemovalScope) -> Result<BegunRemoval> {
        self.points.point("begin_removal").await;
        let begun = Catalogue::begin_removal(&self.inner, id, scope).await?;
        if let BegunRemoval::Objects(_) | BegunRemoval::Needed { .. } = begun {
            self.note(id, Happened::Removed);
        }
        Ok(begun)
    }

    async fn claim_watched(
        &self,
        backend: &str,
        object: &ObjectId,
        token: OwnerToken,
        instead_of: Option<OwnerToken>,
    ) -> Result<bool> {
        self.points.point("claim").await;
        if self.without == Without::Claims {
            let mut others = Catalogue::claims(&self.inner).await?;
            others.retain(|claim| claim.backend == backend && claim.object == *object);
            Catalogue::release_claims(&self.inner, others).await?;
        }
        Catalogue::claim(&self.inner, backend, object, token, instead_of).await
    }

    async fn transition_watched(&self, seen: &Placement, to: PlacementState, reason: Option<&str>) -> Result<bool> {
        self.points.point("transition").await;
        if self.without == Without::Versions {
            let Some(now) = Catalogue::placement_of(&self.inner, &seen.backend, &seen.object).await? else {
                return Ok(false);
            };
            if now.state == PlacementState::Removing {
                return Ok(false);
            }
            return Catalogue::transition(&self.inner, &now, to, reason).await;
        }
        Catalogue::transition(&self.inner, seen, to, reason).await
    }
}

impl Catalogue for WatchedCatalogue {
    fn get(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>> {
        Box::pin(async move {
            self.points.point("get").await;
            Catalogue::get(&self.inner, id).await
        })
    }

    fn get_kept(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<Snapshot>>> {
        Box::pin(async move {
            self.points.point("get_kept").await;
            Catalogue::get_kept(&self.inner, id).await
        })
    }

    fn segments(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            self.points.point("segments").await;
            Catalogue::segments(&self.inner, id).await
        })
    }

    fn find<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            self.points.point("find").await;
            Catalogue::find(&self.inner, text).await
        })
    }

    fn list(&self, after: Option<u64>, limit: usize) -> BoxFuture<'_, Result<SnapshotPage>> {
        Box::pin(async move {
            self.points.point("list").await;
            Catalogue::list(&self.inner, after, limit).await
        })
    }

    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(async move {
            self.points.point("named").await;
            Catalogue::named(&self.inner, name).await
        })
    }

    fn has_size(&self, size: u64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            self.points.point("has_size").await;
            Catalogue::has_size(&self.inner, size).await
        })
    }

    fn placements(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("placements").await;
            Catalogue::placements(&self.inner, id).await
        })
    }

    fn placements_of_pack(&self, pack: PackId) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("placements_of_pack").await;
            Catalogue::placements_of_pack(&self.inner, pack).await
        })
    }

    fn amend<'a>(&'a self, seen: &'a Placement, pack: NewPack, stored_bytes: u64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.points.point("amend").await;
            Catalogue::amend(&self.inner, seen, pack, stored_bytes).await
        })
    }

    fn mend_segments(&self, id: SnapshotId, segments: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        Catalogue::mend_segments(&self.inner, id, segments)
    }

    fn needs_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Vec<Need>>> {
        Box::pin(async move {
            self.points.point("needs_of").await;
            Catalogue::needs_of(&self.inner, backend, object).await
        })
    }

    fn sharing(&self, id: SnapshotId) -> BoxFuture<'_, Result<Sharing>> {
        Box::pin(async move {
            self.points.point("sharing").await;
            Catalogue::sharing(&self.inner, id).await
        })
    }

    fn placements_in(&self, state: PlacementState) -> BoxFuture<'_, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("placements_in").await;
            Catalogue::placements_in(&self.inner, state).await
        })
    }

    fn some_placements<'a>(&'a self, on: &'a str, after: &'a str, limit: u32) -> BoxFuture<'a, Result<Vec<Placement>>> {
        Box::pin(async move {
            self.points.point("some_placements").await;
            Catalogue::some_placements(&self.inner, on, after, limit).await
        })
    }

    fn placement_of<'a>(&'a self, backend: &'a str, object: &'a ObjectId) -> BoxFuture<'a, Result<Option<Placement>>> {
        Box::pin(async move {
            self.points.point("placement_of").await;
            Catalogue::placement_of(&self.inner, backend, object).await
        })
    }

    fn transition<'a>(
        &'a self,
        seen: &'a Placement,
        to: PlacementState,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.transition_watched(seen, to, reason))
    }

    fn begin_removal(&self, id: SnapshotId, scope: RemovalScope) -> BoxFuture<'_, Result<BegunRemoval>> {
        Box::pin(self.begin_removal_watched(id, scope))
    }

    fn begin_eviction<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        relied: Vec<String>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.points.point("begin_eviction").await;
            Catalogue::begin_eviction(&self.inner, backend, object, relied).await
        })
    }

    fn forget_backend<'a>(&'a self, name: &'a str, on: Vec<String>, lose: bool) -> BoxFuture<'a, Result<Forgotten>> {
        Catalogue::forget_backend(&self.inner, name, on, lose)
    }

    fn claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
        instead_of: Option<OwnerToken>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.claim_watched(backend, object, token, instead_of))
    }

    fn end_claim<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<Vec<Placement>>>> {
        Box::pin(async move {
            self.points.point("end_claim").await;
            Catalogue::end_claim(&self.inner, backend, object, token).await
        })
    }

    fn release_claims(&self, claims: Vec<Claim>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.points.point("release_claims").await;
            Catalogue::release_claims(&self.inner, claims).await
        })
    }

    fn claims(&self) -> BoxFuture<'_, Result<Vec<Claim>>> {
        Box::pin(async move {
            self.points.point("claims").await;
            Catalogue::claims(&self.inner).await
        })
    }

    fn container<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Option<Container>>> {
        // It is recorded before a run begins, and stays.
        Catalogue::container(&self.inner, backend)
    }

    fn record_container<'a>(
        &'a self,
        backend: &'a str,
        object: &'a ObjectId,
        expected: Option<&'a ObjectId>,
        intent: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Container>> {
        Box::pin(async move {
            self.points.point("record_container").await;
            Catalogue::record_container(&self.inner, backend, object, expected, intent).await
        })
    }

    fn acquire_owner<'a>(&'a self, name: &'a str, lease: std::time::Duration) -> BoxFuture<'a, Result<OwnerToken>> {
        Box::pin(async move {
            self.points.point("acquire_owner").await;
            Catalogue::acquire_owner(&self.inner, name, lease).await
        })
    }

    fn renew_owner(&self, token: OwnerToken, lease: std::time::Duration) -> BoxFuture<'_, Result<()>> {
        Catalogue::renew_owner(&self.inner, token, lease)
    }

    fn release_owner(&self, token: OwnerToken) -> BoxFuture<'_, Result<()>> {
        Catalogue::release_owner(&self.inner, token)
    }

    fn end_owners(&self, names: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.points.point("end_owners").await;
            Catalogue::end_owners(&self.inner, names).await
        })
    }

    fn begin_intent<'a>(&'a self, key: &'a str, backend: &'a str, owner: OwnerToken) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.points.point("begin_intent").await;
            Catalogue::begin_intent(&self.inner, key, backend, owner).await
        })
    }

    fn end_intent<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.points.point("end_intent").await;
            Catalogue::end_intent(&self.inner, key).await
        })
    }

    fn abandon_intents(&self, keys: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.points.point("abandon_intents").await;
            Catalogue::abandon_intents(&self.inner, keys).await
        })
    }

    fn expired_owners(&self) -> BoxFuture<'_, Result<Vec<ExpiredOwner>>> {
        Box::pin(async move {
            self.points.point("expired_owners").await;
            Catalogue::expired_owners(&self.inner).await
        })
    }

    fn stale_intents(&self, expired: Vec<ExpiredOwner>) -> BoxFuture<'_, Result<Vec<Intent>>> {
        Box::pin(async move {
            self.points.point("stale_intents").await;
            Catalogue::stale_intents(&self.inner, expired).await
        })
    }

    fn commit(&self, store: Commit) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(self.commit_watched(store))
    }

    fn add_placement(&self, id: SnapshotId, new: NewPlacement, intents: Vec<String>) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            self.points.point("add_placement").await;
            Catalogue::add_placement(&self.inner, id, new, intents).await
        })
    }

    fn standing<'a>(&'a self, backend: &'a str, objects: Vec<ObjectId>) -> BoxFuture<'a, Result<Standing>> {
        Box::pin(async move {
            self.points.point("standing").await;
            Catalogue::standing(&self.inner, backend, objects).await
        })
    }

    fn adopt(&self, objects: Vec<Adopted>) -> BoxFuture<'_, Result<Vec<bool>>> {
        Box::pin(async move {
            self.points.point("adopt").await;
            Catalogue::adopt(&self.inner, objects).await
        })
    }

    fn link<'a>(&'a self, backend: &'a str, pairs: Vec<(ObjectId, ObjectId)>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.points.point("link").await;
            Catalogue::link(&self.inner, backend, pairs).await
        })
    }

    fn not_looked_through(&self, backends: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>> {
        Catalogue::not_looked_through(&self.inner, backends)
    }

    fn begin_look<'a>(&'a self, backend: &'a str, anew: bool) -> BoxFuture<'a, Result<Option<u64>>> {
        Catalogue::begin_look(&self.inner, backend, anew)
    }

    fn end_look<'a>(&'a self, backend: &'a str, look: u64) -> BoxFuture<'a, Result<Option<Vec<Placement>>>> {
        Catalogue::end_look(&self.inner, backend, look)
    }

    fn import_queue(&self) -> BoxFuture<'_, Result<Box<dyn ImportQueue>>> {
        Box::pin(async move {
            self.points.point("import_queue").await;
            Catalogue::import_queue(&self.inner).await
        })
    }

    fn swaps<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<SwapRow>>> {
        Box::pin(async move {
            self.points.point("swaps").await;
            Catalogue::swaps(&self.inner, backend).await
        })
    }

    fn all_swaps(&self) -> BoxFuture<'_, Result<Vec<(String, SwapRow)>>> {
        Box::pin(async move {
            self.points.point("all_swaps").await;
            Catalogue::all_swaps(&self.inner).await
        })
    }

    fn add_swap<'a>(&'a self, backend: &'a str, row: SwapRow, keep: usize) -> BoxFuture<'a, Result<SwapRow>> {
        Box::pin(async move {
            self.points.point("add_swap").await;
            Catalogue::add_swap(&self.inner, backend, row, keep).await
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats>> {
        Box::pin(async move {
            self.points.point("stats").await;
            Catalogue::stats(&self.inner).await
        })
    }
}
