//! Every call of a capability that needs a grant, written once for both kinds of guests: counted, held for, made, and its
//! result converted.
//!
//! `capabilities.rs` (guests of asynchronous functions) and `sync.rs` (guests of synchronous ones) pass their arguments
//! on to here; [`Caller`] is what differs between them. The effect of a call is decided in `tidelock_capabilities`.

use bytes::Bytes;

use super::bindings::tidelock::storage as wit;
use super::call::{Caller, HostCallResult, call};
use super::convert;
use crate::guest_parts::GuestParts;
use crate::stream::counted;
use tidelock_capabilities::{bucket, directory, http};
use tidelock_types::{Body, Limits};

/// Takes a body that leaves through a capability, and what it needs of the guest.
pub(super) fn sent<C: Caller>(caller: &mut C, body: C::Body) -> wasmtime::Result<(Body, GuestParts)> {
    let (body, parts) = caller.take(body)?;
    let usage = caller.with(|state| state.usage.clone());
    Ok((counted(body, move |bytes| usage.sends(bytes)), parts))
}

/// Passes a body that a capability opened to the guest. At most so many bytes are held for it.
fn opened<C: Caller>(caller: &mut C, body: Body, holds: u64, parts: GuestParts) -> wasmtime::Result<C::Body> {
    let body = caller.with(|state| state.opened(body, holds))?;
    caller.give(body, parts)
}

/// A response: status, headers and body.
pub(super) type Response<B> = (u16, Vec<(String, String)>, B);

/// Sends a request. `parts` is what the bodies in it need of the guest.
pub(super) async fn send<C: Caller>(
    mut caller: C,
    grant: String,
    request: http::Request,
    parts: GuestParts,
) -> HostCallResult<Response<C::Body>> {
    let head = head_bytes(&request.url, &request.headers);
    caller.with(|state| state.usage.sends(head))?;
    let holds = request_holds(head, &request.body);
    let response = call(&mut caller, holds, |granted| async move { granted.http(&grant)?.send(request).await }).await?;
    Ok(match response {
        Ok(http::Response { status, headers, body }) => {
            let holds = reply_holds(&body);
            Ok((status, headers, opened(&mut caller, body, holds, parts.without_taps())?))
        }
        Err(error) => Err(error),
    })
}

pub(super) async fn put<C: Caller>(
    mut caller: C,
    grant: String,
    key: String,
    data: C::Body,
    options: wit::bucket::PutOptions,
) -> HostCallResult<u64> {
    let (data, _) = sent(&mut caller, data)?;
    let holds = put_holds(&key, &data, &options);
    call(
        &mut caller,
        holds,
        |granted| async move { granted.bucket(&grant)?.put(&key, data, put_options(options)).await },
    )
    .await
}

pub(super) async fn get<C: Caller>(
    mut caller: C,
    grant: String,
    key: String,
    range: Option<wit::types::ByteRange>,
) -> HostCallResult<(wit::bucket::ObjectInfo, C::Body)> {
    let object = call(&mut caller, bucket_holds(&[&key]), |granted| async move {
        granted.bucket(&grant)?.get(&key, range.map(convert::range_in)).await
    });
    Ok(match object.await? {
        Ok(bucket::Object { info, body }) => {
            let holds = reply_holds(&body);
            Ok((object_info(info), opened(&mut caller, body, holds, GuestParts::default())?))
        }
        Err(error) => Err(error),
    })
}

pub(super) async fn head(
    mut caller: impl Caller,
    grant: String,
    key: String,
) -> HostCallResult<wit::bucket::ObjectInfo> {
    call(&mut caller, bucket_holds(&[&key]), |granted| async move {
        granted.bucket(&grant)?.head(&key).await.map(object_info)
    })
    .await
}

pub(super) async fn delete(mut caller: impl Caller, grant: String, key: String) -> HostCallResult<()> {
    call(&mut caller, bucket_holds(&[&key]), |granted| async move { granted.bucket(&grant)?.delete(&key).await }).await
}

pub(super) async fn copy(
    mut caller: impl Caller,
    grant: String,
    source: String,
    target: String,
    options: wit::bucket::PutOptions,
) -> HostCallResult<()> {
    let holds = texts(&[&source]).saturating_add(put_holds(&target, &Body::from_bytes(Bytes::new()), &options));
    call(&mut caller, holds, |granted| async move {
        granted.bucket(&grant)?.copy(&source, &target, put_options(options)).await
    })
    .await
}

pub(super) async fn restore(
    mut caller: impl Caller,
    grant: String,
    key: String,
    days: u32,
    tier: String,
) -> HostCallResult<wit::types::ArchiveState> {
    call(&mut caller, bucket_holds(&[&key, &tier]), |granted| async move {
        granted.bucket(&grant)?.restore(&key, days, &tier).await.map(|state| convert::archive_out(&state))
    })
    .await
}

pub(super) async fn list_objects(
    mut caller: impl Caller,
    grant: String,
    prefix: String,
    cursor: Option<String>,
    limit: u32,
) -> HostCallResult<wit::bucket::Page> {
    let (limit, holds) = caller.with(|state| listing(&state.environment.limits, limit, &prefix, cursor.as_deref()));
    call(&mut caller, holds, |granted| async move {
        granted.bucket(&grant)?.list_objects(&prefix, cursor.as_deref(), limit).await.map(keys)
    })
    .await
}

pub(super) async fn write<C: Caller>(
    mut caller: C,
    grant: String,
    path: String,
    data: C::Body,
    options: wit::directory::WriteOptions,
) -> HostCallResult<u64> {
    let (data, _) = sent(&mut caller, data)?;
    let size = options.size.or(data.remaining());
    let holds = directory_holds(&mut caller, &grant, |directory| directory.write_holds(size));
    let holds = holds.saturating_add(texts(&[&path]));
    let options = directory::WriteOptions { size: options.size, if_absent: options.if_absent };
    call(&mut caller, holds, |granted| async move { granted.directory(&grant)?.write(&path, data, options).await })
        .await
}

pub(super) async fn read<C: Caller>(
    mut caller: C,
    grant: String,
    path: String,
    range: Option<wit::types::ByteRange>,
) -> HostCallResult<(wit::directory::FileInfo, C::Body)> {
    let len = range.and_then(|range| Some(range.end?.saturating_sub(range.start)));
    let holds = directory_holds(&mut caller, &grant, |directory| directory.open_holds(len));
    let file = call(&mut caller, holds.saturating_add(texts(&[&path])), |granted| async move {
        let directory = granted.directory(&grant)?;
        let file = directory.read(&path, range.map(convert::range_in)).await?;
        let holds = directory.read_holds(file.body.remaining());
        Ok((file, holds))
    });
    Ok(match file.await? {
        Ok((directory::File { info, body }, holds)) => {
            Ok((file_info(info), opened(&mut caller, body, holds, GuestParts::default())?))
        }
        Err(error) => Err(error),
    })
}

pub(super) async fn stat(
    mut caller: impl Caller,
    grant: String,
    path: String,
) -> HostCallResult<wit::directory::FileInfo> {
    call(
        &mut caller,
        texts(&[&path]),
        |granted| async move { granted.directory(&grant)?.stat(&path).await.map(file_info) },
    )
    .await
}

pub(super) async fn remove(mut caller: impl Caller, grant: String, path: String) -> HostCallResult<()> {
    call(&mut caller, texts(&[&path]), |granted| async move { granted.directory(&grant)?.remove(&path).await }).await
}

pub(super) async fn list_entries(
    mut caller: impl Caller,
    grant: String,
    path: String,
    cursor: Option<String>,
    limit: u32,
) -> HostCallResult<wit::directory::Page> {
    let most = caller.with(|state| listing_bytes(&state.environment.limits));
    let (limit, holds) = directory_value(&mut caller, &grant, |directory| {
        let limit = directory::listing_limit(directory, limit, most);
        (limit, directory.listing_holds(limit))
    })
    .unwrap_or((limit, 0));
    let holds = holds.saturating_add(texts(&[&path, cursor.as_deref().unwrap_or_default()]));
    call(&mut caller, holds, |granted| async move {
        granted.directory(&grant)?.list_entries(&path, cursor.as_deref(), limit).await.map(files)
    })
    .await
}

/// Returns the bytes of a request that count as sent beside its body.
fn head_bytes(url: &str, headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>().saturating_add(url.len())
}

/// The bytes that are held while a request with this head and these parts is sent.
fn request_holds(head: usize, parts: &[http::Part]) -> u64 {
    let of_part = |part: &http::Part| match part {
        http::Part::Bytes(bytes) => bytes.len() as u64,
        http::Part::Body(_) => SENT_HOLDS,
    };
    parts.iter().map(of_part).fold(head as u64, u64::saturating_add)
}

/// The bytes that are held while an object is put: its parts, and the options.
fn put_holds(key: &str, data: &Body, options: &wit::bucket::PutOptions) -> u64 {
    let labels: usize = options.labels.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    let texts = [&options.content_type, &options.storage_class].into_iter().flatten().map(String::len).sum::<usize>();
    let size = options.size.or(data.remaining()).unwrap_or(u64::MAX);
    let replies = if size > bucket::PART_SIZE { bucket::CONCURRENCY as u64 } else { 1 };
    let held = size.min(bucket::PUT_HOLDS).saturating_add(bucket::SMALL_HOLDS * replies);
    held.saturating_add((key.len() + labels + texts) as u64)
}

/// The bytes that are held of the arguments and of the reply of a call to a bucket that has no body.
fn bucket_holds(arguments: &[&str]) -> u64 {
    texts(arguments).saturating_add(bucket::SMALL_HOLDS)
}

/// Returns how many of the requested entries a listing has, and the bytes that are held for it. An operation that
/// may hold little gets shorter pages.
fn listing(limits: &Limits, limit: u32, prefix: &str, cursor: Option<&str>) -> (u32, u64) {
    let limit = bucket::listing_limit(limit, listing_bytes(limits));
    let arguments = texts(&[prefix, cursor.unwrap_or_default()]);
    (limit, arguments.saturating_add(bucket::listing_holds(limit)))
}

/// The most bytes that one listing may hold.
fn listing_bytes(limits: &Limits) -> u64 {
    limits.held_bytes.min(limits.backend_held_bytes) / 2
}

/// What the directory of a grant says: how much it holds is its own affair. Nothing if there is none, and then the call fails.
fn directory_value<T>(
    caller: &mut impl Caller,
    grant: &str,
    ask: impl FnOnce(&dyn directory::Directory) -> T,
) -> Option<T> {
    caller.with(|state| state.environment.capabilities.directory(grant).ok().map(|directory| ask(&*directory)))
}

/// The bytes that the directory of a grant holds for a call.
fn directory_holds(caller: &mut impl Caller, grant: &str, ask: impl FnOnce(&dyn directory::Directory) -> u64) -> u64 {
    directory_value(caller, grant, ask).unwrap_or_default()
}

/// Returns the bytes that are held for texts.
fn texts(texts: &[&str]) -> u64 {
    texts.iter().map(|text| text.len() as u64).sum()
}

/// The most bytes that are held of a body on its way into a connection.
const SENT_HOLDS: u64 = 1 << 20;

/// The most bytes that are held of a reply: what the connection takes in before anything reads them.
const REPLY_HOLDS: u64 = 2 << 20;

/// The bytes that are held of a reply with this body.
fn reply_holds(body: &Body) -> u64 {
    body.remaining().unwrap_or(u64::MAX).min(REPLY_HOLDS)
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
