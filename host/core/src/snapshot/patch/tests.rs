//! Deltas made by the real `zstd` and by real holes.

use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::super::testing::pattern;
use super::*;

/// A base, a new image and the delta that the installed `zstd` makes of them; nothing if it is not installed.
struct Made {
    directory: tempfile::TempDir,
    new: Vec<u8>,
}

impl Made {
    fn by(base: &[u8], new: &[u8], options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        std::fs::write(at("base"), base).unwrap();
        std::fs::write(at("new"), new).unwrap();
        let run = Command::new("zstd")
            .args(options)
            .arg("-q")
            .arg(format!("--patch-from={}", at("base").display()))
            .args([at("new").as_os_str(), "-o".as_ref(), at("delta").as_os_str()])
            .output();
        match run {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Some(Self { new: new.to_vec(), directory })
            }
            Err(error) => {
                eprintln!("SKIPPED: `zstd` cannot be run ({error}): install it to test against it");
                None
            }
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn apply(&self, limits: PatchLimits) -> Result<Vec<u8>> {
        apply(&self.path("base"), &std::fs::read(self.path("delta")).unwrap(), limits)
    }
}

fn apply(base: &Path, delta: &[u8], limits: PatchLimits) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let size = apply_zstd(&File::open(base).unwrap(), delta, &mut out, limits)?;
    assert_eq!(size, out.len() as u64);
    Ok(out)
}

/// A base without structure, and a version of it with changes, an insertion and a tail.
fn images() -> (Vec<u8>, Vec<u8>) {
    let mut base = vec![0; 3 << 20];
    blake3::Hasher::new().update(b"base").finalize_xof().fill(&mut base);
    let mut new = base.clone();
    new[100_000..100_050].fill(7);
    new.splice(2_000_000..2_000_000, pattern(333));
    new.extend(pattern(5000));
    (base, new)
}

#[test]
fn patches_of_the_real_tool_are_applied() {
    let (base, new) = images();
    for options in [&[][..], &["--no-check"], &["-19"], &["--long=27"], &["--no-content-size"]] {
        let Some(made) = Made::by(&base, &new, options) else { return };
        let delta = std::fs::metadata(made.path("delta")).unwrap().len();
        assert!(delta < 20_000, "the delta has {delta} bytes: it does not refer to the base");
        assert!(made.apply(PatchLimits::default()).unwrap() == made.new, "{options:?}");
    }
}

#[test]
fn empty_images_are_images() {
    // The tool makes no patch from or to an empty file: to a decoder, either is a frame that does not use the prefix.
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    for (old, new) in [(&b""[..], &b"something"[..]), (b"something", b""), (b"", b"")] {
        std::fs::write(&base, old).unwrap();
        let frame = zstd::encode_all(new, 3).unwrap();
        assert_eq!(apply(&base, &frame, PatchLimits::default()).unwrap(), new);
    }
}

#[test]
fn another_base_is_refused() {
    let (base, new) = images();
    let Some(made) = Made::by(&base, &new, &[]) else { return };
    let mut other = base;
    other.iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(made.path("base"), &other).unwrap();
    let error = made.apply(PatchLimits::default()).err().unwrap();
    assert_eq!(error.kind().name(), "invalid");
    assert!(error.to_string().starts_with("the delta does not match"), "{error}");
    // Too short to refer to.
    std::fs::write(made.path("base"), b"short").unwrap();
    assert_eq!(made.apply(PatchLimits::default()).err().unwrap().kind().name(), "invalid");
}

#[test]
fn damaged_deltas_are_invalid() {
    let (base, new) = images();
    let Some(made) = Made::by(&base, &new, &[]) else { return };
    let delta = std::fs::read(made.path("delta")).unwrap();
    let reason = |delta: &[u8]| {
        let Err(error) = apply(&made.path("base"), delta, PatchLimits::default()) else { panic!("it was applied") };
        assert_eq!(error.kind().name(), "invalid", "{error}");
        error.to_string()
    };
    assert_eq!(reason(&delta[..delta.len() - 1]), "the delta is truncated");
    assert_eq!(reason(&delta[..5]), "the delta is truncated");
    assert_eq!(reason(b""), "the delta is truncated");
    assert_eq!(reason(b"this is no delta at all"), "this is not a delta of zstd");
    assert_eq!(reason(&[&delta[..], b"x"].concat()), "the delta has data after the end of its zstd frame");
    for at in [0, delta.len() / 2, delta.len() - 2] {
        let mut flipped = delta.clone();
        flipped[at] ^= 0x10;
        reason(&flipped);
    }
}

/// Of the damaged frames, zstd itself takes the first when it arrives in pieces and the second when it arrives at once.
#[test]
fn a_frame_is_taken_or_not_however_it_arrives() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    std::fs::write(&base, b"base").unwrap();
    // Magic number, a single segment of this size, a last block: 5 raw bytes, none, or one repeated never (RFC 8878,
    // section 3.1.1).
    let whole = b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello";
    let empty = b"\x28\xb5\x2f\xfd\x20\x05\x01\0\0";
    let never = b"\x28\xb5\x2f\xfd\x22\0\0\0\x03\0\0\0";
    for (frame, made) in [(&whole[..], Ok(5)), (&empty[..], Err("invalid")), (&never[..], Err("invalid"))] {
        for piece in [1, 3, 7, frame.len()] {
            let pieces = frame
                .chunks(piece)
                .fold(Box::new(io::empty()) as Box<dyn Read>, |so_far, piece| Box::new(so_far.chain(piece)));
            let outcome = apply_zstd(&File::open(&base).unwrap(), pieces, &mut Vec::new(), PatchLimits::default());
            assert_eq!(outcome.map_err(|error| error.kind().name()), made, "in pieces of {piece}");
        }
    }
}

#[test]
fn a_bomb_is_stopped() {
    let Some(made) = Made::by(b"base", &vec![0; 64 << 20], &[]) else { return };
    assert!(std::fs::metadata(made.path("delta")).unwrap().len() < 10_000);
    let limit = |output| made.apply(PatchLimits { output, ..PatchLimits::default() });
    assert_eq!(limit((64 << 20) - 1).err().unwrap().kind().name(), "invalid");
    assert_eq!(limit(64 << 20).unwrap().len(), 64 << 20);
}

#[test]
fn the_window_is_bounded() {
    let (base, new) = images();
    let Some(made) = Made::by(&base, &new, &[]) else { return };
    let error = made.apply(PatchLimits { memory: 1 << 20, ..PatchLimits::default() }).unwrap_err();
    assert_eq!(error.to_string(), "the delta needs a window of more than 1 MiB");
}

#[test]
fn failures_of_reader_and_writer_keep_their_name() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other(Error::unavailable("unplugged").on_backend("cloud")))
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(28))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let base = tempfile::tempfile().unwrap();
    let error = apply_zstd(&base, Broken, &mut Vec::new(), PatchLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "backend `cloud`: unplugged");
    let frame = zstd::encode_all(&pattern(100)[..], 3).unwrap();
    let error = apply_zstd(&base, &frame[..], &mut Full, PatchLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "writing the patched image: no space left on device");
}

/// A file of this length with this data at these places.
fn sparse(len: u64, data: &[(u64, &[u8])]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    data.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    file
}

fn read(file: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn data_replaces_and_holes_keep() {
    let len = (4 << 20) + 4096;
    let content = pattern(1 << 20);
    let mut base = sparse(len, &[(0, &content), (2 << 20, &content)]);
    let changed = vec![0xa5; 8192];
    // Zeros that were written are data: they clear.
    let zeros = vec![0; 4096];
    let delta = sparse(len, &[(4096, &changed), (65_536, &zeros), (3 << 20, &changed), (len - 4096, &zeros)]);
    let mut out = tempfile::tempfile().unwrap();
    let report = apply_sparse(&base, &delta, &mut out).unwrap();
    assert_eq!(report, SparseReport { size: len, changed: 8192 + 4096 + 8192 + 4096 });
    let mut expected = read(&mut base);
    expected[4096..4096 + 8192].fill(0xa5);
    expected[65_536..65_536 + 4096].fill(0);
    expected[3 << 20..(3 << 20) + 8192].fill(0xa5);
    assert!(read(&mut out) == expected);
    // The base has 2 MiB of data and the delta 12 KiB beside it.
    assert!(out.metadata().unwrap().blocks() * 512 < 3 << 20, "the holes of the base were filled");
}

#[test]
fn a_difference_of_nothing_is_the_base() {
    let mut base = sparse(1 << 20, &[(0, &pattern(10_000))]);
    let mut out = tempfile::tempfile().unwrap();
    let report = apply_sparse(&base, &sparse(1 << 20, &[]), &mut out).unwrap();
    assert_eq!(report.changed, 0);
    assert!(read(&mut out) == read(&mut base));
    let (base, delta, mut out) = (sparse(0, &[]), sparse(0, &[]), tempfile::tempfile().unwrap());
    assert_eq!(apply_sparse(&base, &delta, &mut out).unwrap(), SparseReport { size: 0, changed: 0 });
}

#[test]
fn what_does_not_fit_is_invalid() {
    let base = sparse(8192, &[]);
    let error = apply_sparse(&base, &sparse(4096, &[]), &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert_eq!(error.kind().name(), "invalid");
    assert!(error.to_string().contains("4096 bytes, the base 8192"), "{error}");
    let mut used = sparse(1, &[]);
    assert!(apply_sparse(&base, &sparse(8192, &[]), &mut used).is_err());
    let device = File::open("/dev/zero").unwrap();
    assert!(apply_sparse(&base, &device, &mut tempfile::tempfile().unwrap()).is_err());
}

#[test]
fn copying_by_hand_does_the_same() {
    let from = sparse(3 << 20, &[(0, &pattern(3 << 20))]);
    let mut to = sparse(3 << 20, &[]);
    copy_by_hand(&from, &to, 4097, (2 << 20) + 5, "it").unwrap();
    let all = read(&mut to);
    assert!(all[4097..(2 << 20) + 5] == pattern(3 << 20)[4097..(2 << 20) + 5]);
    assert!(all[..4097].iter().chain(&all[(2 << 20) + 5..]).all(|byte| *byte == 0));
    assert!(copy_by_hand(&from, &to, 0, (3 << 20) + 1, "it").is_err());
}

#[test]
fn the_head_of_a_frame_tells_its_window() {
    let frame = |descriptor: u8, rest: &[u8]| [&[0x28, 0xB5, 0x2F, 0xFD, descriptor], rest].concat();
    // A window of 2^(10 + 20), and one of one eighth more.
    assert_eq!(window_of(&frame(0, &[20 << 3])), Some(1 << 30));
    assert_eq!(window_of(&frame(0, &[20 << 3 | 1])), Some((1 << 30) + (1 << 27)));
    // The largest that can be written, in 41 bits and seven eighths more.
    assert_eq!(window_of(&frame(0, &[0xFF])), Some((1 << 41) / 8 * 15));
    // A length that is less, and one segment of it: that is all that the decoder takes.
    assert_eq!(window_of(&frame(0x80, &[20 << 3, 0, 1, 0, 0])), Some(256));
    assert_eq!(window_of(&frame(0xA0, &[0, 1, 0, 0])), Some(256));
    for none in [&b""[..], b"not a frame at all", &frame(0, &[]), &frame(0, &[])[..4], &[0x50, 0x2A, 0x4D, 0x18, 0, 0]]
    {
        assert_eq!(window_of(none), None, "{none:?}");
    }
}
