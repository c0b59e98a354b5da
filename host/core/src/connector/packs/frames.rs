//! The frames that were decoded last, so that one with pages of many parts of an image is not fetched and decoded for each of
//! them. A pack's id determines its frames, so nothing here becomes stale.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::types::PackId;

/// The most bytes of frames that a host keeps: a chain of packs of one frame each, and some of the base.
const BYTES: usize = 96 << 20;

/// A frame of a pack.
pub(super) type Key = (PackId, u32);

/// Decoded frames.
#[derive(Default)]
pub(crate) struct RecentFrames {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    frames: BTreeMap<Key, Bytes>,
    /// What was used last is last.
    order: VecDeque<Key>,
    bytes: usize,
}

impl RecentFrames {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: Key) -> Option<Bytes> {
        let mut kept = self.kept();
        let found = kept.frames.get(&key)?.clone();
        kept.order.retain(|other| *other != key);
        kept.order.push_back(key);
        Some(found)
    }

    /// Forgets all, so that the next read shows what is stored.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        *self.kept() = Kept::default();
    }

    pub(super) fn put(&self, key: Key, bytes: Bytes) {
        let mut kept = self.kept();
        kept.bytes += bytes.len();
        if let Some(before) = kept.frames.insert(key, bytes) {
            kept.bytes -= before.len();
            kept.order.retain(|other| *other != key);
        }
        kept.order.push_back(key);
        while kept.bytes > BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(gone) = kept.frames.remove(&oldest) {
                kept.bytes -= gone.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let frames = RecentFrames::default();
        let key = |frame| (PackId::from_bytes([1; 32]), frame);
        let third = Bytes::from(vec![0; BYTES / 3]);
        for frame in 0..3 {
            frames.put(key(frame), third.clone());
        }
        assert!(frames.get(key(0)).is_some());
        frames.put(key(3), third.clone());
        assert!(frames.get(key(1)).is_none() && [0, 2, 3].iter().all(|frame| frames.get(key(*frame)).is_some()));
        frames.put(key(0), Bytes::from_static(b"again"));
        frames.put(key(4), third);
        let kept = frames.kept();
        let all: usize = kept.frames.values().map(Bytes::len).sum();
        assert!(kept.bytes == all && all <= BYTES && kept.order.len() == kept.frames.len());
        assert_eq!(kept.frames.get(&key(0)).map(|frame| &frame[..]), Some(&b"again"[..]));
    }
}
