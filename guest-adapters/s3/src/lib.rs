//! The adapter `s3`: objects of an S3-compatible bucket.
//!
//! It imports `bucket` with the grant `objects`, its settings, and the clock for the end of a retention. The host signs,
//! splits large uploads and checks checksums; `keys.rs` says where an object lies and with which options it is put,
//! `tidelock_sdk::metadata` how its base and labels are kept.
//!
//! An object and its lineage are one put, so neither exists without the other. Every put is on the condition that the
//! key is free: a key is used once, and one that is taken is a `conflict`, never an overwritten object.
//!
//! **Limits.** S3 allows 2 KiB of user metadata: what is more, the backend refuses. The inventory lists the keys that
//! this adapter makes, in either layout; other objects below the same prefix are left out, but can be read by their key.
//! An object whose storage class must be restored is `archived`: this adapter cannot request that, the adapter `glacier` can.

mod keys;

use tidelock_sdk::bucket::{Bucket, Entry};
use tidelock_sdk::*;

use keys::Settings;

/// `grants.bucket.objects` in the configuration.
const OBJECTS: Bucket = Bucket::granted("objects");

struct S3;

impl Adapter for S3 {
    fn describe() -> Description {
        Description::new("s3", env!("CARGO_PKG_VERSION"), "Keeps objects in an S3-compatible bucket.")
            .with_features(Features::RANGES | Features::LINEAGE | Features::UNSIZED_INPUT | Features::LABELS)
            .with_settings(Settings::specs())
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        put(data, hint, None).await
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let (_, body) = OBJECTS.get(id.as_path()?, range).await?;
        Ok(body)
    }

    async fn incremental_update(base: ObjectId, delta: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let base = base.as_path()?;
        OBJECTS.head(base).await?;
        put(delta, hint, Some(base)).await
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let info = OBJECTS.head(id.as_path()?).await?;
        let (base, labels) = metadata::decode(info.labels);
        Ok(ObjectStat { size: info.size, base, archive: info.archive, modified: info.modified, labels })
    }

    async fn remove(id: ObjectId) -> Result<(), Error> {
        OBJECTS.delete(id.as_path()?).await
    }

    async fn probe() -> Result<Health, Error> {
        Settings::read()?.checked()?;
        OBJECTS.list("", None, 1).await?;
        Ok(Health::ready("the bucket answers"))
    }
}

impl Inventory for S3 {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        let page = OBJECTS.list("", cursor, limit).await?;
        let entries = page.entries.into_iter().filter(|entry| keys::is_object(&entry.key)).map(listed).collect();
        Ok(InventoryPage { entries, next: page.next })
    }
}

fn listed(entry: Entry) -> InventoryEntry {
    InventoryEntry { id: entry.key, size: entry.size, modified: entry.modified }
}

async fn put(data: Data, hint: StoreHint, base: Option<&str>) -> Result<Receipt, Error> {
    let settings = Settings::read()?.checked()?;
    let labels = metadata::encode(base, &hint.labels)?;
    let id = settings.key(&hint.key);
    let size = OBJECTS.put(&id, data.forward(), settings.put_options(hint.size, labels, clock::now)).await?;
    Ok(Receipt { id, size })
}

export_adapter!(S3);
export_inventory!(S3);
