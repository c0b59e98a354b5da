//! Listing: in order, past whatever else is in the bucket, and never without an end.
//!
//! A page of a service may hold nothing that is listed here (keys of others, deleted ones) and say that there is more. So
//! pages are read until one has entries, or until so many had none that the caller had better ask again.
//!
//! S3 lists in the order of bytes. A server over a file system may list what is in a folder behind the folder's name: `a/x`
//! before `a-b`. So a listing goes on by the server's own token, and what comes out of order is listed. The cursor is that token,
//! and the greatest key so far, as long as all came in order: where the server gives no token, or more entries than it was asked
//! for, the listing goes on behind that key, and fails if the order was broken. A cursor can lead no listing out of the prefix.

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
/// The longest key of a service, and the longest token.
const LONGEST_KEY: usize = 1024;
const LONGEST_TOKEN: usize = 4096;
/// How a cursor begins that has a token: its length, a colon, the token, and the greatest key if all is in order. No key that a
/// request can name has this character.
const TOKEN: char = '\u{1}';

/// A key as `encoding-type=url` writes it: as in a form, with `+` for a blank. Bytes that are no UTF-8 are replaced, so such a
/// key is none that is listed.
fn decoded(key: &str) -> Cow<'_, str> {
    let blanks = key.replace('+', " ");
    Cow::Owned(percent_decode_str(&blanks).decode_utf8_lossy().into_owned())
}

fn out_of_order() -> Error {
    Error::unavailable(
        "listing objects: the server lists in another order than that of bytes, and gives no token to go on by",
    )
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// Behind this whole key.
    After(Option<String>),
    /// Where the server's token says.
    Token(String),
}

/// What a cursor says.
struct Begin {
    position: Position,
    /// The greatest key so far, with the prefix.
    greatest: Option<String>,
    /// Whether every key so far was greater than the one before.
    ordered: bool,
}

impl BucketInner {
    fn begin(&self, cursor: Option<&str>) -> Result<Begin> {
        let too_long = || Error::invalid("the cursor is longer than any of its kind");
        let full = |key: &str| format!("{}{key}", self.prefix);
        let Some(cursor) = cursor else {
            return Ok(Begin { position: Position::After(None), greatest: None, ordered: true });
        };
        let parts = cursor.strip_prefix(TOKEN).and_then(|rest| rest.split_once(':'));
        let parts = parts.and_then(|(len, rest)| rest.split_at_checked(len.parse().ok()?));
        if let Some((token, greatest)) = parts {
            if token.len() > LONGEST_TOKEN || greatest.len() > LONGEST_KEY {
                return Err(too_long());
            }
            let ordered = !greatest.is_empty();
            let greatest = ordered.then(|| full(greatest));
            return Ok(Begin { position: Position::Token(token.to_owned()), greatest, ordered });
        }
        let after = full(cursor);
        if after.len() > LONGEST_KEY {
            return Err(too_long());
        }
        Ok(Begin { position: Position::After(Some(after.clone())), greatest: Some(after), ordered: true })
    }

    /// The cursor of the next page.
    fn cursor(&self, token: Option<&str>, greatest: Option<&str>, ordered: bool) -> Result<Option<String>> {
        let greatest = greatest.and_then(|key| key.strip_prefix(&self.prefix)).filter(|_| ordered);
        let Some(token) = token else {
            return if ordered { Ok(greatest.map(str::to_owned)) } else { Err(out_of_order()) };
        };
        if token.len() > LONGEST_TOKEN {
            return Err(Error::unavailable("listing objects: the server's token is longer than any"));
        }
        if self.secrets.are_in(token.as_bytes()) {
            return Err(Error::unavailable("listing objects: a token contains the credentials of the grant"));
        }
        Ok(Some(format!("{TOKEN}{}:{token}{}", token.len(), greatest.unwrap_or_default())))
    }

    pub(super) async fn list_objects(
        &self,
        account: &Arc<dyn Account>,
        prefix: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page> {
        let beginning = self.full_beginning(prefix)?;
        let limit = limit.clamp(1, LIST_LIMIT);
        let Begin { mut position, greatest: mut seen, mut ordered } = self.begin(cursor)?;
        let begun = seen.clone();
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
            let mut token = output.next_continuation_token().filter(|_| more);
            let mut last: Option<String> = None;
            for object in output.contents() {
                let Some(full) = object.key() else { continue };
                let full = &*match output.encoding_type() {
                    Some(EncodingType::Url) => decoded(full),
                    _ => Cow::Borrowed(full),
                };
                // Not every server counts; the rest is of the next page.
                if page.entries.len() >= limit as usize {
                    (more, token) = (true, None);
                    ordered &= last.as_deref().or(seen.as_deref()).is_none_or(|last| full >= last);
                    last = Some(full.to_owned());
                    continue;
                }
                if last.as_deref().or(seen.as_deref()) == Some(full) {
                    continue;
                }
                if seen.as_deref().is_some_and(|seen| full <= seen) {
                    // It lists in another order, or ignores where the page was to begin.
                    if matches!(position, Position::After(Some(_))) {
                        return Err(out_of_order());
                    }
                    ordered = false;
                }
                last = Some(full.to_owned());
                // Keys are names for the guest, and the last one is its cursor.
                if self.secrets.are_in(full.as_bytes()) {
                    return Err(Error::unavailable("listing objects: a key contains the credentials of the grant"));
                }
                seen = seen.max(Some(full.to_owned()));
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
            let next = match token {
                Some(token) => Position::Token(token.to_owned()),
                None if ordered => Position::After(seen.clone()),
                None => return Err(out_of_order()),
            };
            if next == position || (seen == before && matches!(next, Position::After(_))) {
                return Err(Error::unavailable(
                    "listing objects: the server reports further entries, but its listing does not advance",
                ));
            }
            position = next;
            if !page.entries.is_empty() {
                break;
            }
        }
        self.report(hidden);
        let token = match &position {
            Position::Token(token) => Some(token.as_str()),
            Position::After(_) => None,
        };
        page.next = self.cursor(token, seen.as_deref(), ordered)?;
        if page.next.is_none() || (page.entries.is_empty() && seen == begun) {
            let what = format!("listing objects: {BARREN_PAGES} pages in a row are empty, and more are to come");
            return Err(Error::unavailable(what));
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
