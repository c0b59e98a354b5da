//! Files that are no memory: a pack of one is no larger than what zstd makes of it alone.

use super::support::Store;
use crate::snapshot::pages::{Options, Profile};
use crate::snapshot::testing::pattern;

const MIB: usize = 1 << 20;

/// What a pack has besides its frames, whatever its content: header, footer, and metadata of a frame or two. Whoever stores
/// files as small as that keeps them as they are.
const LEAST: usize = 512;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines of words, some of them frequent.
fn text(len: usize) -> Vec<u8> {
    let choices = noise(len, 1);
    let words = ["the", "of", "storage", "and", "adapter", "to", "snapshot", "in", "segment", "page", "is", "host"];
    let mut bytes = Vec::new();
    for (at, choice) in choices.iter().enumerate() {
        bytes.extend_from_slice(words[usize::from(*choice) % words.len() % (1 + at % 12)].as_bytes());
        bytes.push(if choice % 16 == 0 { b'\n' } else { b' ' });
        if choice % 5 == 0 {
            bytes.extend_from_slice(choice.to_string().as_bytes());
        }
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}

/// Clusters of 64 KiB of an image, in another order and with tables between them.
fn clusters(content: &[u8]) -> Vec<u8> {
    let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
    bytes.resize(65_536, 0);
    let count = content.len() / 65_536;
    for at in 0..count {
        let from = (at * 7 + 3) % count;
        bytes.extend_from_slice(&content[from * 65_536..(from + 1) * 65_536]);
        if at % 8 == 0 {
            bytes.extend((0..8192u64).flat_map(|entry| (entry * 65_536 + at as u64).to_be_bytes()));
        }
    }
    bytes
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let prose = text(5 * MIB);
    let random = noise(3 * MIB, 2);
    let with = |before: &[u8], content: &[u8]| [before, content].concat();
    let records: Vec<u8> = (0..40_000u64)
        .flat_map(|at| format!("{{\"id\":{at},\"at\":{},\"ok\":true}}\n", at * 7919).into_bytes())
        .collect();
    let numbers: Vec<u8> = (0..400_000u64).flat_map(|at| (at * 3).to_le_bytes()).collect();
    let mixed: Vec<u8> = (0..600).flat_map(|at| if at % 3 == 0 { noise(4096, at) } else { text(4096) }).collect();
    vec![
        ("nothing", Vec::new()),
        ("a byte", vec![1]),
        ("a page less a byte", text(4095)),
        ("a page", noise(4096, 3)),
        ("a page and a byte", text(4097)),
        ("zeros", vec![0; 8 * MIB + 1]),
        ("one byte over and over", vec![7; 3 * MIB + 5]),
        ("text", prose.clone()),
        ("text, shifted by 1", with(b"x", &prose)),
        ("random", random.clone()),
        ("random, shifted by 1", with(b"x", &random)),
        ("random twice, not by pages", with(&with(&random[..MIB], b"abc"), &random[..MIB])),
        ("records", records),
        ("numbers", numbers),
        ("text and zeros", with(&vec![0; 3 * MIB], &prose)),
        ("zeros and noise, by the byte", noise(MIB, 4).into_iter().flat_map(|byte| [0, byte, 0]).collect()),
        ("clusters of text", clusters(&prose)),
        ("clusters of noise", clusters(&random)),
        ("pages of both", mixed),
        ("a pattern", pattern(2 * MIB)),
        ("pages twice", prose.chunks(4096).take(500).flat_map(|page| [page, page].concat()).collect()),
    ]
}

#[test]
fn no_kind_of_file_takes_more_than_by_zstd_alone() {
    let kinds = kinds();
    assert!(kinds.len() >= 20);
    for (name, bytes) in kinds {
        let mut store = Store::default();
        let pack = store.full(&bytes, &Options::new(Profile::Compact)).object.len();
        let alone = zstd::bulk::compress(&bytes, 3).unwrap().len();
        let most = alone + alone / 100 + LEAST;
        assert!(pack <= most, "{name}: {pack} bytes, by zstd {alone}, of {}", bytes.len());
    }
}
