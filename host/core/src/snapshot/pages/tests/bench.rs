//! Numbers, by hand: `cargo test --release -p tidelock --lib pages::tests::bench -- --ignored --nocapture --test-threads 1`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Instant;

use crate::snapshot::pages::{Base, Chain, Decoder, FileImage, Image, Options, Profile, encode_delta, encode_full};

const MIB: usize = 1 << 20;

/// Images to measure in place of generated ones, if they are there: `old` and `new`, and a folder `files`.
const GIVEN: &str = "../../target/pages";

/// Words of a small machine's memory: pointers, counters, text.
fn compressible(seed: u64, page: &mut [u8]) {
    let mut state = seed | 1;
    for (at, word) in page.chunks_mut(8).enumerate() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = match state >> 61 {
            0..3 => 0x0000_7f3a_0000_0000 | (state >> 40) & 0xfff_fff8,
            3..5 => at as u64,
            5 => u64::from_le_bytes(*b"kernel: "),
            _ => (state >> 33) & 0xffff,
        };
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

fn ram(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (number, page) in bytes.chunks_mut(4096).enumerate() {
        match (number / 16 * 7919) % 10 {
            0..4 => {}
            4..7 => compressible(number as u64, page),
            _ => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&number.to_le_bytes()).finalize_xof().fill(page);
            }
        }
    }
    bytes
}

/// Every so many pages a run of pages in which some words have changed, or of which the content is new, or another's.
fn edit(bytes: &mut [u8], percent: usize) {
    let pages = bytes.len() / 4096;
    let mut state = 12345u64;
    for _ in 0..pages * percent / 100 / 4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) as usize % (pages - 4);
        for page in at..at + 4 {
            let bytes = &mut bytes[page * 4096..(page + 1) * 4096];
            match state >> 30 & 7 {
                0 => blake3::Hasher::new().update(&(state + page as u64).to_le_bytes()).finalize_xof().fill(bytes),
                1 => compressible(state + page as u64, bytes),
                _ => {
                    (0..40).for_each(|word| bytes[(state as usize >> 7) % 500 * 8 / 40 * 40 + word] ^= (word * 7) as u8)
                }
            }
        }
    }
}

/// When it began: by the clock, and in seconds of processors.
struct Start(Instant, [f64; 2]);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), processor())
    }
}

/// Seconds that this process and the programs that it ran have spent outside of the kernel and in it.
fn processor() -> [f64; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(4);
    let fields: Vec<f64> = fields.map(|field| field.parse::<f64>().unwrap() / 100.0).collect();
    [fields[0] + fields[2], fields[1] + fields[3]]
}

fn report(what: &str, image: usize, stored: u64, start: Start) {
    let seconds = start.0.elapsed().as_secs_f64();
    let [user, system] = processor();
    let (user, system, rate) = (user - start.1[0], system - start.1[1], (image / MIB) as f64 / seconds);
    println!("{what:36} {stored:>11} bytes {seconds:>7.3} s {rate:>6.0} MiB/s; processors {user:>5.2} + {system:.2} s");
}

/// An image that takes no memory: zeros, text, noise.
struct Generated(u64);

impl Image for Generated {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> crate::types::Result<()> {
        for (page, bytes) in (offset / 4096..).zip(buffer.chunks_mut(4096)) {
            match page / 16 % 10 {
                0..4 => bytes.fill(0),
                4..7 => compressible(page, bytes),
                _ => {
                    let mut state = page | 1;
                    for word in bytes.as_chunks_mut::<8>().0 {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        *word = state.to_le_bytes();
                    }
                }
            }
        }
        Ok(())
    }
}

/// The most memory that an encoder has: the process does nothing else.
#[test]
#[ignore = "numbers"]
fn memory() {
    for gib in [1, 4] {
        let image = Generated(gib << 30);
        let start = Start::now();
        let encoded = encode_full(&image, &Options::new(Profile::Compact), Some(&mut std::io::sink()), &mut |_| Ok(()));
        let encoded = encoded.unwrap();
        report("full, generated", image.0 as usize, encoded.pack.stored(), start);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        println!("{gib} GiB: {}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
    }
}

#[test]
#[ignore = "numbers"]
fn numbers() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    if fs::copy(format!("{GIVEN}/old"), &old).and_then(|_| fs::copy(format!("{GIVEN}/new"), &new)).is_err() {
        let mut bytes = ram(512 * MIB);
        fs::write(&old, &bytes).unwrap();
        edit(&mut bytes, 2);
        fs::write(&new, &bytes).unwrap();
    }
    let open = |path: &std::path::Path| {
        let file = fs::File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        FileImage::new(file, len, path.display().to_string())
    };
    let (old_image, new_image) = (open(&old), open(&new));
    let size = old_image.size() as usize;
    let mut nothing = |_: bytes::Bytes| Ok(());

    let mut full = None;
    for (profile, frame_pages) in [
        (Profile::Compact, 512),
        (Profile::Compact, 2048),
        (Profile::Random, 16),
        (Profile::Random, 32),
        (Profile::Random, 64),
    ] {
        let start = Start::now();
        let options = Options { frame_pages, ..Options::new(profile) };
        let encoded = encode_full(&old_image, &options, None, &mut nothing).unwrap();
        report(&format!("full {profile:?}, {} KiB frames", frame_pages * 4), size, encoded.pack.stored(), start);
        full = (frame_pages == 2048).then(|| encoded.clone()).or(full);
    }
    let start = Start::now();
    let mut digests = Vec::new();
    encode_full(&old_image, &Options::new(Profile::Compact), Some(&mut digests), &mut nothing).unwrap();
    report("full, with page digests", size, digests.len() as u64, start);
    let full = full.unwrap();
    let chain = Chain::new(full.pack.clone(), Vec::new()).unwrap();
    let known = crate::snapshot::pages::PageDigests::open(Box::new(digests), full.identity.clone().into()).unwrap();
    let base = Base { chain: &chain, identity: &full.identity, image: Some(&old_image), digests: None };
    let with_digests = Base { digests: Some(&known), ..base };
    let start = Start::now();
    let ranges = crate::snapshot::pages::compare(&new_image, (&old_image, &full.identity), None, 2).unwrap();
    report("compare", size, ranges.iter().map(|range| range.end - range.start).sum(), start);
    for level in [3, 6] {
        for (what, base) in [("", &base), (", digests", &with_digests)] {
            let start = Start::now();
            let options = Options { level, ..Options::new(Profile::Compact) };
            let encoded = encode_delta(&new_image, base, None, &options, None, &mut nothing).unwrap();
            report(&format!("delta compact -{level}{what}"), size, encoded.pack.stored(), start);
            if level == 3 && what.is_empty() {
                println!("{:?}, {} runs", encoded.counts, encoded.pack.map().runs().len());
            }
        }
    }
    let start = Start::now();
    let options = Options::new(Profile::Compact);
    let encoded = encode_delta(&new_image, &with_digests, Some(&ranges), &options, None, &mut nothing).unwrap();
    report("delta compact, ranges known", size, encoded.pack.stored(), start);
    let start = Start::now();
    let encoded = encode_delta(&new_image, &base, None, &Options::new(Profile::Random), None, &mut nothing).unwrap();
    report("delta random", size, encoded.pack.stored(), start);
    restore(dir.path(), &old_image, &new_image);
    for (what, args) in [
        ("zstd -3", vec![]),
        ("zstd -3 --patch-from", vec![format!("--patch-from={}", old.display()), "--long=31".into()]),
    ] {
        let start = Start::now();
        let out = dir.path().join("out");
        let done =
            Command::new("zstd").args(["-3", "-q", "-f"]).args(args).arg(&new).arg("-o").arg(&out).status().unwrap();
        assert!(done.success());
        report(what, size, fs::metadata(&out).unwrap().len(), start);
    }
}

/// A delta and its base, decoded in one thread into a file.
fn restore(dir: &std::path::Path, old: &FileImage, new: &FileImage) {
    let options = Options::new(Profile::Compact);
    let mut objects = [Vec::new(), Vec::new()];
    let full = encode_full(old, &options, None, &mut |piece| {
        objects[1].extend_from_slice(&piece);
        Ok(())
    });
    let full = full.unwrap();
    let chain = Chain::new(full.pack.clone(), Vec::new()).unwrap();
    let base = Base { chain: &chain, identity: &full.identity, image: Some(old), digests: None };
    let delta = encode_delta(new, &base, None, &options, None, &mut |piece| {
        objects[0].extend_from_slice(&piece);
        Ok(())
    });
    let chain = Chain::new(delta.unwrap().pack, vec![full.pack]).unwrap();
    let file = fs::File::create(dir.join("restored")).unwrap();
    let start = Start::now();
    file.set_len(new.size()).unwrap();
    let (mut decoder, mut kept, mut decoding) = (Decoder::new(&chain), 0, std::time::Duration::ZERO);
    for step in chain.steps(0, u32::MAX) {
        let (_, range) = decoder.stored(&step).unwrap();
        let stored = &objects[usize::from(step.frame.source)][range.start as usize..range.end as usize];
        let began = Instant::now();
        let pages = decoder.decode(&step, stored).unwrap();
        decoding += began.elapsed();
        for placed in &step.placed {
            let bytes = &pages[placed.first as usize * 4096..][..placed.len as usize * 4096];
            file.write_all_at(bytes, u64::from(placed.page) * 4096).unwrap();
        }
        kept = kept.max(decoder.kept());
    }
    report(
        &format!("restore, {} KiB kept, {decoding:.2?} decoding", kept >> 10),
        new.size() as usize,
        objects[0].len() as u64,
        start,
    );
    assert!(fs::read(dir.join("restored")).unwrap() == fs::read(dir.join("new")).unwrap());
}

/// Each of the files that were given, beside `zstd -3`.
#[test]
#[ignore = "numbers"]
fn files() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    for path in fs::read_dir(format!("{GIVEN}/files")).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        let bytes = fs::read(&path).unwrap();
        let out = dir.path().join("out");
        let start = Start::now();
        assert!(
            Command::new("zstd").args(["-3", "-q", "-f"]).arg(&path).arg("-o").arg(&out).status().unwrap().success()
        );
        let zstd = fs::metadata(&out).unwrap().len();
        println!("{}: {} bytes", path.display(), bytes.len());
        report("zstd -3", bytes.len(), zstd, start);
        for frame_pages in [16, 32, 64, 512, 1024, 2048, 4096] {
            let profile = if frame_pages <= 64 { Profile::Random } else { Profile::Compact };
            let start = Start::now();
            let options = Options { frame_pages, ..Options::new(profile) };
            let encoded = encode_full(&bytes, &options, None, &mut |_| Ok(())).unwrap();
            let ratio = encoded.pack.stored() as f64 / zstd as f64;
            report(
                &format!("{profile:?} {} KiB: {ratio:.4}", frame_pages * 4),
                bytes.len(),
                encoded.pack.stored(),
                start,
            );
        }
    }
}
