//! Whether an adapter matches its description, uses only its requested grants, and reports missing permissions.

use std::sync::Arc;

use tidelock::runtime::{Component, Manifest};
use tidelock::types::Features;
use tidelock_tests::data::MIB;

use super::{Case, cases};
use crate::bench::{Ground, Options, fails};
use crate::place::Need;

pub fn cases() -> Vec<Case> {
    cases![
        [] description_is_true, manifest_is_enough, probe_is_ready, probe_stores_nothing;
        [HandsOn] no_byte_through_the_guest_on_store;
        [HandsBack] no_byte_through_the_guest_on_retrieve;
        [Wire, DataOnWire] stat_reads_no_bytes;
        [Credentials] wrong_credentials_are_denied;
    ]
}

/// What it declares is what this suite takes it for: otherwise cases would be left out, or asked, for the wrong reason.
async fn description_is_true(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let description = bench.adapter.description();
    let has = |need: Need| ground.entry.has.contains(&need);
    let expected = Features {
        ranges: has(Need::Ranges),
        lineage: has(Need::Lineage),
        unsized_input: has(Need::Unsized),
        labels: has(Need::Labels),
    };
    assert_eq!(description.features, expected, "the features of {}", description.name);
    let optional = bench.adapter.optional_interfaces();
    assert_eq!(optional.contains(&"inventory"), has(Need::Inventory), "{optional:?}");
    assert_eq!(optional.contains(&"archive"), has(Need::Cold), "{optional:?}");
}

/// The host gives what the manifest asks for and nothing else; every operation works on that.
async fn manifest_is_enough(ground: Arc<Ground>) {
    let component = Component::read(&ground.place.component()).await.unwrap();
    let manifest = Manifest::of_component(&component.bytes).unwrap().expect("an adapter carries a manifest");
    let bench = ground.open().await;
    assert_eq!(manifest.name, bench.adapter.description().name);
    let bytes = ground.noise(10_000);
    let id = bench.put(&ground, &bytes).await;
    bench.expect(&id, &bytes, "stored and read").await;
    bench.adapter.stat(&id).await.unwrap();
    bench.adapter.remove(&id).await.unwrap();
}

async fn probe_is_ready(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let health = bench.adapter.probe().await.unwrap();
    assert!(health.ready, "{}", health.detail);
}

async fn probe_stores_nothing(ground: Arc<Ground>) {
    let bench = ground.open().await;
    for _ in 0..3 {
        bench.adapter.probe().await.unwrap();
    }
    ground.sees_only("after probes", &[]).await;
}

/// The adapter steers, the host hauls.
async fn no_byte_through_the_guest_on_store(ground: Arc<Ground>) {
    let bench = ground.open().await;
    bench.store(&ground, &ground.noise(5 * MIB)).await.unwrap();
    let carried = bench.adapter.bytes_through_guest();
    assert!(carried < 64 << 10, "{carried} bytes of {}", 5 * MIB);
}

async fn no_byte_through_the_guest_on_retrieve(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(5 * MIB);
    let id = bench.put(&ground, &bytes).await;
    let before = bench.adapter.bytes_through_guest();
    bench.expect(&id, &bytes, "read back").await;
    let carried = bench.adapter.bytes_through_guest() - before;
    assert!(carried < 64 << 10, "{carried} bytes of {}", 5 * MIB);
}

/// It asks the server about the object, and not for it.
async fn stat_reads_no_bytes(ground: Arc<Ground>) {
    let bench = ground.open_through().await;
    let bytes = ground.noise(4 * MIB);
    let id = bench.put(&ground, &bytes).await;
    let before = bench.proxy().seen();
    assert_eq!(bench.adapter.stat(&id).await.unwrap().size, bytes.len() as u64);
    let after = bench.proxy().seen();
    let came = after.bytes_down - before.bytes_down;
    assert!(after.requests > before.requests, "it asked nobody");
    assert!(came < 64 << 10, "{came} bytes came for a stat");
}

async fn wrong_credentials_are_denied(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(1000);
    let id = bench.put(&ground, &bytes).await;
    let stranger = match ground.try_open(Options { stranger: true, ..Options::default() }).await {
        Ok(stranger) => stranger,
        Err(error) => return drop(fails::<()>(Err(error), &["denied"], "opening the host")),
    };
    let error = fails(stranger.store(&ground, &bytes).await, &["denied"], "a store");
    let secret = ground.place.keys(true).secret_key;
    assert!(secret.is_empty() || !format!("{error:?}").contains(&secret), "a secret is told: {error:?}");
    if !ground.place.strangers_read() {
        fails(stranger.read(&id, None).await, &["denied"], "a retrieve");
    }
    fails(stranger.adapter.remove(&id).await, &["denied"], "a removal");
    bench.expect(&id, &bytes, "nobody removed it").await;
}
