//! Storing: one request for small objects, concurrent parts for large ones.

use std::sync::Arc;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedPart};
use tokio::task::JoinSet;

use super::PutOptions;
use super::body::Payload;
use super::client::{BucketInner, with_size};
use super::errors::explain;
use super::multipart::Upload;
use super::options::{Checked, apply};
use super::parts::{MAX_PARTS, Plan};
use crate::stall::Clock;
use tidelock_types::gather::{Gathered, Gatherer};
use tidelock_types::{Body, Error, Result};

impl BucketInner {
    pub(super) async fn put(self: &Arc<Self>, key: &str, data: Body, options: PutOptions) -> Result<u64> {
        let key = self.full_key(key)?;
        let data = with_size(data, options.size)?;
        let options = Checked::new(options)?;
        let plan = Plan::new(data.remaining(), self.part_size, self.concurrency)?;
        let mut source = Gatherer::new(data);
        let (first, last) = source.next(plan.size(1)).await?;
        if last {
            return self.put_whole(&key, first, &options).await;
        }
        let upload = Upload::begin(self, &key, &options, false).await?;
        match send_parts(&upload, &plan, first, source).await {
            Ok((size, parts)) => upload.complete(parts, &options).await.map(|()| size),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// One attempt: with `if_absent` a second one could meet the first one's success and call it a conflict.
    async fn put_whole(&self, key: &str, data: Gathered, options: &Checked) -> Result<u64> {
        let clock = Clock::new();
        let payload = Payload::new(data);
        let size = payload.len();
        let request = apply!(self.client.put_object(), options)
            .bucket(&self.bucket)
            .key(key)
            .set_if_none_match(options.if_none_match())
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .checksum_crc32_c(&payload.crc32c)
            .content_length(i64::try_from(size).unwrap_or(i64::MAX))
            .body(payload.stream(&clock))
            .customize()
            .disable_payload_signing();
        clock.watch(self.stall_timeout, request.send()).await?.map_err(|error| explain("storing an object", &error))?;
        Ok(size)
    }
}

/// Sends all parts and gives their sum. Dropping the future cuts those in flight.
async fn send_parts(
    upload: &Upload,
    plan: &Plan,
    first: Gathered,
    mut source: Gatherer,
) -> Result<(u64, Vec<CompletedPart>)> {
    let mut sending = JoinSet::new();
    let mut parts = Vec::new();
    let mut size = 0;
    let mut next = Some((first, false));
    for number in 1..=MAX_PARTS {
        let (gathered, last) = match next.take() {
            Some(first) => first,
            None => gather(&mut source, plan.size(number), &mut sending, &mut parts).await?,
        };
        // Where a body ends just at the end of a part, the last gathering finds nothing.
        if gathered.len > 0 {
            size += gathered.len;
            let sender = upload.sender();
            sending.spawn(async move { sender.send(number, Payload::new(gathered)).await });
        }
        let most = if last { 0 } else { plan.in_flight(number) - 1 };
        while sending.len() > most {
            collect(&mut parts, sending.join_next().await)?;
        }
        if last {
            return Ok((size, parts));
        }
    }
    Err(Error::invalid(format!("more than {MAX_PARTS} parts")))
}

/// Gathers a part, and notices meanwhile if one in flight fails: a slow source must not hide that.
async fn gather(
    source: &mut Gatherer,
    len: u64,
    sending: &mut JoinSet<Result<CompletedPart>>,
    parts: &mut Vec<CompletedPart>,
) -> Result<(Gathered, bool)> {
    let gathering = source.next(len);
    tokio::pin!(gathering);
    loop {
        tokio::select! {
            biased;
            Some(sent) = sending.join_next() => collect(parts, Some(sent))?,
            gathered = &mut gathering => return gathered,
        }
    }
}

type Joined = std::result::Result<Result<CompletedPart>, tokio::task::JoinError>;

fn collect(parts: &mut Vec<CompletedPart>, joined: Option<Joined>) -> Result<()> {
    match joined {
        None => Ok(()),
        Some(Ok(part)) => {
            parts.push(part?);
            Ok(())
        }
        Some(Err(error)) => Err(Error::other(format!("a part failed: {error}"))),
    }
}
