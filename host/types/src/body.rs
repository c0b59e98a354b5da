//! Bytes on their way: a stream of chunks that either ends whole or ends in an error.
//!
//! A `Body` is the native side of `stream<u8>` plus its future. Chunks are `bytes::Bytes`, so that handing them from a
//! file to a socket copies nothing. A body with a known size checks itself: one that ends early or runs over yields an
//! error instead of an end, so that no reader can take a truncated reply for a short object.
//!
//! What looks at passing bytes is a [`Stage`]. A body keeps its stages in a list and lets each chunk through one after the
//! other, so that however many there are take no stack when it is polled or dropped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt};

use super::{Charge, Error, Result};

/// What passes: a chunk, the error that ends a body, or its end.
pub type Passing = Option<Result<Bytes>>;

/// Something that bytes pass through unchanged, one after the other. It may let them wait, and end them with an error.
pub trait Stage: Send {
    /// Takes what comes next. Not called again before that was given on.
    fn take(&mut self, passing: Passing);

    /// Gives on what was taken, or an error in its place.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Passing>;
}

/// Something on its way through the stages.
struct OnTheWay {
    /// Where it is.
    stage: usize,
    /// `None` if the stage has taken it.
    what: Option<Passing>,
}

/// A stream of bytes with an honest end. Yields no empty chunks; after an error or the end it yields nothing more.
pub struct Body {
    inner: BoxStream<'static, Result<Bytes>>,
    size: Option<u64>,
    /// The bytes that came from the stream, and those of them that were given on.
    taken: u64,
    seen: u64,
    done: bool,
    stages: Vec<Box<dyn Stage>>,
    /// The earliest first.
    on_the_way: VecDeque<OnTheWay>,
    /// The charges of the bytes that are held for it.
    held: Vec<Charge>,
}

impl Body {
    /// Bytes from a stream of chunks, with their exact number if it is known.
    pub fn new(stream: impl Stream<Item = Result<Bytes>> + Send + 'static, size: Option<u64>) -> Self {
        Self {
            inner: stream.boxed(),
            size,
            taken: 0,
            seen: 0,
            done: false,
            stages: Vec::new(),
            on_the_way: VecDeque::new(),
            held: Vec::new(),
        }
    }

    /// This body, whose bytes pass through one more stage from here on.
    #[must_use]
    pub fn through(mut self, stage: impl Stage + 'static) -> Self {
        self.stages.push(Box::new(stage));
        self
    }

    /// This body, with bytes that were read from it last back in their place. They pass only through stages that are added
    /// from here on.
    #[must_use]
    pub fn unread(mut self, bytes: Bytes) -> Self {
        let stage = self.stages.len();
        if bytes.is_empty() {
            return self;
        }
        self.seen = self.seen.saturating_sub(bytes.len() as u64);
        if std::mem::take(&mut self.done) {
            self.on_the_way.push_back(OnTheWay { stage, what: Some(None) });
        }
        self.on_the_way.push_front(OnTheWay { stage, what: Some(Some(Ok(bytes))) });
        self
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
            (Some(declared), None) => Ok(Self { size: Some(self.seen.saturating_add(declared)), ..self }),
            _ => Ok(self),
        }
    }

    /// A body for which this is held until it is dropped.
    #[must_use]
    pub fn holding(mut self, charge: Charge) -> Self {
        self.held.push(charge);
        self
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

impl Body {
    /// What the stream gives next, which is its end if it is as long as it must be.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Passing> {
        loop {
            return Poll::Ready(match ready!(self.inner.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => {
                    self.taken += chunk.len() as u64;
                    match self.size.filter(|size| self.taken > *size) {
                        Some(size) => Some(Err(Error::corrupt(format!("more than the {size} bytes announced")))),
                        None => Some(Ok(chunk)),
                    }
                }
                None => match self.size {
                    Some(size) if self.taken < size => {
                        Some(Err(Error::unavailable(format!("ended after {} of {size} bytes", self.taken))))
                    }
                    _ => None,
                },
                failed => failed,
            });
        }
    }

    /// Lets the earliest thing on its way through the stages that are left for it; `None` if nothing is on its way.
    fn poll_stages(&mut self, cx: &mut Context<'_>) -> Poll<Option<Passing>> {
        let Some(first) = self.on_the_way.front_mut() else { return Poll::Ready(None) };
        while let Some(stage) = self.stages.get_mut(first.stage) {
            if let Some(what) = first.what.take() {
                stage.take(what);
            }
            first.what = Some(ready!(stage.poll(cx)));
            first.stage += 1;
        }
        // One that has passed all stages is there.
        Poll::Ready(self.on_the_way.pop_front().and_then(|passed| passed.what))
    }
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            let passed = match ready!(self.poll_stages(cx)) {
                Some(passed) => passed,
                None => {
                    let next = ready!(self.poll_inner(cx));
                    if !self.stages.is_empty() {
                        self.on_the_way.push_back(OnTheWay { stage: 0, what: Some(next) });
                        continue;
                    }
                    next
                }
            };
            match &passed {
                Some(Ok(chunk)) => self.seen += chunk.len() as u64,
                Some(Err(_)) | None => self.done = true,
            }
            return Poll::Ready(passed);
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

    /// Adds a mark to what passes, after a pause, and fails when it meets this.
    struct Slow(Option<Passing>, bool, &'static str);

    impl Stage for Slow {
        fn take(&mut self, passing: Passing) {
            assert!(self.0.replace(passing).is_none(), "it has one already");
            self.1 = true;
        }

        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Passing> {
            if std::mem::take(&mut self.1) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let passing = self.0.take().expect("it was taken before");
            Poll::Ready(match passing {
                Some(Ok(bytes)) if bytes == self.2 => Some(Err(Error::corrupt(self.2))),
                None if self.2.is_empty() => Some(Err(Error::corrupt("no end"))),
                passing => passing,
            })
        }
    }

    #[tokio::test]
    async fn all_passes_all_stages_in_order() {
        let slow = |wrong| Slow(None, false, wrong);
        let body = |size| Body::new(iter([chunk("abc"), chunk(""), chunk("de")]), size);
        for size in [None, Some(5)] {
            let staged = || body(size).through(slow("x")).through(slow("y"));
            assert_eq!(staged().collect(100).await.unwrap(), "abcde");
            assert_eq!(
                staged().through(slow("de")).through(slow("abc")).collect(9).await.unwrap_err().to_string(),
                "abc"
            );
            let mut failed = staged().through(slow(""));
            assert_eq!((failed.next().await.unwrap().unwrap(), failed.remaining()), ("abc".into(), size.map(|_| 2)));
            failed.next().await.unwrap().unwrap();
            assert_eq!(failed.next().await.unwrap().unwrap_err().to_string(), "no end");
            assert!(failed.next().await.is_none());
        }
        let short = body(Some(6)).through(slow("x")).collect(9).await.unwrap_err();
        assert_eq!(short.to_string(), "ended after 5 of 6 bytes");
        let late = body(None).through(slow("x")).with_size(Some(4)).unwrap();
        assert!(late.collect(9).await.unwrap_err().to_string().contains("more than the 4 bytes"));
    }

    #[tokio::test]
    async fn what_was_read_can_be_put_back() {
        let slow = |wrong| Slow(None, false, wrong);
        let mut body = Body::new(iter([chunk("abc"), chunk("de")]), Some(5)).through(slow("abcd"));
        let mut read = body.next().await.unwrap().unwrap();
        assert_eq!(read.split_to(1), "a");
        body = body.unread(read).through(slow("x"));
        assert_eq!(body.remaining(), Some(4));
        assert_eq!(body.next().await.unwrap().unwrap(), "bc");
        let read = body.next().await.unwrap().unwrap();
        assert!(body.next().await.is_none());
        body = body.unread(read).unread(Bytes::new()).with_size(Some(2)).unwrap();
        assert_eq!(body.collect(9).await.unwrap(), "de");
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
