//! Objects in an S3-compatible bucket. The host signs, splits and checks.

use crate::bindings::tidelock::storage::bucket as import;
use crate::{ArchiveState, Body, ByteRange, Error};

pub use import::{Encryption, Entry, ObjectInfo, Page, PutOptions, Retention};

/// A bucket, or a prefix of one, that the operator granted. Keys are relative to that prefix.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    grant: &'static str,
}

impl Bucket {
    /// The bucket of `grants.bucket.NAME`.
    pub const fn granted(name: &'static str) -> Self {
        Self { grant: name }
    }

    /// Stores an object. Returns its size in bytes. It is not visible before it is complete.
    pub async fn put(&self, key: &str, data: Body, options: PutOptions) -> Result<u64, Error> {
        import::put(self.grant.into(), key.into(), data.into(), options).await
    }

    /// Returns an object, or a range of it. The metadata is that of the whole object.
    pub async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, Body), Error> {
        let object = import::get(self.grant.into(), key.into(), range).await?;
        Ok((object.info, object.body.into()))
    }

    /// Returns the metadata of an object.
    pub async fn head(&self, key: &str) -> Result<ObjectInfo, Error> {
        import::head(self.grant.into(), key.into()).await
    }

    /// Removes an object. Succeeds if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        import::delete(self.grant.into(), key.into()).await
    }

    /// Copies on the server.
    pub async fn copy(&self, source: &str, target: &str, options: PutOptions) -> Result<(), Error> {
        import::copy(self.grant.into(), source.into(), target.into(), options).await
    }

    /// Asks for an archived object to be made readable for `days`. `tier` is `Standard`, `Bulk` or `Expedited`.
    pub async fn restore(&self, key: &str, days: u32, tier: &str) -> Result<ArchiveState, Error> {
        import::restore(self.grant.into(), key.into(), days, tier.into()).await
    }

    /// Keys that begin with `prefix`, in order.
    pub async fn list(&self, prefix: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        import::list_objects(self.grant.into(), prefix.into(), cursor, limit).await
    }
}
