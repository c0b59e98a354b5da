//! Objects in an S3-compatible bucket: the `bucket` capability.
//!
//! [`S3Bucket`] implements it with Amazon's SDK. This module adds what the SDK leaves to its user: large objects are
//! uploaded in parts, several at once, assembled from the chunks without copying; a failed or abandoned upload
//! is aborted; statuses and codes become our kinds of errors.
//!
//! The SDK's own retries are off: `repeat` sends again what can be, within seconds, and looks afterwards whether something
//! was done after all.
//!
//! Each part carries a CRC-32C, which costs next to nothing and which servers that support checksums verify (the newer
//! CRC-64/NVME is refused by servers of two years ago); the payload is not hashed into the signature
//! (`UNSIGNED-PAYLOAD`), since SHA-256 of everything would cost more than sending it.

mod apart;
mod body;
mod client;
mod connector;
mod errors;
mod habits;
mod list;
mod multipart;
mod objects;
mod options;
mod parts;
mod put;
mod read;
mod repeat;
mod scan;
mod secrets;
mod stale;

pub use crate::grant::{CONCURRENCY, LARGEST_UNSIZED_PART, PART_SIZE};
pub use crate::key::check_key;
pub use client::S3Bucket;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use tidelock_types::{Account, ArchiveState, Body, ByteRange, Result};

/// The most bytes that are held for an object that is put: the parts in flight, and one that is gathered.
pub const PUT_HOLDS: u64 = PART_SIZE * (CONCURRENCY as u64 + 1);
/// The most entries that [`Bucket::list_objects`] returns at once (S3's own bound); a larger limit is reduced to it.
pub const LIST_LIMIT: u32 = 1000;
/// The most bytes that are held of a reply that is neither an object nor a listing, and of what is made of it.
pub const SMALL_HOLDS: u64 = 4 * connector::LARGEST_REPLY;

/// The most bytes that are held during a listing of so many entries: the document twice (as it came, and in one piece), the
/// SDK's objects, and the page.
pub fn listing_holds(limit: u32) -> u64 {
    connector::largest_listing(limit.clamp(1, LIST_LIMIT)).saturating_mul(4).max(SMALL_HOLDS)
}

/// The most entries of a listing, up to `limit`, for which at most so many bytes are held. At least one.
pub fn listing_limit(limit: u32, bytes: u64) -> u32 {
    let all = limit.clamp(1, LIST_LIMIT);
    (1..=all).rev().find(|limit| listing_holds(*limit) <= bytes).unwrap_or(1)
}

/// Server-side encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub algorithm: String,
    /// The key, for the kms algorithms.
    pub key_id: Option<String>,
}

/// Object lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// `GOVERNANCE` or `COMPLIANCE`.
    pub mode: String,
    /// Seconds since 1970-01-01 UTC.
    pub until: u64,
}

/// How to store an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The exact number of bytes, if known. A body of another length is an error and leaves nothing.
    pub size: Option<u64>,
    /// User metadata: names are lower-case ASCII letters, digits and `-`.
    pub labels: Vec<(String, String)>,
    /// For example `application/octet-stream`.
    pub content_type: Option<String>,
    /// For example `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Fail with `conflict` if the key exists.
    pub if_absent: bool,
    /// Server-side encryption.
    pub encryption: Option<Encryption>,
    /// Object lock.
    pub retention: Option<Retention>,
}

/// Metadata of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its bytes.
    pub size: u64,
    /// The server's tag of this version of it.
    pub etag: Option<String>,
    /// User metadata, in order of the names.
    pub labels: Vec<(String, String)>,
    /// None means the bucket's standard one.
    pub storage_class: Option<String>,
    /// From `x-amz-restore` and the storage class; `None` for an object outside of archives.
    pub archive: Option<ArchiveState>,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
}

/// An object, open for reading.
#[derive(Debug)]
pub struct Object {
    /// The size of the whole object, even when a range was requested.
    pub info: ObjectInfo,
    /// The bytes of the range. Ends in `unavailable` when the connection breaks, never silently short.
    pub body: Body,
}

/// One key of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the grant's prefix.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// Time of the store (seconds since 1970-01-01 UTC).
    pub modified: Option<u64>,
}

/// Some keys of a bucket, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of their keys.
    pub entries: Vec<Entry>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Objects below a prefix of a bucket. Keys are relative to the prefix; [`check_key`] defines valid ones.
///
/// Errors of all: `denied` (credentials, policy), `rate-limited`, `insufficient-balance`, `unavailable` (5xx, refused,
/// reset, timed out), `invalid`.
pub trait Bucket: Send + Sync + 'static {
    /// Stores an object and returns its size. Nothing is visible until all is there; an upload that fails, or whose future
    /// is dropped, is aborted. Holds at most the parts in flight, and the next one, in memory.
    ///
    /// # Errors
    /// The error that the body ends with; `conflict` with `if_absent`; `corrupt` if the server's checksum differs.
    fn put<'a>(&'a self, key: &'a str, data: Body, options: PutOptions) -> BoxFuture<'a, Result<u64>>;

    /// The object, or a range of it.
    ///
    /// # Errors
    /// `not-found`; `archived`; `invalid` for a range that begins beyond the end.
    fn get<'a>(&'a self, key: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<Object>>;

    /// Returns the metadata of an object without reading it.
    ///
    /// # Errors
    /// `not-found`.
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectInfo>>;

    /// Removes an object; one that is not there is success.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Copies within the grant, on the server, with the labels, class, encryption and retention of `options`; its `size`
    /// and `if_absent` are not looked at.
    ///
    /// # Errors
    /// `not-found`; `archived`.
    fn copy<'a>(&'a self, source: &'a str, target: &'a str, options: PutOptions) -> BoxFuture<'a, Result<()>>;

    /// Asks for an archived object to be made readable for some days. `tier` is `Standard`, `Bulk` or `Expedited`. Asking
    /// again is not an error.
    ///
    /// # Errors
    /// `not-found`; `invalid` for an object that is not in an archive.
    fn restore<'a>(&'a self, key: &'a str, days: u32, tier: &'a str) -> BoxFuture<'a, Result<ArchiveState>>;

    /// Keys that begin with `prefix`, in order. Keys that no request here could name are left out, so a page can have fewer
    /// entries than there is room for, or none, and yet be followed by another.
    fn list_objects<'a>(&'a self, prefix: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>>;

    /// The same bucket for one operation, if it does blocking work: that is charged to this account.
    fn for_operation(&self, account: &Arc<dyn Account>) -> Option<Arc<dyn Bucket>> {
        let _ = account;
        None
    }

    /// Aborts uploads of a host's stores below the grant's prefix that began longer ago than `older_than` and were never
    /// completed (a process that was killed), and returns their number. Uploads of other programs are left alone: a key of
    /// theirs has no part that is a key of a store.
    fn gc(&self, older_than: Duration) -> BoxFuture<'_, Result<u64>>;
}
