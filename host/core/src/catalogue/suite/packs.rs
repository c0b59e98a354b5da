//! Packs, and the objects that they take pages from.

use super::removals::objects;
use super::{Place, id, kind, lease, object, on, pack_on, packed, raw, snapshot, stored};
use crate::catalogue::{
    BegunRemoval, Catalogue, Need, NewPack, NewPlacement, OwnerToken, PlacementState, RemovalScope,
};
use crate::types::PackId;

async fn store(catalogue: &dyn Catalogue, seed: u64, placements: Vec<NewPlacement>) {
    catalogue.commit(stored(snapshot(seed, 10), placements, vec![])).await.unwrap();
}

async fn remove(catalogue: &dyn Catalogue, seed: u64) -> BegunRemoval {
    catalogue.begin_removal(id(seed), RemovalScope::Snapshot).await.unwrap()
}

/// Deletes an object. Returns those whose removal this has begun.
async fn delete(catalogue: &dyn Catalogue, backend: &str, name: &str, owner: OwnerToken) -> Vec<String> {
    assert!(catalogue.claim(backend, &object(name), owner, None).await.unwrap(), "{name}");
    let begun = catalogue.end_claim(backend, &object(name), owner).await.unwrap().unwrap();
    begun.into_iter().map(|placement| placement.object.as_str().to_owned()).collect()
}

pub(crate) async fn what_a_pack_needs_stays_until_it_is_gone(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(catalogue, 1, vec![on("local", "base"), on("cloud", "copy")]).await;
    store(catalogue, 2, vec![pack_on("local", "delta", 2, &[raw(1)])]).await;
    store(catalogue, 3, vec![pack_on("local", "grandchild", 3, &[raw(1), packed(2, 2)])]).await;
    let by_pack = catalogue.placements_of_pack(PackId::from_bytes([2; 32])).await.unwrap();
    assert!(by_pack.len() == 1 && by_pack[0].snapshot == id(2) && by_pack[0].object == object("delta"));
    // The base goes for its users. Its copy elsewhere, which nothing needs, can be deleted.
    let BegunRemoval::Needed { spare, mut by, .. } = remove(catalogue, 1).await else { panic!("it is needed") };
    by.sort();
    let mut both = vec![id(2), id(3)];
    both.sort();
    assert_eq!((spare.len(), spare[0].object.clone(), by), (1, object("copy"), both));
    assert_eq!(catalogue.get(id(1)).await.unwrap(), None);
    assert_eq!(kind(catalogue.find(&id(1).to_string()).await), "not-found");
    assert_eq!(kind(catalogue.begin_removal(id(1), RemovalScope::Snapshot).await), "not-found", "again");
    assert!(catalogue.list(None, 10).await.unwrap().snapshots.iter().all(|snapshot| snapshot.id != id(1)));
    assert_eq!(catalogue.get_kept(id(1)).await.unwrap().unwrap().size, 10);
    assert_eq!(catalogue.segments(id(1)).await.unwrap(), [1; 64]);
    assert!(!catalogue.claim("local", &object("base"), owner, None).await.unwrap(), "it is needed");
    assert_eq!(delete(catalogue, "cloud", "copy", owner).await, [""; 0]);
    assert!(catalogue.get_kept(id(1)).await.unwrap().is_some());
    // The middle of the chain goes, and is still needed; the last one takes all with it.
    let BegunRemoval::Needed { spare, by, .. } = remove(catalogue, 2).await else { panic!("it is needed") };
    assert!(spare.is_empty() && by == [id(3)]);
    assert_eq!(objects(remove(catalogue, 3).await), ["grandchild"]);
    let mut begun = delete(catalogue, "local", "grandchild", owner).await;
    begun.sort();
    assert_eq!(begun, ["delta"], "the delta still needs the base");
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap().len(), 1);
    assert_eq!(delete(catalogue, "local", "delta", owner).await, ["base"]);
    assert_eq!(delete(catalogue, "local", "base", owner).await, [""; 0]);
    for seed in [1, 2, 3] {
        assert_eq!(catalogue.get_kept(id(seed)).await.unwrap(), None);
    }
}

pub(crate) async fn a_pack_needs_what_is_live_on_its_backend(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let delta = |backend| stored(snapshot(2, 10), vec![pack_on(backend, "delta", 2, &[raw(1)])], vec![]);
    assert_eq!(kind(catalogue.commit(delta("local")).await), "conflict", "there is none");
    store(catalogue, 1, vec![on("local", "base")]).await;
    assert_eq!(kind(catalogue.commit(delta("cloud")).await), "conflict", "it is elsewhere");
    catalogue.commit(delta("local")).await.unwrap();
    // A base that was removed and is kept can be built upon, and stored again.
    assert!(matches!(remove(catalogue, 1).await, BegunRemoval::Needed { .. }));
    store(catalogue, 3, vec![pack_on("local", "other", 3, &[raw(1)])]).await;
    store(catalogue, 1, vec![on("local", "base")]).await;
    assert!(catalogue.get(id(1)).await.unwrap().is_some());
    // One that is being removed, or is damaged, cannot.
    store(catalogue, 4, vec![on("local", "going")]).await;
    assert_eq!(objects(remove(catalogue, 4).await), ["going"]);
    store(catalogue, 5, vec![on("local", "bad")]).await;
    let placement = catalogue.placements(id(5)).await.unwrap().remove(0);
    assert!(catalogue.transition(&placement, PlacementState::Bad, None).await.unwrap());
    for seed in [4, 5] {
        let new = stored(snapshot(6, 10), vec![pack_on("local", "new", 6, &[raw(seed)])], vec![]);
        assert_eq!(kind(catalogue.commit(new).await), "conflict", "{seed}");
    }
    assert_eq!(catalogue.get(id(6)).await.unwrap(), None, "nothing of it was recorded");
    // Another pack of the same snapshot has its pages elsewhere, and does not do.
    store(catalogue, 7, vec![on("local", "as-it-is"), pack_on("cloud", "as-a-pack", 7, &[])]).await;
    for (backend, need) in [("local", packed(7, 7)), ("cloud", raw(7))] {
        let new = stored(snapshot(6, 10), vec![pack_on(backend, "new", 6, &[need])], vec![]);
        assert_eq!(kind(catalogue.commit(new).await), "conflict", "{backend}");
    }
    store(catalogue, 6, vec![pack_on("local", "new", 6, &[raw(7)]), pack_on("cloud", "new", 6, &[packed(7, 7)])]).await;
    assert_eq!(catalogue.needs_of("local", &object("new")).await.unwrap(), [raw(7)]);
    assert_eq!(catalogue.needs_of("cloud", &object("new")).await.unwrap(), [packed(7, 7)]);
    // What needed itself, through others, could never be removed.
    store(catalogue, 8, vec![pack_on("local", "of-6", 8, &[raw(7), packed(6, 6)])]).await;
    let back = stored(snapshot(7, 10), vec![pack_on("local", "back", 9, &[packed(8, 8)])], vec![]);
    assert_eq!(kind(catalogue.commit(back).await), "conflict", "it would need itself");
    store(catalogue, 7, vec![pack_on("cloud", "back", 9, &[])]).await;
}

pub(crate) async fn what_is_needed_is_replaced_by_the_same_alone(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let mark_bad = async |name| {
        let placement = catalogue.placement_of("local", &object(name)).await.unwrap().unwrap();
        assert!(catalogue.transition(&placement, PlacementState::Bad, None).await.unwrap());
    };
    let state = async |name| catalogue.placement_of("local", &object(name)).await.unwrap().map(|found| found.state);
    store(catalogue, 1, vec![pack_on("local", "pack", 1, &[])]).await;
    store(catalogue, 2, vec![pack_on("local", "delta", 2, &[packed(1, 1)])]).await;
    mark_bad("pack").await;
    store(catalogue, 1, vec![on("local", "as-it-is")]).await;
    assert_eq!(state("pack").await, Some(PlacementState::Bad), "the delta needs this very pack");
    store(catalogue, 1, vec![pack_on("local", "same-pack", 1, &[])]).await;
    assert_eq!(state("pack").await, Some(PlacementState::Removing));
    mark_bad("as-it-is").await;
    store(catalogue, 3, vec![on("local", "a")]).await;
    mark_bad("a").await;
    store(catalogue, 3, vec![pack_on("local", "b", 3, &[])]).await;
    assert_eq!(state("a").await, Some(PlacementState::Removing), "nothing needs it");
}

pub(crate) async fn an_eviction_leaves_a_copy_and_what_is_needed(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    let evict_for = async |name: &str, relied: &[&str]| {
        let relied = relied.iter().map(|name| (*name).to_owned()).collect();
        catalogue.begin_eviction("hot", &object(name), relied).await.unwrap()
    };
    let evict = async |name: &str| evict_for(name, &["cloud", "hot"]).await;
    store(catalogue, 1, vec![on("hot", "base"), on("cloud", "a")]).await;
    store(catalogue, 2, vec![pack_on("hot", "delta", 2, &[raw(1)]), on("cloud", "b")]).await;
    store(catalogue, 3, vec![on("hot", "only")]).await;
    assert!(!evict("base").await, "the delta needs it");
    assert!(!evict("only").await, "there is no other");
    assert!(!evict("unknown").await);
    // One that is known to be bad is none.
    let bad = catalogue.placement_of("cloud", &object("b")).await.unwrap().unwrap();
    assert!(catalogue.transition(&bad, PlacementState::Bad, Some("rotten")).await.unwrap());
    assert!(!evict("delta").await);
    let bad = catalogue.placement_of("cloud", &object("b")).await.unwrap().unwrap();
    assert!(catalogue.transition(&bad, PlacementState::Live, None).await.unwrap());
    assert!(
        !evict_for("delta", &[]).await && !evict_for("delta", &["other"]).await,
        "nobody has looked at the other copy"
    );
    assert!(evict("delta").await);
    assert!(!evict("delta").await, "it is under way");
    assert!(!evict("base").await, "until the delta is gone");
    assert_eq!(delete(catalogue, "hot", "delta", owner).await, [""; 0]);
    assert!(evict("base").await);
    assert_eq!(delete(catalogue, "hot", "base", owner).await, [""; 0]);
    for (seed, left) in [(1, "a"), (2, "b"), (3, "only")] {
        let placements = catalogue.placements(id(seed)).await.unwrap();
        assert!(placements.len() == 1 && placements[0].object == object(left), "{placements:?}");
        assert!(catalogue.get(id(seed)).await.unwrap().is_some());
    }
}

pub(crate) async fn what_a_pack_proves_is_recorded_in_place_of_what_was(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    store(catalogue, 1, vec![on("local", "base")]).await;
    store(catalogue, 2, vec![pack_on("local", "delta", 2, &[raw(1)])]).await;
    store(catalogue, 3, vec![pack_on("local", "grandchild", 3, &[packed(2, 2)])]).await;
    let at = |name: &'static str| async move { catalogue.placement_of("local", &object(name)).await.unwrap().unwrap() };
    let seen = at("grandchild").await;
    let proven = |pack: u8, needs: &[Need]| NewPack { id: PackId::from_bytes([pack; 32]), needs: needs.to_vec() };
    assert!(catalogue.amend(&seen, proven(4, &[raw(1), packed(2, 2)]), 77).await.unwrap());
    let now = at("grandchild").await;
    assert_eq!((now.pack, now.stored_bytes, now.state), (Some(PackId::from_bytes([4; 32])), 77, seen.state));
    assert_eq!(catalogue.needs_of("local", &object("grandchild")).await.unwrap().len(), 2);
    assert!(!catalogue.amend(&seen, proven(5, &[]), 1).await.unwrap(), "it was changed since");
    // Nothing of a correction that is refused stays.
    assert_eq!(kind(catalogue.amend(&now, proven(5, &[raw(9)]), 1).await), "conflict", "an unknown snapshot");
    assert_eq!(kind(catalogue.amend(&at("delta").await, proven(2, &[packed(3, 3)]), 1).await), "conflict", "a circle");
    assert_eq!(at("grandchild").await, now);
    assert_eq!(catalogue.needs_of("local", &object("delta")).await.unwrap(), [raw(1)]);
    // An object that holds its snapshot as it is needs nothing.
    assert!(!catalogue.amend(&at("base").await, proven(6, &[]), 1).await.unwrap());

    let BegunRemoval::Needed { .. } = remove(catalogue, 1).await else { panic!("it is needed") };
    catalogue.mend_segments(id(1), vec![7; 64]).await.unwrap();
    assert_eq!(catalogue.segments(id(1)).await.unwrap(), [7; 64]);
    assert_eq!(catalogue.get(id(1)).await.unwrap(), None, "it stays removed");
}

pub(crate) async fn what_gives_nothing_goes_with_the_whole(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(catalogue, 1, vec![on("local", "base")]).await;
    store(catalogue, 2, vec![pack_on("local", "delta", 2, &[raw(1)])]).await;
    store(catalogue, 3, vec![pack_on("local", "grandchild", 3, &[packed(2, 2)])]).await;
    let delta = catalogue.placement_of("local", &object("delta")).await.unwrap().unwrap();
    assert!(catalogue.transition(&delta, PlacementState::Bad, Some("damaged")).await.unwrap());
    let removing = || async {
        let found = catalogue.placements_in(PlacementState::Removing).await.unwrap();
        found.into_iter().map(|placement| placement.object.as_str().to_owned()).collect::<Vec<_>>()
    };
    // The pack above it still names it: its metadata may be of use.
    store(catalogue, 2, vec![on("local", "whole")]).await;
    assert_eq!(removing().await, [""; 0]);
    store(catalogue, 3, vec![on("local", "also whole")]).await;
    assert_eq!(removing().await, ["grandchild"]);
    assert_eq!(delete(catalogue, "local", "grandchild", owner).await, [""; 0]);
    // It goes once the whole one was looked at.
    let delta = catalogue.replaced("local", id(2)).await.unwrap().remove(0);
    assert!(delta.object == object("delta") && catalogue.retire_for(&delta, &object("whole")).await.unwrap());
    assert_eq!(delete(catalogue, "local", "delta", owner).await, [""; 0]);
    for seed in [1, 2, 3] {
        assert_eq!(catalogue.placements(id(seed)).await.unwrap().len(), 1);
    }
}
