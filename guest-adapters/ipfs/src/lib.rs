//! The adapter `ipfs`: objects as files in IPFS, pinned by a Kubo daemon.
//!
//! An object's id is its CID, so any tool can read it from any peer. Neither daemon nor gateway is trusted. When storing,
//! the adapter computes the CID from digests that the host takes of the stream (`tree.rs`), and fails if the daemon reports
//! another. When reading, it hashes every block, and the order of the blocks follows from the root's CID (`walk.rs`,
//! `blocks.rs`). So a read returns the bytes that were stored, or fails.
//!
//! | | |
//! | --- | --- |
//! | objects | CIDs that the daemon has pinned recursively. Other blocks, of the daemon or of a peer, can be read, but `stat` fails with `not-found` |
//! | objects of this backend | pins named `NAMESPACE/KEY`, and nodes of incremental objects (`lineage.rs`), which hold that name |
//! | incremental object | a pinned node that links base and delta. The blocks of the base stay as long as the node is pinned |
//! | removal | removes the pin. The daemon's garbage collection removes the blocks |
//!
//! **Equal bytes have one CID and one pin.** Stored twice, they are one object, and removing it removes it for both: the host
//! removes an id only when its catalogue no longer needs it. Hosts with different catalogues should not share a daemon.
//! The node of an incremental object holds its key, so no two of those are one object.
//!
//! An interrupted store leaves no pin. Until the node of an incremental object is pinned, an entry in the daemon's own file
//! system (MFS) protects its delta from garbage collection.
//!
//! **Limits.** Bytes that are read cross the sandbox, since each block is checked; bytes that are stored do not. Labels are
//! not kept. Blocks have at most 2 MiB, as everywhere in IPFS.

mod blocks;
mod car;
mod cbor;
mod cid;
mod errors;
#[cfg(test)]
mod interop_tests;
mod lineage;
mod options;
mod pins;
mod rpc;
#[cfg(test)]
mod testing;
mod tree;
mod unixfs;
mod varint;
mod walk;

use std::ops::Range;

use tidelock_sdk::piece_digests::{Algorithm, Plan, tap};
use tidelock_sdk::upcoming::Place;
use tidelock_sdk::*;

use blocks::{Source, probe_gateway};
use cid::{Cid, Codec};
use lineage::Lineage;
use options::Settings;
use rpc::{AddAs, Rpc};
use unixfs::File;
use walk::Walk;

/// The result of a parser. The caller turns the reason into an error, since it knows the source of the bytes.
type Parsed<T> = Result<T, &'static str>;
/// A function that computes SHA-256: that of the host, or another one in tests.
type Sha256 = fn(&[u8]) -> [u8; 32];

/// The largest block that is accepted: <https://specs.ipfs.tech/bitswap-protocol/#block-sizes>.
const MAX_BLOCK: usize = 2 << 20;
/// The most entries of a page of the inventory: each costs a request.
const MAX_LISTED: u32 = 500;

struct Ipfs;

impl Adapter for Ipfs {
    fn describe() -> Description {
        Description::new(
            "ipfs",
            env!("CARGO_PKG_VERSION"),
            "Keeps objects in IPFS, through a Kubo daemon that it need not trust.",
        )
        .with_features(Features::RANGES | Features::LINEAGE | Features::UNSIZED_INPUT)
        .with_settings(Settings::specs())
    }

    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let settings = settings()?;
        let name = settings.name(&hint.key);
        let (cid, size) = add(&settings, data, &hint, AddAs::Pin(&name)).await?;
        Ok(Receipt { id: cid.to_string(), size })
    }

    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error> {
        let source = Source::of(&settings()?);
        let (root, block) = content(&source, parse(&id)?).await?;
        if root.codec() == Codec::Raw {
            return Ok(cut(block.as_slice(), &within(range, block.len() as u64)?));
        }
        let file = File::parse(&block).map_err(|why| not_a_file(&root, why))?;
        let wanted = within(range, file.size)?;
        if file.children.is_empty() {
            return Ok(cut(file.data, &wanted));
        }
        if wanted.is_empty() {
            return Ok(Body::from_bytes(Vec::new()));
        }
        let blocks = source.blocks(&root, file.size, &wanted).await?;
        Ok(read(Walk::new(root, file.size, wanted.clone()), blocks, wanted.end - wanted.start))
    }

    async fn incremental_update(base: ObjectId, delta: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let settings = settings()?;
        let (base, rpc) = (parse(&base)?, Rpc::of(&settings));
        rpc.pin(&base).await?.ok_or_else(|| no_object(&base))?;
        let aside = [&settings.namespace, "-", &hint.key, ".delta"].concat();
        let stored = change(&settings, &rpc, base, delta, &hint, &aside).await;
        // A leftover entry costs space and nothing else.
        if let Err(error) = rpc.remove_file(&aside).await {
            log::warn(&format!("`{aside}` could not be removed from the daemon's files: {error:?}"));
        }
        stored
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let (cid, rpc) = (parse(&id)?, Rpc::of(&settings()?));
        rpc.pin(&cid).await?.ok_or_else(|| no_object(&cid))?;
        let lost = || Error::corrupt(["the daemon has pinned ", &cid.to_string(), " and lost its block"].concat());
        let (size, base) = describe(&rpc, &cid).await?.ok_or_else(lost)?.map_err(|why| not_a_file(&cid, why))?;
        Ok(ObjectStat { base: base.map(|node| node.base.to_string()), ..ObjectStat::of_size(size) })
    }

    async fn remove(id: ObjectId) -> Result<(), Error> {
        Rpc::of(&settings()?).unpin(&parse(&id)?).await
    }

    async fn probe() -> Result<Health, Error> {
        let settings = settings()?;
        let version = Rpc::of(&settings).version().await?;
        if let Some(gateway) = &settings.gateway {
            probe_gateway(gateway).await?;
        }
        Ok(Health::ready(&["Kubo ", &version].concat()))
    }
}

impl Inventory for Ipfs {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        let settings = settings()?;
        let rpc = Rpc::of(&settings);
        // The daemon gives all its pins at once, in any order.
        let upcoming = match Place::of(cursor)? {
            Place::Known(upcoming) => upcoming,
            Place::Unread(mut upcoming) => {
                rpc.pins(|pin| {
                    let codec = Cid::parse(&pin.cid).map(|cid| cid.codec());
                    let ours = settings.is_ours(&pin.name) || codec == Ok(Codec::DagCbor);
                    if codec.is_ok() && ours {
                        upcoming.offer(pin.cid, 0);
                    }
                })
                .await?;
                upcoming
            }
        };
        let (page, next) = upcoming.page(limit.min(MAX_LISTED) as usize);
        let mut entries = Vec::new();
        for (id, _) in page {
            let cid = Cid::parse(&id).map_err(Error::invalid)?;
            match describe(&rpc, &cid).await? {
                Some(Ok((_, Some(node)))) if !settings.is_ours(&node.name) => {}
                Some(Ok((size, _))) => entries.push(InventoryEntry { id, size, modified: None }),
                Some(Err(_)) => {}
                None => log::warn(&["the daemon has pinned ", &id, " and lost its block"].concat()),
            }
        }
        Ok(InventoryPage { entries, next })
    }
}

fn settings() -> Result<Settings, Error> {
    let settings = Settings::read()?.checked()?;
    if settings.gateway.is_some() && !grants::has(grants::Kind::Http, "gateway") {
        return Err(Error::invalid("setting `gateway` needs the grant `http.gateway`"));
    }
    Ok(settings)
}

fn sha256(data: &[u8]) -> [u8; 32] {
    // The host returns 32 bytes. A digest of zeros matches no block.
    digest::sha256(data).try_into().unwrap_or_default()
}

fn parse(id: &ObjectId) -> Result<Cid, Error> {
    Cid::parse(id).map_err(|why| Error::invalid(["`", id.as_str(), "` is not an object id: ", why].concat()))
}

fn no_object(cid: &Cid) -> Error {
    Error::not_found(["the daemon has no pin of ", &cid.to_string()].concat())
}

fn not_a_file(cid: &Cid, why: &str) -> Error {
    Error::invalid([&cid.to_string(), " cannot be read: ", why].concat())
}

/// Adds bytes. Returns their CID and size. Fails with `corrupt` if the daemon reports another CID.
async fn add(settings: &Settings, data: Data, hint: &StoreHint, keep: AddAs<'_>) -> Result<(Cid, u64), Error> {
    let shape = settings.shape();
    let plan = Plan { algorithm: Algorithm::Sha256, piece_size: shape.chunk, prefix: Vec::new() };
    let (data, digests) = tap(data.forward(), &plan);
    let rpc = Rpc::of(settings);
    let said = rpc.add(data, hint.size, &hint.key, keep, settings).await?;
    let digests = digests.await?;
    let cid = shape.root(digests.size, &digests.pieces, sha256).map_err(Error::other)?;
    if said == cid {
        return Ok((cid, digests.size));
    }
    // The pin under this key is not of the bytes that were sent.
    if let AddAs::Pin(name) = keep
        && rpc.pin(&said).await.is_ok_and(|pin| pin.as_deref() == Some(name))
    {
        let _ = rpc.unpin(&said).await;
    }
    Err(Error::corrupt(["the daemon stored ", &said.to_string(), " instead of ", &cid.to_string()].concat()))
}

/// Stores the delta of an incremental object under the entry `aside`, and then its node.
async fn change(
    settings: &Settings,
    rpc: &Rpc,
    base: Cid,
    delta: Data,
    hint: &StoreHint,
    aside: &str,
) -> Result<Receipt, Error> {
    let (delta, size) = add(settings, delta, hint, AddAs::File(aside)).await?;
    let node = Lineage { base, name: settings.name(&hint.key), size, delta };
    let cid = node.cid(sha256);
    let said = rpc.put_lineage(&node).await?;
    if said != cid {
        return Err(Error::corrupt(
            ["the daemon stored ", &said.to_string(), " instead of ", &cid.to_string()].concat(),
        ));
    }
    Ok(Receipt { id: cid.to_string(), size })
}

/// Returns the size of an object in the daemon's own store, and its node if it is incremental; `None` if its block is not
/// there. The inner error is the reason why it is not an object.
async fn describe(rpc: &Rpc, cid: &Cid) -> Result<Option<Parsed<(u64, Option<Lineage>)>>, Error> {
    if let Some(block) = cid.inline_block() {
        return Ok(Some(measure(cid, block)));
    }
    if cid.codec() == Codec::Raw {
        // The size of the block is that of the object, so the block is not read.
        return Ok(rpc.local_block_size(cid).await?.map(|size| Ok((size, None))));
    }
    Ok(rpc.local_block(cid).await?.map(|block| measure(cid, &block)))
}

fn measure(cid: &Cid, block: &[u8]) -> Parsed<(u64, Option<Lineage>)> {
    match cid.codec() {
        Codec::Raw => Ok((block.len() as u64, None)),
        Codec::DagPb => File::parse(block).map(|file| (file.size, None)),
        Codec::DagCbor => Lineage::parse(block).map(|node| (node.size, Some(node))),
    }
}

/// Returns the root of the file of an object, with its block. For an incremental object, that is the delta.
async fn content(source: &Source, cid: Cid) -> Result<(Cid, Vec<u8>), Error> {
    let block = source.block(&cid).await?;
    if cid.codec() != Codec::DagCbor {
        return Ok((cid, block));
    }
    let node = Lineage::parse(&block).map_err(|why| not_a_file(&cid, why))?;
    let block = source.block(&node.delta).await?;
    match measure(&node.delta, &block) {
        Ok((size, None)) if size == node.size => Ok((node.delta, block)),
        Ok(_) => Err(Error::corrupt([&cid.to_string(), " states another size than that of its delta"].concat())),
        Err(why) => Err(not_a_file(&node.delta, why)),
    }
}

/// Resolves a range of an object of `size` bytes. Fails with `invalid` if it begins beyond the end.
fn within(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Error> {
    let Some(ByteRange { start, end }) = range else { return Ok(0..size) };
    let end = end.unwrap_or(size).min(size);
    if start > size || start > end {
        return Err(Error::invalid(format!(
            "the range {start}..{end} is not within the object, which has {size} bytes"
        )));
    }
    Ok(start..end)
}

/// Returns a part of a block as a body.
fn cut(bytes: &[u8], wanted: &Range<u64>) -> Body {
    // Both ends are within the block.
    Body::from_bytes(bytes.get(wanted.start as usize..wanted.end as usize).unwrap_or_default().to_vec())
}

/// Returns the bytes of a walk as a body, which fails unless they are `size`.
fn read(mut walk: Walk, mut blocks: blocks::Blocks, size: u64) -> Body {
    Body::from_writer(async move |out| {
        let mut left = size;
        while let Some(cid) = walk.next() {
            let block = blocks.get(&cid).await?;
            if walk.repeats() {
                blocks.keep(&cid, &block);
            }
            let bytes = walk.take(block).map_err(|why| Error::corrupt([&cid.to_string(), ": ", why].concat()))?;
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| Error::corrupt("a file has too many bytes"))?;
            if !bytes.is_empty() {
                out.write(bytes).await?;
            }
        }
        if left == 0 { Ok(()) } else { Err(Error::corrupt("a file has too few bytes")) }
    })
}

export_adapter!(Ipfs);
export_inventory!(Ipfs);
