//! The adapters `fs` and `nfs`: objects are files below one directory.
//!
//! One code, two packages: `nfs` is what a configuration names for an export of a file server, with a manifest that says
//! so. Which of the two this is, the package says.
//!
//! It imports `directory` with the grant `objects`, which may be a local folder or an export of a file server, and
//! nothing else but its settings. `layout.rs` says where an object lies, `side.rs` how its base and labels are kept,
//! `walk.rs` how all of them are listed.
//!
//! **No object without its lineage.** The host writes one file at a time, whole and durable. So the side file is written
//! first, and the object after it; the object is what makes both visible. An attempt that dies in between leaves a side
//! file without an object, which nothing reads, which the same attempt made again accepts as its own, and which `remove`
//! of that id clears away.
//!
//! **Limits.** A base is a path below the same grant. Removing a base does not touch what was stored against it: what is
//! still needed is for the host to know. Objects stored under another `layout` or `prefix` can be read, but are not
//! listed.

mod layout;
mod side;
mod walk;

use tidelock_sdk::directory::{Directory, Page, WriteOptions};
use tidelock_sdk::*;

use layout::{Settings, object_path, side_path};
use side::Side;

/// `grants.directory.objects` in the configuration.
const OBJECTS: Directory = Directory::granted("objects");

/// `fs` or `nfs`: the package's name behind `tidelock-adapter-`.
const NAME: &str = env!("CARGO_PKG_NAME").split_at("tidelock-adapter-".len()).1;

struct Fs;

impl Adapter for Fs {
    fn describe() -> Description {
        Description::new(NAME, env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .with_features(Features::RANGES | Features::LINEAGE | Features::UNSIZED_INPUT | Features::LABELS)
            .with_settings(Settings::specs())
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        write(data, hint, None).await
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let (_, body) = OBJECTS.read(object_path(&id)?, range).await?;
        Ok(body)
    }

    async fn incremental_update(base: ObjectId, delta: Data, hint: StoreHint) -> Result<Receipt, Error> {
        OBJECTS.stat(object_path(&base)?).await?;
        write(delta, hint, Some(base.into_string())).await
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let path = object_path(&id)?;
        let info = OBJECTS.stat(path).await?;
        let side = known_side(&side_path(path)).await?;
        Ok(ObjectStat { size: info.size, base: side.base, archive: None, modified: info.modified, labels: side.labels })
    }

    async fn remove(id: ObjectId) -> Result<(), Error> {
        let path = object_path(&id)?;
        OBJECTS.remove(path).await?;
        OBJECTS.remove(&side_path(path)).await
    }

    async fn probe() -> Result<Health, Error> {
        Settings::read()?.checked()?;
        OBJECTS.list("", None, 1).await?;
        Ok(Health::ready("the directory answers"))
    }
}

impl Inventory for Fs {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        walk::walk(&Granted, &Settings::read()?.checked()?, cursor, limit).await
    }
}

/// The grant, as the inventory lists it.
struct Granted;

impl walk::Lister for Granted {
    async fn list(&self, path: &str, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        OBJECTS.list(path, cursor, limit).await
    }
}

/// Writes the side file, if there is anything to be kept, and then the object.
async fn write(data: Data, hint: StoreHint, base: Option<String>) -> Result<Receipt, Error> {
    let path = Settings::read()?.checked()?.path(&hint.key);
    let side = Side { base, labels: hint.labels };
    if !side.is_empty() {
        write_side(&side_path(&path), &side).await?;
    }
    match OBJECTS.write(&path, data.forward(), WriteOptions { size: hint.size, if_absent: true }).await {
        Ok(size) => Ok(Receipt { id: path, size }),
        Err(error) => {
            // After a conflict the side file is that of the object which is there.
            if !side.is_empty() && !matches!(error, Error::Conflict(_)) {
                clear(&path).await;
            }
            Err(error)
        }
    }
}

/// Writes a side file. One that is there already is accepted if it says the same: then it is what an earlier attempt
/// at the same object left.
async fn write_side(path: &str, side: &Side) -> Result<(), Error> {
    let bytes = side.encode()?;
    let options = WriteOptions { size: Some(bytes.len() as u64), if_absent: true };
    match OBJECTS.write(path, Body::from_bytes(bytes), options).await {
        Ok(_) => Ok(()),
        Err(Error::Conflict(why)) => match read_side(path).await? {
            Some(there) if there == *side => Ok(()),
            _ => Err(Error::Conflict(why)),
        },
        Err(error) => Err(error),
    }
}

/// The side file at that path, if there is one.
async fn read_side(path: &str) -> Result<Option<Side>, Error> {
    match OBJECTS.read(path, None).await {
        Ok((info, _)) if info.size > side::MAX_BYTES as u64 => Err(Error::corrupt("the side file is over 64 KiB long")),
        Ok((_, body)) => Side::decode(&body.read_all(side::MAX_BYTES).await?).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is known of an object beside its bytes. The bytes prove themselves, so a side file that is damaged or must not be
/// read costs the base and the labels alone; one that cannot be read now fails.
async fn known_side(path: &str) -> Result<Side, Error> {
    match read_side(path).await {
        Ok(side) => Ok(side.unwrap_or_default()),
        Err(Error::Corrupt(why) | Error::Denied(why) | Error::Invalid(why)) => {
            log::warn(
                &["`", path, "` cannot be used, so base and labels of its object are not known: ", &why].concat(),
            );
            Ok(Side::default())
        }
        Err(error) => Err(error),
    }
}

/// After a failed write: takes the side file away, but only when it is certain that no object needs it. A
/// failure is ignored, since the first error is reported. Objects are never removed: one that is there is not of this
/// attempt.
async fn clear(path: &str) {
    if matches!(OBJECTS.stat(path).await, Err(Error::NotFound(_))) {
        let _ = OBJECTS.remove(&side_path(path)).await;
    }
}

export_adapter!(Fs);
export_inventory!(Fs);
