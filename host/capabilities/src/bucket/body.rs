//! The body of an upload: gathered chunks, sent uncopied, and again if a part has to be repeated.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::stall::Clock;
use tidelock_types::gather::Gathered;

/// The largest piece that is handed to the connection at once; see the `http` capability.
const PIECE: usize = 256 << 10;

/// Bytes in memory that can be sent several times. Cheap to clone.
#[derive(Clone)]
pub(super) struct Payload {
    chunks: Arc<[Bytes]>,
    len: u64,
    /// The header `x-amz-checksum-crc32c`: base64 of the big-endian value.
    pub(super) crc32c: String,
}

impl Payload {
    /// Takes the gathered chunks and their checksum.
    pub(super) fn new(gathered: Gathered) -> Self {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        for chunk in &gathered.chunks {
            digest.update(chunk);
        }
        // A CRC-32 fits 32 bits.
        let crc32c = data_encoding::BASE64.encode(&(digest.finalize() as u32).to_be_bytes());
        Self { chunks: gathered.chunks.into(), len: gathered.len, crc32c }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// A body for one attempt, which winds the clock as it leaves.
    pub(super) fn stream(&self, clock: &Clock) -> ByteStream {
        let (payload, clock) = (self.clone(), clock.clone());
        ByteStream::new(SdkBody::retryable(move || {
            let left = payload.len;
            SdkBody::from_body_1_x(Sending {
                payload: payload.clone(),
                clock: clock.clone(),
                index: 0,
                offset: 0,
                left,
            })
        }))
    }
}

struct Sending {
    payload: Payload,
    clock: Clock,
    index: usize,
    offset: usize,
    left: u64,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.clock.wind();
        let this = &mut *self;
        let Some(chunk) = this.payload.chunks.get(this.index) else { return Poll::Ready(None) };
        let end = chunk.len().min(this.offset + PIECE);
        let piece = chunk.slice(this.offset..end);
        if end == chunk.len() {
            this.index += 1;
            this.offset = 0;
        } else {
            this.offset = end;
        }
        this.left = this.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock_types::Body;
    use tidelock_types::gather::Gatherer;

    #[tokio::test]
    async fn can_be_sent_twice() {
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let chunks: Vec<_> = data.chunks(300_001).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let body = Body::new(futures::stream::iter(chunks), None);
        let payload = Payload::new(Gatherer::new(body).next(u64::MAX).await.unwrap().0);
        for _ in 0..2 {
            let stream = payload.stream(&Clock::new());
            assert_eq!(stream.size_hint(), (1_000_000, Some(1_000_000)));
            assert_eq!(stream.collect().await.unwrap().to_vec(), data);
        }
    }

    /// The check value of CRC-32C (iSCSI, RFC 3720 §B.4) for "123456789" is e3069283.
    #[tokio::test]
    async fn checksums_are_crc32c() {
        let (gathered, _) = Gatherer::new(Body::from_bytes("123456789")).next(100).await.unwrap();
        assert_eq!(Payload::new(gathered).crc32c, data_encoding::BASE64.encode(&[0xe3, 0x06, 0x92, 0x83]));
    }
}
