//! The frames that were decoded last, so that one with pages of many parts of an image is not fetched and decoded for each of
//! them. A pack's id determines its frames, so nothing here becomes stale.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::types::PackId;

/// The most bytes of frames that a host keeps: a chain of packs of one frame each, and some of the base.
const BYTES: usize = 96 << 20;
/// What keeping a frame takes beside its bytes, at least.
const EACH: usize = 256;

/// A frame of a pack.
pub(super) type Key = (PackId, u32);

/// Decoded frames. What is done for one does not depend on their number.
#[derive(Default)]
pub(crate) struct RecentFrames {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Frames, and when each was used.
    frames: HashMap<Key, (Bytes, u64)>,
    /// By the time of their last use.
    order: BTreeMap<u64, Key>,
    /// The next time.
    now: u64,
    bytes: usize,
}

impl Kept {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn remove(&mut self, key: &Key) {
        if let Some((bytes, used)) = self.frames.remove(key) {
            self.order.remove(&used);
            self.bytes -= bytes.len() + EACH;
        }
    }
}

impl RecentFrames {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: Key) -> Option<Bytes> {
        let mut kept = self.kept();
        let now = kept.tick();
        let (bytes, used) = kept.frames.get_mut(&key)?;
        let (bytes, before) = (bytes.clone(), std::mem::replace(used, now));
        kept.order.remove(&before);
        kept.order.insert(now, key);
        Some(bytes)
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.kept().frames.contains_key(&key)
    }

    /// Forgets all, so that the next read shows what is stored.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        *self.kept() = Kept::default();
    }

    pub(super) fn put(&self, key: Key, bytes: Bytes) {
        let mut kept = self.kept();
        kept.remove(&key);
        let now = kept.tick();
        kept.bytes += bytes.len() + EACH;
        kept.frames.insert(key, (bytes, now));
        kept.order.insert(now, key);
        while kept.bytes > BYTES {
            let Some((_, oldest)) = kept.order.first_key_value().map(|(used, key)| (*used, *key)) else { break };
            kept.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn key(frame: u32) -> Key {
        (PackId::from_bytes([1; 32]), frame)
    }

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let frames = RecentFrames::default();
        let third = Bytes::from(vec![0; BYTES / 3 - EACH]);
        for frame in 0..3 {
            frames.put(key(frame), third.clone());
        }
        assert!(frames.get(key(0)).is_some());
        frames.put(key(3), third.clone());
        assert!(!frames.has(key(1)) && [0, 2, 3].iter().all(|frame| frames.has(key(*frame))));
        frames.put(key(0), Bytes::from_static(b"again"));
        frames.put(key(4), third);
        let kept = frames.kept();
        let all: usize = kept.frames.values().map(|(bytes, _)| bytes.len() + EACH).sum();
        assert!(kept.bytes == all && all <= BYTES && kept.order.len() == kept.frames.len());
        assert_eq!(kept.frames.get(&key(0)).map(|(frame, _)| &frame[..]), Some(&b"again"[..]));
    }

    #[test]
    fn small_frames_are_bounded_too_and_found_as_fast_as_large_ones() {
        let frames = RecentFrames::default();
        let one = Bytes::from_static(b"x");
        let count = (BYTES / EACH) as u32;
        for frame in 0..count + 1000 {
            frames.put(key(frame), one.clone());
        }
        assert!(frames.kept().frames.len() <= count as usize);
        let begun = Instant::now();
        for frame in 1000..21_000 {
            assert!(frames.get(key(count - frame)).is_some());
        }
        // Looking through all of them takes a second for a few hundred.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}
