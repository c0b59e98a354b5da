//! Bytes on their way: a stream of chunks that either ends whole or ends in an error.
//!
//! A `Body` is the native side of `stream<u8>` plus its future. Chunks are `bytes::Bytes`, so that handing them from a
//! file to a socket copies nothing. A body with a known size checks itself: one that ends early or runs over yields an
//! error instead of an end, so that no reader can take a truncated reply for a short object.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt};

use super::{Charge, Error, Result};

/// A stream of bytes with an honest end. Yields no empty chunks; after an error or the end it yields nothing more.
pub struct Body {
    inner: BoxStream<'static, Result<Bytes>>,
    size: Option<u64>,
    seen: u64,
    done: bool,
    /// The charge of the bytes that are held for it.
    held: Option<Charge>,
}

impl Body {
    /// Bytes from a stream of chunks, with their exact number if it is known.
    pub fn new(stream: impl Stream<Item = Result<Bytes>> + Send + 'static, size: Option<u64>) -> Self {
        Self { inner: stream.boxed(), size, seen: 0, done: false, held: None }
    }

    /// Bytes that are in memory already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        Self::new(futures::stream::iter([Ok(bytes)]), Some(size))
    }

    /// The bytes still to come, if their number is known.
    pub fn remaining(&self) -> Option<u64> {
        self.size.map(|size| size.saturating_sub(self.seen))
    }

    /// Returns this body with a declared size. If its own size is not known, it fails at its end if it differs.
    ///
    /// # Errors
    /// `invalid` if its size is known and differs.
    pub fn with_size(self, declared: Option<u64>) -> Result<Self> {
        match (declared, self.remaining()) {
            (Some(declared), Some(known)) if declared != known => {
                Err(Error::invalid(format!("a size of {declared} bytes for a body of {known}")))
            }
            (Some(_), None) => Ok(Self::new(self, declared)),
            _ => Ok(self),
        }
    }

    /// A body for which this is held until it is dropped.
    #[must_use]
    pub fn holding(mut self, charge: Charge) -> Self {
        if self.held.is_none() {
            self.held = Some(charge);
            return self;
        }
        let size = self.remaining();
        Self { held: Some(charge), ..Self::new(self, size) }
    }

    /// Several bodies one after the other.
    pub fn concat(parts: Vec<Body>) -> Self {
        let size = parts.iter().map(Body::remaining).sum::<Option<u64>>();
        Self::new(futures::stream::iter(parts).flatten(), size)
    }

    /// Everything, in memory.
    ///
    /// # Errors
    /// The error that the body ends with; `invalid` if there are more than `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            if all.is_empty() && self.remaining() == Some(0) && chunk.len() <= limit {
                // Let the stream reach its end.
                return match self.next().await {
                    None => Ok(chunk),
                    Some(Err(error)) => Err(error),
                    Some(Ok(_)) => Err(Error::corrupt("a body exceeded its size")),
                };
            }
            if all.len() + chunk.len() > limit {
                return Err(Error::invalid(format!("more than the {limit} bytes allowed")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Cuts every chunk, so that none has more than `most` bytes.
    #[must_use]
    pub fn chunks_of_at_most(self, most: usize) -> Self {
        let size = self.remaining();
        let most = most.max(1);
        let stream = self.flat_map(move |chunk| {
            let mut left = Some(chunk);
            futures::stream::iter(std::iter::from_fn(move || match left.take()? {
                Ok(mut bytes) => {
                    let head = bytes.split_to(most.min(bytes.len()));
                    if !bytes.is_empty() {
                        left = Some(Ok(bytes));
                    }
                    Some(Ok(head))
                }
                Err(error) => Some(Err(error)),
            }))
        });
        Self::new(stream, size)
    }
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.inner.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => {
                    self.seen += chunk.len() as u64;
                    if let Some(size) = self.size.filter(|size| self.seen > *size) {
                        self.done = true;
                        return Poll::Ready(Some(Err(Error::corrupt(format!("more than the {size} bytes announced")))));
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.done = true;
                    let seen = self.seen;
                    return Poll::Ready(match self.size {
                        Some(size) if seen < size => {
                            Some(Err(Error::unavailable(format!("ended after {seen} of {size} bytes"))))
                        }
                        _ => None,
                    });
                }
            }
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("size", &self.size).field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream::iter;

    fn chunk(text: &'static str) -> Result<Bytes> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn an_early_end_is_an_error() {
        let error = Body::new(iter([chunk("abc")]), Some(4)).collect(100).await.unwrap_err();
        assert_eq!(error.to_string(), "ended after 3 of 4 bytes");
        let error = Body::new(iter([]), Some(1)).collect(100).await.unwrap_err();
        assert_eq!(error.to_string(), "ended after 0 of 1 bytes");
    }

    #[tokio::test]
    async fn running_over_is_an_error() {
        assert!(Body::new(iter([chunk("abc"), chunk("d")]), Some(3)).collect(100).await.is_err());
        assert!(Body::new(iter([chunk("abcd")]), Some(3)).collect(100).await.is_err());
    }

    #[tokio::test]
    async fn an_error_after_the_last_byte_counts() {
        let body = Body::new(iter([chunk("abc"), Err(Error::corrupt("x"))]), Some(3));
        assert_eq!(body.collect(100).await.unwrap_err().to_string(), "x");
    }

    #[tokio::test]
    async fn parts_follow_each_other_and_chunks_are_cut() {
        let parts = vec![Body::from_bytes("abc"), Body::from_bytes(""), Body::from_bytes("defgh")];
        let mut body = Body::concat(parts).chunks_of_at_most(2);
        assert_eq!(body.remaining(), Some(8));
        let mut seen = Vec::new();
        while let Some(chunk) = body.next().await {
            seen.push(String::from_utf8(chunk.unwrap().to_vec()).unwrap());
        }
        assert_eq!(seen, ["ab", "c", "de", "fg", "h"]);
    }

    #[tokio::test]
    async fn collecting_is_bounded() {
        assert!(Body::from_bytes("abcdef").collect(5).await.is_err());
        assert_eq!(Body::from_bytes("abcdef").collect(6).await.unwrap(), "abcdef");
    }
}
