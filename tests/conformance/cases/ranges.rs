//! Parts of objects: just those bytes, or `invalid`.

use std::sync::Arc;

use tidelock::ByteRange;
use tidelock_tests::data::{MIB, assert_same};

use super::{Case, cases};
use crate::bench::{Ground, fails};

pub fn cases() -> Vec<Case> {
    cases![
        [Ranges]
        range_empty,
        range_first_byte,
        range_last_byte,
        range_at_the_end_is_empty,
        range_beyond_the_end_is_invalid,
        range_backwards_is_invalid,
        range_to_the_end,
        range_cut_at_the_end,
        range_across_parts,
        range_of_an_empty_object,
        ranges_of_every_kind;
    ]
}

/// Neither a multiple of a page nor of anything else.
const SIZE: usize = 300_007;

fn range(start: u64, end: impl Into<Option<u64>>) -> ByteRange {
    ByteRange { start, end: end.into() }
}

/// Asks for a range of an object of [`SIZE`] bytes, and insists on what comes.
async fn is(ground: Arc<Ground>, asked: ByteRange, expected: std::ops::Range<usize>) {
    let bench = ground.open().await;
    let bytes = ground.noise(SIZE);
    let id = bench.put(&ground, &bytes).await;
    let found = bench.read(&id, Some(asked)).await.unwrap_or_else(|error| panic!("{asked}: {error:?}"));
    assert_same(&found, &bytes[expected], &format!("{asked}"));
}

async fn is_invalid(ground: Arc<Ground>, asked: ByteRange) {
    let bench = ground.open().await;
    let id = bench.put(&ground, &ground.noise(SIZE)).await;
    fails(bench.read(&id, Some(asked)).await, &["invalid"], &format!("{asked} of {SIZE} bytes"));
}

async fn range_empty(ground: Arc<Ground>) {
    is(ground, range(5, 5), 5..5).await;
}

async fn range_first_byte(ground: Arc<Ground>) {
    is(ground, range(0, 1), 0..1).await;
}

async fn range_last_byte(ground: Arc<Ground>) {
    is(ground, range(SIZE as u64 - 1, SIZE as u64), SIZE - 1..SIZE).await;
}

async fn range_at_the_end_is_empty(ground: Arc<Ground>) {
    is(ground, range(SIZE as u64, None), SIZE..SIZE).await;
}

async fn range_beyond_the_end_is_invalid(ground: Arc<Ground>) {
    is_invalid(ground, range(SIZE as u64 + 1, SIZE as u64 + 9)).await;
}

async fn range_backwards_is_invalid(ground: Arc<Ground>) {
    is_invalid(ground, range(9, 8)).await;
}

async fn range_to_the_end(ground: Arc<Ground>) {
    is(ground, range(99_999, None), 99_999..SIZE).await;
}

async fn range_cut_at_the_end(ground: Arc<Ground>) {
    is(ground, range(99_999, u64::MAX), 99_999..SIZE).await;
}

/// Parts of uploads have 8 MiB, segments of images 2 MiB, pieces of NFS 1 MiB, blocks of IPFS 256 KiB, pieces of TON 128 KiB.
async fn range_across_parts(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let bytes = ground.noise(17 * MIB + 3);
    let id = bench.put(&ground, &bytes).await;
    for at in [MIB / 8, MIB / 4, MIB, 2 * MIB, 8 * MIB, 16 * MIB] {
        let (start, end) = (at - 5, at + 7);
        let found = bench.read(&id, Some(range(start as u64, end as u64))).await.unwrap();
        assert_same(&found, &bytes[start..end], &format!("{start}..{end}"));
    }
    let found = bench.read(&id, Some(range(100, 17 * MIB as u64))).await.unwrap();
    assert_same(&found, &bytes[100..17 * MIB], "nearly all");
}

async fn range_of_an_empty_object(ground: Arc<Ground>) {
    let bench = ground.open().await;
    let id = bench.put(&ground, b"").await;
    for asked in [range(0, None), range(0, 0), range(0, 10)] {
        assert!(bench.read(&id, Some(asked)).await.unwrap().is_empty(), "{asked}");
    }
    fails(bench.read(&id, Some(range(1, None))).await, &["invalid"], "beyond the end of nothing");
}

/// Ranges as the seed gives them.
async fn ranges_of_every_kind(ground: Arc<Ground>) {
    use tidelock_tests::faults::mix;
    let bench = ground.open().await;
    let bytes = ground.noise(SIZE);
    let id = bench.put(&ground, &bytes).await;
    for number in 0..24 {
        let start = mix(ground.seed, number) % (SIZE as u64 + 1);
        let end = start + mix(ground.seed, number + 1000) % (SIZE as u64 * 2 - start);
        let found = bench.read(&id, Some(range(start, end))).await.unwrap();
        assert_same(&found, &bytes[start as usize..SIZE.min(end as usize)], &format!("{start}..{end}"));
    }
}
