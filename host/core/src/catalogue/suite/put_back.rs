//! A database that is put back from a copy: what the copy holds as begun has ended since, nobody knows how.

use super::removals::objects;
use super::{Place, id, kind, lease, object, on, pack_on, raw, snapshot, stored};
use crate::catalogue::{Adopted, BegunRemoval, Catalogue, OwnerToken, PlacementState, RemovalScope};

/// A store, a removal and a deletion are under way, and one snapshot is stored.
async fn begin(catalogue: &dyn Catalogue) -> OwnerToken {
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    for (seed, name) in [(1, "kept"), (2, "removed")] {
        catalogue.commit(stored(snapshot(seed, 10), vec![on("local", name)], vec![])).await.unwrap();
    }
    catalogue.begin_intent("begun", "local", owner).await.unwrap();
    catalogue.begin_removal(id(2), RemovalScope::AllNames).await.unwrap();
    for name in ["removed", "orphan"] {
        assert!(catalogue.claim("local", &object(name), owner, None).await.unwrap());
    }
    owner
}

/// All of it ends: the store is acknowledged, and what was removed is stored again, as on a backend that names by content.
async fn end(catalogue: &dyn Catalogue, owner: OwnerToken) {
    catalogue.commit(stored(snapshot(3, 10), vec![on("local", "begun")], vec!["begun".into()])).await.unwrap();
    for name in ["removed", "orphan"] {
        assert_eq!(catalogue.end_claim("local", &object(name), owner).await.unwrap(), Some(vec![]));
    }
    catalogue
        .commit(stored(snapshot(2, 10), vec![on("local", "removed"), on("local", "orphan")], vec![]))
        .await
        .unwrap();
}

async fn nothing_is_begun(catalogue: &dyn Catalogue) {
    let standing = catalogue.standing("local", vec![object("begun"), object("removed"), object("kept")]).await.unwrap();
    assert!(standing.under_way.is_empty());
    let known: Vec<_> = standing.known.iter().map(Option::is_some).collect();
    assert_eq!(known, [false, false, true], "for an import to find");
    let expired = catalogue.expired_owners().await.unwrap();
    assert_eq!(expired, []);
    assert_eq!(catalogue.stale_intents(expired).await.unwrap(), []);
    assert_eq!(catalogue.claims().await.unwrap(), []);
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap(), []);
    assert_eq!(catalogue.get(id(2)).await.unwrap(), None);
    assert!(catalogue.get(id(1)).await.unwrap().is_some());
}

pub(crate) async fn what_was_begun_in_a_copy_is_forgotten(place: Place) {
    let catalogue = place.open().await;
    let owner = begin(&*catalogue).await;
    let put_back = (place.copy)();
    end(&*catalogue, owner).await;
    let last = catalogue.acquire_owner("last", lease()).await.unwrap();
    let version = catalogue.placement_of("local", &object("orphan")).await.unwrap().unwrap().version;
    drop(catalogue);
    put_back();
    place.pass(1000);

    let catalogue = place.open().await;
    nothing_is_begun(&*catalogue).await;
    let next = catalogue.acquire_owner("me", lease()).await.unwrap();
    assert!(next > last, "{next} was given before");
    catalogue.commit(stored(snapshot(4, 10), vec![on("local", "new")], vec![])).await.unwrap();
    let new = catalogue.placement_of("local", &object("new")).await.unwrap().unwrap();
    assert!(new.version > version, "{} was given before", new.version);
    nothing_is_begun(&*place.open().await).await;
}

/// A crash is no reason to forget: whoever clears up needs what was begun.
pub(crate) async fn what_has_not_gone_back_keeps_what_was_begun(place: Place) {
    let catalogue = place.open().await;
    let owner = begin(&*catalogue).await;
    drop(catalogue);
    for _ in 0..3 {
        let catalogue = place.open().await;
        catalogue.commit(stored(snapshot(5, 10), vec![on("local", "other")], vec![])).await.unwrap();
    }
    let catalogue = place.open().await;
    assert_eq!(catalogue.claims().await.unwrap().len(), 2);
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap().len(), 1);
    end(&*catalogue, owner).await;
}

pub(crate) async fn hosts_under_which_a_copy_is_put_back_can_record_and_delete_nothing(place: Place) {
    let (first, second) = (place.open().await, place.open().await);
    let owner = begin(&*first).await;
    let other = second.acquire_owner("other", lease()).await.unwrap();
    second.begin_intent("others", "local", other).await.unwrap();
    let put_back = (place.copy)();
    end(&*first, owner).await;
    let late = second.acquire_owner("late", lease()).await.unwrap();
    put_back();

    assert_eq!(kind(first.claim("local", &object("orphan"), owner, None).await), "conflict");
    assert_eq!(kind(second.claim("local", &object("removed"), other, None).await), "conflict");
    let commit = second.commit(stored(snapshot(6, 10), vec![on("local", "others")], vec!["others".into()]));
    assert_eq!(kind(commit.await), "conflict");
    assert_eq!(kind(second.renew_owner(late, lease()).await), "conflict");
    nothing_is_begun(&*second).await;
    // They go on under leases that nobody had.
    let next = first.acquire_owner("me", lease()).await.unwrap();
    assert!(next > late);
    first.begin_intent("next", "local", next).await.unwrap();
    first.commit(stored(snapshot(7, 10), vec![on("local", "next")], vec!["next".into()])).await.unwrap();
}

/// What finds it out fails and takes nothing back but itself.
pub(crate) async fn a_change_that_fails_finds_it_out_once(place: Place) {
    let catalogue = place.open().await;
    let owner = begin(&*catalogue).await;
    let put_back = (place.copy)();
    end(&*catalogue, owner).await;
    put_back();
    for _ in 0..3 {
        assert_eq!(kind(catalogue.begin_intent("begun later", "local", owner).await), "conflict");
        assert_eq!(kind(catalogue.renew_owner(owner, lease()).await), "conflict");
    }
    let next = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("next", "local", next).await.unwrap();
    // Nor does one that fails otherwise.
    let bad = stored(snapshot(7, 10), vec![on("local", "bad")], vec!["unknown".into()]);
    assert_eq!(kind(catalogue.commit(bad).await), "conflict");
    catalogue.commit(stored(snapshot(7, 10), vec![on("local", "next")], vec!["next".into()])).await.unwrap();
    catalogue.renew_owner(next, lease()).await.unwrap();
}

/// The same copy is put back twice, and one of the time between.
pub(crate) async fn the_second_time_is_as_the_first(place: Place) {
    let catalogue = place.open().await;
    let owner = begin(&*catalogue).await;
    let (once, twice) = ((place.copy)(), (place.copy)());
    end(&*catalogue, owner).await;
    let mut given = Vec::new();
    once();
    nothing_is_begun(&*catalogue).await;
    given.push(catalogue.acquire_owner("a", lease()).await.unwrap());
    catalogue.begin_intent("between", "local", given[0]).await.unwrap();
    let between = (place.copy)();
    catalogue.commit(stored(snapshot(8, 10), vec![on("local", "b")], vec!["between".into()])).await.unwrap();
    for put_back in [twice, between] {
        put_back();
        nothing_is_begun(&*catalogue).await;
        given.push(catalogue.acquire_owner("a", lease()).await.unwrap());
    }
    assert!(given.is_sorted() && given.len() == 3, "{given:?}");
}

async fn unknown(catalogue: &dyn Catalogue) -> Vec<String> {
    catalogue.not_looked_through(vec!["local".into(), "cloud".into(), "new".into()]).await.unwrap()
}

/// A pack that the copy does not know needs what it knows. A deletion of that waits for an import to have found the pack.
pub(crate) async fn what_is_not_looked_through_is_kept_until_it_is(place: Place) {
    let catalogue = place.open().await;
    let both = |name| vec![on("local", name), on("cloud", name)];
    catalogue.commit(stored(snapshot(1, 10), both("base"), vec![])).await.unwrap();
    catalogue.commit(stored(snapshot(2, 10), both("other"), vec![])).await.unwrap();
    catalogue.commit(stored(snapshot(4, 10), vec![on("local", "old")], vec![])).await.unwrap();
    catalogue.commit(stored(snapshot(5, 10), vec![pack_on("local", "known", 5, &[raw(4)])], vec![])).await.unwrap();
    assert_eq!(unknown(&*catalogue).await, [""; 0]);
    assert_eq!(catalogue.begin_look("local", false).await.unwrap(), None);
    let put_back = (place.copy)();
    let before = catalogue.begin_look("cloud", true).await.unwrap().unwrap();
    let delta = pack_on("local", "delta", 3, &[raw(1)]);
    catalogue.commit(stored(snapshot(3, 10), vec![delta.clone()], vec![])).await.unwrap();
    put_back();

    assert_eq!(catalogue.end_look("cloud", before).await.unwrap(), None, "it was put back since");
    assert_eq!(unknown(&*catalogue).await, ["local", "cloud", "new"]);
    for seed in [1, 2, 5] {
        let begun = catalogue.begin_removal(id(seed), RemovalScope::Snapshot).await.unwrap();
        let BegunRemoval::Needed { spare, by, mut unknown_on } = begun else { panic!("{begun:?}") };
        unknown_on.sort();
        assert_eq!(unknown_on, if seed == 5 { vec!["local"] } else { vec!["cloud", "local"] });
        assert!(spare.is_empty() && by.is_empty());
        assert_eq!(catalogue.get(id(seed)).await.unwrap(), None, "it is gone for its users");
    }
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    for name in ["base", "other", "known"] {
        assert!(!catalogue.claim("local", &object(name), owner, None).await.unwrap());
    }
    // Nor does a new object take the place of a damaged one that is not the same.
    let mark = catalogue.placement_of("local", &object("old")).await.unwrap().unwrap();
    assert!(catalogue.transition(&mark, PlacementState::Bad, None).await.unwrap());
    catalogue.commit(stored(snapshot(4, 10), vec![pack_on("local", "packed", 4, &[])], vec![])).await.unwrap();
    assert_eq!(catalogue.placements_in(PlacementState::Removing).await.unwrap(), []);

    let look = catalogue.begin_look("local", false).await.unwrap().unwrap();
    assert_eq!(catalogue.begin_look("local", false).await.unwrap(), Some(look), "two imports look at once");
    let found = Adopted {
        snapshot: snapshot(3, 10),
        placement: delta,
        base: None,
        stored: None,
        weak_name: false,
        wanted: None,
    };
    catalogue.adopt(vec![found]).await.unwrap();
    let begun = catalogue.end_look("local", look).await.unwrap().unwrap();
    let begun: Vec<_> = begun.iter().map(|placement| placement.object.as_str()).collect();
    assert_eq!(begun, ["other", "known"], "the pack needs the base");
    assert_eq!(catalogue.end_look("local", look).await.unwrap(), None);
    assert_eq!(unknown(&*catalogue).await, ["cloud", "new"]);
    // From here on removals are as ever.
    assert_eq!(objects(catalogue.begin_removal(id(3), RemovalScope::Snapshot).await.unwrap()), ["delta"]);
    assert!(catalogue.claim("local", &object("delta"), owner, None).await.unwrap());
    let begun = catalogue.end_claim("local", &object("delta"), owner).await.unwrap().unwrap();
    assert!(begun.len() == 1 && begun[0].object == object("base"));
    let look = catalogue.begin_look("cloud", false).await.unwrap().unwrap();
    assert_eq!(catalogue.end_look("cloud", look).await.unwrap().unwrap().len(), 2);
}

/// Of a backend of which nothing is known, and of one whose container is another one.
pub(crate) async fn what_is_new_is_looked_through_only_once_it_was(place: Place) {
    let catalogue = place.open().await;
    assert_eq!(unknown(&*catalogue).await, [""; 0]);
    let first = catalogue.begin_look("local", false).await.unwrap().unwrap();
    catalogue.record_container("local", &object("identity"), None, None).await.unwrap();
    catalogue.commit(stored(snapshot(1, 10), vec![on("local", "base")], vec![])).await.unwrap();
    assert_eq!(unknown(&*catalogue).await, ["local"]);
    let anew = catalogue.begin_look("local", true).await.unwrap().unwrap();
    assert_eq!(catalogue.end_look("local", first).await.unwrap(), None, "its container is another one");
    assert_eq!(catalogue.end_look("local", anew).await.unwrap(), Some(vec![]));
    assert_eq!(catalogue.begin_look("local", false).await.unwrap(), None);
    // As in a catalogue of a version that did not know of this.
    catalogue.commit(stored(snapshot(2, 10), vec![on("cloud", "base")], vec![])).await.unwrap();
    assert_eq!(catalogue.begin_look("cloud", false).await.unwrap(), None);
    assert_eq!(unknown(&*catalogue).await, [""; 0]);
}
