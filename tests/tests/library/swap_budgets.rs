//! What a backend may take is shared by its generations: swaps while operations of earlier generations go on multiply
//! nothing, keep no successor out, and end at the drain deadline at the latest.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use tidelock::backend::Backend as _;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::DirectoryGrant;
use tidelock::runtime::{
    BackendSpec, Component, EngineOptions, Limits, Sandbox, Slot, SlotOptions, SwapOptions, SwapPolicy, Trust,
};
use tidelock::types::{ObjectId, StoreHint};
use tidelock::{Body, Result};
use tidelock_tests::data::{MIB, noise};

use crate::support::{component, variant};

/// How long operations of a generation that was replaced may go on.
const DRAIN: Duration = Duration::from_secs(20);

async fn slot(dir: &Path, limits: Limits) -> (Slot, ObjectId) {
    let mut capabilities = Capabilities::none();
    capabilities.grant_directory("objects", &DirectoryGrant::below(dir.join("objects"))).unwrap();
    let spec = BackendSpec {
        name: "mine".into(),
        capabilities,
        settings: Default::default(),
        limits,
        trust: Trust::default(),
    };
    let cache = Some(dir.join("cache"));
    let sandbox = Sandbox::new(EngineOptions { operations: 64, cache, ..Default::default() }).unwrap();
    let policy = SwapPolicy { drain: Some(DRAIN), canary: None, trial: None };
    let options = SlotOptions { policy, ..SlotOptions::default() };
    let slot = Slot::open(sandbox, spec, Component::from(component("copying")), options).await.unwrap();
    let hint = StoreHint { key: "object".into(), size: Some(8 * MIB as u64), ..StoreHint::default() };
    let stored = slot.serving().adapter.store(Body::from_bytes(noise(8 * MIB, 1)), hint).await.unwrap();
    // So that no swap of a test has to compile.
    for number in 1..=3 {
        swapped(&slot, number).await;
    }
    (slot, stored.id)
}

/// Begins to read the object, whose bytes go through the guest, and gives the body that holds what it does.
async fn begun(slot: &Slot, object: &ObjectId) -> Result<Body> {
    use futures::StreamExt as _;
    let mut body = slot.get(object, None).await?;
    body.next().await.unwrap()?;
    // It reads ahead until nobody takes more.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(body)
}

/// Begins to read until a limit is met, and gives what could be begun.
async fn all_that_can(slot: &Slot, object: &ObjectId, limit: &str) -> Vec<Body> {
    let mut bodies = Vec::new();
    while bodies.len() < 50 {
        match begun(slot, object).await {
            Ok(body) => bodies.push(body),
            Err(error) => {
                assert!(error.to_string().contains(limit), "{error}");
                return bodies;
            }
        }
    }
    panic!("no limit was met");
}

async fn swapped(slot: &Slot, number: u8) {
    slot.swap(variant("copying", number), SwapOptions::default()).await.unwrap();
}

/// A chain of swaps, each while the generations before it hold what they could get.
async fn share_one_budget(limits: Limits, limit: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (slot, object) = slot(dir.path(), limits).await;
    let first = all_that_can(&slot, &object, limit).await;
    assert!(first.len() >= 4, "{} were begun", first.len());
    let began = Instant::now();
    let mut later = Vec::new();
    for number in 1..=3 {
        // It is probed although nothing is left.
        swapped(&slot, number).await;
        later.extend(all_that_can(&slot, &object, limit).await);
    }
    assert!(began.elapsed() < DRAIN, "too slow a machine to tell");
    // An operation that failed has given back what it had.
    assert!(later.len() <= 2, "{} more than {} were begun on new generations", later.len(), first.len());
    // The deadline takes it from generations that were replaced, whether or not anybody reads.
    tokio::time::sleep(DRAIN + Duration::from_millis(500)).await;
    let after = all_that_can(&slot, &object, limit).await;
    assert!(after.len() + later.len() >= first.len(), "{} and {} of {}", after.len(), later.len(), first.len());
    drop((first, later, after));
    // What was dropped gives back what it had once its tasks have ended.
    let began = Instant::now();
    while all_that_can(&slot, &object, limit).await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_share_what_their_backend_may_hold() {
    let limits = Limits { backend_held_bytes: 48 << 20, ..Limits::default() };
    share_one_budget(limits, "limit: backend held bytes 48 MiB").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_share_what_their_backend_may_open() {
    let limits = Limits { backend_open_bodies: 8, ..Limits::default() };
    share_one_budget(limits, "limit: backend open bodies 8").await;
}

async fn comes<T>(within: Duration, what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(within, what).await.ok()
}

/// A generation whose operations do not end keeps no place from its successor; a chain of them has twice the places, and
/// the drain deadline ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_generations_has_twice_the_places_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (slot, object) = slot(dir.path(), Limits { in_flight: 2, ..Limits::default() }).await;
    let mut bodies = Vec::new();
    for number in 1..=2 {
        bodies.push(begun(&slot, &object).await.unwrap());
        bodies.push(begun(&slot, &object).await.unwrap());
        assert!(comes(Duration::from_millis(300), begun(&slot, &object)).await.is_none(), "it waits for a place");
        swapped(&slot, number).await;
    }
    assert!(comes(Duration::from_millis(300), begun(&slot, &object)).await.is_none(), "it waits for a place");
    swapped(&slot, 3).await;
    let waiting = comes(4 * DRAIN, begun(&slot, &object)).await.expect("the deadline makes room");
    bodies.push(waiting.unwrap());
}
