//! Storing an image: hashed while it is read, sent as it is read, recorded when every copy is durable.
//!
//! The order is: intents in the catalogue → bytes to the backends, one after the other → receipts → snapshot, name,
//! placements and the end of the intents in one transaction. `upload.rs` has the attempts of one backend, and
//! `store/copy.rs` their results. A file that may be stored already (the catalogue has a snapshot of its size) is
//! hashed first: where its object exists, nothing is sent. If a backend cannot take an image, the next one of the route
//! does; that needs a source that can be read again, so a stream fails with its first backend. Further copies of a
//! stream are made from the first one, checked like any read, which is read into a temporary file before.
//!
//! **One snapshot has one content.** Each copy is hashed as it is sent. If one is not what the first was, because the file
//! changed meanwhile, the store fails with `conflict` and all that it has made is removed.
//!
//! **Two copies are in two places.** A backend that turns out to store into the place of another copy ends the store with
//! `invalid`.
//!
//! **Copies that it does not wait for.** Where the route has more copies than a store waits for (`ack`), the transaction that
//! records it enqueues a job for the others.
//!
//! **What a failed store leaves.** A name is recorded with the last copy or not at all. Copies that were made before a
//! backend failed are kept as a snapshot without a name, so that a second store sends only what is missing; the error
//! reports them ([`Error::left`]). A store that fails for another reason removes what it has made.

mod copy;
mod find_base;
mod further;
mod hot;
mod local;
mod present;
mod read_back;
mod send;
mod update;

use super::Host;
use super::change::Change;
use super::labels::check_name;
use super::object_bytes::again;
use super::options::{StoreBase, StoreOptions};
use super::report::{PlacementInfo, Stored};
use crate::catalogue::{Commit, JobKind, NewJob, NewSnapshot, WantedCopies};
use crate::config::{Ack, HOT, Route};
use crate::snapshot::{Identity, Source};
use crate::types::{Error, ErrorKind, Left, Result, SnapshotId, Subject};
use futures::FutureExt as _;

use hot::HotChange;
use local::Locally;

pub(super) use copy::{StoredCopy, apart};
pub(super) use local::Pushes;

/// How often a store begins again because what it relies on was removed.
const ROUNDS: u32 = 3;

impl Host {
    /// Stores an image, as a change of another one if [`StoreOptions::base`] says so. When this returns, it is durable on as many
    /// backends as the route has copies, or as it waits for (`ack`); further ones are made by jobs.
    ///
    /// # Errors
    /// `not-found` for an unknown base.
    /// Errors of reading the source (`conflict` if a file changed meanwhile); the error of the last backend of the route,
    /// with what is left of the store ([`Error::left`]).
    pub async fn store(&self, source: Source, options: StoreOptions) -> Result<Stored> {
        match options.base {
            Some(StoreBase::Snapshot(base)) => self.update(base, source, options).boxed().await,
            Some(StoreBase::None) => self.store_on_route(source, Change::default(), &options).boxed().await,
            None => self.store_on_a_base(source, false, &options).boxed().await,
            Some(StoreBase::Auto) => self.store_on_a_base(source, true, &options).boxed().await,
        }
    }

    /// Stores an image on as many backends of the route as it has copies, in its order. Begins again if a copy that was
    /// there already was removed before it was recorded.
    pub(super) async fn store_on_route(
        &self,
        source: Source,
        change: Change<'_>,
        options: &StoreOptions,
    ) -> Result<Stored> {
        options.name.as_deref().map_or(Ok(()), check_name)?;
        let (mut source, mut change, mut round) = (source, change, 0);
        loop {
            let (again, mut relied) = (again(&source), false);
            round += 1;
            match (self.store_once(source, change, options, &mut relied).boxed().await, again) {
                // What it takes pages from was removed or marked since it was made. Whole, it needs nothing.
                (Err(error), Some(again)) if relied && change.sends_pack() && *error.kind() == ErrorKind::Conflict => {
                    tracing::warn!(%error, "the image is stored whole");
                    (source, change.whole) = (again, true);
                }
                (Err(error), Some(again)) if relied && *error.kind() == ErrorKind::Conflict && round < ROUNDS => {
                    tracing::info!(%error, "storing once more: what was there already was removed meanwhile");
                    source = again;
                }
                (outcome, _) => return outcome,
            }
        }
    }

    /// One round of a store. `relied` is set if it came to a record that counts on what was there already.
    async fn store_once(
        &self,
        source: Source,
        change: Change<'_>,
        options: &StoreOptions,
        relied: &mut bool,
    ) -> Result<Stored> {
        let base = change.base;
        let began = self.inner.platform.now();
        let route = self.route(options.route.as_deref())?.clone();
        let copies_of_route = route.copies.max(1).min(u32::try_from(route.backends.len()).unwrap_or(u32::MAX));
        let wanted = route.ack.waits_for(copies_of_route) as usize;
        let mut waiting = None;
        let source = match route.ack {
            Ack::Local => match self.store_locally(source, change, options, false).boxed().await? {
                Locally::Stored(mut stored) => {
                    stored.seconds = self.inner.platform.since(began).as_secs_f64();
                    return Ok(stored);
                }
                Locally::Elsewhere(source) => source,
                Locally::PastRisk(source) => {
                    tracing::info!("too much is at risk: the image is stored on the backends");
                    waiting = again(&source);
                    source
                }
            },
            Ack::Remote | Ack::Copies(_) => source,
        };
        let (mut source, mut last) = (Some(source), None);
        let mut copies: Vec<StoredCopy> = Vec::new();
        let mut identity = change.pack.map(|pack| pack.identity.clone());
        for backend in &route.backends {
            let Some(this) = source.take() else { break };
            let again = again(&this);
            let others: Vec<String> = copies.iter().map(|copy| copy.backend().to_owned()).collect();
            let copied = match self.ensure_apart(backend, others.clone()).await {
                Ok(()) => self.copy_to(backend, this, change, options, &mut identity).await,
                Err(error) => Err(error),
            };
            let copied = match copied {
                Ok(copy) => match self.confirm_apart(backend, others).await {
                    Ok(()) => Ok(copy),
                    Err(error) => {
                        self.discard(vec![copy]).await;
                        Err(error)
                    }
                },
                failed => failed,
            };
            match copied {
                Ok(copy) => copies.push(copy),
                Err(error) if is_of_first_copy(&error) => {
                    self.discard(copies).await;
                    return Err(error);
                }
                Err(error) if error.another_may_serve() => {
                    if again.is_some() && route.backends.last() != Some(backend) {
                        tracing::warn!(backend, %error, "the backend failed to store the image, trying the next");
                    }
                    last = Some(error);
                }
                Err(error) => {
                    self.discard(copies).await;
                    return Err(error);
                }
            }
            if copies.len() == wanted {
                *relied = copies.iter().any(StoredCopy::relies);
                let hot = self.inner.hot.is_some().then(|| again.or_else(|| self.source_of(copies.first()?))).flatten();
                let kept = hot.zip(copies.first().map(|copy| copy.identity.clone()));
                let mut stored = self.record(copies, base, options, true).await?;
                if let Some((source, identity)) = kept {
                    let changed = change.pack.and_then(|pack| pack.changed.as_deref()).or(change.changed);
                    self.keep_hot(source, HotChange { base, changed }, identity, options).boxed().await;
                }
                stored.seconds = self.inner.platform.since(began).as_secs_f64();
                return Ok(stored);
            }
            // A stream can be read only once: further copies are made from the first one.
            // All of it is here before another backend is asked for anything, so that none waits for the first one.
            source = match (again, copies.first().and_then(|first| self.source_of(first))) {
                (Some(again), _) => Some(again),
                (None, Some(first)) if route.backends.last() != Some(backend) => match self.spooled(first).await {
                    Ok(file) => Some(Source::File(file)),
                    Err(error) if is_of_first_copy(&error) => {
                        self.discard(copies).await;
                        return Err(error);
                    }
                    Err(error) => {
                        last = Some(error);
                        None
                    }
                },
                (None, _) => None,
            };
        }
        if let Some(source) = waiting.filter(|_| copies.is_empty())
            && let Locally::Stored(mut stored) = self.store_locally(source, change, options, true).boxed().await?
        {
            stored.seconds = self.inner.platform.since(began).as_secs_f64();
            return Ok(stored);
        }
        let error = last.unwrap_or_else(|| Error::unavailable("no backend of the route stored the image"));
        Err(self.keep_nameless(copies, base, options, wanted, error).boxed().await)
    }

    /// Records the copies of a snapshot, its name, and the end of the intents, in one transaction. What a store has
    /// left that is not `complete` goes with the last name that it is ever given.
    ///
    /// # Errors
    /// `conflict` if the store was given up for dead, or if what it relies on was removed: then what it has made is removed
    /// again.
    pub(super) async fn record(
        &self,
        mut copies: Vec<StoredCopy>,
        base: Option<SnapshotId>,
        options: &StoreOptions,
        complete: bool,
    ) -> Result<Stored> {
        let Some(first) = copies.first() else {
            return Err(Error::unavailable("no backend of the route stored the image"));
        };
        let identity = first.identity.clone();
        let name = options.name.clone();
        let snapshot = snapshot(&identity, base, name.clone(), complete && name.is_none());
        // What a failed store has left is not what somebody asked for.
        let wanted = if complete { Some(self.wanted_on(options.route.as_deref())?) } else { None };
        let together = match &wanted {
            Some(wanted) => Some(self.wanted_together(snapshot.id, wanted).await?),
            None => None,
        };
        let commit = |copies: &[StoredCopy]| {
            // What is hot is no copy.
            let there = copies.iter().filter(|copy| copy.backend() != HOT).count();
            let missing = wanted.as_ref().is_some_and(|wanted| there < wanted.copies as usize);
            let kind = if there == 0 { JobKind::Push } else { JobKind::Copy };
            let further = NewJob { kind, snapshot: snapshot.id, backend: None, object: None };
            let jobs = if missing { vec![further] } else { Vec::new() };
            Commit { wanted: together.clone(), jobs, ..commit(snapshot.clone(), copies) }
        };
        let mut committed = self.inner.catalogue.commit(commit(&copies)).await;
        let twice = |copy: &StoredCopy| copy.there.is_some() && copy.made.is_some();
        if committed.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Conflict) && copies.iter().any(twice) {
            // What was there is being removed; what was made need not be.
            copies.iter_mut().filter(|copy| twice(copy)).for_each(|copy| copy.there = None);
            committed = self.inner.catalogue.commit(commit(&copies)).await;
        }
        let name_taken_from = match committed {
            Ok(committed) => committed.name_taken_from,
            Err(error) => {
                // If this host's lease was ended, whoever did so may have cleared away before the object was there.
                if *error.kind() == ErrorKind::Conflict {
                    self.discard(copies).await;
                }
                return Err(error);
            }
        };
        let stored = Stored {
            id: identity.id(),
            size: identity.size(),
            stored_bytes: copies.iter().map(StoredCopy::stored_bytes).sum(),
            placements: copies.iter().filter_map(StoredCopy::info).collect(),
            seconds: 0.0,
            base,
            delta_bytes: None,
            name_taken_from,
        };
        for copy in copies {
            match copy.there.is_some() {
                true => self.discard(vec![copy]).await,
                false => self.ensure_it_outlived(&copy).await?,
            }
        }
        Ok(stored)
    }

    /// Records one more copy of a snapshot that is recorded already. Returns whether it did: not if the snapshot was removed
    /// meanwhile. What is not recorded is removed again.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(super) async fn record_extra(&self, copy: StoredCopy) -> Result<bool> {
        let Some(placement) = copy.placement() else {
            self.discard(vec![copy]).await;
            return Ok(true);
        };
        let (id, intents) = (copy.identity.id(), copy.intents().collect());
        let recorded = self.inner.catalogue.add_placement(id, placement, intents).await;
        if !matches!(recorded, Ok(true)) {
            self.discard(vec![copy]).await;
        }
        recorded
    }

    /// The copies that a route wants, the default one if none is named.
    ///
    /// # Errors
    /// `invalid` for an unknown route.
    pub(super) fn wanted_on(&self, route: Option<&str>) -> Result<WantedCopies> {
        let name = route.unwrap_or(crate::config::DEFAULT_ROUTE);
        let route = self.route(Some(name))?;
        let most = u32::try_from(route.backends.len()).unwrap_or(u32::MAX);
        Ok(WantedCopies { copies: route.copies.clamp(1, most.max(1)), route: name.to_owned() })
    }

    /// What is wanted of a snapshot by its route and by those on which it was stored before: no fewer copies than all of them
    /// can do with.
    async fn wanted_together(&self, id: SnapshotId, wanted: &WantedCopies) -> Result<WantedCopies> {
        let Some(before) = self.inner.catalogue.wanted(id).await? else { return Ok(wanted.clone()) };
        let all = before.and(wanted);
        let routes = all.routes().filter_map(|name| self.inner.routes.get(name));
        let copies = least_copies(routes).max(wanted.copies);
        Ok(WantedCopies { copies, route: wanted.route.clone() })
    }

    /// Records the copies of a failed store as a snapshot without a name, and adds this to its error.
    async fn keep_nameless(
        &self,
        copies: Vec<StoredCopy>,
        base: Option<SnapshotId>,
        options: &StoreOptions,
        wanted: usize,
        error: Error,
    ) -> Error {
        if copies.iter().all(|copy| copy.made.is_none()) {
            return error;
        }
        let nameless = StoreOptions { name: None, ..options.clone() };
        let kept = match self.record(copies, base, &nameless, false).await {
            Ok(kept) => kept,
            Err(other) => {
                tracing::warn!(error = %other, "cannot record what a failed store has made");
                return error;
            }
        };
        let there: Vec<_> = kept.placements.iter().map(|copy| format!("`{}`", copy.backend)).collect();
        let (id, there, made) = (kept.id, there.join(", "), kept.placements.len());
        let placements =
            kept.placements.into_iter().map(|PlacementInfo { backend, object }| (backend, object.as_str().to_owned()));
        error
            .and(format!("{made} of {wanted} copies are there: snapshot {id} is kept on {there}, without a name"))
            .hint(format!("store the image again to complete it, or remove it with `tidelock rm {id}`"))
            .leaving(Left { snapshot: id.to_string(), placements: placements.collect() })
    }
}

/// Returns whether the first copy of a stream turned out not to be what was sent, as it was read for another one.
fn is_of_first_copy(error: &Error) -> bool {
    error.operation() == Some("retrieve") && error.subject() == Subject::Object
}

/// A number of copies which routes that lead to different backends cannot do with fewer than.
fn least_copies<'a>(routes: impl Iterator<Item = &'a Route>) -> u32 {
    let (mut apart, mut most, mut seen) = (0, 0, Vec::new());
    for route in routes {
        let copies = route.copies.max(1);
        most = most.max(copies);
        if !route.backends.iter().any(|backend| seen.contains(&backend)) {
            apart += copies;
            seen.extend(&route.backends);
        }
    }
    most.max(apart)
}

/// The record of copies. An object that was made although one was there already is not part of it.
fn commit(snapshot: NewSnapshot, copies: &[StoredCopy]) -> Commit {
    Commit {
        placements: copies.iter().filter_map(StoredCopy::placement).collect(),
        relies_on: copies.iter().filter_map(StoredCopy::relies_on).collect(),
        intents: copies.iter().flat_map(StoredCopy::intents).collect(),
        ..Commit::of(snapshot)
    }
}

/// The record of a snapshot.
fn snapshot(identity: &Identity, base: Option<SnapshotId>, name: Option<String>, by_id: bool) -> NewSnapshot {
    NewSnapshot {
        id: identity.id(),
        size: identity.size(),
        // An image is not a change of itself.
        base: base.filter(|base| *base != identity.id()),
        name,
        by_id,
        segments: identity.segments().to_bytes(),
    }
}
