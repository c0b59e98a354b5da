//! What all readers of packs of a host may hold at once: metadata, fetched frames, and frames that are decoded.
//!
//! What may be held while a backend or a reader is waited for has a budget for each backend, so that none holds up the readers
//! of others. Nobody who has a share of one budget waits for another one of the same budget, but for the sources of a chain:
//! chains that wait for the same backends are opened one after the other, and whoever waits too long for metadata gives up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::snapshot::pages::{Limits, Pack};
use crate::types::{Error, PackId, Result};

/// The most bytes of the metadata of packs that are read from one backend, without their sources.
const FIRSTS: usize = 128 << 20;
/// The most bytes of frames that are fetched from one backend at once to be decoded, by reads that are not long.
const FETCHED: usize = 48 << 20;
/// The most bytes that decoding takes at once: frames as they are stored, their prefixes, and their pages.
const DECODING: usize = 128 << 20;
/// The most bytes of windows and frames that all long reads have under way beyond one each.
const AHEAD: usize = 128 << 20;
/// What one of them has.
const AHEAD_EACH: usize = 32 << 20;
/// The most bytes of temporary files that all long reads of packs of one backend keep decoded pages in.
const SPILLED: usize = 1 << 30;
/// The same for prefixes.
const PREFIXES: usize = 1 << 30;
/// The most bytes of temporary files that all readers of packs of a host have: twice what those of one backend may have.
pub(super) const ALL_SPILLED: usize = 4 << 30;
/// How long a pack waits for room for its metadata.
const PATIENCE: Duration = Duration::from_secs(60);
/// The unit of a share.
pub(super) const UNIT: usize = 1 << 10;
/// The most keys that are kept of turns and packs that nobody has any more.
const STALE: usize = 1024;
/// The same of budgets.
const IDLE: usize = 64;

/// A share of a budget. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    permit: OwnedSemaphorePermit,
}

impl Share {
    /// Gives back all but so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let more = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(self.permit.split(more));
    }
}

/// Bytes that are shared.
#[derive(Clone)]
pub(super) struct Budget {
    all: usize,
    free: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { all: bytes / UNIT, free: Arc::new(Semaphore::new(bytes / UNIT)) }
    }

    /// Waits for so many bytes; for all that there are if that is more.
    pub(super) async fn take(&self, bytes: usize) -> Result<Share> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.all) as u32;
        let permit = self.free.clone().acquire_many_owned(units).await;
        permit.map(|permit| Share { permit }).map_err(|error| Error::other("the host stops").with_source(error))
    }

    pub(super) fn try_take(&self, bytes: usize) -> Option<Share> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.all) as u32;
        self.free.clone().try_acquire_many_owned(units).ok().map(|permit| Share { permit })
    }
}

/// Budgets of the same size, by backend.
pub(super) struct Budgets {
    bytes: usize,
    of: Mutex<HashMap<String, Budget>>,
}

impl Budgets {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, of: Mutex::default() }
    }

    pub(super) fn of(&self, key: &str) -> Budget {
        let mut budgets = lock(&self.of);
        if budgets.len() >= IDLE && !budgets.contains_key(key) {
            // Whoever has a share, or waits for one, has the semaphore too.
            budgets.retain(|_, budget| Arc::strong_count(&budget.free) > 1);
        }
        budgets.entry(key.to_owned()).or_insert_with(|| Budget::new(self.bytes)).clone()
    }
}

/// Turns by key: whoever has one makes what others wait for.
pub(super) struct Turns<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for the turn of a key.
    pub(super) async fn of(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.0);
            if turns.len() >= STALE {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            let there = turns.get(&key).and_then(Weak::upgrade);
            there.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(key, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pack for itself, or as a source of one whose sources so far take so many bytes, and come from these backends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    First,
    Source { held: usize, through: &'a str },
}

/// Bytes of temporary files.
#[derive(Clone)]
pub(super) struct Disk {
    /// For pages that windows need later.
    pub(super) pages: Budget,
    /// For prefixes.
    pub(super) prefixes: Budget,
    /// For both.
    pub(super) all: Budget,
}

/// The budgets, and the turns of what only one should make.
pub(crate) struct Shares {
    firsts: Budgets,
    sources: Budgets,
    decoding: Budget,
    ahead: Budget,
    fetched: Budgets,
    spilled: Budgets,
    prefixes: Budgets,
    all_spilled: Budget,
    /// Packs that someone has.
    live: Mutex<HashMap<PackId, Weak<Pack>>>,
    /// Packs that are opened, by backend.
    pub(super) opening: Turns<(String, PackId)>,
    /// Chains whose sources are opened, by the backends that these come from.
    pub(super) chains: Turns<String>,
    /// Frames that are made of objects of another form, by the backend of these.
    pub(super) other_forms: Turns<String>,
    /// Frames that are decoded: backend, pack and number.
    pub(super) frames: Turns<(String, PackId, u32)>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            firsts: Budgets::new(FIRSTS),
            sources: Budgets::new(Limits::DEFAULT.chain_memory),
            decoding: Budget::new(DECODING),
            ahead: Budget::new(AHEAD),
            fetched: Budgets::new(FETCHED),
            spilled: Budgets::new(SPILLED),
            prefixes: Budgets::new(PREFIXES),
            all_spilled: Budget::new(ALL_SPILLED),
            live: Mutex::default(),
            opening: Turns::default(),
            chains: Turns::default(),
            other_forms: Turns::default(),
            frames: Turns::default(),
        }
    }
}

impl Shares {
    /// Waits for room for metadata of so many bytes from a backend. `forget` lets those go that are kept and that nobody reads.
    ///
    /// # Errors
    /// `unsupported` if one chain has all that there is; `unavailable` if others have it for too long.
    pub(super) async fn metadata(
        &self,
        backend: &str,
        bytes: usize,
        part: Part<'_>,
        forget: impl FnOnce(),
    ) -> Result<Share> {
        let (budget, most) = match part {
            Part::First => (self.firsts.of(backend), FIRSTS),
            Part::Source { held, through } => {
                (self.sources.of(through), Limits::DEFAULT.chain_memory.saturating_sub(held))
            }
        };
        if most < UNIT {
            return Err(Error::unsupported("the metadata of a pack and its sources exceeds the limit"));
        }
        // What this chain has itself does not come back before it is complete.
        let bytes = bytes.min(most / UNIT * UNIT);
        if let Some(share) = budget.try_take(bytes) {
            return Ok(share);
        }
        forget();
        match tokio::time::timeout(PATIENCE, budget.take(bytes)).await {
            Ok(share) => share,
            Err(_) => {
                Err(Error::unavailable("the metadata of packs that are read takes all memory that there is for it"))
            }
        }
    }

    /// Waits for room for so many bytes while they are decoded.
    pub(super) async fn decoding(&self, bytes: usize) -> Result<Share> {
        self.decoding.take(bytes).await
    }

    /// Room for a long read to be ahead of whoever takes its bytes, if there is any: it may be held for as long as that takes.
    pub(super) fn ahead(&self) -> Option<Share> {
        self.ahead.try_take(AHEAD_EACH)
    }

    /// Waits for room for so many bytes that come from a backend. A backend that does not give them holds up itself alone.
    pub(super) async fn fetching(&self, backend: &str, bytes: usize) -> Result<Share> {
        self.fetched.of(backend).take(bytes).await
    }

    /// What readers of packs of a backend may have in temporary files.
    pub(super) fn disk(&self, backend: &str) -> Disk {
        let all = self.all_spilled.clone();
        Disk { pages: self.spilled.of(backend), prefixes: self.prefixes.of(backend), all }
    }

    /// A pack that someone has.
    pub(super) fn live(&self, id: PackId) -> Option<Arc<Pack>> {
        lock(&self.live).get(&id)?.upgrade()
    }

    /// Takes note of a pack.
    pub(super) fn is_live(&self, pack: &Arc<Pack>) {
        let mut live = lock(&self.live);
        if live.len() >= STALE {
            live.retain(|_, pack| pack.strong_count() > 0);
        }
        live.insert(pack.id(), Arc::downgrade(pack));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_held_is_bounded_and_one_that_needs_more_is_alone() {
        let shares = Shares::default();
        let large = shares.decoding(DECODING * 3).await.unwrap();
        assert!(shares.decoding(1).now_or_never().is_none());
        drop(large);
        let mut half = shares.decoding(DECODING).await.unwrap();
        half.shrink(DECODING / 2);
        assert!(shares.decoding(DECODING / 2).now_or_never().is_some());
        assert!(shares.decoding(DECODING / 2 + 1).now_or_never().is_none());
        // Another backend is another matter.
        let _held = shares.fetching("one", FETCHED).await.unwrap();
        assert!(shares.fetching("one", 1).now_or_never().is_none());
        assert!(shares.fetching("two", FETCHED).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_waits_and_a_chain_that_has_all_of_it_fails() {
        let shares = Shares::default();
        let most = Limits::DEFAULT.chain_memory;
        let of = |bytes, held| shares.metadata("", bytes, Part::Source { held, through: "one" }, || ());
        let first = of(most - 4096, 0).await.unwrap();
        // The rest, for the same chain.
        let rest = of(most, most - 4096).await.unwrap();
        assert_eq!(of(1, most).await.unwrap_err().kind(), &crate::types::ErrorKind::Unsupported);
        // Another chain waits, and not for ever.
        assert_eq!(of(4096, 0).await.unwrap_err().kind(), &crate::types::ErrorKind::Unavailable);
        drop(rest);
        let kept = Mutex::new(Some(first));
        let forget = || drop(lock(&kept).take());
        let again = Part::Source { held: 0, through: "one" };
        let _all = shares.metadata("", most, again, forget).now_or_never().unwrap().unwrap();
        // Those of other backends have theirs.
        let other = Part::Source { held: 0, through: "two" };
        assert!(shares.metadata("", most, other, || ()).now_or_never().is_some());
        let _first = shares.metadata("one", FIRSTS, Part::First, || ()).now_or_never().unwrap().unwrap();
        assert!(shares.metadata("one", 1, Part::First, || ()).now_or_never().is_none());
        assert!(shares.metadata("two", FIRSTS, Part::First, || ()).now_or_never().is_some());
        (0..2 * IDLE).for_each(|key| drop(shares.firsts.of(&key.to_string())));
        assert!(lock(&shares.firsts.of).len() <= IDLE + 1 && lock(&shares.firsts.of).contains_key("one"));
    }

    #[tokio::test]
    async fn one_has_the_turn_of_a_key() {
        let turns = Turns::default();
        let turn = turns.of(1).await;
        assert!(turns.of(1).now_or_never().is_none() && turns.of(2).now_or_never().is_some());
        drop(turn);
        assert!(turns.of(1).now_or_never().is_some());
        for key in 0..3 * STALE {
            turns.of(key).await;
        }
        assert!(lock(&turns.0).len() <= STALE);
    }
}
