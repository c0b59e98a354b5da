//! Reading: one stream from the server, with an honest end.
//!
//! Ranges read in parallel and put in order were tried (8 and 16 MiB, 2 and 4 at once, against a local SeaweedFS): they
//! were no faster than one stream and would hold whole ranges in memory.

use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::client::BucketInner;
use super::errors::{reason, status};
use super::objects::{Known, info, parse_content_range};
use super::{Object, ObjectInfo};
use crate::stall;
use crate::transport::own;
use tidelock_types::{Body, ByteRange, Error, Result, owned_if_sparse_of_http};

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
        match self.ask_plainly(|| request.clone().send()).await? {
            Ok(output) => self.open(output, &full, range, partial).await,
            Err(error) if status(&error) == Some(416) => self.get_nothing(key, range).await,
            Err(error) => Err(self.explain("reading an object", &error)),
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

    async fn open(&self, mut output: GetObjectOutput, key: &str, range: ByteRange, partial: bool) -> Result<Object> {
        // Without a length (a proxy that sends in chunks) the size is what the object is known to have: a body that ends
        // before or after it is not whole.
        let sent = output.content_length().and_then(|len| u64::try_from(len).ok());
        let (size, len) = match (partial, output.content_range().and_then(parse_content_range)) {
            (false, _) => {
                let size = match sent {
                    Some(sent) => sent,
                    None => self.head_full(key).await?.size,
                };
                (size, size)
            }
            (true, Some((start, size))) => match range.within(size)? {
                (first, len) if first == start && sent.is_none_or(|sent| sent == len) => (size, len),
                _ => return Err(not_the_range(range)),
            },
            (true, None) => return Err(not_the_range(range)),
        };
        let body = std::mem::take(&mut output.body);
        let info = known(&output, size);
        let body = stall::watched(Body::new(chunks(body), Some(len)), self.stall_timeout);
        Ok(Object { info, body })
    }
}

fn not_the_range(range: ByteRange) -> Error {
    Error::unsupported(format!("the server did not return the range {range}"))
}

fn known(output: &GetObjectOutput, size: u64) -> ObjectInfo {
    info(Known {
        size,
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
            Ok(chunk) => Some((Ok(owned_if_sparse_of_http(chunk)), Some(body))),
            Err(error) => {
                let why = reason(&error);
                // The SDK's own words; its type for it is not public.
                let error = if why.contains("checksum mismatch") {
                    Error::corrupt(format!("the object does not match its checksum: {why}"))
                } else {
                    own(&error).unwrap_or_else(|| Error::unavailable(format!("the response ended early: {why}")))
                };
                Some((Err(error), None))
            }
        }
    })
}
