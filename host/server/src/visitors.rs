//! Who may hold a connection: places are for clients that have shown the token.
//!
//! A connection begins as a *stranger*, unless the daemon has no token, in which case whoever can open the socket is known.
//! Strangers have places of their own, few and for a short time; the one that came first is cut off when another comes
//! and there is none left. So whoever has no token can keep strangers away and nobody else. With its first request that
//! has the token a connection becomes known and takes one of the configured places, for which it may have to wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use tidelock::types::{Error, ErrorKind, Result};

/// Strangers at once. Each may hold the buffer of a request head.
const STRANGERS: usize = 256;
/// How long a stranger may stay, if it may stall for as long.
const STAY: Duration = Duration::from_secs(10);

/// The places of a daemon. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<PlacesInner>);

struct PlacesInner {
    known: Arc<Semaphore>,
    /// Known connections that may wait for a place: as many as there are places.
    waiting: Semaphore,
    strangers: Mutex<Strangers>,
    /// How long a known connection waits for a place.
    patience: Duration,
    /// How long a stranger may stay.
    stay: Duration,
}

#[derive(Default)]
struct Strangers {
    next: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

/// One connection. Dropping the last clone gives its place back.
#[derive(Clone)]
pub(super) struct Visitor(Arc<VisitorInner>);

struct VisitorInner {
    places: Places,
    /// Its number among the strangers; `None` if it came without being one.
    number: Option<u64>,
    /// Cancelled when a stranger has to leave.
    leave: CancellationToken,
    /// Held while a request makes it known, so that a second one waits for the first.
    standing: tokio::sync::Mutex<Standing>,
}

enum Standing {
    Stranger,
    Known { _place: Option<OwnedSemaphorePermit> },
}

impl Places {
    /// So many for known connections, which wait so long for one.
    pub(super) fn new(places: usize, patience: Duration) -> Self {
        Self(Arc::new(PlacesInner {
            known: Arc::new(Semaphore::new(places)),
            waiting: Semaphore::new(places),
            strangers: Mutex::default(),
            patience,
            stay: STAY.min(patience),
        }))
    }

    /// Waits for a place for a connection that is known when it comes.
    pub(super) async fn known(&self) -> Option<Visitor> {
        let place = self.0.known.clone().acquire_owned().await.ok()?;
        Some(self.visitor(None, Standing::Known { _place: Some(place) }))
    }

    /// A connection without a place, which may stay: the last ones of a daemon that stops, as many as the system lets wait.
    pub(super) fn last(&self) -> Visitor {
        self.visitor(None, Standing::Known { _place: None })
    }

    /// A connection of nobody knows whom. Cuts the oldest stranger off if there are too many.
    pub(super) fn stranger(&self) -> Visitor {
        let mut strangers = self.strangers();
        while strangers.by_age.len() >= STRANGERS {
            let Some((_, oldest)) = strangers.by_age.pop_first() else { break };
            oldest.cancel();
        }
        let number = strangers.next;
        strangers.next += 1;
        let leave = CancellationToken::new();
        strangers.by_age.insert(number, leave.clone());
        drop(strangers);
        let inner =
            VisitorInner { places: self.clone(), number: Some(number), leave, standing: Standing::Stranger.into() };
        Visitor(Arc::new(inner))
    }

    fn visitor(&self, number: Option<u64>, standing: Standing) -> Visitor {
        let leave = CancellationToken::new();
        Visitor(Arc::new(VisitorInner { places: self.clone(), number, leave, standing: standing.into() }))
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.0.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection was still a stranger, which it no longer is.
    fn forget(&self, number: u64) -> bool {
        self.strangers().by_age.remove(&number).is_some()
    }

    /// A place for a connection that has become known.
    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(place) = self.0.known.clone().try_acquire_owned() {
            return Ok(place);
        }
        let busy = || {
            Error::new(ErrorKind::RateLimited(Some(STAY)), "all connections are in use")
                .hint("try again later, or raise `connections` in [service]")
        };
        let _waiting = self.0.waiting.try_acquire().map_err(|_| busy())?;
        match tokio::time::timeout(self.0.patience, self.0.known.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(busy()),
        }
    }
}

impl Visitor {
    /// Makes a connection that has shown the token a known one.
    ///
    /// # Errors
    /// `rate-limited` if there is no place for it.
    pub(super) async fn introduce(&self) -> Result<()> {
        let mut standing = self.0.standing.lock().await;
        if let (Standing::Stranger, Some(number)) = (&*standing, self.0.number) {
            self.0.places.forget(number);
            *standing = Standing::Known { _place: Some(self.0.places.place().await?) };
        }
        Ok(())
    }

    /// Resolves when the connection has to be cut off: a stranger that stayed too long, or for whom there is no room.
    pub(super) async fn must_leave(&self) {
        let Some(number) = self.0.number else { return std::future::pending().await };
        tokio::select! {
            () = self.0.leave.cancelled() => return,
            () = tokio::time::sleep(self.0.places.0.stay) => {}
        }
        if !self.0.places.forget(number) && !self.0.leave.is_cancelled() {
            std::future::pending().await
        }
    }
}

impl Drop for VisitorInner {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.places.forget(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn strangers_leave_in_the_order_in_which_they_came_and_the_known_stay() {
        let places = Places::new(2, Duration::from_millis(50));
        let friend = places.stranger();
        friend.introduce().await.unwrap();
        let crowd: Vec<Visitor> = (0..STRANGERS + 3).map(|_| places.stranger()).collect();
        let cut: Vec<bool> = crowd.iter().map(|one| one.0.leave.is_cancelled()).collect();
        assert_eq!(cut.iter().filter(|cut| **cut).count(), 3);
        assert!(cut[..3].iter().all(|cut| *cut));
        assert!(friend.must_leave().now_or_never().is_none());
        tokio::time::timeout(STAY, crowd[10].must_leave()).await.expect("it stayed too long");
        tokio::time::timeout(Duration::from_millis(200), friend.must_leave()).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_known_wait_for_a_place_and_not_for_ever() {
        let places = Places::new(1, Duration::from_millis(500));
        let (first, second, third) = (places.stranger(), places.stranger(), places.stranger());
        first.introduce().await.unwrap();
        first.introduce().await.unwrap();
        let waiting = tokio::spawn({
            let second = second.clone();
            async move { second.introduce().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(third.introduce().await.unwrap_err().kind().name(), "rate-limited", "one waits already");
        drop(first);
        waiting.await.unwrap().unwrap();
        assert!(third.introduce().await.is_err(), "it waited long enough");
        drop(second);
        third.introduce().await.unwrap();
    }
}
