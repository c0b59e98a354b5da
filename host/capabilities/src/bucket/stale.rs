//! Uploads that were never completed: a process that was killed leaves their parts, which cost money and are not listed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::DateTime;

use super::apart::read_apart;
use super::client::BucketInner;
use super::errors::status;
use crate::key::is_of_a_store;
use tidelock_types::{Account, Result};

/// The most pages of uploads (1,000 each) that one collection looks at.
const MAX_PAGES: usize = 100;

impl BucketInner {
    pub(super) async fn gc(self: &Arc<Self>, account: &Arc<dyn Account>, older_than: Duration) -> Result<u64> {
        let before = self.platform.time_of_day().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
        let before = DateTime::from(before);
        let mut aborted = 0;
        let mut marker = (None, None);
        for _ in 0..MAX_PAGES {
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(&self.prefix)
                .set_key_marker(marker.0.clone())
                .set_upload_id_marker(marker.1.clone());
            let page = self
                .ask_plainly(|| read_apart(account.clone(), request.clone().send()))
                .await?
                .map_err(|error| self.explain("listing uploads", &error))?;
            for upload in page.uploads() {
                let (Some(key), Some(id), Some(begun)) = (upload.key(), upload.upload_id(), upload.initiated()) else {
                    continue;
                };
                // What is not of a store belongs to another program, however old it is.
                let ours =
                    key.strip_prefix(&self.prefix).is_some_and(|key| is_of_a_store(key) && self.full_key(key).is_ok());
                if !ours || *begun >= before {
                    continue;
                }
                let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(id);
                match self.ask_plainly(|| request.clone().send()).await? {
                    Ok(_) => aborted += 1,
                    // Completed or aborted meanwhile.
                    Err(error) if status(&error) == Some(404) => {}
                    Err(error) => return Err(self.explain("aborting an upload", &error)),
                }
            }
            let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) || next == marker || next.0.is_none() {
                break;
            }
            marker = next;
        }
        Ok(aborted)
    }
}
