//! Listing: in order, past whatever else is in the bucket, and never without an end.
//!
//! A page of a service may hold nothing that is listed here (keys of others, deleted ones) and say that there is more. So
//! pages are read until one has entries, or until so many had none that the caller had better ask again. The cursor is the
//! last key that was looked at, also if no request could name it: it is text in a query that cannot lead out of the prefix,
//! and unlike a server's token it means something on every server.

use std::borrow::Cow;
use std::sync::Arc;

use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use super::apart::read_apart;
use super::client::BucketInner;
use super::objects::seconds;
use super::{Entry, LIST_LIMIT, Page};
use crate::key::{check_key, check_within};
use tidelock_types::{Account, Error, Result};

/// The most pages without an entry that one call reads.
const BARREN_PAGES: usize = 16;
/// The longest cursor: the longest key of a service.
const LONGEST_CURSOR: usize = 1024;

/// A key as `encoding-type=url` writes it: as in a form, with `+` for a blank. Bytes that are no UTF-8 are replaced, so such a
/// key is none that is listed.
fn decoded(key: &str) -> Cow<'_, str> {
    let blanks = key.replace('+', " ");
    Cow::Owned(percent_decode_str(&blanks).decode_utf8_lossy().into_owned())
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// Behind this whole key.
    After(Option<String>),
    /// Where the server's token says.
    Token(String),
}

impl BucketInner {
    pub(super) async fn list_objects(
        &self,
        account: &Arc<dyn Account>,
        prefix: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page> {
        let beginning = self.full_beginning(prefix)?;
        let after = cursor.map(|cursor| format!("{}{cursor}", self.prefix));
        if after.as_ref().is_some_and(|after| after.len() > LONGEST_CURSOR) {
            return Err(Error::invalid("the cursor is longer than any key"));
        }
        let limit = limit.clamp(1, LIST_LIMIT);
        let mut position = Position::After(after.clone());
        // Everything up to here has been looked at.
        let mut seen = after;
        let (mut page, mut hidden) = (Page::default(), 0u64);
        for _ in 0..BARREN_PAGES {
            let mut request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&beginning)
                // Not every character of a key can be written in XML.
                .encoding_type(EncodingType::Url)
                .max_keys(i32::try_from(limit).unwrap_or(i32::MAX));
            request = match &position {
                Position::After(after) => request.set_start_after(after.clone()),
                Position::Token(token) => request.continuation_token(token),
            };
            let output = self
                .ask_plainly(|| read_apart(account.clone(), request.clone().send()))
                .await?
                .map_err(|error| self.explain("listing objects", &error))?;
            let before = seen.clone();
            let mut more = output.is_truncated() == Some(true);
            for object in output.contents() {
                let Some(full) = object.key() else { continue };
                let full = &*match output.encoding_type() {
                    Some(EncodingType::Url) => decoded(full),
                    _ => Cow::Borrowed(full),
                };
                // A server that ignores where the page was to begin sends what has been seen.
                if seen.as_deref().is_some_and(|seen| full <= seen) {
                    continue;
                }
                // Neither does every server count; the rest is of the next page.
                if page.entries.len() >= limit as usize {
                    more = true;
                    break;
                }
                // Keys are names for the guest, and the last one is its cursor.
                if self.secrets.are_in(full.as_bytes()) {
                    return Err(Error::unavailable("listing objects: a key contains the credentials of the grant"));
                }
                seen = Some(full.to_owned());
                let key = full.strip_prefix(&self.prefix).filter(|key| full.starts_with(&beginning) && self.names(key));
                let Some(key) = key else {
                    hidden += 1;
                    continue;
                };
                let Some(size) = object.size().and_then(|size| u64::try_from(size).ok()) else {
                    return Err(Error::unavailable("listing objects: the server does not tell the size of an object"));
                };
                page.entries.push(Entry { key: key.to_owned(), size, modified: seconds(object.last_modified()) });
            }
            if !more {
                self.report(hidden);
                return Ok(page);
            }
            if !page.entries.is_empty() {
                break;
            }
            let next = match output.next_continuation_token() {
                Some(token) => Position::Token(token.to_owned()),
                None => Position::After(seen.clone()),
            };
            if next == position || (seen == before && matches!(next, Position::After(_))) {
                return Err(Error::unavailable(
                    "listing objects: the server reports further entries, but its listing does not advance",
                ));
            }
            position = next;
        }
        self.report(hidden);
        let behind = seen.and_then(|seen| seen.strip_prefix(&self.prefix).map(str::to_owned));
        match behind {
            Some(behind) if cursor != Some(behind.as_str()) => page.next = Some(behind),
            _ => {
                let what = format!("listing objects: {BARREN_PAGES} pages in a row are empty, and more are to come");
                return Err(Error::unavailable(what));
            }
        }
        Ok(page)
    }

    /// Returns whether a request could name this key.
    fn names(&self, key: &str) -> bool {
        check_key(key).is_ok() && check_within(&self.prefix, self.without_slash, key).is_ok()
    }

    fn report(&self, hidden: u64) {
        if hidden > 0 {
            let (bucket, prefix) = (&self.bucket, &self.prefix);
            tracing::warn!(bucket, prefix, hidden, "a listing left out keys that cannot be names of objects");
        }
    }
}
