//! States of cold storage, on places that have them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tidelock::types::ArchiveState;
use tidelock::{Body, ErrorKind};
use tidelock_tests::data::assert_same;

use super::{Case, cases};
use crate::bench::{Ground, fails};

pub fn cases() -> Vec<Case> {
    cases![
        [Cold]
        cold_until_restored,
        restored_twice,
        restore_of_an_unknown_object,
        restored_to_the_range,
        stat_and_removal_need_no_restore,
        an_update_needs_no_restore,
        host_says_that_it_is_pending;
    ]
}

async fn cold_until_restored(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(20_000);
    let id = bench.store(&ground, &bytes).await.unwrap().id;
    assert_eq!(bench.adapter.stat(&id).await.unwrap().archive, Some(ArchiveState::Archived));
    let error = fails(bench.read(&id, None).await, &["archived"], "what nobody asked for");
    assert_eq!(*error.kind(), ErrorKind::Archived(ArchiveState::Archived));
    let asked = bench.adapter.restore(&id, 2).await.unwrap();
    assert!(matches!(asked, ArchiveState::Restoring(_) | ArchiveState::Readable(_)), "{asked:?}");
    ground.place.thaw(&bench.adapter, &id).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let state = bench.adapter.stat(&id).await.unwrap().archive;
    assert!(matches!(state, Some(ArchiveState::Readable(Some(until))) if until > now), "{state:?} at {now}");
    bench.expect(&id, &bytes, "restored").await;
}

async fn restored_twice(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(300);
    let id = bench.put(&ground, &bytes).await;
    for _ in 0..2 {
        let state = bench.adapter.restore(&id, 1).await.expect("asking again is no error");
        assert!(!matches!(state, ArchiveState::Archived), "{state:?}");
    }
    bench.expect(&id, &bytes, "asked for twice").await;
}

async fn restore_of_an_unknown_object(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.put(&ground, &ground.noise(300)).await;
    bench.adapter.remove(&id).await.unwrap();
    fails(bench.adapter.restore(&id, 1).await, &["not-found"], "what is gone");
}

async fn restored_to_the_range(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(9000);
    let id = bench.store(&ground, &bytes).await.unwrap().id;
    let range = Some("100..200".parse().unwrap());
    fails(bench.read(&id, range).await, &["archived"], "a part of what is cold");
    ground.place.thaw(&bench.adapter, &id).await;
    assert_same(&bench.read(&id, range).await.unwrap(), &bytes[100..200], "a part");
}

async fn stat_and_removal_need_no_restore(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.store(&ground, &ground.noise(9000)).await.unwrap().id;
    assert_eq!(bench.adapter.stat(&id).await.unwrap().size, 9000);
    bench.adapter.remove(&id).await.unwrap();
    fails(bench.adapter.stat(&id).await, &["not-found"], "it is gone");
}

async fn an_update_needs_no_restore(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let base = bench.store(&ground, &ground.noise(9000)).await.unwrap().id;
    let body = Body::from_bytes("a change");
    let delta = bench.adapter.incremental_update(&base, body, ground.hint(Some(8))).await.unwrap();
    let stat = bench.adapter.stat(&delta.id).await.unwrap();
    assert_eq!((stat.base, stat.archive), (Some(base), Some(ArchiveState::Archived)));
}

/// A retrieve of a snapshot asks for the restore itself, says so, and succeeds when it is done.
async fn host_says_that_it_is_pending(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(70_000);
    let stored = bench.store_image(&bytes).await.unwrap();
    let error = fails(bench.read_image(stored.id, None).await, &["archived"], "a snapshot that is cold");
    assert!(matches!(error.kind(), ErrorKind::Archived(ArchiveState::Restoring(_))), "{error:?}");
    bench.host.until_restored(stored.id, |_| {}).await.unwrap();
    assert_same(&bench.read_image(stored.id, None).await.unwrap(), &bytes, "restored");
}
