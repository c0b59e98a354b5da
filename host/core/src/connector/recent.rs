//! Values that were used last, by their ids. An id stands for the same value for ever, so nothing here becomes stale.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value that can be kept.
pub(super) trait Weighed {
    /// Its id.
    type Id: PartialEq;
    /// The most weight of all that are kept. The one that was used last is kept in any case.
    const MOST: usize;
    /// The most values that are kept.
    const COUNT: usize;

    fn id(&self) -> Self::Id;

    fn weight(&self) -> usize;
}

/// Values by id. What was used last is last.
pub(crate) struct Recent<T> {
    kept: Mutex<VecDeque<Arc<T>>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl<T: Weighed> Recent<T> {
    /// The value of an id, if it is here.
    pub(super) fn get(&self, id: T::Id) -> Option<Arc<T>> {
        let mut kept = self.kept();
        let at = kept.iter().position(|value| value.id() == id)?;
        let found = kept.remove(at)?;
        kept.push_back(found.clone());
        Some(found)
    }

    /// Keeps a value, and lets those go that were not used for longest.
    pub(super) fn put(&self, value: Arc<T>) {
        let mut kept = self.kept();
        kept.retain(|other| other.id() != value.id());
        kept.push_back(value);
        let mut all: usize = kept.iter().map(|value| value.weight()).sum();
        while kept.len() > 1 && (all > T::MOST || kept.len() > T::COUNT) {
            let Some(oldest) = kept.pop_front() else { break };
            all -= oldest.weight();
        }
    }

    /// Forgets all: to make room, or so that the next read shows what is stored.
    pub(super) fn forget(&self) {
        self.kept().clear();
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
