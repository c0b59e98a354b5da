//! A multipart upload and its end: completed or aborted, even if its future is dropped.

use std::sync::Arc;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use super::body::Payload;
use super::client::BucketInner;
use super::errors::status;
use super::habits::Extras;
use super::options::{Checked, apply};
use super::repeat::Pace;
use crate::stall::Clock;
use tidelock_types::{Error, Result};

/// Completing and copying move bytes within the server, which is silent meanwhile: this many stall timeouts are allowed.
pub(super) const PATIENCE: u32 = 10;

/// An upload that was begun. Dropping it aborts it, unless it was completed.
pub(super) struct Upload {
    inner: Arc<BucketInner>,
    key: String,
    id: Arc<str>,
    /// Whether its parts carry checksums.
    checksums: bool,
    /// Whether nothing is left to be aborted.
    completed: bool,
}

impl Upload {
    /// Begins an upload. Copied parts carry no checksum of ours.
    pub(super) async fn begin(inner: &Arc<BucketInner>, key: &str, options: &Checked, copied: bool) -> Result<Self> {
        let (begun, checksums) = loop {
            let sent = inner.habits.extras(false, !copied);
            let mut request = apply!(inner.client.create_multipart_upload(), options).bucket(&inner.bucket).key(key);
            if sent.checksum {
                request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C);
            }
            match inner.ask_plainly(|| request.clone().send()).await? {
                Ok(begun) => break (begun, sent.checksum),
                Err(error) if inner.habits.learn(&error, sent) => {}
                Err(error) => return Err(inner.explain_sent("beginning an upload", &error, sent)),
            }
        };
        let id =
            begun.upload_id().ok_or_else(|| Error::unavailable("beginning an upload: the server returned no id"))?;
        Ok(Self { inner: Arc::clone(inner), key: key.to_owned(), id: Arc::from(id), checksums, completed: false })
    }

    /// Everything needed to send one part; owned, so that parts can run concurrently.
    pub(super) fn sender(&self) -> PartSender {
        PartSender {
            inner: Arc::clone(&self.inner),
            key: self.key.clone(),
            id: Arc::clone(&self.id),
            checksums: self.checksums,
        }
    }

    /// Makes an object of this size of the parts, or aborts.
    ///
    /// # Errors
    /// `conflict` if the key must be free and is not.
    pub(super) async fn complete(mut self, parts: Vec<CompletedPart>, size: u64, options: &Checked) -> Result<()> {
        match self.ask_to_complete(parts, size, options).await {
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

    /// Asks until there is an answer. One that was lost, or says that the upload is not there any more, is not believed
    /// before the object has been looked for: everything has been sent, and must not be thrown away.
    async fn ask_to_complete(&self, mut parts: Vec<CompletedPart>, size: u64, options: &Checked) -> Result<()> {
        let (inner, doing) = (&self.inner, "completing an upload");
        parts.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut pace = Pace::new(&inner.platform);
        let mut unknown_header = false;
        loop {
            let sent = inner.habits.extras(options.if_absent, false);
            inner.check_free(&self.key, options, sent).await?;
            let request = inner
                .client
                .complete_multipart_upload()
                .bucket(&inner.bucket)
                .key(&self.key)
                .upload_id(&*self.id)
                .set_if_none_match(sent.condition.then(|| "*".to_owned()))
                .multipart_upload(parts.clone());
            let asked = inner.ask(&mut pace, inner.stall_timeout * PATIENCE, |_| request.clone().send()).await;
            let landed = async || inner.holds(&self.key, size, None).await;
            return match asked {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) if inner.habits.learn(&error, sent) => {
                    unknown_header = true;
                    continue;
                }
                Ok(Err(_)) | Err(_) if pace.doubtful && landed().await => Ok(()),
                Ok(Err(error)) if unknown_header && status(&error) == Some(404) => Err(inner
                    .explain(doing, &error)
                    .hint("set `conditional_writes = false` in the grant of this bucket")),
                Ok(Err(error)) => Err(inner.explain_sent(doing, &error, sent)),
                // Silence for so long: it may have been done.
                Err(_) if landed().await => Ok(()),
                Err(silent) => Err(silent),
            };
        }
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
    let said = match inner.ask_plainly(|| request.clone().send()).await {
        Ok(Ok(_)) => return,
        // Completed or aborted already.
        Ok(Err(error)) if status(&error) == Some(404) => return,
        Ok(Err(error)) => inner.explain("aborting an upload", &error),
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
    checksums: bool,
}

impl PartSender {
    /// Sends one part, several times if need be: its bytes are in memory, and the whole would cost far more.
    pub(super) async fn send(self, number: u32, payload: Payload) -> Result<CompletedPart> {
        let inner = &self.inner;
        let part = part_number(number)?;
        let send = |clock: &Clock| {
            let mut request = inner
                .client
                .upload_part()
                .bucket(&inner.bucket)
                .key(&self.key)
                .upload_id(&*self.id)
                .part_number(part)
                .content_length(i64::try_from(payload.len()).unwrap_or(i64::MAX));
            if self.checksums {
                request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C).checksum_crc32_c(&payload.crc32c);
            }
            request.body(payload.stream(clock)).customize().disable_payload_signing().send()
        };
        let sent = inner.ask(&mut Pace::new(&inner.platform), inner.stall_timeout, send).await?.map_err(|error| {
            let extras = Extras { condition: false, checksum: self.checksums };
            inner.habits.learn(&error, extras);
            inner.explain_sent(&format!("sending part {number}"), &error, extras)
        })?;
        Ok(CompletedPart::builder()
            .part_number(part)
            .set_e_tag(sent.e_tag().map(str::to_owned))
            // Only a server that keeps checksums needs them again.
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
        let (inner, mut pace) = (&self.inner, Pace::new(&self.inner.platform));
        let copied = inner
            .ask(&mut pace, inner.stall_timeout * PATIENCE, |_| request.clone().send())
            .await?
            .map_err(|error| inner.explain(&format!("copying part {number}"), &error))?;
        let etag = copied.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
        Ok(CompletedPart::builder().part_number(part).set_e_tag(etag).build())
    }
}

fn part_number(number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::invalid("the upload has too many parts"))
}
