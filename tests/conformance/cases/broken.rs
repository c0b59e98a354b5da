//! Interrupted stores: nothing of them is ever visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tidelock::types::ObjectId;
use tidelock::{Body, Error};
use tidelock_tests::data::MIB;

use super::{Case, cases};
use crate::bench::{Bench, Ground, fails};

pub fn cases() -> Vec<Case> {
    cases![
        [] store_cancelled_half_way, store_cancelled_at_once, store_cancelled_at_its_end, source_that_fails_half_way,
        source_that_fails_at_its_end;
        [Unsized] store_of_unknown_length_cancelled, source_of_unknown_length_that_fails;
        [Lineage] update_cancelled_half_way, source_of_an_update_that_fails;
    ]
}

/// More than is sent in one piece anywhere.
const SIZE: usize = 20 * MIB;

/// What becomes of a source when it has given so many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It never gives another.
    Hangs,
    /// It fails.
    Fails,
}

/// A source that gives chunks of a MiB, counts them, and comes to no good end.
fn source(bytes: Vec<u8>, said: Option<u64>, gives: usize, then: Then) -> (Body, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let chunks: Vec<Bytes> = bytes[..gives].chunks(MIB).map(Bytes::copy_from_slice).collect();
    let chunks = futures::stream::iter(chunks).map(move |chunk| {
        count.fetch_add(chunk.len(), Ordering::SeqCst);
        Ok(chunk)
    });
    let last = futures::stream::once(async move {
        match then {
            Then::Hangs => futures::future::pending().await,
            Then::Fails => Err(Error::corrupt("the source of the test broke")),
        }
    });
    (Body::new(chunks.chain(last), said), given)
}

/// Begins a store, or an update, whose source hangs, and gives it up when all that the source has was taken.
async fn cancelled(ground: &Ground, bench: &Bench, base: Option<&ObjectId>, said: Option<u64>, gives: usize) {
    let (body, given) = source(ground.noise(SIZE), said, gives, Then::Hangs);
    let hint = ground.hint(said);
    let work = async {
        match base {
            Some(base) => bench.adapter.incremental_update(base, body, hint).await,
            None => bench.adapter.store(body, hint).await,
        }
    };
    let taken = async {
        let mut patience = 12_000;
        while given.load(Ordering::SeqCst) < gives && patience > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            patience -= 1;
        }
        assert!(patience > 0, "it never took all of it");
        // What was taken last is on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::select! {
        outcome = work => panic!("it ended before its source: {outcome:?}"),
        () = taken => {}
    }
}

async fn failed(ground: &Ground, bench: &Bench, base: Option<&ObjectId>, said: Option<u64>, gives: usize) {
    let (body, _) = source(ground.noise(SIZE), said, gives, Then::Fails);
    let hint = ground.hint(said);
    let outcome = match base {
        Some(base) => bench.adapter.incremental_update(base, body, hint).await,
        None => bench.adapter.store(body, hint).await,
    };
    let error = fails(outcome, &["corrupt"], "a source that fails");
    assert!(error.to_string().contains("the source of the test broke"), "the reason is the source's: {error}");
}

async fn nothing_is_left(ground: &Ground, bench: &Bench) {
    ground.sees_only("after it", &[]).await;
    let bytes = ground.noise(5000);
    let id = bench.put(ground, &bytes).await;
    bench.expect(&id, &bytes, "the next one").await;
}

async fn store_cancelled_half_way(ground: Arc<Ground>) {
    let bench = ground.open().await;
    cancelled(&ground, &bench, None, Some(SIZE as u64), SIZE / 2).await;
    nothing_is_left(&ground, &bench).await;
}

async fn store_cancelled_at_once(ground: Arc<Ground>) {
    let bench = ground.open().await;
    cancelled(&ground, &bench, None, Some(SIZE as u64), 0).await;
    nothing_is_left(&ground, &bench).await;
}

/// All bytes are there, but the source has not said that it is over.
async fn store_cancelled_at_its_end(ground: Arc<Ground>) {
    let bench = ground.open().await;
    cancelled(&ground, &bench, None, Some(SIZE as u64), SIZE).await;
    nothing_is_left(&ground, &bench).await;
}

async fn store_of_unknown_length_cancelled(ground: Arc<Ground>) {
    let bench = ground.open().await;
    cancelled(&ground, &bench, None, None, SIZE / 2).await;
    nothing_is_left(&ground, &bench).await;
}

async fn source_that_fails_half_way(ground: Arc<Ground>) {
    let bench = ground.open().await;
    failed(&ground, &bench, None, Some(SIZE as u64), SIZE / 2).await;
    nothing_is_left(&ground, &bench).await;
}

async fn source_that_fails_at_its_end(ground: Arc<Ground>) {
    let bench = ground.open().await;
    failed(&ground, &bench, None, Some(SIZE as u64), SIZE).await;
    nothing_is_left(&ground, &bench).await;
}

async fn source_of_unknown_length_that_fails(ground: Arc<Ground>) {
    let bench = ground.open().await;
    for gives in [0, MIB, SIZE / 2] {
        failed(&ground, &bench, None, None, gives).await;
    }
    nothing_is_left(&ground, &bench).await;
}

async fn update_cancelled_half_way(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(1000)).await;
    cancelled(&ground, &bench, Some(&base), Some(SIZE as u64), SIZE / 2).await;
    ground.sees_only("after it", &[&base]).await;
    assert_eq!(bench.adapter.stat(&base).await.unwrap().base, None);
}

async fn source_of_an_update_that_fails(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.put(&ground, &ground.noise(1000)).await;
    failed(&ground, &bench, Some(&base), Some(SIZE as u64), SIZE / 2).await;
    ground.sees_only("after it", &[&base]).await;
}
