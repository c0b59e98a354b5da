//! Packs, read by a program that was written from `docs/formats.md` alone.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tidelock::snapshot::SEGMENT;
use tidelock::snapshot::pages::{
    Base, Chain, Coding, Encoded, Options, Pack, PageDigests, Profile, encode_delta, encode_full,
};
use xtask::{apt, run};

/// A pack in a file, with the page digests of its snapshot beside it.
struct Written {
    encoded: Encoded,
    path: PathBuf,
    image: Vec<u8>,
}

impl Written {
    fn digests(&self) -> PathBuf {
        self.path.with_extension("digests")
    }
}

fn full(path: &Path, image: &[u8], options: &Options) -> Written {
    let (mut object, mut digests, image) = (Vec::new(), Vec::new(), image.to_vec());
    let encoded = encode_full(&image, options, Some(&mut digests), &mut |piece| {
        object.extend_from_slice(&piece);
        Ok(())
    });
    written(path, image, encoded.unwrap(), &object, &digests)
}

fn delta(path: &Path, base: &Written, sources: Vec<Arc<Pack>>, image: &[u8], options: &Options) -> Written {
    let chain = Chain::new(base.encoded.pack.clone(), sources).unwrap();
    let known = fs::read(base.digests()).unwrap();
    let known = PageDigests::open(Box::new(known), base.encoded.identity.clone().into()).unwrap();
    let identity = &base.encoded.identity;
    let against = Base { chain: &chain, identity, image: Some(&base.image), digests: Some(&known) };
    let (mut object, mut digests, image) = (Vec::new(), Vec::new(), image.to_vec());
    let encoded = encode_delta(&image, &against, None, options, Some(&mut digests), &mut |piece| {
        object.extend_from_slice(&piece);
        Ok(())
    });
    written(path, image, encoded.unwrap(), &object, &digests)
}

fn written(path: &Path, image: Vec<u8>, encoded: Encoded, object: &[u8], digests: &[u8]) -> Written {
    let written = Written { encoded, path: path.to_owned(), image };
    fs::write(path, object).unwrap();
    fs::write(written.digests(), digests).unwrap();
    written
}

/// What the program makes of a pack and its sources: the image, and what it says.
fn read(pack: &Path, sources: &[&Path], digests: Option<&Path>) -> (bool, Vec<u8>, String) {
    let program = run::root().join("tests/fixtures/read_pack.py");
    let mut command = Command::new("python3");
    command.arg(program).arg(pack).args(sources);
    if let Some(digests) = digests {
        command.arg("--digests").arg(digests);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut image = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut image).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().success(), image, said)
}

#[track_caller]
fn is_read(written: &Written, sources: &[&Path]) {
    let (done, image, said) = read(&written.path, sources, Some(&written.digests()));
    assert!(done, "{said}");
    assert!(image == written.image, "other bytes");
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pack = &written.encoded.pack;
    assert_eq!(said.trim(), format!("{} {}", pack.id(), hex(pack.snapshot().as_bytes())));
}

/// Pages that compress, pages that do not, and zeros.
fn image(pages: usize, tail: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes: Vec<u8> = (0..pages * 4096 + tail)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match at / 4096 % 10 {
                0 | 1 => 0,
                2 | 3 => (state >> 24) as u8,
                page => (at / (page + 3) % 200) as u8,
            }
        })
        .collect();
    // Most of it is zeros: the program takes seconds for a MiB of anything else.
    let end = bytes.len().saturating_sub(30 * 4096).max(20 * 4096);
    bytes[20 * 4096..end].fill(0);
    bytes
}

#[test]
fn packs_are_read_by_a_program_that_knows_only_their_page() {
    apt::program("python3", "python3", "to read packs independently").unwrap();
    apt::program("zstd", "zstd", "to read packs independently").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = |profile, frame_pages| Options { frame_pages, ..Options::new(profile) };
    for (name, pages, tail) in [("nothing", 0, 0), ("byte", 0, 1), ("page", 1, 0), ("two", 1, 1)] {
        is_read(&full(&at(name), &vec![7; pages * 4096 + tail], &options(Profile::Random, 0)), &[]);
    }
    let compact = options(Profile::Compact, 9);
    let mut bytes = image(SEGMENT / 4096 + 3, 77);
    let first = full(&at("first"), &bytes, &options(Profile::Compact, 2));
    is_read(&first, &[]);
    is_read(&full(&at("random"), &bytes, &options(Profile::Random, 9)), &[]);
    // Three deltas, each on the one before, of which the second has prefixes in the first.
    (0..20 * 4096).step_by(7001).for_each(|at| bytes[at] ^= 0x5a);
    bytes.copy_within(4 * 4096..5 * 4096, 300 * 4096);
    let second = delta(&at("second"), &first, vec![], &bytes, &compact);
    (0..20 * 4096).step_by(9001).for_each(|at| bytes[at] ^= 0xa5);
    // No more than the program reads in a moment.
    bytes.truncate(50 * 4096 + 77);
    let third = delta(&at("third"), &second, vec![first.encoded.pack.clone()], &bytes, &compact);
    let pack = &third.encoded.pack;
    assert!(pack.depth() == 2 && pack.frames().as_slice().iter().any(|frame| frame.coding == Coding::Prefixed));
    assert!(first.encoded.pack.frames().as_slice().iter().any(|frame| frame.coding == Coding::Raw));
    bytes[5] ^= 1;
    let sources = vec![second.encoded.pack.clone(), first.encoded.pack.clone()];
    let fourth = delta(&at("fourth"), &third, sources, &bytes, &options(Profile::Random, 9));
    is_read(&second, &[&first.path]);
    is_read(&third, &[&first.path, &second.path]);
    is_read(&fourth, &[&first.path, &second.path, &third.path]);

    // The program notices what is wrong.
    let mut damaged = fs::read(&second.path).unwrap();
    damaged[40] ^= 1;
    fs::write(at("damaged"), &damaged).unwrap();
    let (done, _, said) = read(&at("damaged"), &[&first.path], None);
    assert!(!done && said.contains("digest of a frame"), "{said}");
    let (done, _, said) = read(&second.path, &[], None);
    assert!(!done && said.contains("pack"), "{said}");
}
