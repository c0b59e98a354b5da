//! Metadata from the backend alone: bases, labels, a list of its objects. No catalogue is involved.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelock::Body;
use tidelock::types::ObjectId;
use tidelock_tests::data::assert_same;

use super::{Case, cases};
use crate::bench::{Bench, Ground, fails};

pub fn cases() -> Vec<Case> {
    cases![
        [Lineage] lineage_over_five_deltas, a_delta_outlives_its_base, two_deltas_of_one_base, an_object_has_no_base;
        [Labels] labels;
        [Lineage, Labels] labels_of_a_delta;
        [Inventory] inventory_lists_what_was_stored, inventory_comes_in_pages, inventory_of_nothing;
        [Inventory, Lineage] inventory_lists_deltas;
    ]
}

async fn update(ground: &Ground, bench: &Bench, base: &ObjectId, bytes: &[u8]) -> ObjectId {
    let body = Body::from_bytes(bytes.to_vec());
    let receipt = bench.adapter.incremental_update(base, body, ground.hint(Some(bytes.len() as u64))).await.unwrap();
    assert_eq!(receipt.size, bytes.len() as u64, "the receipt's size");
    ground.place.thaw(&bench.adapter, &receipt.id).await;
    receipt.id
}

async fn lineage_over_five_deltas(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let mut chain = vec![(bench.put(&ground, &ground.noise(50_000)).await, 50_000)];
    for number in 1..=5 {
        let bytes = ground.noise(1000 * number);
        let (base, _) = chain.last().unwrap();
        let id = update(&ground, &bench, base, &bytes).await;
        chain.push((id, bytes.len() as u64));
    }
    // Another host, with nothing but the newest name.
    let bench = ground.open().await;
    let mut next = Some(chain.last().unwrap().0.clone());
    for (id, size) in chain.iter().rev() {
        assert_eq!(next.as_ref(), Some(id), "the chain goes on");
        let stat = bench.adapter.stat(id).await.unwrap();
        assert_eq!(stat.size, *size, "of {id}");
        next = stat.base;
    }
    assert_eq!(next, None, "the first has no base");
}

async fn an_object_has_no_base(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.put(&ground, &ground.noise(10)).await;
    let stat = bench.adapter.stat(&id).await.unwrap();
    assert_eq!((stat.base, stat.size), (None, 10));
}

async fn a_delta_outlives_its_base(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(2000)).await;
    let bytes = ground.noise(3000);
    let delta = update(&ground, &bench, &base, &bytes).await;
    bench.adapter.remove(&base).await.unwrap();
    fails(bench.adapter.stat(&base).await, &["not-found"], "the base");
    bench.expect(&delta, &bytes, "the delta").await;
    assert_eq!(bench.adapter.stat(&delta).await.unwrap().base, Some(base), "it still says what it was a change of");
}

async fn two_deltas_of_one_base(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(2000)).await;
    let (one, other) = (ground.noise(100), ground.noise(200));
    let ids = [update(&ground, &bench, &base, &one).await, update(&ground, &bench, &base, &other).await];
    for (id, bytes) in ids.iter().zip([&one, &other]) {
        assert_eq!(bench.adapter.stat(id).await.unwrap().base, Some(base.clone()));
        bench.expect(id, bytes, "a delta").await;
    }
    bench.adapter.remove(&ids[0]).await.unwrap();
    bench.expect(&ids[1], &other, "the delta that was not removed").await;
}

/// Text of people: blanks, what escapes are made of, other scripts.
fn some_labels() -> Vec<(String, String)> {
    [("agent", "crawler 7"), ("note", "100 % = ü, \u{65e5}\u{672c} \"quoted\\"), ("empty", ""), ("k-8", "a=b&c;d")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

async fn labelled(ground: &Ground, bench: &Bench, base: Option<&ObjectId>) {
    let mut hint = ground.hint(Some(4));
    hint.labels = some_labels();
    let body = Body::from_bytes(ground.noise(4));
    let receipt = match base {
        Some(base) => bench.adapter.incremental_update(base, body, hint).await,
        None => bench.adapter.store(body, hint).await,
    };
    let id = receipt.unwrap().id;
    let mut found = ground.open().await.adapter.stat(&id).await.unwrap();
    let mut expected = some_labels();
    found.labels.sort();
    expected.sort();
    assert_eq!(found.labels, expected);
    assert_eq!(found.base.as_ref(), base);
}

async fn labels(ground: Arc<Ground>) {
    let bench = ground.open().await;
    labelled(&ground, &bench, None).await;
    let id = bench.put(&ground, &ground.noise(5)).await;
    assert_eq!(bench.adapter.stat(&id).await.unwrap().labels, [], "none that were not given");
}

async fn labels_of_a_delta(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(100)).await;
    labelled(&ground, &bench, Some(&base)).await;
}

/// All pages of an inventory.
async fn inventory(bench: &Bench, limit: u32) -> (BTreeMap<ObjectId, u64>, usize) {
    let (mut found, mut pages, mut cursor) = (BTreeMap::new(), 0, None);
    loop {
        let page = bench.adapter.list_objects(cursor, limit).await.unwrap();
        assert!(page.entries.len() <= limit as usize, "{} entries on a page of {limit}", page.entries.len());
        for entry in page.entries {
            assert_eq!(found.insert(entry.id.clone(), entry.size), None, "{} is listed twice", entry.id);
        }
        pages += 1;
        assert!(pages < 10_000, "it never ends");
        cursor = page.next;
        if cursor.is_none() {
            return (found, pages);
        }
    }
}

/// Only what this case has stored: places that others share list more.
async fn ours(ground: &Ground, found: &BTreeMap<ObjectId, u64>) -> BTreeMap<String, u64> {
    let visible = ground.visible().await;
    let known = |id: &ObjectId| visible.contains_key(id.as_str());
    found.iter().filter(|(id, _)| known(id)).map(|(id, size)| (id.to_string(), *size)).collect()
}

async fn inventory_lists_what_was_stored(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let mut expected = BTreeMap::new();
    for size in [17usize, 4096, 300_001] {
        expected.insert(bench.put(&ground, &ground.noise(size)).await.to_string(), size as u64);
    }
    let gone = bench.put(&ground, &ground.noise(77)).await;
    bench.adapter.remove(&gone).await.unwrap();
    let (found, _) = inventory(&ground.open().await, 1000).await;
    assert!(!found.contains_key(&gone), "it lists what was removed");
    assert_eq!(ours(&ground, &found).await, expected);
}

async fn inventory_comes_in_pages(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let mut expected = BTreeMap::new();
    for size in 1..=7u64 {
        expected.insert(bench.put(&ground, &ground.noise(100 + size as usize)).await.to_string(), 100 + size);
    }
    for limit in [1, 3, 7] {
        let (found, pages) = inventory(&bench, limit).await;
        assert_eq!(ours(&ground, &found).await, expected, "in pages of {limit}");
        assert!(pages >= 7 / limit as usize, "{pages} pages of {limit}");
    }
}

async fn inventory_of_nothing(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let (found, _) = inventory(&bench, 10).await;
    assert!(ours(&ground, &found).await.is_empty());
}

async fn inventory_lists_deltas(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(1000)).await;
    let bytes = ground.noise(500);
    let delta = update(&ground, &bench, &base, &bytes).await;
    let (found, _) = inventory(&bench, 100).await;
    let expected = [(base.to_string(), 1000), (delta.to_string(), 500)].into();
    assert_eq!(ours(&ground, &found).await, expected, "no side files, and nothing that only links");
    assert_same(&bench.read(&delta, None).await.unwrap(), &bytes, "the delta");
}
