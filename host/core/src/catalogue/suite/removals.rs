//! Removals of names, snapshots and objects.

use super::{Place, id, kind, lease, object, on, snapshot, stored};
use crate::catalogue::{BegunRemoval, Catalogue, Claim, NewSnapshot, OwnerToken, PlacementState, RemovalScope};

async fn store(catalogue: &dyn Catalogue, seed: u64, name: Option<&str>) {
    let new = NewSnapshot { name: name.map(str::to_owned), by_id: name.is_none(), ..snapshot(seed, 10) };
    catalogue.commit(stored(new, vec![on("local", &format!("o{seed}"))], vec![])).await.unwrap();
}

async fn remove_name(catalogue: &dyn Catalogue, seed: u64, name: &str) -> BegunRemoval {
    catalogue.begin_removal(id(seed), RemovalScope::Name(name.into())).await.unwrap()
}

pub(super) fn objects(begun: BegunRemoval) -> Vec<String> {
    match begun {
        BegunRemoval::Objects(objects) => objects.into_iter().map(|one| one.object.as_str().to_owned()).collect(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn removal_goes_step_by_step(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    let mut child = snapshot(2, 10);
    child.base = Some(id(1));
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a"), on("cloud", "b")], vec![])).await.unwrap();
    catalogue.commit(stored(child, vec![on("local", "c")], vec![])).await.unwrap();
    assert_eq!(objects(catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap()), ["a", "b"]);
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap().len(), 2);
    let revived = catalogue.commit(stored(snapshot(1, 10), vec![on("local", "a")], vec![])).await;
    assert_eq!(kind(revived), "conflict", "it is being removed");
    // It was cut short, and is begun again.
    assert_eq!(objects(catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap()), ["a", "b"]);
    for (backend, name) in [("local", "a"), ("cloud", "b")] {
        assert!(catalogue.get(id(1)).await.unwrap().is_some());
        assert_eq!(catalogue.end_claim(backend, &object(name), owner).await.unwrap(), None, "it is not claimed");
        assert!(catalogue.claim(backend, &object(name), owner, None).await.unwrap());
        assert_eq!(catalogue.end_claim(backend, &object(name), owner).await.unwrap(), Some(vec![]));
    }
    assert_eq!(catalogue.get(id(1)).await.unwrap(), None);
    assert_eq!(kind(catalogue.begin_removal(id(1), RemovalScope::Snapshot).await), "not-found");
    // What was made from it stays, and goes on naming it.
    assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().base, Some(id(1)));
    // One without any object is gone at once.
    catalogue.commit(stored(snapshot(3, 10), vec![], vec![])).await.unwrap();
    assert_eq!(objects(catalogue.begin_removal(id(3), RemovalScope::Snapshot).await.unwrap()), [""; 0]);
    assert_eq!(catalogue.get(id(3)).await.unwrap(), None);
}

pub(crate) async fn a_name_goes_alone_and_the_bytes_with_the_last_one(place: Place) {
    let catalogue = place.open().await;
    // What a failed store has left is nobody's: it goes with the name of the store that completes it.
    let left = NewSnapshot { by_id: false, ..snapshot(9, 10) };
    catalogue.commit(stored(left, vec![on("local", "o9")], vec![])).await.unwrap();
    store(&*catalogue, 9, Some("late")).await;
    assert_eq!(objects(remove_name(&*catalogue, 9, "late").await), ["o9"]);
    let several = async |seed| kind(catalogue.begin_removal(id(seed), RemovalScope::Snapshot).await);
    for name in ["first", "second"] {
        store(&*catalogue, 1, Some(name)).await;
    }
    assert_eq!(several(1).await, "conflict");
    assert_eq!(remove_name(&*catalogue, 1, "first").await, BegunRemoval::NameOnly(vec!["second".into()]));
    let again = catalogue.begin_removal(id(1), RemovalScope::Name("first".into())).await;
    assert_eq!(kind(again), "not-found");
    assert_eq!(objects(remove_name(&*catalogue, 1, "second").await), ["o1"]);
    assert_eq!(kind(catalogue.find("second").await), "not-found");
    // Whoever stored it without a name, before or after, knows it by its id.
    for (seed, stores) in [(2, [None, Some("a")]), (3, [Some("b"), None])] {
        for name in stores {
            store(&*catalogue, seed, name).await;
        }
        let name = stores.into_iter().flatten().next().unwrap();
        assert_eq!(remove_name(&*catalogue, seed, name).await, BegunRemoval::NameOnly(vec![]));
        assert_eq!(objects(catalogue.begin_removal(id(seed), RemovalScope::Snapshot).await.unwrap()).len(), 1);
    }
    // Its name has moved on meanwhile.
    store(&*catalogue, 4, Some("moved")).await;
    store(&*catalogue, 5, Some("moved")).await;
    assert_eq!(kind(catalogue.begin_removal(id(4), RemovalScope::Name("moved".into())).await), "not-found");
    for name in ["x", "y", "z"] {
        store(&*catalogue, 5, Some(name)).await;
    }
    assert_eq!(objects(catalogue.begin_removal(id(5), RemovalScope::AllNames).await.unwrap()), ["o5"]);
    assert_eq!(kind(catalogue.find("x").await), "not-found");
}

pub(crate) async fn an_object_is_deleted_by_one_host_at_a_time(place: Place) {
    let (catalogue, other) = (place.open().await, place.open().await);
    let orphan = object("orphan");
    let mine = catalogue.acquire_owner("mine", lease()).await.unwrap();
    let theirs = other.acquire_owner("theirs", lease()).await.unwrap();
    assert_eq!(kind(catalogue.claim("local", &orphan, OwnerToken(99), None).await), "conflict");
    assert!(catalogue.claim("local", &orphan, mine, None).await.unwrap());
    assert!(catalogue.claim("local", &orphan, mine, None).await.unwrap(), "its own");
    assert!(!other.claim("local", &orphan, theirs, None).await.unwrap());
    assert!(!other.claim("local", &orphan, theirs, Some(mine)).await.unwrap(), "it lives");
    assert!(other.claim("cloud", &orphan, theirs, None).await.unwrap(), "another backend's");
    let recorded = other.commit(stored(snapshot(1, 1), vec![on("local", "orphan")], vec![])).await;
    assert_eq!(kind(recorded), "conflict", "it is being deleted");
    catalogue.release_owner(mine).await.unwrap();
    assert!(!other.claim("local", &orphan, theirs, None).await.unwrap(), "its owner may be at it");
    let claim = |backend: &str, owner: &str, token| Claim {
        backend: backend.into(),
        object: orphan.clone(),
        owner: owner.into(),
        token,
    };
    assert_eq!(other.claims().await.unwrap(), [claim("cloud", "theirs", theirs), claim("local", "mine", mine)]);
    assert!(other.claim("local", &orphan, theirs, Some(mine)).await.unwrap());
    assert_eq!(catalogue.end_claim("local", &orphan, mine).await.unwrap(), None);
    assert_eq!(other.end_claim("local", &orphan, theirs).await.unwrap(), Some(vec![]));
    other.release_claims(vec![claim("cloud", "theirs", theirs), claim("local", "mine", mine)]).await.unwrap();
    assert_eq!(catalogue.claims().await.unwrap(), []);
    catalogue.commit(stored(snapshot(1, 1), vec![on("local", "orphan")], vec![])).await.unwrap();
}

pub(crate) async fn what_is_relied_on_cannot_be_claimed(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    store(&*catalogue, 1, None).await;
    let seen = catalogue.placement_of("local", &object("o1")).await.unwrap().unwrap();
    assert!(!catalogue.claim("local", &object("o1"), owner, None).await.unwrap());
    catalogue.transition(&seen, PlacementState::Bad, Some("damaged")).await.unwrap();
    assert!(!catalogue.claim("local", &object("o1"), owner, None).await.unwrap());
    catalogue.begin_removal(id(1), RemovalScope::Snapshot).await.unwrap();
    assert!(catalogue.claim("local", &object("o1"), owner, None).await.unwrap());
}
