//! Storing: one request for small objects, concurrent parts for large ones.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, CompletedPart};
use tokio::task::JoinSet;

use super::PutOptions;
use super::body::Payload;
use super::client::BucketInner;
use super::errors::status;
use super::habits::Extras;
use super::multipart::Upload;
use super::options::{Checked, apply};
use super::parts::{MAX_PARTS, Plan};
use super::repeat::Pace;
use crate::stall::Clock;
use tidelock_types::gather::{Gathered, Gatherer};
use tidelock_types::{Body, Error, ErrorKind, Result};

/// The name of the object that is not stored when conditional writes are tried.
const PROBE: &str = ".tidelock-probe";
/// The MD5 of nothing that anybody has found.
const WRONG_MD5: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

impl BucketInner {
    pub(super) async fn put(self: &Arc<Self>, key: &str, data: Body, options: PutOptions) -> Result<u64> {
        let key = self.full_key(key)?;
        let data = data.with_size(options.size)?;
        let options = Checked::new(options)?;
        let plan = Plan::new(data.remaining(), self.part_size, self.concurrency, self.largest_part)?;
        let mut source = Gatherer::new(data);
        let (first, last) = source.next(plan.size(1)).await?;
        if last {
            return self.put_whole(&key, first, &options).await;
        }
        if options.if_absent && self.habits.conditions_are_open() {
            self.try_condition().await;
        }
        let upload = Upload::begin(self, &key, &options, false).await?;
        match send_parts(&upload, &plan, first, source).await {
            Ok((size, parts)) => upload.complete(parts, size, &options).await.map(|()| size),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// One request, sent again if it fails in passing. A later attempt can meet the success of an earlier one and call it a
    /// conflict, so after a doubtful one the object is looked at.
    async fn put_whole(&self, key: &str, data: Gathered, options: &Checked) -> Result<u64> {
        let payload = Payload::new(data);
        let size = payload.len();
        let mut pace = Pace::new(&self.platform);
        loop {
            let sent = self.habits.extras(options.if_absent, true);
            self.check_free(key, options, sent).await?;
            let send = |clock: &Clock| {
                let mut request = apply!(self.client.put_object(), options)
                    .bucket(&self.bucket)
                    .key(key)
                    .set_if_none_match(sent.condition.then(|| "*".to_owned()))
                    .content_length(i64::try_from(size).unwrap_or(i64::MAX));
                if sent.checksum {
                    request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C).checksum_crc32_c(&payload.crc32c);
                }
                request.body(payload.stream(clock)).customize().disable_payload_signing().send()
            };
            let error = match self.ask(&mut pace, self.stall_timeout, send).await? {
                Ok(_) => {
                    self.habits.accepted(sent);
                    return Ok(size);
                }
                Err(error) => error,
            };
            if self.habits.learn(&error, sent) {
                continue;
            }
            if pace.doubtful && self.holds(key, size, Some(&payload.crc32c)).await {
                return Ok(size);
            }
            return Err(self.explain_sent("storing an object", &error, sent));
        }
    }

    /// Learns whether the service understands conditional writes, before a large object goes up: with a put of one byte
    /// whose MD5 is wrong, so that it is refused for the one reason or for the other. What comes of it is the upload's
    /// to meet.
    async fn try_condition(&self) {
        let key = format!("{}{PROBE}", self.prefix);
        let sent = self.habits.extras(true, false);
        let request =
            || self.client.put_object().bucket(&self.bucket).key(&key).if_none_match("*").content_md5(WRONG_MD5);
        let send = || request().body(ByteStream::from_static(b"x")).customize().disable_payload_signing().send();
        match self.ask_plainly(send).await {
            Ok(Ok(_)) => {
                // A service that does not check what it gets.
                self.habits.accepted(sent);
                let request = self.client.delete_object().bucket(&self.bucket).key(&key);
                if !matches!(self.ask_plainly(|| request.clone().send()).await, Ok(Ok(_))) {
                    tracing::warn!(
                        key,
                        "an object of one byte was stored to learn what the service can do, and is left"
                    );
                }
            }
            Ok(Err(error)) => {
                if !self.habits.learn(&error, sent) && matches!(status(&error), Some(400 | 412)) {
                    self.habits.accepted(sent);
                }
            }
            Err(_) => {}
        }
    }

    /// Checks that a key is free, where a put has to be conditional and the service cannot do that. Keys of stores are
    /// random, so no other writer takes one between this and the put.
    ///
    /// # Errors
    /// `conflict`.
    pub(super) async fn check_free(&self, key: &str, options: &Checked, sent: Extras) -> Result<()> {
        if !options.if_absent || sent.condition {
            return Ok(());
        }
        match self.head_full(key).await {
            Ok(_) => Err(Error::conflict("storing an object: the key exists already")),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns whether there is an object of this size, and of this checksum if the service returns it.
    pub(super) async fn holds(&self, key: &str, size: u64, crc32c: Option<&str>) -> bool {
        let request = self.client.head_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        let Ok(Ok(found)) = self.ask_plainly(|| request.clone().send()).await else { return false };
        let same = match (found.checksum_crc32_c(), crc32c) {
            (Some(found), Some(expected)) => found == expected,
            _ => true,
        };
        let found = match found.content_length().and_then(|len| u64::try_from(len).ok()) {
            Some(found) if found > 0 => Ok(found),
            said => self.size_by_range(key, said).await,
        };
        same && found.is_ok_and(|found| found == size)
    }
}

/// Sends all parts and returns their sum. Dropping the future aborts those in flight.
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
    Err(Error::invalid(format!("{size} bytes are more than {MAX_PARTS} parts of the size that the grant allows"))
        .hint("store from a file, whose size is known in advance, or raise `largest_part` in the grant of the bucket"))
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
