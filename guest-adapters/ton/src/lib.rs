//! The adapter `ton`: objects are bags of a TON Storage daemon.
//!
//! The daemon (tonutils-storage) has an HTTP API, which transfers no contents: a bag's file is in a directory that host and
//! daemon share. So there are two grants, `http.daemon` and `directory.shared`, and a setting for the daemon's path of that
//! directory. A third grant, `http.rpc`, is for the chain and optional.
//!
//! **The id of an object is the id of its bag**, which covers its bytes, its name and its lineage (`bag.rs`). The adapter
//! computes it, from digests that the host takes of the stream, and fails if the daemon reports another. The details that
//! the daemon reports are checked against the id (`daemon.rs`), and so are the bytes of the file (`files.rs`), with proofs if
//! only a part is read (`boc.rs`). A bag that the daemon does not have is downloaded from peers (`fetch.rs`).
//!
//! Stored files are at `stored/KEY` below the shared directory, downloaded ones at `fetched/ID/…`. The key is
//! part of the bag, so that two objects of the same bytes are two bags, and removing one leaves the other.
//!
//! **No half-made objects.** The file is written first, whole and durable, and the bag made of it after that; a bag is what
//! makes it visible. When making it fails, both are taken away again; where the daemon cannot be asked to, the file
//! stays, lest there be a bag without its file.
//!
//! **Limits.** The daemon keeps its list of bags in a database that it does not sync: after a loss of power a bag may be
//! unknown while its file is there. It has to answer `create` within 30 seconds of silence, in which it reads the file once
//! more: some 10 GB on an ordinary disk. A daemon with `-force-piece-size` makes other bags, and is refused. Labels are not
//! kept. The daemon seeds stored files from the shared directory, so nothing else may change them.

mod address;
mod bag;
mod boc;
mod cell;
mod chain;
mod daemon;
mod fetch;
mod files;
mod list;
mod options;
mod terms;

use tidelock_sdk::*;

use bag::BagId;
use daemon::{Daemon, Verified};
use files::SHARED;
use options::Settings;

struct Ton;

impl Adapter for Ton {
    fn describe() -> Description {
        Description::new("ton", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .with_features(Features::RANGES | Features::LINEAGE | Features::UNSIZED_INPUT)
            .with_settings(Settings::specs())
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let settings = Settings::read()?.checked()?;
        make(&settings, data, hint, None).await
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let settings = Settings::read()?.checked()?;
        let (id, daemon) = (BagId::of_object(&id)?, Daemon::of(&settings));
        let verified = fetch::obtain(&daemon, &settings, id).await?.verified(id, &settings)?;
        let size = verified.bag.size;
        let (start, end) = within(range, size)?;
        if start == end && size > 0 {
            return Ok(Body::from_bytes(Vec::new()));
        }
        if size == 0 {
            return files::empty(&verified);
        }
        let path = path_of(&verified)?.to_owned();
        if start == 0 && end == size {
            files::whole(verified, &path).await
        } else {
            Ok(files::part(daemon, verified, path, start, end))
        }
    }

    async fn incremental_update(base: ObjectId, delta: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let settings = Settings::read()?.checked()?;
        let base = known(&settings, &base).await?.id;
        make(&settings, delta, hint, Some(base)).await
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let settings = Settings::read()?.checked()?;
        let bag = known(&settings, &id).await?.bag;
        Ok(ObjectStat { base: bag.base().map(BagId::hex), ..ObjectStat::of_size(bag.size) })
    }

    async fn remove(id: ObjectId) -> Result<(), Error> {
        let settings = Settings::read()?.checked()?;
        let (id, daemon) = (BagId::of_object(&id)?, Daemon::of(&settings));
        let Some(details) = daemon.details(id).await? else { return Ok(()) };
        // Without details there is no file.
        if details.known()
            && let Some(path) = details.verified(id, &settings)?.path
        {
            // The file first: after that the bag can be asked for again if the second step fails.
            SHARED.remove(&path).await?;
        }
        // The daemon removes the folder of a downloaded bag.
        daemon.remove(id, details.fetched(id)).await
    }

    async fn probe() -> Result<Health, Error> {
        let settings = Settings::read()?.checked()?;
        SHARED.list("", None, 1).await?;
        // Any reply will do: there is no such bag.
        Daemon::of(&settings).details(BagId([0; 32])).await?;
        Ok(Health::ready("the storage daemon and the shared directory answer"))
    }
}

impl Inventory for Ton {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        let settings = Settings::read()?.checked()?;
        let daemon = Daemon::of(&settings);
        list::page(|| daemon.list(), cursor, limit).await
    }
}

impl Account for Ton {
    async fn balance() -> Result<AccountState, Error> {
        chain::balances(&Settings::read()?.checked()?).await
    }
}

/// Stores bytes as a bag.
async fn make(settings: &Settings, data: Data, hint: StoreHint, base: Option<BagId>) -> Result<Receipt, Error> {
    chain::funds(settings).await?;
    let (bag, id) = files::write(data, &hint, base).await?;
    let path = files::stored(&bag);
    let daemon = Daemon::of(settings);
    let error = match daemon.create(&settings.daemon_path(&path), &bag.description).await {
        Ok(said) if BagId::parse(&said) == Some(id) => return Ok(Receipt { id: id.hex(), size: bag.size }),
        Ok(_) => Error::corrupt(
            "the storage daemon made another bag than expected: it has a forced piece size, or is faulty",
        ),
        Err(error) => error,
    };
    // Removes the expected bag only: the reported id is not trusted.
    match daemon.remove(id, false).await {
        Ok(()) => drop(SHARED.remove(&path).await),
        Err(_) => log::warn(&["could not remove a bag that may exist: ", &id.hex()].concat()),
    }
    Err(error)
}

/// Returns a bag of which the daemon has the details. Fails with `not-found` for any other.
async fn known(settings: &Settings, id: &ObjectId) -> Result<Verified, Error> {
    let id = BagId::of_object(id)?;
    match Daemon::of(settings).details(id).await? {
        Some(details) if details.known() => details.verified(id, settings),
        _ => Err(Error::not_found(["the storage daemon has no bag ", &id.hex()].concat())),
    }
}

fn path_of(verified: &Verified) -> Result<&str, Error> {
    verified.path.as_deref().ok_or_else(|| Error::unsupported("the bag's file is outside the shared directory"))
}

/// Resolves a range. Returns the first byte and the one after the last.
fn within(range: Option<ByteRange>, size: u64) -> Result<(u64, u64), Error> {
    let Some(ByteRange { start, end }) = range else { return Ok((0, size)) };
    if start > size || end.is_some_and(|end| end < start) {
        return Err(Error::invalid("the range begins beyond the end of the object, or ends before it begins"));
    }
    Ok((start, end.unwrap_or(size).min(size)))
}

export_adapter!(Ton);
export_inventory!(Ton);
export_account!(Ton);
