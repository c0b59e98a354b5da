//! Room that is reserved under leases: it counts for all handles, and goes with its lease.

use std::collections::BTreeMap;

use super::{LEASE, Place, id, lease, on, snapshot, stored};
use crate::catalogue::{Commit, JobKind, NewJob, Reserved, RiskBound, RiskRoute, WantedCopies};

/// Of so many bytes, with the routes `default` to `local` and `far` to `cloud`.
fn bound(most: u64) -> RiskBound {
    let route = |backend: &str| RiskRoute { backends: vec![backend.to_owned()], copies: 1, local: true };
    let routes = BTreeMap::from([("default".to_owned(), route("local")), ("far".to_owned(), route("cloud"))]);
    RiskBound { most, routes }
}

pub(crate) async fn what_is_reserved_counts_for_all_until_its_lease_ends(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let (first, second) =
        (one.acquire_owner("one", lease()).await.unwrap(), other.acquire_owner("other", lease()).await.unwrap());
    let alone = || {
        let mut alone = bound(40);
        alone.routes.remove("far");
        alone
    };
    let reserved = one.reserve_risk(first, alone(), "default".into(), 30).await.unwrap();
    let Reserved::Room(room) = reserved else { panic!("{reserved:?}") };
    let reserve = async |bytes| other.reserve_risk(second, alone(), "default".into(), bytes).await.unwrap();
    assert_eq!(reserve(20).await, Reserved::Full(30));
    one.release_rooms(vec![room]).await.unwrap();
    let Reserved::Room(room) = reserve(20).await else { panic!("it was given back") };
    one.release_rooms(vec![room]).await.unwrap();
    // It goes with the lease, whether that is ended or expires.
    one.reserve_risk(first, alone(), "default".into(), 30).await.unwrap();
    one.release_owner(first).await.unwrap();
    assert!(matches!(reserve(30).await, Reserved::Room(_)));
    place.pass(LEASE + 1);
    let third = one.acquire_owner("third", lease()).await.unwrap();
    let hot = one.reserve_hot(third, 5).await.unwrap();
    assert_eq!(one.reserve_risk(third, alone(), "default".into(), 40).await.unwrap(), Reserved::Room(hot + 1));
    // Of the hot tier, what was reserved before.
    assert_eq!(one.reserved_hot(Some(hot)).await.unwrap(), 0);
    let later = one.reserve_hot(third, 7).await.unwrap();
    assert_eq!((one.reserved_hot(Some(later)).await.unwrap(), other.reserved_hot(None).await.unwrap()), (5, 12));
    place.pass(LEASE + 1);
    assert_eq!(one.reserved_hot(None).await.unwrap(), 0);
}

pub(crate) async fn what_waits_for_one_backend_leaves_the_others_room(place: Place) {
    let catalogue = place.open().await;
    let token = catalogue.acquire_owner("me", lease()).await.unwrap();
    for seed in [1, 2] {
        let push = NewJob { kind: JobKind::Push, snapshot: id(seed), backend: None, object: None };
        let wanted = Some(WantedCopies { copies: 1, route: "far".to_owned() });
        let commit = stored(snapshot(seed, 10), vec![on("hot", &format!("{seed}"))], vec![]);
        catalogue.commit(Commit { wanted, jobs: vec![push], ..commit }).await.unwrap();
    }
    let reserve = async |route: &str, bytes| {
        let reserved = catalogue.reserve_risk(token, bound(40), route.to_owned(), bytes).await.unwrap();
        match reserved {
            Reserved::Room(room) => catalogue.release_rooms(vec![room]).await.map(|()| None).unwrap(),
            Reserved::Full(bytes) => Some(bytes),
        }
    };
    assert_eq!((reserve("far", 1).await, reserve("default", 10).await), (Some(20), None));
    assert_eq!((reserve("default", 11).await, reserve("default", 21).await), (Some(0), Some(20)));
    // Once one is there, `cloud` holds the other alone.
    catalogue.commit(stored(snapshot(1, 10), vec![on("cloud", "1")], vec![])).await.unwrap();
    assert_eq!(catalogue.at_risk().await.unwrap(), 10);
    assert_eq!((reserve("far", 10).await, reserve("far", 11).await), (None, Some(10)));
}
