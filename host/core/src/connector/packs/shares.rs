//! What all readers of packs of a host may hold at once: metadata, fetched frames, and frames that are decoded.
//!
//! Nobody who has a share of one budget waits for another one of the same budget, or for a backend while others wait for the
//! share, but for the sources of a chain: those of one backend are opened one chain after the other, and whoever waits too long
//! for metadata gives up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::snapshot::pages::{Limits, Pack};
use crate::types::{Error, PackId, Result};

/// The most bytes of the metadata of packs that are read, without their sources.
const FIRSTS: usize = 128 << 20;
/// The most bytes of frames that are fetched from one backend at once to be decoded, by reads that are not long.
const FETCHED: usize = 48 << 20;
/// The most bytes that decoding takes at once: frames as they are stored, their prefixes, and their pages.
const DECODING: usize = 128 << 20;
/// The most bytes of windows and frames that all long reads have under way beyond one each.
const AHEAD: usize = 128 << 20;
/// What one of them has.
const AHEAD_EACH: usize = 32 << 20;
/// How long a pack waits for room for its metadata.
const PATIENCE: Duration = Duration::from_secs(60);
/// The unit of a share.
pub(super) const UNIT: usize = 1 << 10;
/// The most keys that are kept of turns and packs that nobody has any more.
const STALE: usize = 1024;

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
struct Budget {
    all: usize,
    free: Arc<Semaphore>,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { all: bytes / UNIT, free: Arc::new(Semaphore::new(bytes / UNIT)) }
    }

    /// Waits for so many bytes; for all that there are if that is more.
    async fn take(&self, bytes: usize) -> Result<Share> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.all) as u32;
        let permit = self.free.clone().acquire_many_owned(units).await;
        permit.map(|permit| Share { permit }).map_err(|error| Error::other("the host stops").with_source(error))
    }

    fn try_take(&self, bytes: usize) -> Option<Share> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.all) as u32;
        self.free.clone().try_acquire_many_owned(units).ok().map(|permit| Share { permit })
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

/// A pack for itself, or as a source of one whose sources so far take so many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    First,
    Source { held: usize },
}

/// The budgets, and the turns of what only one should make.
pub(crate) struct Shares {
    firsts: Budget,
    sources: Budget,
    decoding: Budget,
    ahead: Budget,
    fetched: Mutex<HashMap<String, Budget>>,
    /// Packs that someone has.
    live: Mutex<HashMap<PackId, Weak<Pack>>>,
    /// Packs that are opened, by backend.
    pub(super) opening: Turns<(String, PackId)>,
    /// Chains whose sources are opened, by backend.
    pub(super) chains: Turns<String>,
    /// Frames that are made of objects of another form, by the backend of these.
    pub(super) other_forms: Turns<String>,
    /// Frames that are decoded: backend, pack and number.
    pub(super) frames: Turns<(String, PackId, u32)>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            firsts: Budget::new(FIRSTS),
            sources: Budget::new(Limits::DEFAULT.chain_memory),
            decoding: Budget::new(DECODING),
            ahead: Budget::new(AHEAD),
            fetched: Mutex::default(),
            live: Mutex::default(),
            opening: Turns::default(),
            chains: Turns::default(),
            other_forms: Turns::default(),
            frames: Turns::default(),
        }
    }
}

impl Shares {
    /// Waits for room for metadata of so many bytes. `forget` lets those go that are kept and that nobody reads.
    ///
    /// # Errors
    /// `unsupported` if one chain has all that there is; `unavailable` if others have it for too long.
    pub(super) async fn metadata(&self, bytes: usize, part: Part, forget: impl FnOnce()) -> Result<Share> {
        let (budget, most) = match part {
            Part::First => (&self.firsts, FIRSTS),
            Part::Source { held } => (&self.sources, Limits::DEFAULT.chain_memory.saturating_sub(held)),
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
        let budget = {
            let mut budgets = lock(&self.fetched);
            budgets.entry(backend.to_owned()).or_insert_with(|| Budget::new(FETCHED)).clone()
        };
        budget.take(bytes).await
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
        let of = |bytes, held| shares.metadata(bytes, Part::Source { held }, || ());
        let first = of(most - 4096, 0).await.unwrap();
        // The rest, for the same chain.
        let rest = of(most, most - 4096).await.unwrap();
        assert_eq!(of(1, most).await.unwrap_err().kind(), &crate::types::ErrorKind::Unsupported);
        // Another chain waits, and not for ever.
        assert_eq!(of(4096, 0).await.unwrap_err().kind(), &crate::types::ErrorKind::Unavailable);
        drop(rest);
        let kept = Mutex::new(Some(first));
        let forget = || drop(lock(&kept).take());
        assert!(shares.metadata(most, Part::Source { held: 0 }, forget).now_or_never().is_some());
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
