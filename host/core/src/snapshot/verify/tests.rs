//! Bodies that pass, bodies that do not, and that nothing passes before it is verified.

use proptest::prelude::*;

use super::super::identity::Identifier;
use super::super::testing::{drain, pattern};
use super::*;

const LEN: usize = 2 * SEGMENT + 4321;

fn identity(bytes: &[u8]) -> Arc<Identity> {
    let mut identifier = Identifier::new();
    identifier.update(bytes);
    Arc::new(identifier.finish())
}

/// A body in pieces of `piece` bytes.
fn body(bytes: &[u8], piece: usize, sized: bool) -> Body {
    let bytes = Bytes::copy_from_slice(bytes);
    let size = sized.then_some(bytes.len() as u64);
    let count = bytes.len().div_ceil(piece);
    let chunks = (0..count).map(move |i| Ok(bytes.slice(i * piece..bytes.len().min((i + 1) * piece))));
    Body::new(stream::iter(chunks.collect::<Vec<_>>()), size)
}

fn is_corrupt(error: Option<Error>) -> String {
    let error = error.expect("an error");
    assert_eq!(error.kind().name(), "corrupt", "{error}");
    error.to_string()
}

#[tokio::test]
async fn what_was_stored_passes_in_any_pieces() {
    let bytes = pattern(LEN);
    let expected = identity(&bytes);
    for piece in [61, SMALL - 1, SMALL, 65_536, SEGMENT, 5 * SEGMENT] {
        for sized in [true, false] {
            let (all, error) = drain(verify_known(body(&bytes, piece, sized), expected.clone())).await;
            assert!(error.is_none() && all == bytes, "{piece} {sized} {error:?}");
            let (all, error) = drain(verify(body(&bytes, piece, sized), expected.id())).await;
            assert!(error.is_none() && all == bytes, "{piece} {sized} {error:?}");
        }
    }
}

#[tokio::test]
async fn nothing_passes_as_nothing() {
    let nothing = identity(&[]);
    for sized in [true, false] {
        let (all, error) = drain(verify_known(body(&[], 1, sized), nothing.clone())).await;
        assert!(all.is_empty() && error.is_none());
        let (all, error) = drain(verify(body(&[], 1, sized), nothing.id())).await;
        assert!(all.is_empty() && error.is_none());
        let (_, error) = drain(verify(body(&[], 1, sized), identity(&[1]).id())).await;
        is_corrupt(error);
        let (_, error) = drain(verify_known(body(&[1], 1, sized), nothing.clone())).await;
        is_corrupt(error);
    }
}

#[tokio::test]
async fn no_byte_of_a_damaged_segment_passes() {
    let bytes = pattern(LEN);
    let expected = identity(&bytes);
    for (at, text) in [
        (0, "segment 0 (bytes 0..2097152) differs from the stored one"),
        (SEGMENT, "segment 1 (bytes 2097152..4194304) differs from the stored one"),
        (LEN - 1, "segment 2 (bytes 4194304..4198625) differs from the stored one"),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let (all, error) = drain(verify_known(body(&damaged, 10_007, true), expected.clone())).await;
        assert_eq!(is_corrupt(error), text);
        assert_eq!(all, bytes[..at / SEGMENT * SEGMENT]);
        let (all, error) = drain(verify(body(&damaged, 10_007, true), expected.id())).await;
        is_corrupt(error);
        assert!(all.len() < LEN, "a reader that knows the size must not be given all of it");
    }
}

#[tokio::test]
async fn too_few_and_too_many_bytes_are_corrupt() {
    let bytes = pattern(LEN);
    let expected = identity(&bytes);
    for cut in [0, 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, LEN - 1] {
        let (all, error) = drain(verify_known(body(&bytes[..cut], 65_536, true), expected.clone())).await;
        is_corrupt(error);
        assert_eq!(all, bytes[..cut / SEGMENT * SEGMENT], "{cut}");
        is_corrupt(drain(verify(body(&bytes[..cut], 65_536, false), expected.id())).await.1);
    }
    for more in [1, SEGMENT, 2 * SEGMENT] {
        let longer = [bytes.clone(), vec![0; more]].concat();
        is_corrupt(drain(verify_known(body(&longer, 65_536, true), expected.clone())).await.1);
        is_corrupt(drain(verify(body(&longer, 65_536, false), expected.id())).await.1);
    }
    let whole = pattern(2 * SEGMENT);
    let longer = [whole.clone(), vec![0; SEGMENT]].concat();
    let (all, error) = drain(verify_known(body(&longer, 65_536, true), identity(&whole))).await;
    assert_eq!(is_corrupt(error), "has more than the 4194304 bytes that were stored");
    assert_eq!(all, whole);
}

#[tokio::test]
async fn the_source_s_own_failure_is_kept() {
    let bytes = pattern(LEN);
    let failing = || {
        let chunks = vec![Ok(Bytes::copy_from_slice(&bytes[..SEGMENT + 7])), Err(Error::unavailable("unplugged"))];
        Body::new(stream::iter(chunks), Some(LEN as u64))
    };
    let (all, error) = drain(verify_known(failing(), identity(&bytes))).await;
    assert_eq!(error.unwrap().to_string(), "unplugged");
    assert_eq!(all, bytes[..SEGMENT]);
    assert_eq!(drain(verify(failing(), identity(&bytes).id())).await.1.unwrap().to_string(), "unplugged");
}

#[test]
fn fetched_are_whole_segments() {
    let size = LEN as u64;
    let segment = SEGMENT as u64;
    let fetch = |start, end| {
        let range = aligned(ByteRange { start, end }, size).unwrap();
        (range.start, range.end.unwrap())
    };
    assert_eq!(fetch(0, Some(1)), (0, segment));
    assert_eq!(fetch(segment - 1, Some(segment + 1)), (0, 2 * segment));
    assert_eq!(fetch(segment, Some(2 * segment)), (segment, 2 * segment));
    assert_eq!(fetch(2 * segment + 5, None), (2 * segment, size));
    assert_eq!(fetch(5, Some(5)), (5, 5));
    assert_eq!(fetch(size, None), (size, size));
    assert!(aligned(ByteRange { start: size + 1, end: None }, size).is_err());
    assert!(aligned(ByteRange { start: 2, end: Some(1) }, size).is_err());
    assert!(aligned(ByteRange { start: 0, end: None }, u64::MAX).is_ok());
}

#[tokio::test]
async fn damage_next_to_a_range_is_noticed() {
    let bytes = pattern(LEN);
    let mut damaged = bytes.clone();
    damaged[SEGMENT + 9] ^= 1;
    let range = ByteRange { start: SEGMENT as u64 + 100, end: Some(SEGMENT as u64 + 200) };
    let fetched = &damaged[SEGMENT..2 * SEGMENT];
    let (all, error) = drain(verify_range(body(fetched, 999, true), identity(&bytes), range).unwrap()).await;
    assert_eq!(is_corrupt(error), "segment 1 (bytes 2097152..4194304) differs from the stored one");
    assert!(all.is_empty());
}

#[tokio::test]
async fn a_range_that_came_short_is_corrupt() {
    let bytes = pattern(LEN);
    let range = ByteRange { start: 10, end: Some(SEGMENT as u64 + 10) };
    for len in [0, SEGMENT, SEGMENT + 10] {
        let part = body(&bytes[..len], 9_999, true);
        is_corrupt(drain(verify_range(part, identity(&bytes), range).unwrap()).await.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_range_is_what_it_says(a in 0..=LEN, b in 0..=LEN, piece in 1000usize..3_000_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = pattern(LEN);
        let (start, end) = (a.min(b), a.max(b));
        let range = ByteRange { start: start as u64, end: Some(end as u64) };
        let fetch = aligned(range, LEN as u64).unwrap();
        let fetched = &bytes[fetch.start as usize..fetch.end.unwrap() as usize];
        let expected = identity(&bytes);
        let (all, error) = runtime.block_on(async {
            drain(verify_range(body(fetched, piece, true), expected, range).unwrap()).await
        });
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert!(all == bytes[start..end]);
    }
}
