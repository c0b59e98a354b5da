//! The packs of `docs/formats.md`: read as they are printed there.

use std::collections::BTreeMap;

use super::support::{identify, open};
use crate::snapshot::pages::{Chain, PackId, PageDigests, read_pages};

const PAGE: &str = include_str!("../../../../../../docs/formats.md");

/// The images of the page.
fn image(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..20_580usize).map(|at| (at / 512 % 11) as u8).collect();
    bytes[8192..12288].fill(0);
    if name == "delta" {
        bytes.copy_within(0..4096, 12288);
        bytes[0..4].fill(255);
        bytes[5000..5004].fill(255);
    }
    bytes
}

/// The blocks of hexadecimal digits of the page, by the word before them.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let blocks = PAGE.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("hex\n"));
    blocks
        .map(|block| {
            let (name, digits) = block.split_once('\n').unwrap();
            let digits: String = digits.split_whitespace().collect();
            (name, data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap())
        })
        .collect()
}

#[test]
fn the_documented_packs_are_read() {
    let vectors = vectors();
    assert_eq!(vectors.keys().copied().collect::<Vec<_>>(), ["delta", "digests", "full", "random"]);
    let packs: BTreeMap<&str, _> =
        ["full", "random", "delta"].into_iter().map(|name| (name, open(&vectors[name], None).unwrap())).collect();
    let objects: BTreeMap<PackId, &Vec<u8>> = packs.iter().map(|(name, pack)| (pack.id(), &vectors[name])).collect();
    let full = identify(&image("full"));
    for (name, sources) in [("full", vec![]), ("random", vec![]), ("delta", vec![packs["full"].clone()])] {
        let pack = &packs[name];
        let base = Some(&full).filter(|_| !sources.is_empty());
        assert_eq!(pack.identity(base).unwrap(), identify(&image(name)), "{name}");
        assert!(PAGE.contains(&format!("`{}`", pack.id())), "the page does not have the id {} of {name}", pack.id());
        let chain = Chain::new(pack.clone(), sources).unwrap();
        let bytes = read_pages(&chain, 0..u64::MAX, &mut |pack, range| {
            Ok(objects[&pack.id()][range.start as usize..range.end as usize].to_vec())
        });
        assert!(bytes.unwrap() == image(name), "{name}");
    }
    let digests = PageDigests::open(Box::new(vectors["digests"].clone()), full.into()).unwrap();
    assert_eq!(digests.segment(0).unwrap(), crate::snapshot::pages_of(&image("full")));
}
