//! The smallest useful adapter: objects are files `hello-KEY` in a directory that the operator grants.
//!
//! `docs/write-an-adapter.md` walks through this file. It keeps no lineage, no labels and no settings; the `fs` adapter
//! in `guest-adapters/fs` is the same idea with all of them.

use tidelock_sdk::directory::{Directory, WriteOptions};
use tidelock_sdk::*;

/// `grants.directory.objects` in the configuration.
const OBJECTS: Directory = Directory::granted("objects");

const PREFIX: &str = "hello-";

struct Hello;

/// The file of an object. Only names that `store` gives are names of objects.
fn file(id: &ObjectId) -> Result<&str, Error> {
    match id.strip_prefix(PREFIX) {
        Some(key) if ids::is_key(key) => Ok(id.as_str()),
        _ => Err(Error::invalid(["`", id.as_str(), "` is not an id of this adapter"].concat())),
    }
}

impl Adapter for Hello {
    fn describe() -> Description {
        Description::new("hello", env!("CARGO_PKG_VERSION"), "Keeps objects as files named hello-KEY.")
            .with_features(Features::RANGES | Features::UNSIZED_INPUT)
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let id = [PREFIX, &hint.key].concat();
        let options = WriteOptions { size: hint.size, if_absent: true };
        let size = OBJECTS.write(&id, data.forward(), options).await?;
        Ok(Receipt { id, size })
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let (_, body) = OBJECTS.read(file(&id)?, range).await?;
        Ok(body)
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let info = OBJECTS.stat(file(&id)?).await?;
        Ok(ObjectStat { modified: info.modified, ..ObjectStat::of_size(info.size) })
    }

    async fn remove(id: ObjectId) -> Result<(), Error> {
        OBJECTS.remove(file(&id)?).await
    }

    async fn probe() -> Result<Health, Error> {
        OBJECTS.list("", None, 1).await?;
        Ok(Health::ready("the directory answers"))
    }
}

export_adapter!(Hello);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_ids_name_files() {
        assert_eq!(file(&ObjectId::new("hello-k1").unwrap()).unwrap(), "hello-k1");
        for foreign in ["k1", "hello-", "hello-../k1", "hello-a/b", "hello-.tmp"] {
            assert!(matches!(file(&ObjectId::new(foreign).unwrap()), Err(Error::Invalid(_))), "{foreign}");
        }
    }
}
