//! Operations on objects without reading them: stat, remove, copy, restore.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ArchiveStatus, GlacierJobParameters, MetadataDirective, RestoreRequest, StorageClass, Tier};
use futures::stream::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::BucketInner;
use super::errors::{code, status};
use super::multipart::{PATIENCE, Upload};
use super::options::{Checked, apply};
use super::repeat::Pace;
use super::{ObjectInfo, PutOptions};
use tidelock_types::{ArchiveState, Error, Result};

/// The parts of a copy that one request does not take.
const COPY_PART: u64 = 1 << 30;
/// Everything except RFC 3986's unreserved characters, and `/`.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the metadata from a reply.
pub(super) struct Known<'a> {
    pub(super) size: u64,
    pub(super) etag: Option<&'a str>,
    pub(super) metadata: Option<&'a HashMap<String, String>>,
    pub(super) storage_class: Option<&'a StorageClass>,
    pub(super) archive_status: Option<&'a ArchiveStatus>,
    pub(super) restore: Option<&'a str>,
    pub(super) modified: Option<&'a DateTime>,
}

/// The same in our words.
pub(super) fn info(known: Known<'_>) -> ObjectInfo {
    let mut labels: Vec<(String, String)> =
        known.metadata.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.sort();
    let cold = matches!(known.storage_class, Some(StorageClass::Glacier | StorageClass::DeepArchive))
        || known.archive_status.is_some();
    ObjectInfo {
        size: known.size,
        etag: known.etag.map(str::to_owned),
        labels,
        storage_class: known.storage_class.map(|class| class.as_str().to_owned()),
        archive: archive_state(cold, known.restore),
        modified: seconds(known.modified),
    }
}

pub(super) fn seconds(time: Option<&DateTime>) -> Option<u64> {
    time.and_then(|time| u64::try_from(time.secs()).ok())
}

/// From `x-amz-restore`: `ongoing-request="true"`, or `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00
/// GMT"`.
fn archive_state(cold: bool, restore: Option<&str>) -> Option<ArchiveState> {
    match restore {
        Some(text) if text.contains("ongoing-request=\"true\"") => Some(ArchiveState::Restoring(None)),
        Some(text) if text.contains("ongoing-request=\"false\"") => {
            let date =
                text.split_once("expiry-date=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(date, _)| date);
            let until = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
            Some(ArchiveState::Readable(seconds(until.as_ref())))
        }
        _ => cold.then_some(ArchiveState::Archived),
    }
}

impl BucketInner {
    pub(super) async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.head_full(&self.full_key(key)?).await
    }

    /// The same by the whole key.
    pub(super) async fn head_full(&self, key: &str) -> Result<ObjectInfo> {
        let request = self.client.head_object().bucket(&self.bucket).key(key);
        let output = self
            .ask_plainly(|| request.clone().send())
            .await?
            .map_err(|error| self.explain("examining an object", &error))?;
        let size = match output.content_length().and_then(|len| u64::try_from(len).ok()) {
            Some(size) if size > 0 => size,
            // Proxies leave the length of a HEAD out, or make it 0. A missing length is not 0.
            said => self.size_by_range(key, said).await?,
        };
        Ok(info(Known {
            size,
            etag: output.e_tag(),
            metadata: output.metadata(),
            storage_class: output.storage_class(),
            archive_status: output.archive_status(),
            restore: output.restore(),
            modified: output.last_modified(),
        }))
    }

    /// The size of an object, from a reply to a request for its first byte; `said` is what another reply told.
    ///
    /// # Errors
    /// `unavailable` if the server does not tell it.
    pub(super) async fn size_by_range(&self, key: &str, said: Option<u64>) -> Result<u64> {
        let doing = "examining an object";
        let request = self.client.get_object().bucket(&self.bucket).key(key).range("bytes=0-0");
        match self.ask_plainly(|| request.clone().send()).await? {
            Ok(output) => {
                let whole = output.content_length().and_then(|len| u64::try_from(len).ok());
                let size = match output.content_range() {
                    Some(range) => parse_content_range(range).map(|(_, size)| size),
                    None => whole,
                };
                size.ok_or_else(|| Error::unavailable(format!("{doing}: the server does not tell its size")))
            }
            // No first byte.
            Err(error) if status(&error) == Some(416) => Ok(0),
            // Its class is not readable, so that only the HEAD could tell.
            Err(error) if code(&error) == Some("InvalidObjectState") => said.ok_or_else(|| {
                Error::unavailable(format!("{doing}: the server does not tell the size of an archived object"))
            }),
            Err(error) => Err(self.explain(doing, &error)),
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let key = self.full_key(key)?;
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        match self.ask_plainly(|| request.clone().send()).await? {
            Ok(_) => Ok(()),
            // S3 answers 204 for absent objects; not every service does.
            Err(error) if code(&error) == Some("NoSuchKey") => Ok(()),
            Err(error) if status(&error) == Some(404) && code(&error) != Some("NoSuchBucket") => Ok(()),
            Err(error) => Err(self.explain("removing an object", &error)),
        }
    }

    pub(super) async fn copy(self: &Arc<Self>, source: &str, target: &str, options: PutOptions) -> Result<()> {
        let options = Checked::new(options)?;
        let target = self.full_key(target)?;
        let path = format!("{}/{}", self.bucket, self.full_key(source)?);
        let path = utf8_percent_encode(&path, IN_PATH).to_string();
        let known = self.head(source).await?;
        if known.size > self.copy_limit {
            return self.copy_in_parts(path, &known, &target, &options).await;
        }
        let request = apply!(self.client.copy_object(), &options)
            .bucket(&self.bucket)
            .key(target)
            .copy_source(path)
            .metadata_directive(MetadataDirective::Replace);
        self.ask(&mut Pace::new(&self.platform), self.stall_timeout * PATIENCE, |_| request.clone().send())
            .await?
            .map_err(|error| self.explain("copying an object", &error))?;
        Ok(())
    }

    async fn copy_in_parts(
        self: &Arc<Self>,
        path: String,
        known: &ObjectInfo,
        target: &str,
        options: &Checked,
    ) -> Result<()> {
        // `if_absent` is not looked at in copies; completing must not look at it either.
        let upload = Upload::begin(self, target, options, true).await?;
        let part = COPY_PART.min(self.copy_limit).max(known.size.div_ceil(u64::from(super::parts::MAX_PARTS)));
        let ranges = (0..known.size.div_ceil(part)).zip(1u32..).map(|(index, number)| {
            let end = known.size.min((index + 1) * part) - 1;
            let range = format!("bytes={}-{end}", index * part);
            upload.sender().copy(number, path.clone(), known.etag.clone(), range)
        });
        let copied: Result<Vec<_>> =
            futures::stream::iter(ranges).buffer_unordered(self.concurrency).try_collect().await;
        match copied {
            Ok(parts) => upload.complete(parts, known.size, &Checked::new(PutOptions::default())?).await,
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    pub(super) async fn restore(&self, key: &str, days: u32, tier: &str) -> Result<ArchiveState> {
        let full = self.full_key(key)?;
        let tier = match tier {
            "Standard" => Tier::Standard,
            "Bulk" => Tier::Bulk,
            "Expedited" => Tier::Expedited,
            other => {
                return Err(Error::invalid(format!("`{}` is not a restore tier", other.escape_debug()))
                    .hint("use Standard, Bulk or Expedited"));
            }
        };
        let days = i32::try_from(days).ok().filter(|days| *days > 0);
        let days = days.ok_or_else(|| Error::invalid("a restore must last at least one day"))?;
        let failed = |error| Error::invalid(format!("cannot request a restore: {error}"));
        let parameters = GlacierJobParameters::builder().tier(tier.clone()).build().map_err(failed)?;
        let asked = RestoreRequest::builder().days(days).glacier_job_parameters(parameters).build();
        let request = self.client.restore_object().bucket(&self.bucket).key(full).restore_request(asked);
        match self.ask_plainly(|| request.clone().send()).await? {
            Ok(_) => {}
            Err(error) if code(&error) == Some("RestoreAlreadyInProgress") => {}
            Err(error) if code(&error) == Some("InvalidObjectState") => {
                return Err(Error::invalid("the object is not archived, so it cannot be restored"));
            }
            Err(error) => return Err(self.explain("requesting a restore", &error)),
        }
        let known = self.head(key).await?;
        Ok(match known.archive {
            Some(ArchiveState::Readable(until)) => ArchiveState::Readable(until),
            _ => ArchiveState::Restoring(Some(estimate(&tier, known.storage_class.as_deref()))),
        })
    }
}

/// `bytes 10-19/100` as the first byte and the whole size.
pub(super) fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

/// How long a restore takes, as Amazon describes it.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html>
fn estimate(tier: &Tier, storage_class: Option<&str>) -> Duration {
    let deep = storage_class == Some("DEEP_ARCHIVE");
    Duration::from_secs(match (tier, deep) {
        (Tier::Expedited, _) => 5 * 60,
        (Tier::Standard, false) => 5 * 3600,
        (Tier::Standard, true) | (Tier::Bulk, false) => 12 * 3600,
        _ => 48 * 3600,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_the_archive() {
        assert_eq!(archive_state(false, None), None);
        assert_eq!(archive_state(true, None), Some(ArchiveState::Archived));
        assert_eq!(archive_state(true, Some("ongoing-request=\"true\"")), Some(ArchiveState::Restoring(None)));
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        assert_eq!(archive_state(true, Some(done)), Some(ArchiveState::Readable(Some(1_356_048_000))));
        assert_eq!(archive_state(true, Some("nonsense")), Some(ArchiveState::Archived));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(utf8_percent_encode("b/a b+ü/c-d_e.f~", IN_PATH).to_string(), "b/a%20b%2B%C3%BC/c-d_e.f~");
    }

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 10-19/100"), Some((10, 100)));
        for wrong in ["", "bytes */100", "bytes 10-19/*", "10-19/100", "bytes -/", "bytes 1-2"] {
            assert_eq!(parse_content_range(wrong), None, "{wrong}");
        }
    }
}
