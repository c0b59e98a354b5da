//! Objects of any length come back, and are counted correctly.

use std::sync::Arc;

use bytes::Bytes;
use tidelock::Body;
use tidelock_tests::data::{KIB, MIB, assert_same};

use super::{Case, cases};
use crate::bench::{Ground, fails};

/// Around a page, around what a request or a part may hold, and one that takes many of each.
const SIZES: [(&str, usize); 9] = [
    ("size_0", 0),
    ("size_1", 1),
    ("size_4095", 4095),
    ("size_4096", 4096),
    ("size_4097", 4097),
    ("size_1_mib_less_1", MIB - 1),
    ("size_1_mib", MIB),
    ("size_1_mib_and_1", MIB + 1),
    ("size_64_mib_and_1", 64 * MIB + 1),
];

pub fn cases() -> Vec<Case> {
    let sized = SIZES.map(|(name, size)| Case::new(name, &[], move |ground| of_size(ground, size)));
    let others = cases![
        [Unsized] unknown_length, unknown_length_of_nothing;
        [] fewer_bytes_than_were_said, more_bytes_than_were_said, others_read_what_was_stored;
    ];
    sized.into_iter().chain(others).collect()
}

async fn of_size(ground: Arc<Ground>, size: usize) {
    let bench = ground.open().await;
    let bytes = ground.noise(size);
    let id = bench.put(&ground, &bytes).await;
    assert_eq!(bench.adapter.stat(&id).await.unwrap().size, size as u64, "the size that stat gives");
    bench.expect(&id, &bytes, "read back").await;
}

/// A body that does not say how long it is, in chunks of odd lengths.
fn unsized_body(bytes: &[u8]) -> Body {
    let chunks: Vec<_> = bytes.chunks(100_003).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    Body::new(futures::stream::iter(chunks), None)
}

async fn unknown_length(ground: Arc<Ground>) {
    let bench = ground.open().await;
    // Beyond the first part of an upload in parts.
    for size in [1, 70 * KIB, 9 * MIB + 1] {
        let bytes = ground.noise(size);
        let receipt = bench.adapter.store(unsized_body(&bytes), ground.hint(None)).await.unwrap();
        assert_eq!(receipt.size, size as u64);
        ground.place.thaw(&bench.adapter, &receipt.id).await;
        bench.expect(&receipt.id, &bytes, "read back").await;
    }
}

async fn unknown_length_of_nothing(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let receipt = bench.adapter.store(unsized_body(b""), ground.hint(None)).await.unwrap();
    assert_eq!(receipt.size, 0);
    ground.place.thaw(&bench.adapter, &receipt.id).await;
    bench.expect(&receipt.id, b"", "read back").await;
}

/// The host says how many bytes come, and others come: no object of either length.
async fn wrong_length(ground: Arc<Ground>, said: usize, comes: usize) {
    let bench = ground.open().await;
    let bytes = ground.noise(comes);
    let body = Body::new(futures::stream::iter([Ok(Bytes::from(bytes))]), None);
    let kinds = ["invalid", "unavailable", "corrupt", "other"];
    fails(bench.adapter.store(body, ground.hint(Some(said as u64))).await, &kinds, "a wrong length");
    ground.sees_only("after a wrong length", &[]).await;
}

async fn fewer_bytes_than_were_said(ground: Arc<Ground>) {
    wrong_length(ground, 300_001, 300_000).await;
}

async fn more_bytes_than_were_said(ground: Arc<Ground>) {
    wrong_length(ground, 300_000, 300_001).await;
}

/// Another client finds it under the id that the adapter gave, byte for byte.
async fn others_read_what_was_stored(ground: Arc<Ground>) {
    let bench = ground.open().await;
    for size in [17, 300_001, 9 * MIB + 7] {
        let bytes = ground.noise(size);
        let id = bench.put(&ground, &bytes).await;
        assert_eq!(ground.visible().await.get(id.as_str()), Some(&(size as u64)), "what others see of {id}");
        assert_same(&ground.place.bytes(&ground.prefix, &id).await, &bytes, "what others read");
    }
}
