//! Snapshots: recording, finding, listing, counting.

use std::collections::BTreeSet;

use super::{BEGINNING, Place, id, kind, lease, object, on, snapshot, stored};
use crate::catalogue::{BackendStats, NewSnapshot, PlacementState, Stats};
use crate::types::{Encoding, SnapshotId};

pub(crate) async fn a_store_is_recorded_and_survives(place: Place) {
    let catalogue = place.open().await;
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("key-1", "local", owner).await.unwrap();
    let mut new = snapshot(1, 5000);
    new.base = Some(id(9));
    new.name = Some("web".into());
    place.pass(3);
    catalogue.commit(stored(new, vec![on("local", "a"), on("cloud", "b")], vec!["key-1".into()])).await.unwrap();
    drop(catalogue);

    let again = place.open().await;
    let found = again.get(id(1)).await.unwrap().unwrap();
    assert_eq!((found.size, found.base, found.name.as_deref()), (5000, Some(id(9)), Some("web")));
    assert_eq!(found.created, BEGINNING + 3);
    assert_eq!(again.segments(id(1)).await.unwrap(), [1; 64]);
    assert_eq!(kind(again.segments(id(2)).await), "not-found");
    let placements = again.placements(id(1)).await.unwrap();
    assert_eq!(placements.len(), 2);
    assert_eq!((placements[0].backend.as_str(), placements[0].object.as_str()), ("local", "a"));
    for placement in &placements {
        assert_eq!((placement.state, placement.encoding), (PlacementState::Live, Encoding::Raw));
        assert_eq!((placement.stored_bytes, placement.created), (100, BEGINNING + 3));
    }
    assert_eq!(again.stats().await.unwrap().intents, 0);
    assert!(again.has_size(5000).await.unwrap() && !again.has_size(5001).await.unwrap());
    assert_eq!(again.get(id(2)).await.unwrap(), None);
}

pub(crate) async fn a_name_passes_on(place: Place) {
    let catalogue = place.open().await;
    for (seed, name) in [(1, Some("first")), (1, None), (2, Some("first")), (1, Some("second"))] {
        let new = NewSnapshot { name: name.map(str::to_owned), by_id: name.is_none(), ..snapshot(seed, seed) };
        catalogue.commit(stored(new, vec![], vec![])).await.unwrap();
    }
    assert_eq!(catalogue.find("first").await.unwrap().id, id(2));
    assert_eq!(catalogue.find("second").await.unwrap().id, id(1));
}

pub(crate) async fn a_snapshot_has_as_many_names_as_it_was_given(place: Place) {
    let catalogue = place.open().await;
    let store = async |seed, name: &str| {
        let new = NewSnapshot { name: Some(name.into()), by_id: false, ..snapshot(seed, seed) };
        catalogue.commit(stored(new, vec![], vec![])).await.unwrap().name_taken_from
    };
    for name in ["web-26", "web-27", "web-26"] {
        assert_eq!(store(1, name).await, None);
    }
    let found = catalogue.find("web-27").await.unwrap();
    assert_eq!((found.id, found.name.as_deref()), (id(1), Some("web-26")));
    assert_eq!(found.names, ["web-26", "web-27"], "the latest first");
    assert_eq!(store(2, "web-26").await, Some(id(1)), "it moves, and that is told");
    assert_eq!(catalogue.named("web-26").await.unwrap(), Some(id(2)));
    assert_eq!(catalogue.named("nobody").await.unwrap(), None);
    assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().names, ["web-27"]);
    for number in 0..150 {
        store(3, &format!("n{number}")).await;
    }
    let many = catalogue.list(None, 10).await.unwrap().snapshots.pop().unwrap();
    assert_eq!((many.names.len(), many.name.as_deref()), (100, Some("n149")));
    assert_eq!(catalogue.find("n0").await.unwrap().id, id(3));
}

pub(crate) async fn snapshots_are_found_by_what_people_type(place: Place) {
    let catalogue = place.open().await;
    for seed in 0..50 {
        let mut new = snapshot(seed, seed);
        new.name = (seed >= 45).then(|| "many".into()).or_else(|| (seed == 7).then(|| "seven".into()));
        catalogue.commit(stored(new, vec![], vec![])).await.unwrap();
    }
    let text = id(3).to_string();
    assert_eq!(catalogue.find(&text).await.unwrap().id, id(3));
    assert_eq!(catalogue.find(&text[..20]).await.unwrap().id, id(3));
    assert_eq!(catalogue.find(&text[..54]).await.unwrap().id, id(3));
    assert_eq!(catalogue.find("seven").await.unwrap().id, id(7));
    for unknown in ["", "tl1", &text[..6], "tl1!!!!!!!!", "nobody", &id(99).to_string(), &"x".repeat(1000)] {
        assert_eq!(kind(catalogue.find(unknown).await), "not-found", "{unknown}");
    }
    // A name passes on to the latest that was given it.
    assert_eq!(catalogue.find("many").await.unwrap().id, id(49));
    assert_eq!(catalogue.get(id(48)).await.unwrap().unwrap().name, None);
}

pub(crate) async fn an_ambiguous_beginning_is_refused(place: Place) {
    let catalogue = place.open().await;
    for last in 0..2 {
        let mut bytes = [7; 32];
        bytes[31] = last;
        let new = NewSnapshot { id: SnapshotId::from_bytes(bytes), ..snapshot(0, 1) };
        catalogue.commit(stored(new, vec![], vec![])).await.unwrap();
    }
    let text = SnapshotId::from_bytes([7; 32]).to_string();
    assert_eq!(kind(catalogue.find(&text[..40]).await), "invalid");
}

/// Any beginning of an id that is long enough finds just the ids that begin so.
pub(crate) async fn every_beginning_is_exact(place: Place) {
    let catalogue = place.open().await;
    let mut ids = BTreeSet::new();
    for seed in 0..40u8 {
        // Some that differ early, some late, some in the least and the greatest of a byte.
        let mut bytes = [if seed % 2 == 0 { 0 } else { 255 }; 32];
        bytes[usize::from(seed % 32)] ^= seed / 2;
        let new = NewSnapshot { id: SnapshotId::from_bytes(bytes), ..snapshot(0, 1) };
        ids.insert(new.id.to_string());
        catalogue.commit(stored(new, vec![], vec![])).await.unwrap();
    }
    for text in &ids {
        for len in [7, 8, 9, 15, 22, 30, 41, 53, 54] {
            let start = &text[..len];
            let same = ids.iter().filter(|other| other.starts_with(start)).count();
            match catalogue.find(start).await {
                Ok(found) => assert!(same == 1 && found.id.to_string() == *text, "{start}"),
                Err(error) => assert!(same > 1, "{start}: {error}"),
            }
        }
    }
}

pub(crate) async fn pages_follow_each_other(place: Place) {
    let catalogue = place.open().await;
    for seed in 0..7 {
        catalogue.commit(stored(snapshot(seed, 1), vec![], vec![])).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = catalogue.list(after, 3).await.unwrap();
        assert!(page.snapshots.len() <= 3);
        seen.extend(page.snapshots.into_iter().map(|snapshot| snapshot.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..7).map(id).collect::<Vec<_>>());
    assert_eq!(catalogue.list(None, 7).await.unwrap().next, None);
}

pub(crate) async fn the_numbers_add_up(place: Place) {
    let catalogue = place.open().await;
    assert_eq!(catalogue.stats().await.unwrap(), Stats::default());
    catalogue.commit(stored(snapshot(1, 10), vec![on("a", "1"), on("b", "1")], vec![])).await.unwrap();
    catalogue.commit(stored(snapshot(2, 20), vec![on("b", "2")], vec![])).await.unwrap();
    for (name, state) in [("1", PlacementState::Bad), ("2", PlacementState::Suspect)] {
        let seen = catalogue.placement_of("b", &object(name)).await.unwrap().unwrap();
        assert!(catalogue.transition(&seen, state, None).await.unwrap());
    }
    let owner = catalogue.acquire_owner("me", lease()).await.unwrap();
    catalogue.begin_intent("k", "a", owner).await.unwrap();
    let row = |backend: &str, placements, bad| BackendStats {
        backend: backend.into(),
        placements,
        bad,
        suspect: bad,
        stored_bytes: placements * 100,
    };
    let backends = vec![row("a", 1, 0), row("b", 2, 1)];
    let expected = Stats { snapshots: 2, logical_bytes: 30, intents: 1, backends };
    assert_eq!(catalogue.stats().await.unwrap(), expected);
}

pub(crate) async fn several_handles_write_at_once(place: Place) {
    let mut tasks = Vec::new();
    for task in 0..4u64 {
        let other = place.open().await;
        tasks.push(tokio::spawn(async move {
            let owner = other.acquire_owner(&format!("owner-{task}"), lease()).await.unwrap();
            for i in 0..25 {
                let seed = task * 100 + i;
                let key = format!("key-{seed}");
                other.begin_intent(&key, "local", owner).await.unwrap();
                other.commit(stored(snapshot(seed, 1), vec![on("local", &key)], vec![key])).await.unwrap();
            }
            other.release_owner(owner).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = place.open().await.stats().await.unwrap();
    assert_eq!((stats.snapshots, stats.intents, stats.backends[0].placements), (100, 0, 100));
}

pub(crate) async fn a_call_that_is_dropped_is_whole_or_not_at_all(place: Place) {
    let catalogue = place.open().await;
    for seed in 0..40 {
        let key = format!("o{seed}");
        let call = catalogue.commit(stored(snapshot(seed, 1), vec![on("a", &key), on("b", &key)], vec![]));
        // Polled once, or for a moment.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(seed * 20), call).await;
    }
    // Calls of one handle come after those that were dropped.
    for seed in 0..40 {
        let placed = catalogue.placements(id(seed)).await.unwrap().len();
        let known = catalogue.get(id(seed)).await.unwrap().is_some();
        assert!(placed == if known { 2 } else { 0 }, "{seed}: {placed} placements");
    }
}
