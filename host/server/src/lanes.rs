//! Places for operations. An operation holds its place until it ends, whatever has become of its client, so operations of a
//! backend that does not answer add up. Half of the places are for all; of the others each route and each backend has a share
//! of its own, so that none takes away the last place of another. Removals from several backends share places with those from the
//! same ones alone: one that hangs holds up what needs it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The most sets of several backends that have places of their own.
const SETS: usize = 64;

/// Whether an operation has done more than to wait.
pub(super) type Begun = Arc<AtomicBool>;

/// Operations that share places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Stores of a route.
    Route(String),
    /// Removals from these backends, in order.
    Backends(Vec<String>),
    /// Those that are of neither: they fail soon.
    Other,
}

impl Lane {
    /// The lane of a route; of the default one if none is named.
    pub(super) fn route(name: Option<&str>) -> Self {
        Self::Route(name.unwrap_or(tidelock::config::DEFAULT_ROUTE).to_owned())
    }

    /// The lane of removals from backends. The hot tier is none: it waits for nobody.
    pub(super) fn backends(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().filter(|name| name != tidelock::config::HOT).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { Self::Other } else { Self::Backends(names) }
    }
}

/// All places.
pub(super) struct Lanes {
    shared: Arc<Semaphore>,
    own: HashMap<Lane, Arc<Semaphore>>,
    /// Of removals from several backends, made when they are first needed.
    sets: Mutex<HashMap<Lane, Arc<Semaphore>>>,
    /// Places of each lane.
    share: usize,
}

impl Lanes {
    /// About `count` places, and at least one for each lane beside one for all.
    pub(super) fn new<'a>(
        count: usize,
        routes: impl Iterator<Item = &'a str>,
        backends: impl Iterator<Item = &'a str>,
    ) -> Self {
        let routes = routes.map(|name| Lane::route(Some(name)));
        let backends = backends.map(|name| Lane::backends([name.to_owned()]));
        let lanes: Vec<Lane> = routes.chain(backends).chain([Lane::Other]).collect();
        let share = (count / 2 / lanes.len()).max(1);
        let shared = count.saturating_sub(share * lanes.len()).max(1);
        let own = lanes.into_iter().map(|lane| (lane, Arc::new(Semaphore::new(share)))).collect();
        Self { shared: Arc::new(Semaphore::new(shared)), own, sets: Mutex::default(), share }
    }

    /// The places of a lane, if it has some of its own.
    fn own(&self, lane: &Lane) -> Option<Arc<Semaphore>> {
        if let Some(own) = self.own.get(lane) {
            return Some(own.clone());
        }
        let Lane::Backends(names) = lane else { return None };
        if names.len() < 2 {
            return None;
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= SETS && !sets.contains_key(lane) {
            // Whoever has a place, or waits for one, has the semaphore too.
            sets.retain(|_, places| Arc::strong_count(places) > 1);
            if sets.len() >= SETS {
                return None;
            }
        }
        Some(sets.entry(lane.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.share))).clone())
    }

    /// Waits for a place: one of the lane, or one of those for all.
    pub(super) async fn place(&self, lane: &Lane) -> Result<OwnedSemaphorePermit, AcquireError> {
        let own = self.own(lane).or_else(|| self.own(&Lane::Other)).unwrap_or_else(|| self.shared.clone());
        tokio::select! {
            biased;
            place = own.acquire_owned() => place,
            place = self.shared.clone().acquire_owned() => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn no_lane_takes_the_last_place_of_another() {
        for count in [1, 4, 64, 256] {
            let lanes = Lanes::new(count, ["default", "far"].into_iter(), ["local", "cloud"].into_iter());
            let mut held = Vec::new();
            // A task that has done much is told to wait although it need not.
            let taken = |lane: &Lane| {
                let place = tokio::task::unconstrained(lanes.place(lane));
                place.now_or_never().map(Result::unwrap)
            };
            while let Some(place) = taken(&Lane::route(Some("far"))) {
                held.push(place);
            }
            assert!(held.len() >= count / 2 && held.len() <= count.max(2), "{} of {count}", held.len());
            let both = || Lane::backends(["local".to_owned(), "hot".to_owned(), "cloud".to_owned()]);
            held.push(taken(&both()).expect("a share of its own"));
            for other in [Lane::route(None), Lane::backends(["cloud".into(), "hot".into()]), Lane::backends([])] {
                held.push(taken(&other).expect("a share of its own"));
            }
            // A route that there is not.
            assert_eq!(taken(&Lane::route(Some("none"))).is_some(), count > 10);
            drop(held.remove(0));
            assert!(taken(&Lane::route(Some("far"))).is_some());
        }
    }
}
