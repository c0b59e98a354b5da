//! Opening an object, or a part of it, at any byte, through adapters that read ranges and through those that do not.

use std::sync::Arc;

use futures::StreamExt as _;

use crate::Adapter;
use tidelock_types::{Body, ByteRange, Error, ObjectId, Result, owned_if_sparse};

/// The object, or the part of one, that is read.
pub(super) struct Part {
    id: ObjectId,
    range: Option<ByteRange>,
}

impl Part {
    pub(super) fn new(id: ObjectId, range: Option<ByteRange>) -> Self {
        Self { id, range }
    }

    /// Returns whether there is nothing to read, whatever the object is.
    pub(super) fn is_empty(&self) -> bool {
        self.range.is_some_and(|range| range.end == Some(range.start))
    }

    /// Opens it after its first `given` bytes. `size` is how many it has in all, if that is known.
    ///
    /// # Errors
    /// As [`Adapter::retrieve`]; `invalid` for a range that begins past the end.
    pub(super) async fn open(&self, adapter: &Arc<Adapter>, given: u64, size: Option<u64>) -> Result<Body> {
        if given == 0 {
            return match self.range {
                Some(range) if !adapter.description().features.ranges => {
                    clip(adapter.retrieve(&self.id, None).await?, range)
                }
                range => adapter.retrieve(&self.id, range).await,
            };
        }
        // Where the rest ends has to be known: backends refuse a range that begins at the end.
        let size = match size {
            Some(size) => size,
            None => self.range.unwrap_or_default().within(adapter.stat(&self.id).await?.size)?.1,
        };
        match self.rest(given, size) {
            None => Ok(Body::from_bytes("")),
            Some(rest) if adapter.description().features.ranges => adapter.retrieve(&self.id, Some(rest)).await,
            Some(rest) => clip(adapter.retrieve(&self.id, None).await?, rest),
        }
    }

    /// Returns what is left of its `size` bytes after `given` of them; `None` if nothing is.
    fn rest(&self, given: u64, size: u64) -> Option<ByteRange> {
        let left = size.checked_sub(given).filter(|left| *left > 0)?;
        let start = self.range.unwrap_or_default().start.checked_add(given)?;
        Some(ByteRange::of(start, left))
    }
}

/// The part of a body that lies within a range. What comes after it is not read.
///
/// # Errors
/// `invalid` for a range that begins past the end; the body ends in it if its size is not known.
fn clip(body: Body, range: ByteRange) -> Result<Body> {
    let len = body.remaining().map(|size| range.within(size).map(|(_, len)| len)).transpose()?;
    let left = len.or(range.end.map(|end| end.saturating_sub(range.start))).unwrap_or(u64::MAX);
    let parts = futures::stream::unfold((body, range.start, left), move |(mut body, mut skip, left)| async move {
        if left == 0 {
            return None;
        }
        loop {
            let mut chunk = match body.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Some((Err(error), (body, 0, 0))),
                None if skip > 0 => {
                    let error = Error::invalid(format!("the range {range} begins past the end"));
                    return Some((Err(error), (body, 0, 0)));
                }
                None => return None,
            };
            let whole = chunk.len();
            let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= drop as u64;
            let mut chunk = chunk.split_off(drop);
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
            if !chunk.is_empty() {
                let taken = chunk.len() as u64;
                return Some((Ok(owned_if_sparse(chunk, whole)), (body, skip, left - taken)));
            }
        }
    });
    Ok(Body::new(parts, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn the_rest_is_counted_from_the_start_of_the_range() {
        let rest = |range: Option<ByteRange>, given, size| {
            Part::new(ObjectId::new("x").unwrap(), range).rest(given, size).map(|rest| (rest.start, rest.end))
        };
        let range = |start, end| Some(ByteRange { start, end });
        assert_eq!(rest(None, 4, 10), Some((4, Some(10))));
        assert_eq!(rest(None, 10, 10), None);
        assert_eq!(rest(None, 11, 10), None);
        assert_eq!(rest(range(2, Some(8)), 5, 6), Some((7, Some(8))));
        assert_eq!(rest(range(2, None), 8, 8), None);
        assert_eq!(rest(range(u64::MAX, None), 1, 2), None);
    }

    #[test]
    fn only_a_range_without_bytes_is_empty() {
        let part = |range| Part::new(ObjectId::new("x").unwrap(), range);
        assert!(part(Some(ByteRange::of(3, 0))).is_empty());
        for range in [None, Some(ByteRange::default()), Some(ByteRange::of(3, 1)), "3..".parse().ok()] {
            assert!(!part(range).is_empty(), "{range:?}");
        }
    }

    fn collected(body: Body) -> Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(body.collect(1000)).map(|bytes| bytes.to_vec())
    }

    proptest! {
        #[test]
        fn a_part_is_clipped_from_any_chunks(
            start in 0u64..140,
            end in proptest::option::of(0u64..140),
            chunk in 1usize..20,
            sized: bool,
        ) {
            let bytes: Vec<u8> = (0..120).collect();
            let range = ByteRange { start, end: end.map(|end| end.max(start)) };
            let chunks: Vec<_> = bytes.chunks(chunk).map(|chunk| Ok(chunk.to_vec().into())).collect();
            let body = Body::new(futures::stream::iter(chunks), sized.then_some(120));
            let found = clip(body, range).and_then(collected);
            match range.within(120) {
                Ok((start, len)) => {
                    let (start, len) = (start as usize, len as usize);
                    prop_assert_eq!(&found.unwrap()[..], &bytes[start..start + len]);
                }
                Err(_) if range.end == Some(start) && !sized => prop_assert!(found.unwrap().is_empty()),
                Err(_) => {
                    let error = found.unwrap_err();
                    prop_assert_eq!(error.kind(), &ErrorKind::Invalid);
                }
            }
        }
    }
}
