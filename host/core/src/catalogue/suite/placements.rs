//! Placements and their states.

use super::{Place, id, kind, lease, object, on, snapshot};
use crate::catalogue::PlacementState;

pub(crate) async fn a_commit_is_all_or_nothing(place: Place) {
    let catalogue = place.open().await;
    catalogue.commit(snapshot(1, 10), vec![on("local", "a")], vec![]).await.unwrap();
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("key", "local", owner).await.unwrap();
    // The second object belongs to another snapshot.
    let result = catalogue.commit(snapshot(2, 20), vec![on("cloud", "x"), on("local", "a")], vec!["key".into()]).await;
    assert_eq!(kind(result), "conflict");
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    assert_eq!(catalogue.placement_of("cloud", &object("x")).await.unwrap(), None);
    assert_eq!(catalogue.stats().await.unwrap().intents, 1);
    assert_eq!(kind(catalogue.commit(snapshot(1, 11), vec![], vec![]).await), "conflict");
    assert_eq!(kind(catalogue.commit(snapshot(3, u64::MAX), vec![], vec![]).await), "invalid");
}

pub(crate) async fn storing_again_adds_and_revives(place: Place) {
    let catalogue = place.open().await;
    let mut first = snapshot(1, 10);
    first.name = Some("first".into());
    catalogue.commit(first, vec![on("local", "a")], vec![]).await.unwrap();
    catalogue.mark_placement("local", &object("a"), PlacementState::Bad).await.unwrap();
    assert_eq!(catalogue.placements_in(PlacementState::Bad).await.unwrap().len(), 1);
    catalogue.commit(snapshot(1, 10), vec![on("local", "a"), on("local", "b")], vec![]).await.unwrap();
    let placements = catalogue.placements(id(1)).await.unwrap();
    assert!(placements.len() == 2 && placements.iter().all(|p| p.state == PlacementState::Live));
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().name.as_deref(), Some("first"));
    assert_eq!(catalogue.placement_of("local", &object("b")).await.unwrap().unwrap().snapshot, id(1));
    assert_eq!(catalogue.placement_of("cloud", &object("b")).await.unwrap(), None);
}

pub(crate) async fn removal_goes_step_by_step(place: Place) {
    let catalogue = place.open().await;
    let mut child = snapshot(2, 10);
    child.base = Some(id(1));
    catalogue.commit(snapshot(1, 10), vec![on("local", "a")], vec![]).await.unwrap();
    catalogue.commit(child, vec![on("local", "b")], vec![]).await.unwrap();
    assert_eq!(kind(catalogue.remove_snapshot(id(1)).await), "conflict");
    catalogue.mark_placement("local", &object("a"), PlacementState::Removing).await.unwrap();
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap()[0].snapshot, id(1));
    let revived = catalogue.commit(snapshot(1, 10), vec![on("local", "a")], vec![]).await;
    assert_eq!(kind(revived), "conflict", "it is being removed");
    catalogue.remove_placement("local", &object("a")).await.unwrap();
    catalogue.remove_placement("local", &object("a")).await.unwrap();
    assert_eq!(kind(catalogue.mark_placement("local", &object("a"), PlacementState::Bad).await), "not-found");
    catalogue.remove_snapshot(id(1)).await.unwrap();
    assert_eq!(kind(catalogue.remove_snapshot(id(1)).await), "not-found");
    // What was made from it stays, and goes on naming it.
    assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().base, Some(id(1)));
}
