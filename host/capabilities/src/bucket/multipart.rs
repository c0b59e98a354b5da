//! A multipart upload and its end: completed or aborted, even if its future is dropped.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use super::body::Payload;
use super::client::BucketInner;
use super::errors::explain;
use super::options::{Checked, apply};
use crate::stall::Clock;
use tidelock_types::{Error, ErrorKind, Result};

/// How often a part is sent before the upload fails.
const ATTEMPTS: u32 = 3;
/// The first pause between two attempts; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// A server that asks for a longer pause is not waited for here, where parts sit in memory.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Completing and copying move bytes within the server, which is silent meanwhile: this many stall timeouts are allowed.
pub(super) const PATIENCE: u32 = 10;

/// An upload that was begun. Dropping it aborts it, unless it was completed.
pub(super) struct Upload {
    inner: Arc<BucketInner>,
    key: String,
    id: Arc<str>,
    /// Whether nothing is left to be aborted.
    completed: bool,
}

impl Upload {
    /// Begins an upload. Copied parts carry no checksum of ours.
    pub(super) async fn begin(inner: &Arc<BucketInner>, key: &str, options: &Checked, copied: bool) -> Result<Self> {
        let mut request = apply!(inner.client.create_multipart_upload(), options).bucket(&inner.bucket).key(key);
        if !copied {
            request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C);
        }
        let begun = Clock::new()
            .watch(inner.stall_timeout, request.send())
            .await?
            .map_err(|error| explain("beginning an upload", &error))?;
        let id =
            begun.upload_id().ok_or_else(|| Error::unavailable("beginning an upload: the server returned no id"))?;
        Ok(Self { inner: Arc::clone(inner), key: key.to_owned(), id: Arc::from(id), completed: false })
    }

    /// Everything needed to send one part; owned, so that parts can run concurrently.
    pub(super) fn sender(&self) -> PartSender {
        PartSender { inner: Arc::clone(&self.inner), key: self.key.clone(), id: Arc::clone(&self.id) }
    }

    /// Makes the object of the parts, or aborts.
    ///
    /// # Errors
    /// `conflict` if the key must be free and is not.
    pub(super) async fn complete(mut self, parts: Vec<CompletedPart>, options: &Checked) -> Result<()> {
        match self.ask_to_complete(parts, options).await {
            Ok(()) => {
                self.completed = true;
                Ok(())
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn ask_to_complete(&self, mut parts: Vec<CompletedPart>, options: &Checked) -> Result<()> {
        parts.sort_by_key(CompletedPart::part_number);
        let request = self
            .inner
            .client
            .complete_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(&self.key)
            .upload_id(&*self.id)
            .set_if_none_match(options.if_none_match())
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        Clock::new()
            .watch(self.inner.stall_timeout * PATIENCE, request.send())
            .await?
            .map_err(|error| explain("completing an upload", &error))?;
        Ok(())
    }

    /// Aborts the upload and waits for the server, for callers that can still wait.
    pub(super) async fn abort(mut self) {
        abort(&self.inner, &self.key, &self.id).await;
        // Only now: if this future is dropped meanwhile, the drop aborts.
        self.completed = true;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        // Without a runtime, or if the process ends first, gc finds it later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (inner, key, id) = (Arc::clone(&self.inner), std::mem::take(&mut self.key), Arc::clone(&self.id));
            runtime.spawn(async move { abort(&inner, &key, &id).await });
        }
    }
}

async fn abort(inner: &BucketInner, key: &str, id: &str) {
    let request = inner.client.abort_multipart_upload().bucket(&inner.bucket).key(key).upload_id(id);
    let said = match Clock::new().watch(inner.stall_timeout, request.send()).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => explain("aborting an upload", &error),
        Err(error) => error,
    };
    tracing::warn!(key, error = %said, "cannot abort an upload; gc removes it later");
}

/// Sends parts of one upload.
#[derive(Clone)]
pub(super) struct PartSender {
    inner: Arc<BucketInner>,
    key: String,
    id: Arc<str>,
}

impl PartSender {
    /// Sends one part, up to three times: its bytes are in memory, and the whole would cost far more.
    pub(super) async fn send(self, number: u32, payload: Payload) -> Result<CompletedPart> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(number, &payload).await {
                Err(error) => match may_help(&error, pause) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
                done => return done,
            }
            pause *= 2;
        }
        self.attempt(number, &payload).await
    }

    async fn attempt(&self, number: u32, payload: &Payload) -> Result<CompletedPart> {
        let clock = Clock::new();
        let part = part_number(number)?;
        let request = self
            .inner
            .client
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(&self.key)
            .upload_id(&*self.id)
            .part_number(part)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .checksum_crc32_c(&payload.crc32c)
            .content_length(i64::try_from(payload.len()).unwrap_or(i64::MAX))
            .body(payload.stream(&clock))
            .customize()
            .disable_payload_signing();
        let sent = clock
            .watch(self.inner.stall_timeout, request.send())
            .await?
            .map_err(|error| explain(&format!("sending part {number}"), &error))?;
        Ok(CompletedPart::builder()
            .part_number(part)
            .set_e_tag(sent.e_tag().map(str::to_owned))
            // Only a server that keeps checksums wants them back.
            .set_checksum_crc32_c(sent.checksum_crc32_c().map(str::to_owned))
            .build())
    }

    /// Copies a range of another object into a part, on the server.
    pub(super) async fn copy(
        self,
        number: u32,
        source: String,
        etag: Option<String>,
        range: String,
    ) -> Result<CompletedPart> {
        let part = part_number(number)?;
        let request = self
            .inner
            .client
            .upload_part_copy()
            .bucket(&self.inner.bucket)
            .key(&self.key)
            .upload_id(&*self.id)
            .part_number(part)
            .copy_source(source)
            .set_copy_source_if_match(etag)
            .copy_source_range(range);
        let copied = Clock::new()
            .watch(self.inner.stall_timeout * PATIENCE, request.send())
            .await?
            .map_err(|error| explain(&format!("copying part {number}"), &error))?;
        let etag = copied.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
        Ok(CompletedPart::builder().part_number(part).set_e_tag(etag).build())
    }
}

fn part_number(number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::invalid("the upload has too many parts"))
}

/// How long to wait before trying again, if that may help.
fn may_help(error: &Error, pause: Duration) -> Option<Duration> {
    match error.kind() {
        // Damaged on its way, or a server that is busy: a moment helps.
        ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::RateLimited(None) => Some(pause),
        ErrorKind::RateLimited(Some(asked)) => (*asked <= LONGEST_PAUSE).then(|| pause.max(*asked)),
        _ => None,
    }
}
