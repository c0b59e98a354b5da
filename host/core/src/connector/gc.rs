//! Clearing away what was cut short: temporary files, unfinished uploads, objects of stores that never ended, removals
//! that were interrupted. Never touches what a living host, here or in another process, still needs: a host that was killed
//! on this machine is known to be dead at once, any other one when its lease has expired (`owner.rs`). Attempts that a living
//! host has given up are among what is cleared away.
//!
//! A backend that cannot be asked, or is slow, keeps its leftovers so long, and the others lose theirs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};

use super::Host;
use super::labels::{container_keys_in, is_identity_name, keys_in};
use super::lanes::AT_ONCE;
use super::listing::Listing;
use super::owner::StaleIntent;
use super::removal::Claiming;
use super::report::{FailedBackend, GcReport};
use crate::catalogue::{OwnerToken, Placement, PlacementState};
use crate::config::HOT;
use crate::types::{Error, ObjectId, Result};

/// Objects that are listed at once.
const PAGE: u32 = 1000;

/// What a collection may do, and who hears of it.
#[derive(Clone)]
pub struct GcOptions {
    /// Unfinished uploads that are younger stay: they may be in progress.
    pub older_than: Duration,
    /// How many objects a backend may list; `None` is [`MOST_LISTED`](super::MOST_LISTED).
    pub max_objects: Option<u64>,
    /// Progress callback.
    pub progress: Option<GcProgress>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { older_than: Duration::from_secs(24 * 60 * 60), max_objects: None, progress: None }
    }
}

/// How far a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcStep<'a> {
    /// The backend whose objects are listed.
    pub backend: &'a str,
    /// Those that were listed so far.
    pub objects: u64,
}

/// A callback for the progress of a collection, called for each page of objects.
pub type GcProgress = Arc<dyn Fn(GcStep<'_>) + Send + Sync>;

/// What goes on a backend, whatever it lists.
#[derive(Default)]
struct Begun {
    /// Deletions that were begun and not ended.
    removals: Vec<(ObjectId, Claiming)>,
    /// What another object has taken the place of.
    replaced: Vec<Placement>,
}

impl Host {
    /// Clears away leftovers. Uploads to a bucket count as left over when they are older than `older_than`: an upload
    /// carries no sign of life, unlike a temporary file. After the same time, nothing is expected any more of attempts that a
    /// living host has given up.
    ///
    /// # Errors
    /// Errors of the catalogue. Those of backends are in the report; each keeps its leftovers for the next time.
    pub async fn gc(&self, older_than: Duration) -> Result<GcReport> {
        self.gc_with(GcOptions { older_than, ..GcOptions::default() }).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Self::gc`].
    pub async fn gc_with(&self, options: GcOptions) -> Result<GcReport> {
        let mut removed = GcReport::default();
        // What is found to be left over is removed under the lease that was held before it was looked for: if that is ended,
        // the world has moved on.
        let token = self.inner.owner.current().await?;
        let stale = self.inner.owner.stale_intents().await?;
        let mut intents: HashMap<&str, Vec<&StaleIntent>> = HashMap::new();
        for one in &stale {
            intents.entry(&one.intent.backend).or_default().push(one);
        }
        let mut removals = self.cut_short(token).await?;
        let mut replaced = self.replaced().await?;
        let mut work = Vec::new();
        for backend in self.inner.backends.keys() {
            let intents = intents.remove(backend.as_str()).unwrap_or_default();
            let begun = Begun {
                removals: removals.remove(backend).unwrap_or_default(),
                replaced: replaced.remove(backend).unwrap_or_default(),
            };
            work.push(self.gc_apart(backend, &options, token, intents, begun));
        }
        // A backend that is slow holds off no other.
        let mut collections = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some(one) = collections.next().await {
            removed.leftovers += one.leftovers;
            removed.objects += one.objects;
            removed.removals += one.removals;
            removed.failed.extend(one.failed);
        }
        removed.failed.sort_by(|one, other| one.backend.cmp(&other.backend));
        Ok(removed)
    }

    /// Collects on one backend. Its failure is in the report.
    fn gc_apart<'a>(
        &'a self,
        backend: &'a str,
        options: &'a GcOptions,
        token: OwnerToken,
        intents: Vec<&'a StaleIntent>,
        begun: Begun,
    ) -> BoxFuture<'a, GcReport> {
        Box::pin(async move {
            let mut removed = GcReport::default();
            let outcome = self.gc_backend(backend, options, token, &intents, begun, &mut removed).await;
            for error in outcome.unwrap_or_else(|error| vec![error]) {
                tracing::warn!(backend, %error, "the leftovers of the backend stay");
                let failed = FailedBackend::of(backend, &error);
                if !removed.failed.contains(&failed) {
                    removed.failed.push(failed);
                }
            }
            removed
        })
    }

    /// Collects on one backend that can be opened. Returns what its steps have met: none keeps the others from trying.
    async fn gc_backend(
        &self,
        backend: &str,
        options: &GcOptions,
        token: OwnerToken,
        intents: &[&StaleIntent],
        begun: Begun,
        removed: &mut GcReport,
    ) -> Result<Vec<Error>> {
        let capabilities = &self.backend(backend).await?.capabilities;
        self.pass_over_looks(vec![backend.to_owned()]).await?;
        let leftovers = match &self.inner.hot {
            Some(hot) if backend == HOT => hot.backend.sweep().await,
            _ => capabilities.gc(options.older_than).await,
        };
        let leftovers = leftovers.map_err(|error| error.on_backend(backend).during("gc"));
        let mut met = Vec::new();
        met.extend(leftovers.map(|count| removed.leftovers += count).err());
        let mut removals = begun.removals;
        for old in begun.replaced {
            if self.retire_replaced(&old).await? {
                removals.push((old.object, Claiming { instead_of: None, under: Some(token) }));
            }
        }
        for (object, how) in removals {
            match self.delete_object_as(backend, &object, how).await {
                Ok(deleted) => removed.removals += u64::from(deleted),
                // The backend is asked no more than once too often.
                Err(error) => {
                    met.push(error);
                    break;
                }
            }
        }
        if !intents.is_empty()
            && let Err(error) = self.remove_orphans(backend, options, token, intents, removed).await
        {
            met.push(error);
        }
        Ok(met)
    }

    /// The deletions that were begun and not ended, by backend: those of placements, and of objects that were none.
    async fn cut_short(&self, token: OwnerToken) -> Result<HashMap<String, Vec<(ObjectId, Claiming)>>> {
        let catalogue = &self.inner.catalogue;
        let mut found: HashMap<String, Vec<(ObjectId, Claiming)>> = HashMap::new();
        let mut claimed = HashSet::new();
        for claim in self.inner.owner.ended_claims(catalogue.claims().await?).await? {
            claimed.insert((claim.backend.clone(), claim.object.clone()));
            let how = Claiming { instead_of: Some(claim.token), under: Some(token) };
            found.entry(claim.backend).or_default().push((claim.object, how));
        }
        for placement in catalogue.placements_in(PlacementState::Removing).await? {
            if !claimed.contains(&(placement.backend.clone(), placement.object.clone())) {
                found
                    .entry(placement.backend)
                    .or_default()
                    .push((placement.object, Claiming { instead_of: None, under: Some(token) }));
            }
        }
        Ok(found)
    }

    /// Packs that were rebased and that nothing needs any more, by backend.
    async fn replaced(&self) -> Result<HashMap<String, Vec<Placement>>> {
        let mut found: HashMap<String, Vec<Placement>> = HashMap::new();
        let mut after = Some(0);
        while let Some(last) = after {
            let (some, next) = self.inner.catalogue.all_replaced(last).await?;
            for old in some {
                found.entry(old.backend.clone()).or_default().push(old);
            }
            after = next;
        }
        Ok(found)
    }

    /// Removes objects that interrupted stores may have completed without a record. Each page is looked at as it comes, and no
    /// names are kept, so memory does not depend on how much is listed. Their names contain
    /// the keys of the intents. An adapter that cannot list keeps its intents, for one that can.
    async fn remove_orphans(
        &self,
        backend: &str,
        options: &GcOptions,
        token: OwnerToken,
        intents: &[&StaleIntent],
        removed: &mut GcReport,
    ) -> Result<()> {
        let objects = &self.backend(backend).await?.objects;
        if !objects.info().inventory {
            tracing::info!(backend, "the adapter cannot list objects, so orphans cannot be found");
            return Ok(());
        }
        // In another container there are none, which says nothing about this one.
        self.check_container(backend).await?;
        let keys: HashSet<&str> = intents.iter().map(|stale| stale.intent.key.as_str()).collect();
        let mut listing = Listing::of(backend, "gc", options.max_objects);
        let how = Claiming { instead_of: None, under: Some(token) };
        let (mut cursor, mut kept) = (None, HashSet::new());
        loop {
            let page = objects.list(cursor.clone(), PAGE).await?;
            listing.page(&page)?;
            if let Some(progress) = &options.progress {
                progress(GcStep { backend, objects: listing.objects() });
            }
            for entry in page.entries {
                let name = entry.id.as_str();
                let key = keys_in(name).chain(container_keys_in(name)).find_map(|key| keys.get(key).copied());
                let Some(key) = key else { continue };
                if self.delete_object_as(backend, &entry.id, how).await? {
                    removed.objects += u64::from(!is_identity_name(name));
                } else if !self.is_known(backend, &entry.id).await? {
                    // Another is about to delete it, and may fail.
                    kept.insert(key);
                }
            }
            cursor = match page.next {
                None => break,
                next if next == cursor => return Err(listing.cyclic()),
                next => next,
            };
        }
        // Nor does what was not listed in one that took its place meanwhile.
        self.confirm_container(backend).await?;
        let now = self.inner.platform.unix_seconds();
        for stale in intents {
            // That of an owner that may go on stays: its object may come yet, and the next collection looks again.
            let old = now.saturating_sub(stale.intent.started) >= options.older_than.as_secs();
            let over = !stale.owner_may_go_on || (stale.intent.is_given_up() && old);
            if over && !kept.contains(stale.intent.key.as_str()) {
                self.inner.catalogue.end_intent(&stale.intent.key).await?;
            }
        }
        Ok(())
    }

    /// Returns whether an object is a placement, or identifies the container.
    async fn is_known(&self, backend: &str, object: &ObjectId) -> Result<bool> {
        let catalogue = &self.inner.catalogue;
        Ok(catalogue.placement_of(backend, object).await?.is_some()
            || catalogue.container(backend).await?.is_some_and(|container| container.object == *object))
    }
}
