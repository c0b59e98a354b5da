//! A bad network and a bad server: each fault becomes the right error, and never a short or wrong success.
//!
//! A fault in every request must become its error. A single one may be overcome (a part is sent again, a
//! call is repeated), and then the result is right. A fault that leaves a reply well-formed is invisible to an adapter (a
//! flipped bit, a short reply); the host detects it, so those cases use a host.

use std::sync::Arc;
use std::time::Duration;

use tidelock::types::ObjectId;
use tidelock::{Body, ErrorKind, Result};
use tidelock_tests::data::{MIB, assert_same};
use tidelock_tests::faults::{Fault, On, Plan, mix};

use super::{Case, cases};
use crate::bench::{Bench, Ground, Options, fails};
use crate::place::Need;

/// Seconds that a refusal asks to wait. More than any part of the host waits by itself.
const RETRY_AFTER: u32 = 7;

/// The refusals, by what the cases are called.
const REFUSALS: [(&str, u16, Option<u32>); 5] = [
    ("429_with_retry_after", 429, Some(RETRY_AFTER)),
    ("429", 429, None),
    ("500", 500, None),
    ("503", 503, None),
    ("507", 507, None),
];

/// What breaks an exchange in the middle. The kinds are those of the adapter's error.
const BREAKS: [(&str, Fault); 4] =
    [("reset", Fault::Reset), ("cut", Fault::Cut), ("stall", Fault::Stall), ("byte_a_second", Fault::Trickle)];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, status, retry_after) in REFUSALS {
        let fault = Fault::Refuse { status, retry_after };
        let wire = [Need::Wire];
        all.push(Case::new(format!("fault_{name}_on_store"), &wire, move |ground| refused_store(ground, fault)));
        all.push(Case::new(format!("fault_{name}_on_retrieve"), &wire, move |ground| refused_retrieve(ground, fault)));
        all.push(Case::new(format!("fault_{name}_on_the_rest"), &wire, move |ground| refused_rest(ground, fault)));
    }
    for (name, fault) in BREAKS {
        let wire = [Need::Wire];
        all.push(Case::new(format!("fault_{name}_on_store"), &wire, move |ground| broken_store(ground, fault)));
        all.push(Case::new(format!("fault_{name}_on_retrieve"), &wire, move |ground| broken_retrieve(ground, fault)));
    }
    all.extend(cases![
        [Wire, DataOnWire] fault_flip_on_store, fault_flip_on_retrieve, fault_short_on_retrieve;
        [Wire] fault_anywhere_on_store, fault_anywhere_on_retrieve;
    ]);
    all
}

/// Insists on the error that a refusal has to become.
#[track_caller]
fn refused<T>(ground: &Ground, outcome: Result<T>, fault: Fault, what: &str) {
    let Fault::Refuse { status, retry_after } = fault else { unreachable!("not a refusal") };
    let error = fails(outcome, &[ground.place.refused(status)], what);
    if let ErrorKind::RateLimited(said) = error.kind() {
        let expected = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        assert_eq!(*said, expected, "{what}: how long to wait: {error:?}");
    }
}

/// The kind of data that an operation moves over this wire, if the wire moves data.
fn data(ground: &Ground, on: On) -> On {
    if ground.entry.has.contains(&Need::DataOnWire) { on } else { On::Any }
}

/// Checks that a fault was injected: a case in which nothing went wrong shows nothing.
#[track_caller]
fn assert_injected(bench: &Bench, what: &str) {
    assert!(
        bench.proxy().seen().injected > 0,
        "{what}: nothing went wrong, so this shows nothing: {:?}",
        bench.proxy().seen()
    );
}

/// The same host, and what it has stored, are as good as ever.
async fn well_again(ground: &Ground, bench: &Bench) {
    bench.proxy().mend();
    let bytes = ground.noise(3000);
    let id = bench.put(ground, &bytes).await;
    bench.expect(&id, &bytes, "after the fault").await;
    bench.adapter.remove(&id).await.unwrap();
}

async fn refused_store(ground: Arc<Ground>, fault: Fault) {
    let bench = ground.open_through().await;
    bench.proxy().plan(Plan::always(fault, On::Any));
    refused(&ground, bench.store(&ground, &ground.noise(5000)).await, fault, "a small one");
    assert_injected(&bench, "a small one");
    ground.sees_only("after a refusal", &[]).await;
    // Of one that goes in parts, a later part. Where it is one request, nothing is refused and it is stored.
    bench.proxy().plan(Plan { fault, on: On::Up, after: 1, times: usize::MAX });
    let before = bench.proxy().seen().injected;
    let bytes = ground.noise(17 * MIB);
    match bench.store(&ground, &bytes).await {
        Ok(receipt) if bench.proxy().seen().injected == before => {
            bench.proxy().mend();
            ground.place.thaw(&bench.adapter, &receipt.id).await;
            bench.expect(&receipt.id, &bytes, "stored in one request").await;
            bench.adapter.remove(&receipt.id).await.unwrap();
        }
        outcome => refused(&ground, outcome, fault, "a later part"),
    }
    well_again(&ground, &bench).await;
    ground.sees_only("after all", &[]).await;
}

async fn refused_retrieve(ground: Arc<Ground>, fault: Fault) {
    let bench = ground.open_through().await;
    let bytes = ground.noise(5000);
    let id = bench.put(&ground, &bytes).await;
    bench.proxy().plan(Plan::always(fault, On::Any));
    refused(&ground, bench.read(&id, None).await, fault, "a retrieve");
    if ground.entry.has.contains(&Need::Ranges) {
        refused(&ground, bench.read(&id, Some("5..100".parse().unwrap())).await, fault, "a part");
    }
    assert_injected(&bench, "a retrieve");
    bench.proxy().mend();
    bench.expect(&id, &bytes, "after the fault").await;
}

/// What moves no data: it must not take a refusal for "there is no such object", nor for an empty list.
async fn refused_rest(ground: Arc<Ground>, fault: Fault) {
    let bench = ground.open_through().await;
    let has = |need| ground.entry.has.contains(&need);
    let bytes = ground.noise(5000);
    let id = bench.put(&ground, &bytes).await;
    bench.proxy().plan(Plan::always(fault, On::Any));
    refused(&ground, bench.adapter.stat(&id).await, fault, "stat");
    refused(&ground, bench.adapter.remove(&id).await, fault, "a removal");
    if has(Need::Lineage) {
        let outcome = bench.adapter.incremental_update(&id, Body::from_bytes("x"), ground.hint(Some(1))).await;
        refused(&ground, outcome, fault, "an update");
    }
    if has(Need::Inventory) {
        refused(&ground, bench.adapter.list_objects(None, 10).await, fault, "an inventory");
    }
    match bench.adapter.probe().await {
        Ok(health) => assert!(!health.ready, "ready, although it is refused: {}", health.detail),
        outcome => refused(&ground, outcome, fault, "a probe"),
    }
    bench.proxy().mend();
    bench.expect(&id, &bytes, "nobody removed it").await;
    ground.sees_only("after all", &[&id]).await;
}

/// A host that does not wait long, and one that is not disturbed.
async fn two_hosts(ground: &Ground) -> (Bench, Bench) {
    let hasty = Options { through: true, hasty: true, ..Options::default() };
    (ground.open_with(hasty).await, ground.open().await)
}

async fn broken_store(ground: Arc<Ground>, fault: Fault) {
    let (bench, calm) = two_hosts(&ground).await;
    let bytes = ground.noise(2 * MIB + 17);
    bench.proxy().plan(Plan::always(fault, data(&ground, On::Up)));
    fails(bench.store(&ground, &bytes).await, &["unavailable", "timed-out"], "a store");
    assert_injected(&bench, "a store");
    bench.proxy().mend();
    // Where the data goes another way, it may be the answer that was lost, and all had been done.
    if ground.entry.has.contains(&Need::DataOnWire) {
        ground.sees_only("after a store that broke", &[]).await;
    }
    let id = calm.put(&ground, &bytes).await;
    calm.expect(&id, &bytes, "the same once more").await;
}

async fn broken_retrieve(ground: Arc<Ground>, fault: Fault) {
    let (bench, calm) = two_hosts(&ground).await;
    let bytes = ground.noise(2 * MIB + 17);
    let id = calm.put(&ground, &bytes).await;
    bench.proxy().plan(Plan::always(fault, data(&ground, On::Down)));
    fails(bench.read(&id, None).await, &["unavailable", "timed-out"], "a retrieve");
    assert_injected(&bench, "a retrieve");
    bench.proxy().mend();
    calm.expect(&id, &bytes, "after the fault").await;
}

/// A server that is given other bytes than were sent either notices, or stores them; then their reader gets an error.
async fn fault_flip_on_store(ground: Arc<Ground>) {
    let bench = ground.open_through().await;
    let bytes = ground.noise(5 * MIB + 3);
    bench.proxy().plan(Plan::always(Fault::Flip, On::Up));
    let stored = bench.store_image(&bytes).await;
    assert_injected(&bench, "a store");
    bench.proxy().mend();
    match stored {
        Err(error) => {
            fails::<()>(Err(error), &["corrupt", "invalid", "unavailable", "conflict"], "a store that was refused");
        }
        Ok(stored) => {
            bench.object_of(&ground, &stored).await;
            match bench.read_image(stored.id, None).await {
                // What was hit was not the object.
                Ok(found) => assert_same(&found, &bytes, "stored although something was hit"),
                outcome => drop(fails(outcome, &["corrupt"], "an object that was hit on its way")),
            }
        }
    }
}

/// An image that is there and whole, and a fault on the way back.
async fn read_through(ground: &Ground, fault: Fault) -> (Result<bytes::Bytes>, Vec<u8>) {
    let bench = ground.open_through().await;
    let bytes = ground.noise(5 * MIB + 3);
    let stored = bench.store_image(&bytes).await.unwrap();
    bench.object_of(ground, &stored).await;
    bench.proxy().plan(Plan::always(fault, On::Down));
    let outcome = bench.read_image(stored.id, None).await;
    assert_injected(&bench, "a retrieve");
    bench.proxy().mend();
    (outcome, bytes)
}

async fn fault_flip_on_retrieve(ground: Arc<Ground>) {
    let (outcome, _) = read_through(&ground, Fault::Flip).await;
    fails(outcome, &["corrupt"], "a flipped bit");
}

async fn fault_short_on_retrieve(ground: Arc<Ground>) {
    let (outcome, _) = read_through(&ground, Fault::Short).await;
    fails(outcome, &["corrupt", "unavailable"], "a reply that is short");
}

/// One fault, of any kind that takes no time, at any request.
fn anywhere(ground: &Ground, round: u64) -> Plan {
    let dice = mix(ground.seed, round);
    let refuse = |status| Fault::Refuse { status, retry_after: None };
    let faults = [Fault::Reset, Fault::Cut, refuse(429), refuse(500), refuse(503), refuse(507)];
    Plan::once(faults[(dice % 6) as usize], On::Any, (dice >> 8) as usize % 6)
}

const FAILURES: [&str; 4] = ["unavailable", "rate-limited", "insufficient-balance", "other"];

async fn fault_anywhere_on_store(ground: Arc<Ground>) {
    let bench = ground.open_through().await;
    let mut stored: Vec<(ObjectId, Vec<u8>)> = Vec::new();
    for round in 0..10 {
        let bytes = ground.noise(if round % 2 == 0 { 40_000 } else { 9 * MIB });
        let plan = anywhere(&ground, round);
        bench.proxy().plan(plan);
        match bench.store(&ground, &bytes).await {
            Ok(receipt) => stored.push((receipt.id, bytes)),
            Err(error) => drop(fails::<()>(Err(error), &FAILURES, &format!("{plan:?}"))),
        }
    }
    bench.proxy().mend();
    for (id, bytes) in stored {
        ground.place.thaw(&bench.adapter, &id).await;
        bench.expect(&id, &bytes, "what was stored in spite of a fault").await;
    }
}

async fn fault_anywhere_on_retrieve(ground: Arc<Ground>) {
    let bench = ground.open_through().await;
    let bytes = ground.noise(9 * MIB);
    let id = bench.put(&ground, &bytes).await;
    for round in 100..110 {
        let plan = anywhere(&ground, round);
        bench.proxy().plan(plan);
        match bench.read(&id, None).await {
            Ok(found) => assert_same(&found, &bytes, &format!("in spite of {plan:?}")),
            Err(error) => drop(fails::<()>(Err(error), &FAILURES, &format!("{plan:?}"))),
        }
    }
    bench.proxy().mend();
    bench.expect(&id, &bytes, "after all of them").await;
}
