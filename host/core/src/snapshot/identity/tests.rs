//! The vectors of `docs/formats.md`, and that chunks do not matter.

use proptest::prelude::*;

use super::super::segment::ZERO_SEGMENT;
use super::super::testing::pattern;
use super::*;

fn identify(bytes: &[u8]) -> Identity {
    let mut identifier = Identifier::new();
    identifier.update(bytes);
    identifier.finish()
}

fn content(kind: &str, len: usize) -> Vec<u8> {
    match kind {
        "empty" => Vec::new(),
        "zeros" => vec![0; len],
        "pattern" => pattern(len),
        "mixed" => [vec![0; SEGMENT], pattern(SEGMENT), vec![0; SEGMENT]].concat(),
        _ => panic!("unknown kind of content `{kind}`"),
    }
}

#[test]
fn the_documented_vectors_hold() {
    let text = include_str!("../../../../../docs/formats.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with('|') && line.contains("`tl1"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() >= 22, "only {} vectors were found", rows.len());
    for row in rows {
        let len = row[1].parse().unwrap();
        let bytes = content(row[0], len);
        assert_eq!(bytes.len(), len);
        let identity = identify(&bytes);
        assert_eq!(identity.id().to_string(), row[2], "{} {len}", row[0]);
        assert_eq!(identity.size(), len as u64);
    }
}

#[test]
fn zeros_have_constant_digests_and_length_counts() {
    let identity = identify(&vec![0; 2 * SEGMENT]);
    assert_eq!(identity.segments().as_slice(), [ZERO_SEGMENT; 2]);
    let longer = identify(&vec![0; 3 * SEGMENT]);
    assert_ne!(identity.id(), longer.id());
    assert_ne!(identify(&[0]).id(), identify(&[]).id());
}

#[test]
fn a_segment_is_an_ordinary_blake3_hash() {
    let bytes = pattern(SEGMENT + 5);
    let identity = identify(&bytes);
    assert_eq!(identity.segments().as_slice()[0], *blake3::hash(&bytes[..SEGMENT]).as_bytes());
    assert_eq!(identity.segments().as_slice()[1], *blake3::hash(&bytes[SEGMENT..]).as_bytes());
}

#[test]
fn kept_parts_are_believed_only_if_they_fit() {
    let identity = identify(&pattern(SEGMENT + 5));
    let kept = SegmentDigests::from_bytes(&identity.segments().to_bytes()).unwrap();
    assert_eq!(Identity::from_parts(identity.id(), identity.size(), kept.clone()).unwrap(), identity);
    let corrupt = |error: Error| assert_eq!(error.kind().name(), "corrupt");
    corrupt(Identity::from_parts(identity.id(), identity.size() + 1, kept.clone()).unwrap_err());
    corrupt(Identity::from_parts(identity.id(), 3 * SEGMENT as u64, kept).unwrap_err());
    let mut bytes = identity.segments().to_bytes();
    bytes[40] ^= 1;
    let damaged = SegmentDigests::from_bytes(&bytes).unwrap();
    corrupt(Identity::from_parts(identity.id(), identity.size(), damaged).unwrap_err());
    corrupt(SegmentDigests::from_bytes(&bytes[1..]).unwrap_err());
}

#[test]
fn so_many_bytes_have_so_many_segments() {
    let digests = SegmentDigests::new(vec![[7; 32]; 2]);
    assert!(digests.root(SEGMENT as u64).is_err());
    assert!(digests.root(SEGMENT as u64 + 1).is_ok());
    assert!(digests.root(2 * SEGMENT as u64).is_ok());
    assert!(digests.root(2 * SEGMENT as u64 + 1).is_err());
    assert!(digests.root(u64::MAX).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_do_not_matter(zeros in 0usize..=SEGMENT, len in 0usize..=2 * SEGMENT, cuts: Vec<prop::sample::Index>) {
        let bytes = [vec![0; zeros], pattern(len), vec![0; zeros / 2]].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut identifier = Identifier::new();
        cuts.windows(2).for_each(|cut| identifier.update(&bytes[cut[0]..cut[1]]));
        let expected = Identity::new(
            bytes.len() as u64,
            SegmentDigests::new(bytes.chunks(SEGMENT).map(|segment| *blake3::hash(segment).as_bytes()).collect()),
        );
        prop_assert_eq!(identifier.finish(), expected.unwrap());
    }
}
