//! Import: recording what a backend holds, and the list that an import works through.

use std::collections::HashSet;

use super::{BEGINNING, Place, id, lease, object, snapshot, stored};
use crate::catalogue::{Adopted, JobKind, NewPlacement, NewSnapshot, PlacementState, RemovalScope, WantedCopies};
use crate::types::{Encoding, InventoryEntry, ObjectId};

fn found(seed: u64, base: Option<&str>, name: Option<&str>, stored: u64) -> Adopted {
    let name = name.map(str::to_owned);
    let snapshot = NewSnapshot {
        id: id(seed),
        size: seed,
        base: None,
        by_id: name.is_none(),
        name,
        segments: vec![seed as u8; 32],
    };
    let placement = NewPlacement {
        backend: "cloud".into(),
        object: object(&format!("o{seed}")),
        encoding: Encoding::Raw,
        pack: None,
        stored_bytes: seed,
    };
    Adopted { snapshot, placement, base: base.map(object), stored: Some(stored), weak_name: false, wanted: None }
}

fn entry(id: &str, modified: Option<u64>) -> InventoryEntry {
    InventoryEntry { id: ObjectId::new(id).unwrap(), size: 7, modified }
}

pub(crate) async fn objects_become_snapshots_with_their_times_and_bases(place: Place) {
    let catalogue = place.open().await;
    let all = vec![found(1, Some("o2"), None, 30), found(2, None, None, 10), found(3, Some("o2"), Some("n"), 20)];
    assert_eq!(catalogue.adopt(all.clone()).await.unwrap(), [true, false, false]);
    let first = catalogue.get(id(1)).await.unwrap().unwrap();
    assert_eq!((first.base, first.created, first.size), (None, 30, 1));
    assert_eq!(catalogue.get(id(3)).await.unwrap().unwrap().base, Some(id(2)));
    let unknown = object("gone");
    catalogue.link("cloud", vec![(object("o1"), unknown), (object("o1"), object("o2"))]).await.unwrap();
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().base, Some(id(2)));
    catalogue.link("cloud", vec![(object("o3"), object("o1")), (object("o2"), object("o2"))]).await.unwrap();
    assert_eq!(catalogue.get(id(3)).await.unwrap().unwrap().base, Some(id(2)), "what is known stays");
    assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().base, None, "nothing is a change of itself");

    catalogue.begin_removal(id(2), RemovalScope::Snapshot).await.unwrap();
    assert_eq!(catalogue.adopt(all).await.unwrap(), [false, false, false]);
    let standing = catalogue.standing("cloud", vec![object("o2"), object("x")]).await.unwrap();
    let known = standing.known[0].unwrap();
    assert_eq!((known.snapshot, known.state, known.has_base), (id(2), PlacementState::Removing, false));
    assert!(standing.known[1].is_none() && standing.under_way.is_empty());
    assert_eq!(catalogue.standing("other", vec![object("o2")]).await.unwrap().known, [None]);
}

/// The catalogue was lost with images that were not pushed yet.
pub(crate) async fn what_is_found_on_this_machine_alone_is_pushed(place: Place) {
    let catalogue = place.open().await;
    let hot = |seed| {
        let found = found(seed, None, None, 1);
        let wanted = Some(WantedCopies { copies: 1, route: "default".to_owned() });
        let placement = NewPlacement { backend: "hot".to_owned(), ..found.placement.clone() };
        Adopted { placement, wanted, ..found }
    };
    catalogue.adopt(vec![found(1, None, None, 1), hot(1), hot(2)]).await.unwrap();
    let jobs = catalogue.jobs(0, 9).await.unwrap();
    let jobs: Vec<_> = jobs.iter().map(|job| (job.kind, job.snapshot)).collect();
    assert_eq!(jobs, [(JobKind::Push, id(2))]);
    let wanted = Some(WantedCopies { copies: 1, route: "default".to_owned() });
    assert_eq!((catalogue.at_risk().await.unwrap(), catalogue.wanted(id(1)).await.unwrap()), (2, wanted));
    // It was in the bucket too.
    catalogue.adopt(vec![found(2, None, None, 1)]).await.unwrap();
    assert_eq!((catalogue.jobs(0, 9).await.unwrap(), catalogue.at_risk().await.unwrap()), (vec![], 0));
}

pub(crate) async fn a_name_goes_to_the_one_that_was_stored_last(place: Place) {
    let catalogue = place.open().await;
    let names = async |seed| catalogue.get(id(seed)).await.unwrap().unwrap().names;
    for (seed, stored) in [(1, 20), (2, 20), (3, 10)] {
        catalogue.adopt(vec![found(seed, None, Some("web"), stored)]).await.unwrap();
    }
    assert_eq!([names(1).await, names(2).await, names(3).await], [vec![], vec!["web".to_owned()], vec![]]);
    catalogue.adopt(vec![found(2, None, Some("other"), 5)]).await.unwrap();
    assert_eq!(names(2).await.len(), 2);
}

/// What an object says of itself takes nothing from what is known otherwise.
pub(crate) async fn a_backend_takes_no_name_from_another(place: Place) {
    let catalogue = place.open().await;
    let holder = async |name| catalogue.named(name).await.unwrap();
    let on = |backend: &str, mut found: Adopted| {
        found.placement.backend = backend.into();
        found
    };
    catalogue.adopt(vec![on("good", found(1, None, Some("web"), 10))]).await.unwrap();
    catalogue.adopt(vec![on("evil", found(2, Some("o3"), Some("web"), u64::MAX))]).await.unwrap();
    assert_eq!(holder("web").await, Some(id(1)));
    let named = NewSnapshot { name: Some("db".into()), by_id: false, ..snapshot(4, 4) };
    catalogue.commit(stored(named, vec![], vec![])).await.unwrap();
    catalogue.adopt(vec![on("evil", found(2, None, Some("db"), u64::MAX))]).await.unwrap();
    assert_eq!(holder("db").await, Some(id(4)), "a store gave it");
    // What was free goes on moving on the same backend, and a store takes it from there for good.
    catalogue
        .adopt(vec![on("evil", found(5, None, Some("log"), 5)), on("evil", found(6, None, Some("log"), 6))])
        .await
        .unwrap();
    assert_eq!(holder("log").await, Some(id(6)));
    let log = NewSnapshot { name: Some("log".into()), by_id: false, ..snapshot(7, 7) };
    let committed = catalogue.commit(stored(log, vec![], vec![])).await.unwrap();
    assert_eq!(committed.name_taken_from, Some(id(6)));
    catalogue.adopt(vec![on("evil", found(6, None, Some("log"), u64::MAX))]).await.unwrap();
    assert_eq!(holder("log").await, Some(id(7)));
    // The same for bases: the good one's is not replaced, and the evil one's is only by itself or by a store.
    let base = async |seed| catalogue.get(id(seed)).await.unwrap().unwrap().base;
    let with_base = |backend: &str, base| {
        let mut adopted = on(backend, found(8, None, None, 1));
        adopted.snapshot.base = Some(id(base));
        adopted
    };
    for (backend, given, known) in [("good", 1, 1), ("evil", 2, 1), ("good", 4, 4)] {
        catalogue.adopt(vec![with_base(backend, given)]).await.unwrap();
        assert_eq!(base(8).await, Some(id(known)), "{backend}");
    }
    let told = NewSnapshot { base: Some(id(7)), ..snapshot(8, 8) };
    catalogue.commit(stored(told, vec![], vec![])).await.unwrap();
    catalogue.adopt(vec![with_base("good", 1), with_base("evil", 1)]).await.unwrap();
    assert_eq!(base(8).await, Some(id(7)));
}

pub(crate) async fn no_time_lies_in_the_future(place: Place) {
    let catalogue = place.open().await;
    place.pass(7);
    catalogue.adopt(vec![found(1, None, None, u64::MAX), found(2, None, None, 0)]).await.unwrap();
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().created, BEGINNING + 7);
    assert_eq!(catalogue.placements(id(1)).await.unwrap()[0].created, BEGINNING + 7);
    assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().created, 0);
}

pub(crate) async fn what_is_under_way_is_seen(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("k1", "cloud", owner).await.unwrap();
    catalogue.begin_intent("k2", "local", owner).await.unwrap();
    let standing = catalogue.standing("cloud", vec![]).await.unwrap();
    assert_eq!(standing.under_way, HashSet::from(["k1".to_owned()]));
    let mut other = found(1, None, None, 1);
    other.snapshot.size = 1;
    catalogue.adopt(vec![other.clone()]).await.unwrap();
    other.snapshot.size = 2;
    assert_eq!(catalogue.adopt(vec![other]).await.unwrap_err().kind().name(), "conflict");
}

pub(crate) async fn what_was_listed_comes_oldest_first_and_once(place: Place) {
    let queue = place.open().await.import_queue().await.unwrap();
    let listed = [("a/9", Some(5)), ("b/1", Some(5)), ("z", None), ("c/3", Some(4)), ("d/0", Some(u64::MAX))];
    let entries: Vec<_> = listed.iter().map(|(id, modified)| entry(id, *modified)).collect();
    assert_eq!(queue.add(entries.clone()).await.unwrap(), 5);
    assert_eq!(queue.add(entries).await.unwrap(), 0);
    queue.sort().await.unwrap();
    assert_eq!(queue.count().await.unwrap(), 5);
    let mut seen = Vec::new();
    loop {
        let page = queue.page(seen.len() as u64, 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.iter().zip(seen.len() as u64 + 1..).all(|(item, number)| item.number == number));
        seen.extend(page.into_iter().map(|item| item.object.as_str().to_owned()));
    }
    assert_eq!(seen, ["z", "c/3", "b/1", "a/9", "d/0"]);
}

pub(crate) async fn named_ones_keep_their_order_and_bases_are_found_again(place: Place) {
    let queue = place.open().await.import_queue().await.unwrap();
    queue.name(vec![object("b"), object("a"), object("c")]).await.unwrap();
    let page = queue.page(0, 10).await.unwrap();
    assert_eq!(page.iter().map(|item| item.object.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
    assert!(page.iter().all(|item| item.size.is_none()));
    queue.defer_bases(vec![(3, object("a")), (1, object("x"))]).await.unwrap();
    assert_eq!(queue.deferred_bases(0, 1).await.unwrap(), [(1, object("b"), object("x"))]);
    assert_eq!(queue.deferred_bases(1, 9).await.unwrap(), [(3, object("c"), object("a"))]);
}

/// What a route wants is noted where nobody has said it, and what is on this machine alone is to be pushed.
pub(crate) async fn an_adopted_snapshot_has_what_its_route_wants(place: Place) {
    let catalogue = place.open().await;
    let wanting = |copies| WantedCopies { copies, route: "default".to_owned() };
    let on = async |backend: &str, seed, copies| {
        let mut one = found(seed, None, None, 5);
        one.placement.backend = backend.to_owned();
        catalogue.adopt(vec![Adopted { wanted: Some(wanting(copies)), ..one }]).await.unwrap();
    };
    let kinds = async || catalogue.jobs(0, 9).await.unwrap().iter().map(|job| job.kind).collect::<Vec<_>>();
    on("hot", 1, 2).await;
    assert_eq!((kinds().await, catalogue.at_risk().await.unwrap() > 0), (vec![JobKind::Push], true));
    on("local", 1, 2).await;
    assert_eq!(kinds().await, [JobKind::Push], "one more is wanted");
    on("cloud", 1, 2).await;
    assert_eq!((kinds().await, catalogue.at_risk().await.unwrap()), (vec![], 0));
    on("local", 2, 2).await;
    on("hot", 2, 3).await;
    assert_eq!((kinds().await, catalogue.wanted(id(2)).await.unwrap()), (vec![], Some(wanting(2))));
    assert!(catalogue.has_due_job().await.unwrap(), "it has too few copies");
}
