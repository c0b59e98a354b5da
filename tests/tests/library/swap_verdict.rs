//! A canary that is found to be failing at the last moment: while its row is being written, after the look at how it
//! fared. The swap log of this test is that moment.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tidelock::backend::Backend as _;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::DirectoryGrant;
use tidelock::runtime::{
    BackendSpec, Canary, Component, EngineOptions, Event, HistoryRow, InMemorySwapLog, Limits, Sandbox, Slot,
    SlotOptions, SwapLog, SwapOptions, SwapPolicy, Trust,
};
use tidelock::types::{ObjectId, StoreHint};
use tidelock::{Body, Result};

use crate::support::component;

/// The size of objects that `flawed` cannot read.
const UNREADABLE: usize = 15;

/// A swap log in memory that reads objects while a swap is being recorded.
#[derive(Default)]
struct Interleaved {
    inner: InMemorySwapLog,
    slot: OnceLock<(Slot, Vec<ObjectId>)>,
}

impl SwapLog for Interleaved {
    fn past<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<HistoryRow>>> {
        self.inner.past(backend)
    }

    fn add<'a>(
        &'a self,
        backend: &'a str,
        row: HistoryRow,
        component: Option<Component>,
    ) -> BoxFuture<'a, Result<HistoryRow>> {
        Box::pin(async move {
            if let (Event::Swap, Some((slot, objects))) = (row.event, self.slot.get()) {
                // They run on the canary, which fails, and are answered by its predecessor.
                for object in objects {
                    slot.get(object, None).await?.collect(100).await?;
                }
            }
            self.inner.add(backend, row, component).await
        })
    }

    fn component<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Component>> {
        self.inner.component(digest)
    }
}

async fn stored(slot: &Slot, number: usize) -> ObjectId {
    let hint = StoreHint { key: format!("object-{number}"), size: Some(UNREADABLE as u64), ..StoreHint::default() };
    slot.serving().adapter.store(Body::from_bytes(vec![7; UNREADABLE]), hint).await.unwrap().id
}

/// Whether or not versions that serve are rolled back automatically.
async fn condemned_while_it_is_recorded(trial: Option<Duration>) {
    let dir = tempfile::tempdir().unwrap();
    let mut capabilities = Capabilities::none();
    capabilities.grant_directory("objects", &DirectoryGrant::below(dir.path().join("objects"))).unwrap();
    let spec = BackendSpec {
        name: "mine".into(),
        capabilities,
        settings: Default::default(),
        limits: Limits::default(),
        trust: Trust::default(),
    };
    let sandbox = Sandbox::new(EngineOptions { operations: 16, ..Default::default() }).unwrap();
    let swap_log = Arc::new(Interleaved::default());
    let canary = Some(Canary { share: 1.0, duration: Duration::from_millis(20) });
    let options = SlotOptions { policy: SwapPolicy { drain: None, canary, trial }, swap_log: swap_log.clone() };
    let good = component("copying");
    let slot = Slot::open(sandbox, spec, Component::from(good), options).await.unwrap();
    let before = slot.serving().adapter.digest();
    let mut objects = Vec::new();
    for number in 0..16 {
        objects.push(stored(&slot, number).await);
    }
    let Ok(()) = swap_log.slot.set((slot.clone(), objects.clone())) else { panic!("it is set once") };

    let error = slot.swap(component("flawed"), SwapOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("the new adapter fails more"), "{error}");
    assert_eq!(slot.serving().adapter.digest(), before);
    assert_eq!(slot.serving().generation, 3, "the canary has had number 2");
    let events: Vec<_> = slot.history().iter().map(|entry| entry.row.event.name()).collect();
    assert_eq!(events, ["automatic-rollback", "swap", "configured"]);
    // Nothing goes to the canary any more, and after a restart the history says the same.
    for object in &objects {
        slot.get(object, None).await.unwrap().collect(100).await.unwrap();
    }
    let rows = swap_log.past("mine").await.unwrap();
    assert_eq!(rows.last().map(|row| row.digest.clone()), Some(before.to_string()));
}

#[tokio::test]
async fn a_canary_that_is_condemned_while_it_is_recorded_never_serves() {
    condemned_while_it_is_recorded(Some(Duration::from_secs(600))).await;
}

#[tokio::test]
async fn nor_where_nothing_is_rolled_back_automatically() {
    condemned_while_it_is_recorded(None).await;
}
