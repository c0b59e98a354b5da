//! Who may hold a connection: places are for clients that have shown the token.
//!
//! A connection begins as a *stranger*, unless the daemon has no token, in which case whoever can open the socket is known.
//! Strangers have places of their own, and a short time. Those that have sent nothing cost little and have many places, so
//! that a client may take its time between connecting and asking; those of whose request a part has come may each hold the
//! buffer of a head, and are few. When there is no place left, the oldest one *of the origin that has the most* is cut off
//! (an IPv4 address, a /64 of IPv6, a user of a Unix socket): so whoever has no token keeps away strangers of its own origin,
//! and others only from as many origins as there are places. With its first request that has the token a connection becomes
//! known and takes one of the configured places, for which it may have to wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use tidelock::types::{Error, ErrorKind, Result};

/// Strangers at once of whose request a part has come. Each may hold the buffer of a request head.
const SPEAKING: usize = 256;
/// The most and the fewest strangers at once that have sent nothing, and the part of the descriptors that they may have.
const SILENT: (usize, usize) = (128, 4096);
const SILENT_PART: u64 = 8;
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

/// Where strangers come from that are not told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    /// An address of version 4.
    V4(u32),
    /// The first half of an address of version 6: the rest is its owner's to choose.
    V6(u64),
    /// A user of this machine.
    User(u32),
    /// Nobody knows.
    Unknown,
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

struct Strangers {
    next: u64,
    silent: Crowd,
    speaking: Crowd,
}

/// Strangers, in the order in which they came.
struct Crowd {
    most: usize,
    members: HashMap<u64, (Origin, CancellationToken)>,
    by_origin: BTreeMap<Origin, BTreeSet<u64>>,
    /// The number of members of each origin, and its oldest one: the last entry is whose oldest has to go.
    ranks: BTreeSet<(usize, Reverse<u64>, Origin)>,
}

impl Crowd {
    fn of(most: usize) -> Self {
        Self { most, members: HashMap::new(), by_origin: BTreeMap::new(), ranks: BTreeSet::new() }
    }

    /// Takes one in, and cuts another off if they are too many.
    fn add(&mut self, number: u64, origin: Origin, leave: CancellationToken) {
        self.members.insert(number, (origin, leave));
        self.change(origin, |numbers| {
            numbers.insert(number);
        });
        while self.members.len() > self.most {
            let Some(&(_, Reverse(oldest), _)) = self.ranks.last() else { break };
            let Some((_, leave)) = self.remove(oldest) else { break };
            leave.cancel();
        }
    }

    fn remove(&mut self, number: u64) -> Option<(Origin, CancellationToken)> {
        let (origin, leave) = self.members.remove(&number)?;
        self.change(origin, |numbers| {
            numbers.remove(&number);
        });
        Some((origin, leave))
    }

    fn change(&mut self, origin: Origin, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let rank = |numbers: &BTreeSet<u64>| numbers.first().map(|oldest| (numbers.len(), Reverse(*oldest), origin));
        let numbers = self.by_origin.entry(origin).or_default();
        if let Some(rank) = rank(numbers) {
            self.ranks.remove(&rank);
        }
        change(numbers);
        match rank(numbers) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.by_origin.remove(&origin);
            }
        }
    }
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
            strangers: Mutex::new(Strangers { next: 0, silent: Crowd::of(silent()), speaking: Crowd::of(SPEAKING) }),
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

    /// A connection of nobody knows whom, which has sent nothing so far. Cuts another off if there are too many.
    pub(super) fn stranger(&self, origin: Origin) -> Visitor {
        let mut strangers = self.strangers();
        let number = strangers.next;
        strangers.next += 1;
        let leave = CancellationToken::new();
        strangers.silent.add(number, origin, leave.clone());
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

    /// Returns whether a connection was still a stranger, which it no longer is.
    fn forget(&self, number: u64) -> bool {
        let mut strangers = self.strangers();
        strangers.silent.remove(number).or_else(|| strangers.speaking.remove(number)).is_some()
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

/// How many strangers may be there that have sent nothing: each takes a descriptor.
fn silent() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / SILENT_PART).unwrap_or(usize::MAX).clamp(SILENT.0, SILENT.1)
}

impl Visitor {
    /// Returns whether it came as a stranger, whose request is not to be read before a part of it is there.
    pub(super) fn came_as_stranger(&self) -> bool {
        self.0.number.is_some()
    }

    /// Notes that a part of its request has come. Cuts another off if there are too many of those.
    pub(super) fn speaks(&self) {
        let Some(number) = self.0.number else { return };
        let mut strangers = self.0.places.strangers();
        if let Some((origin, leave)) = strangers.silent.remove(number) {
            strangers.speaking.add(number, origin, leave);
        }
    }

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

    fn address(last: u8) -> Origin {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn cut(crowd: &[Visitor]) -> Vec<usize> {
        (0..crowd.len()).filter(|number| crowd[*number].0.leave.is_cancelled()).collect()
    }

    #[tokio::test]
    async fn strangers_of_one_origin_leave_in_the_order_in_which_they_came_and_the_known_stay() {
        let places = Places::new(2, Duration::from_millis(50));
        let friend = places.stranger(address(1));
        friend.introduce().await.unwrap();
        let come = |count: usize| (0..count).map(|_| places.stranger(address(1))).collect::<Vec<_>>();
        let speaking = come(SPEAKING + 3);
        assert!(cut(&speaking).is_empty() || silent() < speaking.len());
        speaking.iter().for_each(Visitor::speaks);
        assert_eq!(cut(&speaking), [0, 1, 2]);
        // Whoever says nothing takes no place of those who speak, nor the other way round.
        let quiet = come(silent() + 2);
        assert_eq!(cut(&quiet), [0, 1]);
        assert_eq!(cut(&speaking), [0, 1, 2]);
        assert!(friend.must_leave().now_or_never().is_none());
        tokio::time::timeout(STAY, speaking[10].must_leave()).await.expect("it stayed too long");
        tokio::time::timeout(STAY, quiet[10].must_leave()).await.expect("it stayed too long");
        tokio::time::timeout(Duration::from_millis(200), friend.must_leave()).await.unwrap_err();
    }

    /// A flood from few addresses meets itself, whatever came before it; one from as many addresses as there are places does not.
    #[tokio::test]
    async fn a_flood_cuts_off_those_of_its_own_origin() {
        let places = Places::new(2, Duration::from_secs(60));
        let come = |origins: &[Origin], count: usize| -> Vec<Visitor> {
            let all = origins.iter().cycle().take(count).map(|origin| places.stranger(*origin)).collect::<Vec<_>>();
            all.iter().for_each(Visitor::speaks);
            all
        };
        let slow = come(&[address(1), address(2)], 2);
        let flood = come(&(10..20).map(address).collect::<Vec<_>>(), 3 * SPEAKING);
        assert!(cut(&slow).is_empty());
        // In turn, so that each of them has the same.
        assert_eq!(cut(&flood), (0..2 * SPEAKING + 2).collect::<Vec<_>>());
        drop(flood);
        let many: Vec<Origin> = (0..SPEAKING).map(|number| Origin::V4(number as u32)).collect();
        let flood = come(&many, SPEAKING);
        assert_eq!((cut(&slow), cut(&flood)), (vec![0, 1], vec![]));
    }

    #[test]
    fn addresses_of_one_owner_are_one_origin() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("::ffff:10.0.0.1"), address(1));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_ne!(address(1), address(2));
    }

    #[tokio::test]
    async fn the_known_wait_for_a_place_and_not_for_ever() {
        let places = Places::new(1, Duration::from_millis(500));
        let (first, second, third) =
            (places.stranger(Origin::Unknown), places.stranger(Origin::Unknown), places.stranger(Origin::Unknown));
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
