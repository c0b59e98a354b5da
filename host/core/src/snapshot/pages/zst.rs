//! Single zstd frames of known length, compressed and decoded in one piece.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, ResetDirective, compress_bound, find_frame_compressed_size, get_error_name,
    get_frame_content_size,
};

use super::layout::damaged;
use crate::types::{Error, Result};

/// The window of a frame with its prefix: what a decoder may need at most.
const MOST_WINDOW: u32 = 26;

/// Decodes one frame of exactly `len` bytes into `out`, in place of what it has. Allocates no more than that, whatever the
/// frame says.
///
/// # Errors
/// `corrupt` for anything else.
pub(super) fn decode(frame: &[u8], prefix: &[u8], len: usize, out: &mut Vec<u8>) -> Result<()> {
    let content = get_frame_content_size(frame).ok().flatten();
    if find_frame_compressed_size(frame) != Ok(frame.len()) || content != Some(len as u64) {
        return Err(damaged("a compressed part of the pack is not what it should be"));
    }
    out.clear();
    out.try_reserve_exact(len).map_err(|error| Error::unavailable("not enough memory").with_source(error))?;
    let mut context = DCtx::try_create().ok_or_else(no_memory)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(failed)?;
    }
    match context.decompress(out, frame) {
        Ok(decoded) if decoded == len => Ok(()),
        Ok(_) => Err(damaged("a compressed part of the pack has another length than it says")),
        Err(code) => Err(damaged(format!("a compressed part of the pack is damaged: {}", get_error_name(code)))),
    }
}

/// Compresses frames without prefix, and keeps its tables in between.
pub(super) struct Compressor(CCtx<'static>);

impl Compressor {
    /// # Errors
    /// `unavailable` without memory.
    pub(super) fn new() -> Result<Self> {
        CCtx::try_create().map(Self).ok_or_else(no_memory)
    }

    /// One frame of `bytes`.
    ///
    /// # Errors
    /// `other` if zstd refuses.
    pub(super) fn compress(&mut self, bytes: &[u8], level: i32) -> Result<Vec<u8>> {
        self.0.reset(ResetDirective::SessionAndParameters).map_err(failed)?;
        set(&mut self.0, bytes.len(), level)?;
        run(&mut self.0, bytes)
    }
}

/// One frame of `bytes` that needs `prefix` to be decoded. Finds what the two have in common however far it is apart.
///
/// # Errors
/// `other` if zstd refuses.
pub(super) fn compress_with(prefix: &[u8], bytes: &[u8], level: i32) -> Result<Vec<u8>> {
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    set(&mut context, prefix.len() + bytes.len(), level)?;
    context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(failed)?;
    context.ref_prefix(prefix).map_err(failed)?;
    run(&mut context, bytes)
}

/// The level, and a window over `reach` bytes.
fn set(context: &mut CCtx<'_>, reach: usize, level: i32) -> Result<()> {
    let window = (reach.max(2) - 1).ilog2() + 1;
    for parameter in [CParameter::CompressionLevel(level), CParameter::WindowLog(window.clamp(10, MOST_WINDOW))] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    Ok(())
}

fn run(context: &mut CCtx<'_>, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).map_err(failed)?;
    // It may be kept for a while, and was made for the worst case.
    out.shrink_to_fit();
    Ok(out)
}

fn failed(code: ErrorCode) -> Error {
    Error::other(format!("zstd: {}", get_error_name(code)))
}

fn no_memory() -> Error {
    Error::unavailable("not enough memory for zstd")
}
