//! Placements and their states.

use super::{BEGINNING, Place, id, kind, lease, object, on, snapshot, stored};
use crate::catalogue::{ABSENT, Catalogue, Commit, PlacementState, RemovalScope};

async fn mark(catalogue: &dyn Catalogue, name: &str, state: PlacementState) -> bool {
    let seen = catalogue.placement_of("local", &object(name)).await.unwrap().unwrap();
    catalogue.transition(&seen, state, Some(ABSENT)).await.unwrap()
}

pub(crate) async fn a_commit_is_all_or_nothing(place: Place) {
    let catalogue = place.open().await;
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a")], vec![])).await.unwrap();
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("key", "local", owner).await.unwrap();
    // The second object belongs to another snapshot.
    let result =
        catalogue.commit(stored(snapshot(2, 20), vec![on("cloud", "x"), on("local", "a")], vec!["key".into()])).await;
    assert_eq!(kind(result), "conflict");
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    assert_eq!(catalogue.placement_of("cloud", &object("x")).await.unwrap(), None);
    assert_eq!(catalogue.stats().await.unwrap().intents, 1);
    assert_eq!(kind(catalogue.commit(stored(snapshot(1, 11), vec![], vec![])).await), "conflict");
    assert_eq!(kind(catalogue.commit(stored(snapshot(3, u64::MAX), vec![], vec![])).await), "invalid");
}

pub(crate) async fn storing_again_adds_and_revives(place: Place) {
    let catalogue = place.open().await;
    let mut first = snapshot(1, 10);
    first.name = Some("first".into());
    catalogue.commit(stored(first, vec![on("local", "a")], vec![])).await.unwrap();
    assert!(mark(&*catalogue, "a", PlacementState::Bad).await);
    assert_eq!(catalogue.placements_in(PlacementState::Bad).await.unwrap().len(), 1);
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a"), on("local", "b")], vec![])).await.unwrap();
    let placements = catalogue.placements(id(1)).await.unwrap();
    assert!(placements.len() == 2 && placements.iter().all(|p| p.state == PlacementState::Live));
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().name.as_deref(), Some("first"));
    assert_eq!(catalogue.placement_of("local", &object("b")).await.unwrap().unwrap().snapshot, id(1));
    assert_eq!(catalogue.placement_of("cloud", &object("b")).await.unwrap(), None);
}

/// Evidence that was gathered before another change counts for nothing after it.
pub(crate) async fn a_state_changes_only_as_it_was_seen(place: Place) {
    let catalogue = place.open().await;
    let now = async || catalogue.placement_of("local", &object("a")).await.unwrap().unwrap();
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a")], vec![])).await.unwrap();
    let seen = now().await;
    assert_eq!((seen.state, seen.since, seen.reason.as_deref()), (PlacementState::Live, BEGINNING, None));
    place.pass(5);
    assert!(catalogue.transition(&seen, PlacementState::Suspect, Some("a\u{1b}[0m\nb")).await.unwrap());
    let suspect = now().await;
    assert_eq!((suspect.state, suspect.since), (PlacementState::Suspect, BEGINNING + 5));
    assert_eq!(suspect.reason.as_deref(), Some("a [0m b"));
    assert!(!catalogue.transition(&seen, PlacementState::Bad, None).await.unwrap());
    assert_eq!(now().await, suspect);
    // A store of the same image comes between: the object is a new one.
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a")], vec![])).await.unwrap();
    assert!(!catalogue.transition(&suspect, PlacementState::Bad, Some(ABSENT)).await.unwrap());
    let live = now().await;
    assert_eq!((live.state, live.reason.as_deref()), (PlacementState::Live, None));
    assert!(catalogue.transition(&live, PlacementState::Bad, Some(ABSENT)).await.unwrap());
    assert!(now().await.is_absent() && !live.is_absent());
    assert_eq!(catalogue.placements_in(PlacementState::Bad).await.unwrap(), [now().await]);
    assert_eq!(catalogue.placements_in(PlacementState::Suspect).await.unwrap(), []);
    // A removal is none of these, and cannot be undone by one.
    assert_eq!(kind(catalogue.transition(&now().await, PlacementState::Removing, None).await), "invalid");
    let bad = now().await;
    catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
    assert!(!catalogue.transition(&bad, PlacementState::Live, None).await.unwrap());
    assert_eq!(kind(catalogue.transition(&now().await, PlacementState::Live, None).await), "invalid");
    assert_eq!(now().await.state, PlacementState::Removing);
}

pub(crate) async fn a_store_relies_only_on_what_is_live(place: Place) {
    let catalogue = place.open().await;
    let relying = |seed, name: &str| Commit {
        relies_on: vec![("local".to_owned(), object(name))],
        ..stored(snapshot(seed, seed), vec![], vec![])
    };
    catalogue.commit(stored(snapshot(1, 1), vec![on("local", "a"), on("local", "b")], vec![])).await.unwrap();
    catalogue.commit(relying(1, "a")).await.unwrap();
    assert_eq!(kind(catalogue.commit(relying(1, "c")).await), "conflict", "unknown");
    assert_eq!(kind(catalogue.commit(relying(2, "a")).await), "conflict", "another snapshot");
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    mark(&*catalogue, "a", PlacementState::Suspect).await;
    assert_eq!(kind(catalogue.commit(relying(1, "a")).await), "conflict", "suspect");
    mark(&*catalogue, "a", PlacementState::Bad).await;
    assert_eq!(kind(catalogue.commit(relying(1, "a")).await), "conflict", "bad");
    catalogue.commit(relying(1, "b")).await.unwrap();
    catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
    assert_eq!(kind(catalogue.commit(relying(1, "b")).await), "conflict", "being removed");
}

pub(crate) async fn containers_are_recorded_once(place: Place) {
    let (catalogue, other) = (place.open().await, place.open().await);
    assert_eq!(catalogue.container("local").await.unwrap(), None);
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    for key in ["first", "second"] {
        catalogue.begin_intent(key, "local", owner).await.unwrap();
    }
    let (first, second) = (object("x-first"), object("x-second"));
    let recorded = catalogue.record_container("local", &first, None, Some("first")).await.unwrap();
    assert_eq!((recorded.object.clone(), recorded.created), (first.clone(), BEGINNING));
    assert_eq!(other.record_container("local", &second, None, Some("second")).await.unwrap(), recorded);
    assert_eq!(other.container("local").await.unwrap(), Some(recorded));
    assert_eq!(catalogue.stats().await.unwrap().intents, 1, "the loser's stays, and leads to its object");
    assert_eq!(catalogue.container("cloud").await.unwrap(), None);
    let replaced = catalogue.record_container("local", &second, Some(&first), None).await.unwrap();
    assert_eq!(replaced.object, second);
    assert_eq!(catalogue.record_container("local", &first, Some(&first), None).await.unwrap(), replaced);
    // It is no orphan, whatever its name contains.
    assert!(!catalogue.claim("local", &second, owner, None).await.unwrap());
    assert!(catalogue.claim("local", &first, owner, None).await.unwrap());
}

pub(crate) async fn a_placement_is_added_to_what_is_known_alone(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    let named = crate::catalogue::NewSnapshot { name: Some("kept".into()), by_id: false, ..snapshot(1, 10) };
    catalogue.commit(stored(named, vec![on("local", "a")], vec![])).await.unwrap();
    catalogue.begin_intent("key", "hot", owner).await.unwrap();
    assert!(catalogue.add_placement(id(1), on("hot", "h"), vec!["key".into()]).await.unwrap());
    assert_eq!(catalogue.stats().await.unwrap().intents, 0);
    assert_eq!(catalogue.placements(id(1)).await.unwrap().len(), 2);
    assert_eq!(kind(catalogue.add_placement(id(1), on("hot", "i"), vec!["key".into()]).await), "conflict", "no intent");
    assert_eq!(kind(catalogue.add_placement(id(2), on("hot", "i"), vec!["none".into()]).await), "conflict");
    // It was removed meanwhile, or never there: nothing brings it back.
    catalogue.begin_intent("late", "hot", owner).await.unwrap();
    for name in ["a", "h"] {
        catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
        let backend = if name == "a" { "local" } else { "hot" };
        assert!(catalogue.claim(backend, &object(name), owner, None).await.unwrap());
        catalogue.end_claim(backend, &object(name), owner).await.unwrap();
    }
    assert!(!catalogue.add_placement(id(1), on("hot", "late"), vec!["late".into()]).await.unwrap());
    assert_eq!((catalogue.get(id(1)).await.unwrap(), catalogue.stats().await.unwrap().intents), (None, 1));
}
