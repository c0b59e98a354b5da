//! Every call of a capability that needs a grant, written once for guests of both kinds: from the arguments that a guest gives
//! to a future over what it is granted.
//!
//! How a call is made and counted, and what a body is, is for `capabilities.rs` (guests of asynchronous functions) and
//! `sync.rs` (guests of synchronous ones) to say. What a call means is decided in `tidelock_capabilities`.

use super::bindings::tidelock::storage as wit;
use super::convert;
use tidelock_capabilities::{Capabilities, bucket, directory, http};
use tidelock_types::{Body, Limits, Result};

/// What of a request counts as sent beside its body.
pub(super) fn head_bytes(url: &str, headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>().saturating_add(url.len())
}

/// The bytes that are held while a request with this head and these parts is sent.
pub(super) fn request_holds(head: usize, parts: &[http::Part]) -> u64 {
    let of_part = |part: &http::Part| match part {
        http::Part::Bytes(bytes) => bytes.len() as u64,
        http::Part::Body(_) => SENT_HOLDS,
    };
    parts.iter().map(of_part).fold(head as u64, u64::saturating_add)
}

/// The bytes that are held while an object is put: its parts, and the options.
pub(super) fn put_holds(key: &str, data: &Body, options: &wit::bucket::PutOptions) -> u64 {
    let labels: usize = options.labels.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    let texts = [&options.content_type, &options.storage_class].into_iter().flatten().map(String::len).sum::<usize>();
    let size = options.size.or(data.remaining()).unwrap_or(u64::MAX);
    let replies = if size > bucket::PART_SIZE { bucket::CONCURRENCY as u64 } else { 1 };
    let held = size.min(bucket::PUT_HOLDS).saturating_add(bucket::SMALL_HOLDS * replies);
    held.saturating_add((key.len() + labels + texts) as u64)
}

/// The bytes that are held of the arguments and of the reply of a call to a bucket that has no body.
pub(super) fn bucket_holds(arguments: &[&str]) -> u64 {
    texts(arguments).saturating_add(bucket::SMALL_HOLDS)
}

/// How many entries a listing has, of those that a guest asks for, and the bytes that are held for it. An operation that
/// may hold little gets shorter pages.
pub(super) fn listing(limits: &Limits, limit: u32, prefix: &str, cursor: Option<&str>) -> (u32, u64) {
    let most = limits.held_bytes.min(limits.backend_held_bytes) / 2;
    let limit = bucket::listing_limit(limit, most);
    let arguments = texts(&[prefix, cursor.unwrap_or_default()]);
    (limit, arguments.saturating_add(bucket::listing_holds(limit)))
}

/// The bytes that are held while a file is written.
pub(super) fn write_holds(path: &str, data: &Body, options: &wit::directory::WriteOptions) -> u64 {
    let size = options.size.or(data.remaining()).unwrap_or(u64::MAX);
    size.min(directory::WRITE_HOLDS).saturating_add(path.len() as u64)
}

/// The bytes that are held for texts.
pub(super) fn texts(texts: &[&str]) -> u64 {
    texts.iter().map(|text| text.len() as u64).sum()
}

/// The most bytes that are held of a body on its way into a connection.
const SENT_HOLDS: u64 = 1 << 20;

/// The most bytes that are held of a reply: what the connection takes in before anything reads them.
pub(super) const REPLY_HOLDS: u64 = 2 << 20;

pub(super) use directory::READ_HOLDS;

pub(super) async fn send(granted: Capabilities, grant: String, request: http::Request) -> Result<http::Response> {
    granted.http(&grant)?.send(request).await
}

pub(super) async fn put(
    granted: Capabilities,
    grant: String,
    key: String,
    data: Body,
    options: wit::bucket::PutOptions,
) -> Result<u64> {
    granted.bucket(&grant)?.put(&key, data, put_options(options)).await
}

pub(super) async fn get(
    granted: Capabilities,
    grant: String,
    key: String,
    range: Option<wit::types::ByteRange>,
) -> Result<(wit::bucket::ObjectInfo, Body)> {
    let object = granted.bucket(&grant)?.get(&key, range.map(convert::range_in)).await?;
    Ok((object_info(object.info), object.body))
}

pub(super) async fn head(granted: Capabilities, grant: String, key: String) -> Result<wit::bucket::ObjectInfo> {
    granted.bucket(&grant)?.head(&key).await.map(object_info)
}

pub(super) async fn delete(granted: Capabilities, grant: String, key: String) -> Result<()> {
    granted.bucket(&grant)?.delete(&key).await
}

pub(super) async fn copy(
    granted: Capabilities,
    grant: String,
    source: String,
    target: String,
    options: wit::bucket::PutOptions,
) -> Result<()> {
    granted.bucket(&grant)?.copy(&source, &target, put_options(options)).await
}

pub(super) async fn restore(
    granted: Capabilities,
    grant: String,
    key: String,
    days: u32,
    tier: String,
) -> Result<wit::types::ArchiveState> {
    granted.bucket(&grant)?.restore(&key, days, &tier).await.map(|state| convert::archive_out(&state))
}

pub(super) async fn list_objects(
    granted: Capabilities,
    grant: String,
    prefix: String,
    cursor: Option<String>,
    limit: u32,
) -> Result<wit::bucket::Page> {
    granted.bucket(&grant)?.list_objects(&prefix, cursor.as_deref(), limit).await.map(keys)
}

pub(super) async fn write(
    granted: Capabilities,
    grant: String,
    path: String,
    data: Body,
    options: wit::directory::WriteOptions,
) -> Result<u64> {
    let options = directory::WriteOptions { size: options.size, if_absent: options.if_absent };
    granted.directory(&grant)?.write(&path, data, options).await
}

pub(super) async fn read(
    granted: Capabilities,
    grant: String,
    path: String,
    range: Option<wit::types::ByteRange>,
) -> Result<(wit::directory::FileInfo, Body)> {
    let file = granted.directory(&grant)?.read(&path, range.map(convert::range_in)).await?;
    Ok((file_info(file.info), file.body))
}

pub(super) async fn stat(granted: Capabilities, grant: String, path: String) -> Result<wit::directory::FileInfo> {
    granted.directory(&grant)?.stat(&path).await.map(file_info)
}

pub(super) async fn remove(granted: Capabilities, grant: String, path: String) -> Result<()> {
    granted.directory(&grant)?.remove(&path).await
}

pub(super) async fn list_entries(
    granted: Capabilities,
    grant: String,
    path: String,
    cursor: Option<String>,
    limit: u32,
) -> Result<wit::directory::Page> {
    granted.directory(&grant)?.list_entries(&path, cursor.as_deref(), limit).await.map(files)
}

fn put_options(options: wit::bucket::PutOptions) -> bucket::PutOptions {
    bucket::PutOptions {
        size: options.size,
        labels: options.labels,
        content_type: options.content_type,
        storage_class: options.storage_class,
        if_absent: options.if_absent,
        encryption: options
            .encryption
            .map(|with| bucket::Encryption { algorithm: with.algorithm, key_id: with.key_id }),
        retention: options.retention.map(|lock| bucket::Retention { mode: lock.mode, until: lock.until }),
    }
}

fn object_info(info: bucket::ObjectInfo) -> wit::bucket::ObjectInfo {
    wit::bucket::ObjectInfo {
        size: info.size,
        etag: info.etag,
        labels: info.labels,
        storage_class: info.storage_class,
        archive: info.archive.as_ref().map(convert::archive_out),
        modified: info.modified,
    }
}

fn keys(page: bucket::Page) -> wit::bucket::Page {
    let entry = |e: bucket::Entry| wit::bucket::Entry { key: e.key, size: e.size, modified: e.modified };
    wit::bucket::Page { entries: page.entries.into_iter().map(entry).collect(), next: page.next }
}

fn file_info(info: directory::FileInfo) -> wit::directory::FileInfo {
    wit::directory::FileInfo { size: info.size, modified: info.modified }
}

fn files(page: directory::Page) -> wit::directory::Page {
    let entry = |e: directory::Entry| wit::directory::Entry {
        name: e.name,
        is_directory: e.is_directory,
        size: e.size,
        modified: e.modified,
    };
    wit::directory::Page { entries: page.entries.into_iter().map(entry).collect(), next: page.next }
}
