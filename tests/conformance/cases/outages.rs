//! The server is gone before or during an operation, and returns.
//!
//! It is killed, as by a crash, and restarted with its disk. A server that keeps everything in memory
//! would lose it; that one is disconnected instead.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tidelock::Body;
use tidelock_tests::data::{MIB, assert_same};
use tokio::task::block_in_place;

use super::{Case, cases};
use crate::bench::{Bench, Ground, Options, fails};

pub fn cases() -> Vec<Case> {
    cases![
        [Server, Alone] server_gone_before, server_gone_during_a_store, server_back_again;
        [Server, Alone, DataOnWire] server_gone_during_a_retrieve;
    ]
}

/// A host that does not wait long for a server that is gone. What is only there to prepare is done by another one, which
/// has time.
async fn open(ground: &Ground) -> Bench {
    let through = !ground.place.mortal();
    ground.open_with(Options { through, hasty: true, ..Options::default() }).await
}

/// One that waits long, where an end comes without that: a connection that breaks tells at once.
async fn open_patiently(ground: &Ground) -> Bench {
    let through = !ground.place.mortal();
    ground.open_with(Options { through, ..Options::default() }).await
}

fn gone(ground: &Ground, bench: &Bench) {
    match &bench.proxy {
        Some(proxy) => proxy.close(),
        None => block_in_place(|| ground.place.kill()),
    }
}

fn back(ground: &Ground, bench: &Bench) {
    match &bench.proxy {
        Some(proxy) => proxy.open(),
        None => block_in_place(|| ground.place.restart()),
    }
}

/// Brings the server back also when the case fails: others need it.
struct Back<'a>(&'a Ground, &'a Bench, bool);

impl<'a> Back<'a> {
    fn away(ground: &'a Ground, bench: &'a Bench) -> Self {
        gone(ground, bench);
        Self(ground, bench, true)
    }

    fn back(&mut self) {
        if std::mem::take(&mut self.2) {
            back(self.0, self.1);
        }
    }
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.back();
    }
}

const GONE: [&str; 2] = ["unavailable", "timed-out"];

async fn server_gone_before(ground: Arc<Ground>) {
    let (bench, calm) = (open(&ground).await, ground.open().await);
    let bytes = ground.noise(50_000);
    let id = calm.put(&ground, &bytes).await;
    let mut away = Back::away(&ground, &bench);
    fails(bench.store(&ground, &bytes).await, &GONE, "a store");
    fails(bench.read(&id, None).await, &GONE, "a retrieve");
    let error = fails(bench.adapter.stat(&id).await, &GONE, "stat");
    assert_eq!(error.backend(), Some(crate::bench::BACKEND), "it says where: {error:?}");
    fails(bench.adapter.remove(&id).await, &GONE, "a removal");
    match bench.adapter.probe().await {
        Ok(health) => assert!(!health.ready, "ready, and nobody is there: {}", health.detail),
        outcome => drop(fails(outcome, &GONE, "a probe")),
    }
    away.back();
    drop(away);
    calm.expect(&id, &bytes, "what was there before").await;
}

async fn server_gone_during_a_store(ground: Arc<Ground>) {
    let bench = open(&ground).await;
    bench.adapter.probe().await.unwrap();
    let size = 40 * MIB;
    let (sender, receiver) = tokio::sync::mpsc::channel::<tidelock::Result<Bytes>>(1);
    let chunks =
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let storing = bench.adapter.store(Body::new(chunks, Some(size as u64)), ground.hint(Some(size as u64)));
    let mut away = None;
    let feeding = async {
        let bytes = ground.noise(size);
        for (number, chunk) in bytes.chunks(MIB).enumerate() {
            if number == 20 {
                away = Some(Back::away(&ground, &bench));
            }
            if sender.send(Ok(Bytes::copy_from_slice(chunk))).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let (outcome, ()) = tokio::join!(storing, feeding);
    fails(outcome, &GONE, "a store");
    drop(away);
    ground.sees_only("after it", &[]).await;
    let calm = ground.open().await;
    let bytes = ground.noise(50_000);
    let id = calm.put(&ground, &bytes).await;
    calm.expect(&id, &bytes, "the next one").await;
}

async fn server_gone_during_a_retrieve(ground: Arc<Ground>) {
    let bench = open_patiently(&ground).await;
    let bytes = ground.noise(40 * MIB);
    let id = bench.put(&ground, &bytes).await;
    let mut body = bench.adapter.retrieve(&id, None).await.unwrap();
    let mut seen = body.next().await.unwrap().unwrap().to_vec();
    let away = Back::away(&ground, &bench);
    let ended = loop {
        match body.next().await {
            Some(Ok(chunk)) => seen.extend_from_slice(&chunk),
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    assert!(seen.len() <= bytes.len(), "more than there was");
    assert_same(&seen, &bytes[..seen.len()], "as far as it came");
    fails(ended, &GONE, "a retrieve");
    drop(away);
    bench.expect(&id, &bytes, "when the server is back").await;
}

/// Nothing has to be done for it: the same host goes on.
async fn server_back_again(ground: Arc<Ground>) {
    let bench = open_patiently(&ground).await;
    let bytes = ground.noise(50_000);
    let id = bench.put(&ground, &bytes).await;
    drop(Back::away(&ground, &bench));
    bench.expect(&id, &bytes, "what was there before").await;
    let more = ground.noise(50_000);
    let other = bench.put(&ground, &more).await;
    bench.expect(&other, &more, "what came after").await;
}
