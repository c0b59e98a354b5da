//! The adapter `glacier`: objects in the archive classes of S3, cheap to keep and slow to read.
//!
//! It imports `bucket` with the grant `objects`, and its settings. An object is put straight into its storage class, with
//! its base and labels as metadata (`tidelock_sdk::metadata`): those can be read at any time, only the bytes are cold. So
//! `stat`, lineage, removal and the inventory need no restore.
//!
//! ```text
//! archived ── restore ──▶ restoring ── hours ──▶ readable until T ── T ──▶ archived
//! ```
//!
//! Reading an archived object fails with `archived` and the state that the bucket reports; the host decides whether to ask
//! for a restore. A restore makes a copy that is readable for some days beside the archived object, which stays where it is.
//!
//! Every put is on the condition that the key is free, as in the adapter `s3`, and keys lie directly below the grant's
//! prefix; what that adapter has stored there in its layout `flat` can be read by this one.
//!
//! **Limits.** Encryption and object lock are the bucket's defaults: an archive has one policy for all. Amazon bills an
//! object that is removed early for its least time (90 days, 180 in `DEEP_ARCHIVE`).

mod options;

use tidelock_sdk::bucket::{Bucket, Entry};
use tidelock_sdk::*;

use options::Settings;

/// `grants.bucket.objects` in the configuration.
const OBJECTS: Bucket = Bucket::granted("objects");

struct Glacier;

impl Adapter for Glacier {
    fn describe() -> Description {
        Description::new(
            "glacier",
            env!("CARGO_PKG_VERSION"),
            "Keeps objects in an S3 archive, from which they are restored before they are read.",
        )
        .with_features(Features::RANGES | Features::LINEAGE | Features::UNSIZED_INPUT | Features::LABELS)
        .with_settings(Settings::specs())
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        put(data, hint, None).await
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let key = id.as_path()?;
        match OBJECTS.get(key, range).await {
            Ok((_, body)) => Ok(body),
            // The error is the same with and without a restore in progress.
            Err(Error::Archived(_)) => Err(Error::Archived(state(key).await?)),
            Err(error) => Err(error),
        }
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

impl Archive for Glacier {
    async fn restore(id: ObjectId, days: u32) -> Result<ArchiveState, Error> {
        let settings = Settings::read()?.checked()?;
        OBJECTS.restore(id.as_path()?, days, settings.tier()).await
    }
}

impl Inventory for Glacier {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        let page = OBJECTS.list("", cursor, limit).await?;
        let entries = page.entries.into_iter().filter(|entry| ids::is_key(&entry.key)).map(listed).collect();
        Ok(InventoryPage { entries, next: page.next })
    }
}

fn listed(entry: Entry) -> InventoryEntry {
    InventoryEntry { id: entry.key, size: entry.size, modified: entry.modified }
}

/// Returns the state of an object that could not be read. One that became readable meanwhile counts as restored.
async fn state(key: &str) -> Result<ArchiveState, Error> {
    Ok(match OBJECTS.head(key).await?.archive {
        Some(ArchiveState::Archived) => ArchiveState::Archived,
        Some(ArchiveState::Restoring(left)) => ArchiveState::Restoring(left),
        Some(ArchiveState::Readable(_)) | None => ArchiveState::Restoring(Some(0)),
    })
}

async fn put(data: Data, hint: StoreHint, base: Option<&str>) -> Result<Receipt, Error> {
    let settings = Settings::read()?.checked()?;
    let labels = metadata::encode(base, &hint.labels)?;
    let size = OBJECTS.put(&hint.key, data.forward(), settings.put_options(hint.size, labels)).await?;
    Ok(Receipt { id: hint.key, size })
}

export_adapter!(Glacier);
export_archive!(Glacier);
export_inventory!(Glacier);
