//! Memory of bytes that are kept.
//!
//! A [`Bytes`] that is a slice keeps the whole allocation behind it, and nothing can be asked for its size. Bytes are counted
//! by their length wherever they are kept, so whoever slices a piece out of something that a peer sent, and passes it on,
//! makes sure that the rest is no larger than the piece is worth: with [`owned_if_sparse`], at the place where the slice is
//! made.

use bytes::Bytes;

/// The most bytes behind a slice, beside its own, that are kept for it: the framing of a reply.
const SPARE: usize = 4 << 10;

/// Returns `part`, which is a slice of an allocation of `whole` bytes, in memory of its own if the allocation is more than
/// 4 KiB larger. What is returned keeps at most 4 KiB beside its length.
pub fn owned_if_sparse(part: Bytes, whole: usize) -> Bytes {
    if whole > part.len().saturating_add(SPARE) { Bytes::copy_from_slice(&part) } else { part }
}

/// The largest buffer that hyper reads a connection of HTTP/1 into, by default.
const READ_BUFFER: usize = 408 << 10;
/// Chunks of at least this keep three times their length at most.
const LARGE: usize = 128 << 10;

/// Returns a chunk of a connection of HTTP, in memory of its own unless it is large: it is a slice of the buffer that it was
/// read into, of which a peer decides how much it fills each time.
pub fn owned_if_sparse_of_http(chunk: Bytes) -> Bytes {
    if chunk.len() >= LARGE { chunk } else { owned_if_sparse(chunk, READ_BUFFER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_connections_keep_no_large_buffer() {
        for (len, copied) in [(1, true), (16 << 10, true), (LARGE - 1, true), (LARGE, false), (READ_BUFFER, false)] {
            let chunk = Bytes::from(vec![7; READ_BUFFER]).slice(..len);
            let owned = owned_if_sparse_of_http(chunk.clone());
            assert_eq!(owned, chunk);
            assert_eq!(owned.as_ptr() != chunk.as_ptr(), copied, "{len}");
        }
    }

    #[test]
    fn only_what_is_large_beside_its_slice_is_copied() {
        let whole = Bytes::from(vec![7; 100_000]);
        for (len, copied) in
            [(0, true), (16 << 10, true), (100_000 - SPARE - 1, true), (100_000 - SPARE, false), (100_000, false)]
        {
            let part = whole.slice(..len);
            let owned = owned_if_sparse(part.clone(), whole.len());
            assert_eq!(owned, part);
            assert_eq!(owned.as_ptr() != part.as_ptr(), copied, "{len}");
        }
    }
}
