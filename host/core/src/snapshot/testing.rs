//! Bytes for tests, and reading bodies.

use futures::StreamExt as _;

use crate::types::{Body, Error};

/// Byte i is the top byte of the lower 32 bits of i × 2654435761: the pattern of `docs/formats.md`. No page or segment
/// is like another.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i.wrapping_mul(2_654_435_761) as u32) >> 24) as u8).collect()
}

/// The bytes of a body, and how it ended.
pub(super) async fn drain(mut body: Body) -> (Vec<u8>, Option<Error>) {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}
