//! Reading: one stream from the server, with an honest end.
//!
//! Ranges read in parallel and put in order were tried (8 and 16 MiB, 2 and 4 at once, against a local SeaweedFS): they
//! were no faster than one stream and would hold whole ranges in memory.

use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::client::BucketInner;
use super::errors::{explain, reason, status};
use super::objects::{Known, info};
use super::{Object, ObjectInfo};
use crate::stall::{self, Clock};
use tidelock_types::{Body, ByteRange, Error, Result};

impl BucketInner {
    pub(super) async fn get(self: &Arc<Self>, key: &str, range: ByteRange) -> Result<Object> {
        let full = self.full_key(key)?;
        if range.end.is_some_and(|end| end <= range.start) {
            // No header means "nothing".
            return self.get_nothing(key, range).await;
        }
        // Services read these numbers as signed ones, and no object reaches so far.
        let asked = ByteRange { end: range.end.filter(|end| i64::try_from(*end).is_ok()), ..range };
        let header = match asked {
            ByteRange { start: 0, end: None } => None,
            ByteRange { start, end: None } => Some(format!("bytes={start}-")),
            ByteRange { start, end: Some(end) } => Some(format!("bytes={start}-{}", end - 1)),
        };
        let partial = header.is_some();
        let request = self.client.get_object().bucket(&self.bucket).key(&full).set_range(header);
        match Clock::new().watch(self.stall_timeout, request.send()).await? {
            Ok(output) => self.open(output, range, partial),
            Err(error) if status(&error) == Some(416) => self.get_nothing(key, range).await,
            Err(error) => Err(explain("reading an object", &error)),
        }
    }

    /// An empty range, or one past the end: the size decides.
    async fn get_nothing(&self, key: &str, range: ByteRange) -> Result<Object> {
        let info = self.head(key).await?;
        match range.within(info.size)? {
            (_, 0) => Ok(Object { info, body: Body::from_bytes(Bytes::new()) }),
            _ => Err(Error::unavailable(format!("the server rejected the range {range} of {} bytes", info.size))),
        }
    }

    fn open(&self, mut output: GetObjectOutput, range: ByteRange, partial: bool) -> Result<Object> {
        let sent = output.content_length().and_then(|len| u64::try_from(len).ok());
        let sent = sent.ok_or_else(|| Error::unavailable("reading an object: the server did not report its size"))?;
        let size = match (partial, output.content_range().and_then(parse_content_range)) {
            (false, _) => sent,
            (true, Some((start, size))) if (start, sent) == range.within(size)? => size,
            (true, _) => {
                return Err(Error::unsupported(format!("the server did not return the range {range}")));
            }
        };
        let body = std::mem::take(&mut output.body);
        let info = ObjectInfo { size, ..known(&output) };
        let body = stall::watched(Body::new(chunks(body), Some(sent)), self.stall_timeout);
        Ok(Object { info, body })
    }
}

fn known(output: &GetObjectOutput) -> ObjectInfo {
    info(Known {
        size: output.content_length(),
        etag: output.e_tag(),
        metadata: output.metadata(),
        storage_class: output.storage_class(),
        archive_status: None,
        restore: output.restore(),
        modified: output.last_modified(),
    })
}

/// The chunks of a reply. A checksum that the server kept of the whole object is checked by the SDK as they pass.
fn chunks(body: ByteStream) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    futures::stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.next().await? {
            Ok(chunk) => Some((Ok(chunk), Some(body))),
            Err(error) => {
                let why = reason(&error);
                // The SDK's own words; its type for it is not public.
                let error = if why.contains("checksum mismatch") {
                    Error::corrupt(format!("the object does not match its checksum: {why}"))
                } else {
                    Error::unavailable(format!("the reply ended early: {why}"))
                };
                Some((Err(error), None))
            }
        }
    })
}

/// `bytes 10-19/100` as the first byte and the whole size.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 10-19/100"), Some((10, 100)));
        for wrong in ["", "bytes */100", "bytes 10-19/*", "10-19/100", "bytes -/", "bytes 1-2"] {
            assert_eq!(parse_content_range(wrong), None, "{wrong}");
        }
    }
}
