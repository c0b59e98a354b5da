//! Ids: removed, never used, and invalid.

use std::sync::Arc;

use tidelock::types::{ObjectId, Receipt, StoreHint};
use tidelock::{Body, Result};
use tidelock_tests::data::assert_same;

use super::{Case, cases};
use crate::bench::{Bench, Ground, fails};

pub fn cases() -> Vec<Case> {
    cases![
        []
        removed_twice,
        stat_after_removal,
        retrieve_after_removal,
        unknown_id,
        malformed_ids,
        ids_that_lead_out,
        same_bytes_twice,
        same_key_twice;
        [Lineage] update_of_an_unknown_base, update_of_a_malformed_base;
    ]
}

async fn stored(ground: &Ground) -> (Bench, ObjectId) {
    let bench = ground.open().await;
    let id = bench.put(ground, &ground.noise(5000)).await;
    (bench, id)
}

/// Nothing comes of it. Where others may have the same bytes they may still come, and that nobody has them is not known
/// for certain.
async fn is_gone(ground: &Ground, bench: &Bench, id: &ObjectId) {
    let found = bench.read(id, None).await;
    if ground.place.forgets() {
        fails(found, &["not-found"], "a retrieve of what was removed");
    } else if found.is_err() {
        fails(found, &["not-found", "unavailable"], "a retrieve of what was removed");
    }
}

async fn removed_twice(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    let (other, bytes) = (bench.put(&ground, b"another object").await, b"another object");
    for _ in 0..2 {
        bench.adapter.remove(&id).await.unwrap();
    }
    ground.sees_only("after a removal", &[&other]).await;
    bench.expect(&other, bytes, "what was not removed").await;
}

async fn stat_after_removal(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    bench.adapter.remove(&id).await.unwrap();
    fails(bench.adapter.stat(&id).await, &["not-found"], "stat of what was removed");
}

async fn retrieve_after_removal(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    bench.adapter.remove(&id).await.unwrap();
    is_gone(&ground, &bench, &id).await;
}

/// An id of the right form that nothing has: that of an object which is gone.
async fn unknown_id(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    bench.adapter.remove(&id).await.unwrap();
    // Another host, without any state.
    let bench = ground.open().await;
    fails(bench.adapter.stat(&id).await, &["not-found"], "stat");
    is_gone(&ground, &bench, &id).await;
    bench.adapter.remove(&id).await.expect("a removal of what is not there is a success");
}

/// What can be an id, by its form, and none of a backend's.
fn malformed() -> Vec<ObjectId> {
    let long = "x".repeat(ObjectId::MAX_LEN);
    ["..", ".", "/", "a//b", "a/./b", " ", "%00", "a\\b", "?", "#", "é\u{301}", "a?b=c&d", long.as_str()]
        .map(|id| ObjectId::new(id).unwrap())
        .into()
}

/// Neither a wrong object nor a trap: `invalid`, `denied`, or that there is nothing.
async fn malformed_ids(ground: Arc<Ground>) {
    for wrong in ["", "a\nb", "a\0b", "\u{85}", &"x".repeat(ObjectId::MAX_LEN + 1)] {
        assert!(ObjectId::new(wrong).is_err(), "{wrong:?} is an id");
    }
    let (bench, id) = stored(&ground).await;
    let kinds = ["invalid", "denied", "not-found"];
    for wrong in malformed() {
        fails(bench.adapter.stat(&wrong).await, &kinds, &format!("stat of {wrong:?}"));
        fails(bench.read(&wrong, None).await, &kinds, &format!("retrieve of {wrong:?}"));
        if let Err(error) = bench.adapter.remove(&wrong).await {
            fails::<()>(Err(error), &kinds, &format!("removal of {wrong:?}"));
        }
    }
    ground.sees_only("after all that", &[&id]).await;
}

/// An id that would reach the object of another prefix, if somebody put them together without looking.
async fn ids_that_lead_out(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    for way in ["../", "../../", "x/../../", "/", "./../", "..\\"] {
        for target in [format!("{way}{}/{id}", ground.prefix), format!("{way}etc/passwd")] {
            let Ok(wrong) = ObjectId::new(target) else { continue };
            let kinds = ["invalid", "denied", "not-found"];
            fails(bench.read(&wrong, None).await, &kinds, &format!("retrieve of {wrong:?}"));
            let _ = bench.adapter.remove(&wrong).await;
        }
    }
    ground.sees_only("after all that", &[&id]).await;
}

/// Where equal bytes have one name, they have it twice; where not, one goes without the other.
async fn same_bytes_twice(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(70_001);
    let (one, other) = (bench.put(&ground, &bytes).await, bench.put(&ground, &bytes).await);
    bench.expect(&one, &bytes, "the first").await;
    bench.expect(&other, &bytes, "the second").await;
    bench.adapter.remove(&one).await.unwrap();
    if one == other {
        fails(bench.adapter.stat(&other).await, &["not-found"], "what has one name is removed once");
    } else {
        bench.expect(&other, &bytes, "the one that was not removed").await;
    }
}

async fn store_as(bench: &Bench, key: &str, bytes: &[u8]) -> Result<Receipt> {
    let hint = StoreHint { key: key.into(), size: Some(bytes.len() as u64), labels: Vec::new() };
    bench.adapter.store(Body::from_bytes(bytes.to_vec()), hint).await
}

/// A key is used once: a second object never takes the place of the first.
async fn same_key_twice(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let (first, second) = (ground.noise(3000), ground.noise(4000));
    let key = ground.key();
    let one = store_as(&bench, &key, &first).await.unwrap();
    ground.place.thaw(&bench.adapter, &one.id).await;
    match store_as(&bench, &key, &second).await {
        Err(error) => drop(fails::<()>(Err(error), &["conflict"], "a key that is taken")),
        Ok(other) => {
            assert_ne!(one.id, other.id, "one took the place of the other");
            ground.place.thaw(&bench.adapter, &other.id).await;
            assert_same(&bench.read(&other.id, None).await.unwrap(), &second, "the second");
        }
    }
    bench.expect(&one.id, &first, "the first").await;
}

async fn update_of_an_unknown_base(ground: Arc<Ground>) {
    let (bench, id) = stored(&ground).await;
    bench.adapter.remove(&id).await.unwrap();
    let body = Body::from_bytes("a change");
    fails(bench.adapter.incremental_update(&id, body, ground.hint(Some(8))).await, &["not-found"], "the base is gone");
    ground.sees_only("after all that", &[]).await;
}

async fn update_of_a_malformed_base(ground: Arc<Ground>) {
    let bench = ground.open().await;
    for wrong in malformed() {
        let body = Body::from_bytes("a change");
        let outcome = bench.adapter.incremental_update(&wrong, body, ground.hint(Some(8))).await;
        fails(outcome, &["invalid", "denied", "not-found"], &format!("the base {wrong:?}"));
    }
    ground.sees_only("after all that", &[]).await;
}
