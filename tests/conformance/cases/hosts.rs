//! Snapshots on the adapter, as a host keeps them; and the host's detection of damaged
//! objects.

use std::sync::Arc;

use tidelock::{ByteRange, ImportOptions, SnapshotId};
use tidelock_tests::data::{MIB, assert_same, changed};

use super::{Case, cases};
use crate::bench::{BACKEND, Bench, Ground, fails};
use crate::place::{Damage, Need};

pub fn cases() -> Vec<Case> {
    cases![
        [] host_round_trip, host_keeps_an_image_once, host_chain_of_updates;
        [Inventory] catalogue_lost_and_rebuilt;
        [AtRest] flipped_at_rest, truncated_at_rest, lost_at_rest;
        [AtRest, Ranges] damage_elsewhere_is_no_matter;
    ]
}

/// Not a multiple of a segment.
const SIZE: usize = 6 * MIB + 12_345;

async fn host_round_trip(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(SIZE);
    let stored = bench.store_image(&bytes).await.unwrap();
    let object = bench.object_of(&ground, &stored).await;
    assert_same(&bench.read_image(stored.id, None).await.unwrap(), &bytes, "whole");
    let part = ByteRange { start: 2 * MIB as u64 - 3, end: Some(2 * MIB as u64 + 4) };
    assert_same(&bench.read_image(stored.id, Some(part)).await.unwrap(), &bytes[2 * MIB - 3..2 * MIB + 4], "a part");
    let verified = bench.host.verify(None, true, None).await.unwrap();
    assert_eq!((verified.checked, verified.bad.len(), verified.unreachable.len()), (1, 0, 0), "{verified:?}");
    ground.sees_only("of one image", &[&object]).await;
    bench.host.remove(stored.id).await.unwrap();
    ground.sees_only("after its removal", &[]).await;
}

async fn host_keeps_an_image_once(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(400_000);
    let first = bench.store_image(&bytes).await.unwrap();
    let second = bench.store_image(&bytes).await.unwrap();
    assert_eq!((second.id, second.stored_bytes, &second.placements), (first.id, 0, &first.placements));
    ground.sees_only("of one image", &[&first.placements[0].object]).await;
}

async fn host_chain_of_updates(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let mut versions = vec![ground.noise(MIB + 777)];
    let mut ids: Vec<SnapshotId> = vec![bench.store_image(&versions[0]).await.unwrap().id];
    for number in 1..=5 {
        let next = changed(versions.last().unwrap(), ground.seed ^ number);
        let stored = bench.update_image(*ids.last().unwrap(), &next).await.unwrap();
        assert_eq!(stored.base, ids.last().copied());
        bench.object_of(&ground, &stored).await;
        ids.push(stored.id);
        versions.push(next);
    }
    for (id, bytes) in ids.iter().zip(&versions).skip(1) {
        assert_same(&bench.read_image(*id, None).await.unwrap(), bytes, "a version");
    }
    // Without the first ones, the others stay.
    bench.host.remove(ids[1]).await.unwrap();
    assert_same(&bench.read_image(ids[2], None).await.unwrap(), &versions[2], "without its base");
}

/// Another host, which has nothing, finds every image from what the backend holds: its bytes, and what it was made from.
async fn catalogue_lost_and_rebuilt(ground: Arc<Ground>) {
    let lost = ground.open().await;
    let bytes = [ground.noise(5000), ground.noise(2 * MIB + 77)];
    let first = lost.store_image(&bytes[0]).await.unwrap();
    let second = lost.store_image(&bytes[1]).await.unwrap();
    let newer = changed(&bytes[1], ground.seed);
    let third = lost.update_image(second.id, &newer).await.unwrap();
    let mut objects = Vec::new();
    for stored in [&first, &second, &third] {
        objects.push(lost.object_of(&ground, stored).await);
    }
    drop(lost);
    let bench = ground.open().await;
    fails(bench.host.stat(first.id).await, &["not-found"], "before the import");
    // Where all cases share what is listed, only ours are wanted.
    let objects = if ground.place.lists_more() { objects } else { Vec::new() };
    let again = objects.clone();
    let imported = bench.host.import(BACKEND, ImportOptions { objects, ..ImportOptions::default() }).await.unwrap();
    assert_eq!(
        (imported.imported, imported.damaged, imported.unreachable, imported.pending),
        (3, 0, 0, 0),
        "{imported:?}"
    );
    for (stored, bytes) in [(&first, &bytes[0]), (&second, &bytes[1]), (&third, &newer)] {
        assert_same(&bench.read_image(stored.id, None).await.unwrap(), bytes, "after the import");
    }
    if ground.entry.has.contains(&Need::Lineage) {
        assert_eq!(bench.host.stat(third.id).await.unwrap().base, Some(second.id), "what it was made from");
    }
    let again = bench.host.import(BACKEND, ImportOptions { objects: again, ..ImportOptions::default() }).await.unwrap();
    assert_eq!((again.imported, again.known), (0, 3), "a second import finds them known: {again:?}");
}

/// An image whose object was damaged.
async fn damaged(ground: &Ground, how: Damage) -> (Bench, SnapshotId, Vec<u8>) {
    let bench = ground.open().await;
    let bytes = ground.noise(SIZE);
    let stored = bench.store_image(&bytes).await.unwrap();
    let object = bench.object_of(ground, &stored).await;
    ground.place.damage(&ground.prefix, &object, how).await;
    if how != Damage::Lose {
        ground.place.thaw(&bench.adapter, &object).await;
    }
    (bench, stored.id, bytes)
}

fn kinds(ground: &Ground) -> &'static [&'static str] {
    if ground.place.notices_damage() { &["corrupt", "unavailable", "not-found"] } else { &["corrupt"] }
}

async fn flipped_at_rest(ground: Arc<Ground>) {
    let (bench, id, _) = damaged(&ground, Damage::Flip).await;
    fails(bench.read_image(id, None).await, kinds(&ground), "a flipped bit");
    let verified = bench.host.verify(Some(id), true, None).await.unwrap();
    assert_eq!(verified.bad.len() + verified.unreachable.len(), 1, "{verified:?}");
}

async fn truncated_at_rest(ground: Arc<Ground>) {
    let (bench, id, _) = damaged(&ground, Damage::Truncate).await;
    fails(bench.read_image(id, None).await, kinds(&ground), "half an object");
    let verified = bench.host.verify(Some(id), false, None).await.unwrap();
    let noticed = verified.bad.len() + verified.unreachable.len();
    assert!(noticed == 1 || ground.place.notices_damage(), "{verified:?}");
}

/// It is gone, and stored again it is back.
async fn lost_at_rest(ground: Arc<Ground>) {
    let (bench, id, bytes) = damaged(&ground, Damage::Lose).await;
    fails(bench.read_image(id, None).await, &["not-found", "corrupt", "unavailable"], "an object that is gone");
    let stored = bench.store_image(&bytes).await.unwrap();
    assert_eq!((stored.id, stored.stored_bytes), (id, SIZE as u64), "its bytes go out once more");
    bench.object_of(&ground, &stored).await;
    assert_same(&bench.read_image(id, None).await.unwrap(), &bytes, "after it was stored again");
}

/// A range is checked by itself: the damage lies in the middle.
async fn damage_elsewhere_is_no_matter(ground: Arc<Ground>) {
    let (bench, id, bytes) = damaged(&ground, Damage::Flip).await;
    let far = ByteRange { start: 10, end: Some(5000) };
    assert_same(&bench.read_image(id, Some(far)).await.unwrap(), &bytes[10..5000], "far from the damage");
    let hit = ByteRange { start: SIZE as u64 / 2 - 10, end: Some(SIZE as u64 / 2 + 10) };
    fails(bench.read_image(id, Some(hit)).await, kinds(&ground), "at the damage");
}
