//! Chains of packs: what is told of them, and what takes the place of a pack.

use super::{Place, id, kind, lease, object, on, pack_on, packed, raw, snapshot, stored};
use crate::catalogue::{
    Catalogue, Commit, HeldJob, JobCommit, JobKind, NewJob, NewPlacement, OwnerToken, Placement, PlacementState,
    RemovalScope, Take,
};

async fn store(catalogue: &dyn Catalogue, seed: u64, placements: Vec<NewPlacement>) {
    catalogue.commit(stored(snapshot(seed, 10), placements, vec![])).await.unwrap();
}

async fn at(catalogue: &dyn Catalogue, name: &str) -> Option<Placement> {
    catalogue.placement_of("local", &object(name)).await.unwrap()
}

/// What a job has made in place of another object.
async fn rebased(
    catalogue: &dyn Catalogue,
    seed: u64,
    old: &Placement,
    new: &str,
    pack: u8,
    owner: OwnerToken,
) -> Commit {
    let job = NewJob {
        kind: JobKind::RebaseRandom,
        snapshot: id(seed),
        backend: Some(old.backend.clone()),
        object: Some(old.object.clone()),
    };
    catalogue.enqueue(vec![job]).await.unwrap();
    let held = HeldJob { id: catalogue.take_job(Take::Due, owner).await.unwrap().unwrap().id, token: owner };
    Commit {
        placements: vec![pack_on("local", new, pack, &[])],
        job: Some(JobCommit { held, what: "rebased", why: "from local".to_owned() }),
        replaces: Some(old.clone()),
        ..Commit::of(snapshot(seed, 10))
    }
}

/// A base, and three packs above it.
async fn chain(catalogue: &dyn Catalogue) {
    store(catalogue, 1, vec![on("local", "base")]).await;
    store(catalogue, 2, vec![pack_on("local", "two", 2, &[raw(1)])]).await;
    store(catalogue, 3, vec![pack_on("local", "three", 3, &[raw(1), packed(2, 2)])]).await;
    store(catalogue, 4, vec![pack_on("local", "four", 4, &[raw(1), packed(2, 2), packed(3, 3)])]).await;
}

pub(crate) async fn what_takes_the_place_of_a_pack(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    chain(catalogue).await;
    // Nothing needs the last one: it goes with the record of the new one.
    let four = at(catalogue, "four").await.unwrap();
    let commit = rebased(catalogue, 4, &four, "full", 14, owner).await;
    catalogue.commit(commit).await.unwrap();
    assert_eq!(at(catalogue, "four").await.unwrap().state, PlacementState::Removing);
    assert!(catalogue.claim("local", &object("four"), owner, None).await.unwrap());
    assert_eq!(catalogue.end_claim("local", &object("four"), owner).await.unwrap(), Some(vec![]));
    assert_eq!(catalogue.events(id(4)).await.unwrap()[0].what, "rebased");
    // What another one needs stays, until that is gone.
    let two = at(catalogue, "two").await.unwrap();
    let commit = rebased(catalogue, 2, &two, "second", 12, owner).await;
    catalogue.commit(commit).await.unwrap();
    assert_eq!(at(catalogue, "two").await, Some(two.clone()));
    assert!(!catalogue.retire_for(&two, &object("second")).await.unwrap(), "it is needed");
    assert_eq!(catalogue.sharing(id(3)).await.unwrap().frees, 200, "its own, and the one that is kept for it");
    catalogue.begin_removal(id(3), RemovalScope::Snapshot).await.unwrap();
    assert!(catalogue.claim("local", &object("three"), owner, None).await.unwrap());
    assert!(catalogue.replaced("local", id(2)).await.unwrap().is_empty(), "it is needed");
    assert_eq!(catalogue.end_claim("local", &object("three"), owner).await.unwrap(), Some(vec![]));
    // It does not go for a row: whoever has looked at the other object retires it.
    assert_eq!(catalogue.replaced("local", id(2)).await.unwrap(), vec![two.clone()]);
    assert_eq!(catalogue.all_replaced(0).await.unwrap(), (vec![two.clone()], None));
    assert!(catalogue.retire_for(&two, &object("second")).await.unwrap());
    assert!(catalogue.all_replaced(0).await.unwrap().0.is_empty());
    // What was seen before, and what is not there, takes no place; nor does what is kept for others get another form.
    let second = at(catalogue, "second").await.unwrap();
    assert!(!catalogue.retire_for(&Placement { version: 0, ..second.clone() }, &object("base")).await.unwrap());
    assert!(!catalogue.retire_for(&second, &object("second")).await.unwrap());
    store(catalogue, 5, vec![pack_on("local", "five", 5, &[packed(2, 12)])]).await;
    let commit = rebased(catalogue, 2, &second, "third", 22, owner).await;
    catalogue.begin_removal(id(2), RemovalScope::Snapshot).await.unwrap();
    assert_eq!(kind(catalogue.commit(commit).await), "conflict", "it was removed");
}

pub(crate) async fn long_chains_are_found_in_their_order(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    chain(catalogue).await;
    let names = async |after, most, limit| {
        let found = catalogue.long_chains("local", after, most, limit).await.unwrap();
        let names: Vec<String> = found.placements.iter().map(|found| found.object.as_str().to_owned()).collect();
        (names, found.next)
    };
    let (all, end) = names(0, 1, 10).await;
    assert_eq!(all, ["three", "four"]);
    assert_eq!(names(end, 1, 10).await, (vec![], end));
    assert_eq!(names(0, 2, 10).await.0, ["four"]);
    assert_eq!(catalogue.long_chains("other", 0, 1, 10).await.unwrap().placements, []);
    let (first, next) = names(0, 1, 1).await;
    assert_eq!((first, names(next, 1, 1).await.0), (vec!["three".to_owned()], vec!["four".to_owned()]));
    // One that has a full object there, and one that was removed, are left out.
    store(catalogue, 3, vec![pack_on("local", "full", 13, &[])]).await;
    catalogue.begin_removal(id(3), RemovalScope::Snapshot).await.unwrap();
    assert_eq!(names(0, 1, 10).await.0, ["four"]);
    store(catalogue, 4, vec![pack_on("local", "also full", 14, &[])]).await;
    assert!(names(0, 1, 10).await.0.is_empty());
    // What comes later is found from there on.
    store(catalogue, 6, vec![pack_on("local", "six", 6, &[raw(1), packed(4, 14)])]).await;
    assert_eq!(names(end, 1, 10).await.0, ["six"]);
}

pub(crate) async fn what_is_shared_is_told(place: Place) {
    let catalogue = place.open().await;
    let catalogue = &*catalogue;
    chain(catalogue).await;
    catalogue.begin_removal(id(2), RemovalScope::Snapshot).await.unwrap();
    let last = catalogue.sharing(id(4)).await.unwrap();
    let links: Vec<(Option<&str>, u32, bool)> = last.objects[0]
        .needs
        .iter()
        .map(|link| (link.object.as_ref().map(|object| object.as_str()), link.depth, link.shared))
        .collect();
    assert_eq!(links, [(Some("three"), 2, true), (Some("two"), 1, true), (Some("base"), 0, true)]);
    assert_eq!((last.objects[0].depth, last.frees), (3, 100));
    let base = catalogue.sharing(id(1)).await.unwrap();
    assert_eq!((base.objects[0].needed_by.len(), base.objects[0].depth, base.frees), (3, 0, 0));
    catalogue.begin_removal(id(3), RemovalScope::Snapshot).await.unwrap();
    assert_eq!(catalogue.sharing(id(4)).await.unwrap().frees, 300);
    assert!(catalogue.sharing(id(99)).await.unwrap().objects.is_empty());
}
