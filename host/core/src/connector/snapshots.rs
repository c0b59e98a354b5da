//! Finding, listing, describing and removing snapshots.

use std::collections::{BTreeMap, BTreeSet};

use super::Host;
use super::report::{PlacementStat, Removed, SnapshotStat};
use crate::catalogue::{BegunRemoval, JobKind, Placement, PlacementState, RemovalScope, Sharing, SnapshotPage};
use crate::config::HOT;
use crate::types::{Error, Result, SnapshotId};

impl Host {
    /// Finds a snapshot by its id, its name, or an unambiguous prefix of its id.
    ///
    /// # Errors
    /// `not-found`; `invalid` for a text that is not an id, or an ambiguous prefix.
    pub async fn find(&self, text: &str) -> Result<SnapshotId> {
        Ok(self.inner.catalogue.find(text).await?.id)
    }

    /// Returns snapshots in the order in which they were first stored, at most `limit` of them; `after` is a page's `next`.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn list(&self, after: Option<u64>, limit: usize) -> Result<SnapshotPage> {
        self.inner.catalogue.list(after, limit).await
    }

    /// Describes a snapshot from the catalogue, without access to a backend.
    ///
    /// # Errors
    /// `not-found`.
    pub async fn stat(&self, id: SnapshotId) -> Result<SnapshotStat> {
        let snapshot = self.known(id).await?;
        let Sharing { objects, frees } = self.inner.catalogue.sharing(id).await?;
        let counted = objects.iter().map(|object| &object.placement);
        let counted = counted.filter(|p| p.state == PlacementState::Live && self.counts(&p.backend));
        let counted: BTreeSet<&str> = counted.map(|placement| placement.backend.as_str()).collect();
        // A route has fewer backends than that.
        let counted = counted.len() as u32;
        let configured = |backend: &str| self.inner.backends.contains_key(backend);
        let placements: Vec<_> = objects.into_iter().map(|object| PlacementStat::of(object, configured)).collect();
        Ok(SnapshotStat {
            id,
            size: snapshot.size,
            base: snapshot.base,
            name: snapshot.name,
            names: snapshot.names,
            created: snapshot.created,
            stored_bytes: placements.iter().map(|placement| placement.stored_bytes).sum(),
            shared_bytes: shared_bytes(&placements),
            frees_bytes: frees,
            placements,
            copies: self.inner.catalogue.wanted(id).await?.map(|wanted| wanted.copies),
            at_risk: self.inner.catalogue.jobs_of(id).await?.iter().any(|job| job.kind == JobKind::Push),
            counted,
            history: self.inner.catalogue.events(id).await?,
        })
    }

    /// The backends that hold a snapshot, or something of it.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn backends_of(&self, id: SnapshotId) -> Result<Vec<String>> {
        let placements = self.inner.catalogue.placements(id).await?;
        Ok(placements.into_iter().map(|placement| placement.backend).collect())
    }

    /// Returns whether what is on a backend counts as a copy: not if it is not configured, and not in the hot tier.
    fn counts(&self, backend: &str) -> bool {
        backend != HOT && self.inner.backends.contains_key(backend)
    }

    /// Removes by the texts of [`Self::find`]: of a name, that name alone, and the snapshot with the last one
    /// unless it was also stored without a name; of an id, the snapshot, if it has one name at the most or `all_names` is
    /// set.
    ///
    /// # Errors
    /// `conflict` for the id of a snapshot with several names; otherwise as [`Self::find`] and [`Self::remove`].
    pub async fn remove_by(&self, text: &str, all_names: bool) -> Result<Removed> {
        let id = self.find(text).await?;
        let scope = match (all_names, text.parse::<SnapshotId>().is_err()) {
            (true, _) => RemovalScope::AllNames,
            // A name goes before the beginning of an id, as where it is found.
            (false, true) if self.inner.catalogue.named(text).await? == Some(id) => RemovalScope::Name(text.to_owned()),
            (false, _) => RemovalScope::Snapshot,
        };
        self.remove_scope(id, scope).await
    }

    /// Removes a snapshot from all backends and forgets it. Snapshots with it as their base stay complete: objects that they
    /// take pages from stay until they are removed, and those on a backend that may hold more than the catalogue knows until an
    /// import has looked through it.
    /// It stops being readable at once; leftovers of a failure are removed by `gc`.
    ///
    /// # Errors
    /// `not-found`; `conflict` if it has several names ([`Self::remove_by`]); the error of a backend that cannot remove its
    /// object now.
    pub async fn remove(&self, id: SnapshotId) -> Result<Removed> {
        self.known(id).await?;
        self.remove_scope(id, RemovalScope::Snapshot).await
    }

    /// Removes what was found to be known just before.
    async fn remove_scope(&self, id: SnapshotId, scope: RemovalScope) -> Result<Removed> {
        let catalogue = &self.inner.catalogue;
        let placements = catalogue.placements(id).await?;
        if let Some(lost) = placements.iter().find(|p| !self.inner.backends.contains_key(&p.backend)) {
            return Err(Error::unavailable(format!(
                "snapshot {id} has an object on this backend, which is not configured"
            ))
            .on_backend(&lost.backend)
            .hint(format!(
                "add the backend to the configuration; if it is gone for good, run `tidelock forget {}`",
                lost.backend
            )));
        }
        let mut looked = BTreeMap::new();
        for placement in &placements {
            // One that cannot be opened, or has another container, is met before anything is marked.
            self.open_backend(&placement.backend).await?;
            if !looked.contains_key(placement.backend.as_str()) {
                let began = self.inner.platform.now();
                self.check_container(&placement.backend).await?;
                looked.insert(placement.backend.as_str(), began);
            }
        }
        self.pass_over_looks(placements.iter().map(|placement| placement.backend.clone()).collect()).await?;
        let goes = match scope {
            RemovalScope::Name(_) => self.known(id).await?.names.len() < 2,
            RemovalScope::AllNames | RemovalScope::Snapshot => true,
        };
        if goes {
            self.look_at_what_stays(&placements).await?;
        }
        let mut removed =
            Removed { id, placements: 0, kept: false, names: Vec::new(), needed_by: Vec::new(), kept_on: Vec::new() };
        let objects = match catalogue.begin_removal(id, scope).await? {
            BegunRemoval::NameOnly(names) => {
                return Ok(Removed { kept: true, names, ..removed });
            }
            BegunRemoval::Objects(objects) => objects,
            BegunRemoval::Needed { spare, by, unknown_on } => {
                (removed.needed_by, removed.kept_on) = (by, unknown_on);
                spare
            }
        };
        for placement in &objects {
            let Placement { backend, object, .. } = placement;
            let deleted = match looked.get(backend.as_str()) {
                Some(began) => self.delete_looked_at(backend, object, *began).await?,
                None => self.delete_object(backend, object).await?,
            };
            removed.placements += u64::from(deleted);
        }
        Ok(removed)
    }
}

/// The bytes of what some placements take pages from and that is there for others too, each object once.
fn shared_bytes(placements: &[PlacementStat]) -> u64 {
    let links = placements.iter().flat_map(|placement| placement.chain.iter().map(move |link| (placement, link)));
    let shared = links.filter(|(_, link)| link.shared);
    let objects: BTreeMap<_, _> = shared
        .filter_map(|(placement, link)| Some(((&placement.backend, link.object.as_ref()?), link.stored_bytes)))
        .collect();
    objects.values().sum()
}
