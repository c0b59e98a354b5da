//! Owners: leases, intents, and what a fenced owner cannot do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{BEGINNING, LEASE, Place, id, kind, lease, object, on, snapshot, stored};
use crate::catalogue::{Catalogue, Intent, OwnerToken};

async fn stale(catalogue: &dyn Catalogue) -> BTreeSet<String> {
    let expired = catalogue.expired_owners().await.unwrap();
    catalogue.stale_intents(expired).await.unwrap().into_iter().map(|intent| intent.key).collect()
}

fn keys<const N: usize>(keys: [&str; N]) -> BTreeSet<String> {
    keys.map(str::to_owned).into()
}

pub(crate) async fn an_intent_belongs_to_a_lease(place: Place) {
    let catalogue = place.open().await;
    assert_eq!(kind(catalogue.begin_intent("k", "local", OwnerToken(7)).await), "conflict");
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    place.pass(5);
    catalogue.begin_intent("k", "local", owner).await.unwrap();
    assert_eq!(kind(catalogue.begin_intent("k", "local", owner).await), "conflict");
    assert_eq!(catalogue.stale_intents(Vec::new()).await.unwrap(), []);
    // The end of a host: what it leaves is stale at once.
    catalogue.release_owner(owner).await.unwrap();
    catalogue.release_owner(owner).await.unwrap();
    let left = Intent {
        key: "k".into(),
        backend: "local".into(),
        owner: "me".into(),
        token: Some(owner),
        started: BEGINNING + 5,
    };
    assert_eq!(catalogue.stale_intents(Vec::new()).await.unwrap(), [left]);
    catalogue.end_intent("k").await.unwrap();
    catalogue.end_intent("k").await.unwrap();
    assert_eq!(catalogue.stale_intents(Vec::new()).await.unwrap(), []);
}

pub(crate) async fn only_the_dead_leave_stale_intents(place: Place) {
    let (catalogue, other) = (place.open().await, place.open().await);
    let living = catalogue.acquire_owner("living", lease()).await.unwrap();
    let dying = other.acquire_owner("dying", lease()).await.unwrap();
    let dead = other.acquire_owner("dead", lease()).await.unwrap();
    for (key, owner) in [("a", living), ("b", dying), ("c", dead)] {
        catalogue.begin_intent(key, "local", owner).await.unwrap();
    }
    assert_eq!(stale(&*catalogue).await, keys([]));
    // Somebody knows that it has ended.
    catalogue.end_owners(vec!["dead".into(), "unheard-of".into()]).await.unwrap();
    assert_eq!(stale(&*other).await, keys(["c"]));
    for _ in 0..4 {
        place.pass(LEASE / 4);
        catalogue.renew_owner(living, lease()).await.unwrap();
    }
    assert_eq!(stale(&*catalogue).await, keys(["b", "c"]));
    assert_eq!(stale(&*other).await, keys(["b", "c"]), "until they are cleared away");
    catalogue.end_intent("b").await.unwrap();
    assert_eq!(stale(&*catalogue).await, keys(["c"]));
}

/// What stood still and wakes up after others have cleared away can record nothing of what it had under way.
pub(crate) async fn a_fenced_owner_records_nothing(place: Place) {
    let (sleeper, other) = (place.open().await, place.open().await);
    let owner = sleeper.acquire_owner("sleeper", lease()).await.unwrap();
    for key in ["a", "b"] {
        sleeper.begin_intent(key, "local", owner).await.unwrap();
    }
    place.pass(LEASE + 1);
    assert_eq!(stale(&*other).await, keys(["a", "b"]));
    other.end_intent("a").await.unwrap();

    for key in ["a", "b"] {
        let late = sleeper.commit(stored(snapshot(1, 10), vec![on("local", key)], vec![key.into()])).await;
        let error = late.unwrap_err();
        assert_eq!(error.kind().name(), "conflict", "{error}");
        assert!(error.advice().is_some(), "{error}");
        assert_eq!(other.placement_of("local", &object(key)).await.unwrap(), None);
    }
    assert_eq!(other.get(id(1)).await.unwrap(), None);
    assert_eq!(kind(sleeper.renew_owner(owner, lease()).await), "conflict");
    assert_eq!(kind(sleeper.begin_intent("c", "local", owner).await), "conflict");
    // It goes on under another lease; what it had under way stays lost.
    let next = sleeper.acquire_owner("sleeper", lease()).await.unwrap();
    sleeper.begin_intent("c", "local", next).await.unwrap();
    sleeper.commit(stored(snapshot(1, 10), vec![on("local", "c")], vec!["c".into()])).await.unwrap();
    assert_eq!(
        kind(sleeper.commit(stored(snapshot(2, 10), vec![on("local", "b")], vec!["b".into()])).await),
        "conflict"
    );
    assert_eq!(stale(&*other).await, keys(["b"]));
}

/// Expiry alone changes nothing: a machine that slept for a night, with nobody else at work, loses nothing.
pub(crate) async fn an_expired_lease_can_be_renewed_until_somebody_ends_it(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    for key in ["a", "b"] {
        catalogue.begin_intent(key, "local", owner).await.unwrap();
    }
    place.pass(10 * LEASE);
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a")], vec!["a".into()])).await.unwrap();
    // Nor does another that comes meanwhile: it clears nothing away.
    place.open().await.acquire_owner("other", lease()).await.unwrap();
    catalogue.renew_owner(owner, lease()).await.unwrap();
    place.pass(LEASE - 1);
    assert_eq!(stale(&*catalogue).await, keys([]));
    place.pass(1);
    assert_eq!(stale(&*catalogue).await, keys(["b"]));
}

pub(crate) async fn tokens_only_grow(place: Place) {
    let mut last = OwnerToken(0);
    for round in 0..4 {
        let catalogue = place.open().await;
        let [first, second] = [
            catalogue.acquire_owner("a", lease()).await.unwrap(),
            catalogue.acquire_owner(&format!("b{round}"), lease()).await.unwrap(),
        ];
        assert!(last < first && first < second);
        last = second;
        // Also if none is left.
        catalogue.release_owner(first).await.unwrap();
        catalogue.release_owner(second).await.unwrap();
    }
}

pub(crate) async fn a_name_holds_one_lease(place: Place) {
    let catalogue = place.open().await;
    let first = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("k", "local", first).await.unwrap();
    let second = catalogue.acquire_owner("me", lease()).await.unwrap();
    assert_eq!(kind(catalogue.renew_owner(first, lease()).await), "conflict");
    catalogue.renew_owner(second, lease()).await.unwrap();
    assert_eq!(stale(&*catalogue).await, keys(["k"]));
}

/// Leases that nobody ended are ended by whoever comes, but not those that an intent still needs.
pub(crate) async fn what_ended_without_a_word_does_not_pile_up(place: Place) {
    let catalogue = place.open().await;
    let idle = catalogue.acquire_owner("idle", lease()).await.unwrap();
    let busy = catalogue.acquire_owner("busy", lease()).await.unwrap();
    catalogue.begin_intent("k", "local", busy).await.unwrap();
    place.pass(LEASE);
    catalogue.acquire_owner("new", lease()).await.unwrap();
    assert_eq!(kind(catalogue.renew_owner(idle, lease()).await), "conflict");
    catalogue.renew_owner(busy, lease()).await.unwrap();
}

/// Each store is either recorded or stale, never both, and never neither.
pub(crate) async fn fencing_and_commits_at_once(place: Place) {
    let (first, second) = (place.open().await, place.open().await);
    for round in 0..30u64 {
        let key = format!("k{round}");
        let owner = first.acquire_owner("racer", lease()).await.unwrap();
        first.begin_intent(&key, "local", owner).await.unwrap();
        place.pass(LEASE);
        let commit = first.commit(stored(snapshot(round, 1), vec![on("local", &key)], vec![key.clone()]));
        let expired = second.expired_owners().await.unwrap();
        let (committed, found) = tokio::join!(commit, second.stale_intents(expired));
        let found = found.unwrap().iter().any(|intent| intent.key == key);
        let placed = second.placement_of("local", &object(&key)).await.unwrap().is_some();
        assert_eq!((committed.is_ok(), placed), (!found, !found), "round {round}");
        second.end_intent(&key).await.unwrap();
    }
}

/// What expires between a look at the leases and the transaction that ends them had no time of grace.
pub(crate) async fn only_leases_that_were_seen_expired_end(place: Place) {
    let catalogue = place.open().await;
    let [early, late, renewed] = [
        catalogue.acquire_owner("early", Duration::from_secs(10)).await.unwrap(),
        catalogue.acquire_owner("late", Duration::from_secs(20)).await.unwrap(),
        catalogue.acquire_owner("renewed", Duration::from_secs(10)).await.unwrap(),
    ];
    for (key, owner) in [("a", early), ("b", late), ("c", renewed)] {
        catalogue.begin_intent(key, "local", owner).await.unwrap();
    }
    place.pass(10);
    let seen = catalogue.expired_owners().await.unwrap();
    assert_eq!(seen.iter().map(|owner| owner.token).collect::<Vec<_>>(), [early, renewed]);
    catalogue.renew_owner(renewed, Duration::from_secs(5)).await.unwrap();
    place.pass(10);
    let stale = catalogue.stale_intents(seen).await.unwrap();
    assert_eq!(stale.into_iter().map(|intent| intent.key).collect::<Vec<_>>(), ["a"]);
    for (key, owner) in [("b", late), ("c", renewed)] {
        catalogue.renew_owner(owner, lease()).await.unwrap();
        catalogue.commit(stored(snapshot(1, 1), vec![on("local", key)], vec![key.into()])).await.unwrap();
    }
}

pub(crate) async fn what_a_living_host_gave_up_is_stale(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    for key in ["a", "b"] {
        catalogue.begin_intent(key, "local", owner).await.unwrap();
    }
    catalogue.abandon_intents(vec!["a".into(), "unheard-of".into()]).await.unwrap();
    assert_eq!(stale(&*catalogue).await, keys(["a"]));
    assert_eq!(kind(catalogue.commit(stored(snapshot(1, 1), vec![], vec!["a".into()])).await), "conflict");
    catalogue.commit(stored(snapshot(1, 1), vec![on("local", "b")], vec!["b".into()])).await.unwrap();
    // It is known until it was looked for.
    assert_eq!(kind(catalogue.begin_intent("a", "local", owner).await), "conflict");
    catalogue.end_intent("a").await.unwrap();
    assert_eq!(catalogue.stats().await.unwrap().intents, 0);
}
