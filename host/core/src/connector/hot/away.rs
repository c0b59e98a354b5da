//! Backends that nobody waits for again for a while when the hot tier makes room.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::types::Platform;

/// How long a backend that was away is not relied on. A store that needs room has waited for it once in this time.
const AWAY_FOR: Duration = Duration::from_secs(120);

/// Backends that were away, or gave nothing, when a copy on them was looked for: for [`AWAY_FOR`] they are not asked again.
#[derive(Default)]
pub(in crate::connector) struct Away {
    seen: Mutex<BTreeMap<String, Instant>>,
}

impl Away {
    pub(in crate::connector) fn now(&self, platform: &Platform) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| platform.since(*at) < AWAY_FOR);
        seen.keys().cloned().collect()
    }

    pub(in crate::connector) fn note<'a>(&self, platform: &Platform, away: impl Iterator<Item = &'a str>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for backend in away {
            seen.entry(backend.to_owned()).or_insert_with(|| platform.now());
        }
    }
}
