//! Changes that a caller brings, applied to a base.
//!
//! Two forms are understood. `zstd --patch-from=BASE NEW` compresses the new image with the whole base as a prefix that
//! the decoder needs too. A sparse difference file, as Firecracker writes for a difference snapshot, has the length of
//! the base: its data replaces the base's bytes at the same place, and where it has a hole, the base stays.
//!
//! Both functions read and write files and block on them: run them where blocking is allowed. Neither checks the
//! result; its identity does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind as Io, Read, Write};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{MAGICNUMBER, get_frame_content_size};

use super::extents::next_data;
use crate::types::{Error, Result, format_bytes};

const WHAT_TO_GIVE: &str =
    "use the output of `zstd --patch-from=BASE NEW`, with exactly this base, or give --format sparse";

/// Limits of a `zstd` delta.
#[derive(Debug, Clone, Copy)]
pub struct PatchLimits {
    /// The most bytes that may come out. A small delta can claim to be a huge image.
    pub output: u64,
    /// The most memory for the decoder's window, rounded down to a power of two, at most 2 GiB. A delta made by
    /// `--patch-from` needs as much as the image is long: zstd refers back to all of it.
    pub memory: u64,
}

impl Default for PatchLimits {
    /// 64 GiB of output and the 2 GiB of window that zstd allows at most.
    fn default() -> Self {
        Self { output: 64 << 30, memory: 2 << 30 }
    }
}

/// Decodes one frame of `zstd --patch-from` output against its base and writes the new image. Gives its length.
///
/// The base must not be truncated meanwhile: it is mapped into memory, and accessing truncated bytes would be
/// a fatal signal. Use a file private to this process, not one that a user may truncate. The base is not copied to
/// memory; the window is (see [`PatchLimits::memory`]).
///
/// # Errors
/// `invalid` for a delta that is not a zstd frame, is damaged or truncated, does not match this base, has bytes after its
/// frame or exceeds a limit; errors of the reader and the writer. A delta without a checksum (`--no-check`) that
/// belongs to another base may decode to garbage, and so may a frame whose matches reach beyond its window, which no
/// encoder writes: only the identity of the result can tell.
pub fn apply_zstd(base: &File, delta: impl Read, out: &mut impl Write, limits: PatchLimits) -> Result<u64> {
    let base = map(base)?;
    let source = Watched { inner: delta, failed: None, head: Vec::new() };
    let refuse = |error| Error::io("preparing the zstd decoder", error);
    let mut decoder = Decoder::with_ref_prefix(BufReader::new(source), base.as_deref().unwrap_or_default())
        .map_err(refuse)?
        .single_frame();
    let window = limits.memory.max(1 << 10).ilog2().min(31);
    decoder.window_log_max(window).map_err(refuse)?;
    let mut buffer = vec![0; 1 << 20];
    let mut written = 0u64;
    loop {
        let some = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(some) => some,
            Err(error) if error.kind() == Io::Interrupted => continue,
            Err(error) => return Err(reason(error, decoder.get_mut().get_mut(), window)),
        };
        written += some as u64;
        if written > limits.output {
            return Err(Error::invalid(format!("the delta expands to more than the {} bytes allowed", limits.output)));
        }
        out.write_all(&buffer[..some]).map_err(|error| carried(error, "writing the patched image"))?;
    }
    let mut rest = decoder.finish();
    // zstd compares the output with the declared size, but not if the frame ends in an empty block.
    if let Ok(Some(declared)) = get_frame_content_size(&rest.get_ref().head)
        && declared != written
    {
        return Err(
            Error::invalid(format!("the delta declares {declared} bytes, but expands to {written}")).hint(WHAT_TO_GIVE)
        );
    }
    match rest.fill_buf() {
        Ok([]) => Ok(written),
        Ok(_) => Err(Error::invalid("the delta has data after the end of its zstd frame")
            .hint("use the unchanged output of `zstd --patch-from=BASE NEW`")),
        Err(error) => Err(reason(error, rest.get_mut(), window)),
    }
}

/// The base as memory; nothing for an empty file, which cannot be mapped.
fn map(base: &File) -> Result<Option<memmap2::Mmap>> {
    let fail = |error| Error::io("mapping the base", error);
    if base.metadata().map_err(fail)?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the map is read-only and lives no longer than the call that made it. Two things can go wrong with a map
    // of a file. A write to it: the slice is only passed to zstd, which keeps no references derived from the
    // contents and checks every offset against the length, so a torn read gives a wrong image, which its identity shows,
    // and nothing else. A truncation: the contract of `apply_zstd` forbids that, and the base is a private
    // file of the host. Reading instead would need as much memory as the base is long: zstd wants it in one piece.
    unsafe { memmap2::Mmap::map(base) }.map(Some).map_err(fail)
}

/// The longest header of a zstd frame (RFC 8878, section 3.1.1): magic number, descriptor, window, dictionary, size.
pub(crate) const HEAD: usize = 4 + 1 + 1 + 4 + 8;

/// Returns the bytes of memory that the decoder takes for the window of a frame with this head, as far as it says so.
/// `None` for what is not the head of a frame, which the decoder refuses.
pub(crate) fn window_of(head: &[u8]) -> Option<u64> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    let (descriptor, rest) = rest.split_first()?;
    if u32::from_le_bytes(*magic) != MAGICNUMBER {
        return None;
    }
    let whole = get_frame_content_size(head).ok().flatten();
    // A single segment: the window is the whole image.
    if descriptor & 0x20 != 0 {
        return whole;
    }
    let window = u64::from(*rest.first()?);
    let base = 1 << (10 + (window >> 3));
    let window = base + base / 8 * (window & 7);
    Some(whole.map_or(window, |whole| whole.min(window)))
}

/// A reader that keeps its own error apart from those of the decoder on top of it, and the head of its input.
///
/// It returns the first byte alone. zstd uses another decoder for a frame that is complete when its head is read, which
/// accepts damaged frames that this one rejects, and vice versa: the choice must not depend on how the delta
/// arrives.
struct Watched<R> {
    inner: R,
    failed: Option<io::Error>,
    head: Vec<u8>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = if self.head.is_empty() { buffer.len().min(1) } else { buffer.len() };
        match self.inner.read(&mut buffer[..most]) {
            Ok(some) => {
                let missing = HEAD.saturating_sub(self.head.len());
                self.head.extend(buffer.iter().take(some.min(missing)));
                Ok(some)
            }
            Err(error) => {
                let kind = error.kind();
                if kind != Io::Interrupted {
                    self.failed = Some(error);
                }
                Err(kind.into())
            }
        }
    }
}

/// Whose failure it was: the reader's, or the delta's.
fn reason<R>(error: io::Error, source: &mut Watched<R>, window: u32) -> Error {
    if let Some(failure) = source.failed.take() {
        return carried(failure, "reading the delta");
    }
    let text = error.to_string();
    if error.kind() == Io::UnexpectedEof {
        return Error::invalid("the delta is truncated").with_source(error);
    }
    if text.contains("too much memory") {
        return Error::invalid(format!("the delta needs a window of more than {}", format_bytes(1 << window)))
            .hint("allow more memory, or store the image itself")
            .with_source(error);
    }
    if text.to_lowercase().contains("unknown frame descriptor") {
        return Error::invalid("this is not a delta of zstd").hint(WHAT_TO_GIVE).with_source(error);
    }
    Error::invalid(format!("the delta does not match the base: {}", text.to_lowercase()))
        .hint(WHAT_TO_GIVE)
        .with_source(error)
}

/// An error of ours that travelled through `std::io` comes out as it went in.
fn carried(error: io::Error, what: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::io(what, error),
    }
}

/// The result of applying a sparse delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseReport {
    /// The length of the image.
    pub size: u64,
    /// The bytes that the difference replaced.
    pub changed: u64,
}

/// Writes the base, with the data of `delta` in place of its own, into `out`, an empty file.
///
/// Where the file system can share blocks, the base is shared and not copied; holes of the base stay holes.
///
/// # Errors
/// `invalid` if the two differ in length, `out` is not empty, or one is not a regular file. `unsupported` if
/// the delta's holes are known to be lost: a copy by a tool that fills holes with zeros cannot be distinguished
/// from a delta that clears everything.
pub fn apply_sparse(base: &File, delta: &File, out: &mut File) -> Result<SparseReport> {
    let size = regular(base, "the base")?.len();
    let meta = regular(delta, "the delta")?;
    if meta.len() != size {
        return Err(Error::invalid(format!(
            "the sparse delta has {} bytes, the base {size}; they must be equal",
            meta.len()
        )));
    }
    if regular(out, "the output")?.len() != 0 {
        return Err(Error::invalid("the output of a patch must be an empty file"));
    }
    let first = next_data(delta, 0, size, &"the delta")?;
    if first == Some(0..size) && meta.blocks().saturating_mul(512) < size {
        return Err(Error::unsupported("this file system does not report the holes of the delta")
            .hint("put the delta on ext4, XFS, Btrfs or tmpfs, or send the whole image"));
    }
    if rustix::fs::ioctl_ficlone(&*out, base).is_err() {
        out.set_len(size).map_err(|error| Error::io("cannot allocate the patched image", error))?;
        copy_data(base, out, size, "the base")?;
    }
    let changed = copy_data(delta, out, size, "the delta")?;
    Ok(SparseReport { size, changed })
}

fn regular(file: &File, what: &str) -> Result<std::fs::Metadata> {
    let meta = file.metadata().map_err(|error| Error::io(what, error))?;
    if meta.is_file() { Ok(meta) } else { Err(Error::invalid(format!("{what} is not a regular file"))) }
}

/// Copies every run of data to the same place, and gives the bytes copied.
fn copy_data(from: &File, to: &File, size: u64, what: &str) -> Result<u64> {
    let mut copied = 0;
    let mut at = 0;
    while let Some(run) = next_data(from, at, size, &what)? {
        copy_run(from, to, run.start, run.end, what)?;
        copied += run.end - run.start;
        at = run.end;
    }
    Ok(copied)
}

fn copy_run(from: &File, to: &File, start: u64, end: u64, what: &str) -> Result<()> {
    let (mut at, mut into) = (start, start);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut into), most) {
            Ok(0) => return Err(Error::conflict(format!("{what} was truncated while it was being read"))),
            Ok(_) | Err(Errno::INTR) => {}
            // Between some file systems the kernel does not copy.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, at, end, what);
            }
            Err(errno) => return Err(Error::io(format!("copying {what} into the patched image"), errno.into())),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64, what: &str) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 20];
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let some = match from.read_at(&mut buffer[..most], at) {
            Ok(0) => return Err(Error::conflict(format!("{what} was truncated while it was being read"))),
            Ok(some) => some,
            Err(error) if error.kind() == Io::Interrupted => continue,
            Err(error) => return Err(Error::io(format!("reading {what}"), error)),
        };
        to.write_all_at(&buffer[..some], at).map_err(|error| Error::io("writing the patched image", error))?;
        at += some as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
