//! Any bytes as a delta to an image: the result is exactly as the format defines, or there is an error.
//!
//! The first byte selects the format, the second the length of the base.
//!
//! | letter | the base | the rest |
//! | --- | --- | --- |
//! | `z` | units of 16 bytes at the head of the rest | a delta of `zstd --patch-from` |
//! | `r` | the same | a new image: it is compressed against the base, and must come back |
//! | `s` | units of 300 bytes, generated | pieces of a sparse delta: offset (units of 300 bytes), content (three times) |
//!
//! Files are in memory, where the kernel keeps track of holes page by page.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use tidelock::ErrorKind;
use tidelock::snapshot::{Identifier, PatchLimits, apply_sparse, apply_zstd, identify_file};
use tokio::runtime::{Builder, Runtime};

use crate::one_line;

/// The granularity of holes.
const PAGE: usize = 4096;
/// What places and lengths of a sparse difference are counted in: no part of a page, so that pieces lie across borders.
const UNIT: usize = 300;
/// What a delta may cost here.
const LIMITS: PatchLimits = PatchLimits { output: 1 << 20, memory: 1 << 20 };

/// Applies the change, and compares with another way to the same end.
pub fn run(data: &[u8]) {
    let [format, units, rest @ ..] = data else { return };
    let units = usize::from(*units);
    let (base, rest_of) = rest.split_at(rest.len().min(units * 16));
    match format {
        b'z' => drop(patched(base, rest_of)),
        b'r' => assert!(patched(base, &compressed(base, rest_of)).as_deref() == Some(rest_of), "a patch that was lost"),
        b's' => sparse(&(0..units * UNIT).map(|at| (at % 251) as u8 + 1).collect::<Vec<u8>>(), rest),
        _ => {}
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("room in memory");
    file
}

fn refused(error: &tidelock::Error) {
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error:?}");
    one_line::check_error(error, 1024);
}

/// What a zstd delta makes of a base, if it fits. Whether it is read at once or in drops makes no difference.
fn patched(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let base_file = file(base);
    let mut out = Vec::new();
    let outcome = apply_zstd(&base_file, delta, &mut out, LIMITS);
    assert!(out.len() as u64 <= LIMITS.output, "more than allowed");
    let mut slow = Vec::new();
    let again = apply_zstd(&base_file, Drops(Cursor::new(delta)), &mut slow, LIMITS);
    assert_eq!(outcome.is_ok(), again.is_ok(), "{outcome:?} at once, {again:?} in drops");
    match outcome {
        Ok(size) => {
            assert_eq!(size, out.len() as u64);
            assert!(out == slow, "other bytes in drops");
            if size <= window(delta) {
                assert!(decoded(base, delta).as_deref() == Some(&out[..]), "other bytes from the library itself");
            }
            Some(out)
        }
        Err(error) => {
            refused(&error);
            None
        }
    }
}

/// The bytes behind a place that a match in this frame may reach (RFC 8878, section 3.1.1.1.2). zstd does not refuse one that
/// reaches further: a decoder of streams has other bytes there by then than one that keeps the whole output.
fn window(frame: &[u8]) -> u64 {
    match frame {
        // A single segment: as long as the output.
        [_, _, _, _, descriptor, ..] if descriptor & 0x20 != 0 => u64::MAX,
        [_, _, _, _, _, window, ..] => {
            let base = 1 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        _ => 0,
    }
}

/// What zstd's function for a whole frame makes of it.
fn decoded(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut context = zstd::zstd_safe::DCtx::create();
    context.ref_prefix(base).ok()?;
    let mut out = Vec::with_capacity(LIMITS.output as usize);
    context.decompress(&mut out, delta).ok()?;
    Some(out)
}

fn compressed(base: &[u8], new: &[u8]) -> Vec<u8> {
    let mut context = zstd::zstd_safe::CCtx::create();
    context.ref_prefix(base).expect("a prefix");
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(new.len()));
    context.compress2(&mut out, new).expect("room for it");
    out
}

/// A few bytes at a time.
struct Drops<R>(R);

impl<R: Read> Read for Drops<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(3);
        self.0.read(&mut buffer[..most])
    }
}

fn sparse(base: &[u8], pieces: &[u8]) {
    let delta = file(&[]);
    // One in 8 is of another length than the base, and to be refused.
    let differs = pieces.first().is_some_and(|first| first % 8 == 7);
    delta.set_len(base.len() as u64 + u64::from(differs)).expect("room in memory");
    let mut difference = vec![None; base.len().div_ceil(PAGE)];
    for piece in pieces.chunks_exact(2) {
        let at = usize::from(piece[0]) * UNIT;
        for at in at..base.len().min(at + 3) {
            delta.write_all_at(&piece[1..], at as u64).expect("room in memory");
            difference[at / PAGE].get_or_insert([0; PAGE])[at % PAGE] = piece[1];
        }
    }
    let mut expected = base.to_vec();
    let mut changed = 0;
    for (page, new) in difference.iter().enumerate() {
        let Some(new) = new else { continue };
        let old = expected[page * PAGE..].chunks_mut(PAGE).next().expect("a page of the base");
        old.copy_from_slice(&new[..old.len()]);
        changed += old.len() as u64;
    }
    let mut out = file(&[]);
    match apply_sparse(&file(base), &delta, &mut out) {
        Ok(report) => {
            assert!(!differs, "lengths that differ");
            assert_eq!((report.size, report.changed), (base.len() as u64, changed));
            let mut bytes = vec![0; base.len()];
            out.read_exact_at(&mut bytes, 0).expect("as many bytes as the base has");
            assert!(bytes == expected, "other bytes than base and difference have");
            same_identity(&out, &bytes);
        }
        Err(error) => {
            refused(&error);
            assert!(differs, "a difference that fits: {error:?}");
        }
    }
}

/// A file with holes is what its bytes are.
fn same_identity(file: &File, bytes: &[u8]) {
    thread_local!(static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime"));
    let mut identifier = Identifier::new();
    bytes.chunks(1000).for_each(|chunk| identifier.update(chunk));
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let from_file = RUNTIME.with(|runtime| runtime.block_on(identify_file(path, None))).expect("an identity");
    assert_eq!(from_file.id(), identifier.finish().id(), "two ids for the same bytes");
}
