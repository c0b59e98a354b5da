//! Operations at once, and readers that go away.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use tidelock_tests::data::{KIB, MIB, assert_same};

use super::{Case, cases};
use crate::bench::Ground;

pub fn cases() -> Vec<Case> {
    cases![[] stores_and_retrieves_at_once, readers_that_go_away, one_object_read_at_once;]
}

/// How many operations there are at once.
const AT_ONCE: usize = 32;

async fn stores_and_retrieves_at_once(ground: Arc<Ground>) {
    let bench = Arc::new(ground.open().await);
    let round = |number: usize| {
        let (ground, bench) = (ground.clone(), bench.clone());
        tokio::spawn(async move {
            let bytes = ground.noise(100_000 + number * 4099);
            let id = bench.put(&ground, &bytes).await;
            bench.expect(&id, &bytes, "beside others").await;
            id
        })
    };
    let rounds: Vec<_> = (0..AT_ONCE).map(round).collect();
    let mut ids = BTreeSet::new();
    for round in rounds {
        ids.insert(round.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    assert_eq!(ids.len(), AT_ONCE, "each has a name of its own");
    ground.sees_only("all of them", &ids.iter().collect::<Vec<_>>()).await;
}

async fn one_object_read_at_once(ground: Arc<Ground>) {
    let bench = Arc::new(ground.open().await);
    let bytes = ground.noise(MIB + 5);
    let id = bench.put(&ground, &bytes).await;
    let readers = (0..AT_ONCE).map(|_| bench.read(&id, None));
    for found in futures::future::join_all(readers).await {
        assert_same(&found.unwrap(), &bytes, "one of many readers");
    }
}

/// A reader that stops in the middle leaves nothing that would block the next: more of them than operations
/// may run at once.
async fn readers_that_go_away(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(2 * MIB + 100 * KIB);
    let id = bench.put(&ground, &bytes).await;
    for number in 0..80 {
        let mut body = bench.adapter.retrieve(&id, None).await.unwrap();
        if number % 2 == 0 {
            body.next().await.unwrap().unwrap();
        }
    }
    bench.expect(&id, &bytes, "after all of them").await;
}
