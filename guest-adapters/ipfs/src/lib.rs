//! The adapter `ipfs`: objects as files of IPFS, pinned by a Kubo daemon.
//!
//! An object's id is its CID, so what is stored can be had from any peer, by anybody, with any tool. The adapter believes
//! neither daemon nor gateway: when it stores, it computes the CID itself, from digests that the host takes while the bytes
//! pass (`tree.rs`), and refuses a daemon that says another; when it reads, every block is hashed and the order of the blocks
//! follows from the root's name (`walk.rs`, `blocks.rs`). So what it gives is what was stored, or an error.
//!
//! | question | answer |
//! | --- | --- |
//! | which objects are there? | those that the daemon has pinned, recursively. Bytes that it merely has, or that a peer has, can be read, but are no objects to `stat` |
//! | which of them are ours? | pins named `NAMESPACE/KEY`, and changes: nodes of ours (`lineage.rs`), which hold that name themselves |
//! | what is a change? | a node that links base and delta, pinned. The base's blocks stay as long as a change of it is pinned |
//! | what is removed? | the pin. Blocks that nothing pins are collected when the operator has them collected |
//!
//! **Equal bytes have one CID, so one pin.** Stored twice, they are one object with one id, and removing that id removes it for
//! whoever stored it last and first: the host removes an id only when nothing in its catalogue needs it. Hosts that do not
//! share a catalogue should not share a daemon. A change has its key in its node, so no two changes are one object.
//!
//! A store that is cut short leaves no pin. Until a change's node is pinned, its delta is kept in the daemon's own directory
//! (MFS): a collection in between would otherwise take it.
//!
//! **Limits.** Bytes that are read cross the sandbox, since each block is checked before it is given; bytes that are stored do
//! not. Labels are not kept. Blocks have at most 2 MiB, as everywhere in IPFS.

mod blocks;
mod car;
mod cbor;
mod cid;
mod errors;
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

use std::collections::BTreeSet;
use std::ops::Range;

use tidelock_sdk::piece_digests::{Algorithm, Plan, tap};
use tidelock_sdk::*;

use blocks::{Source, try_gateway};
use cid::{Cid, Codec};
use lineage::Lineage;
use options::Settings;
use rpc::{Keep, Rpc};
use unixfs::File;
use walk::Walk;

/// What reading a format gives: why it is not what it should be is for whoever knows where it came from.
type Parsed<T> = Result<T, &'static str>;
/// SHA-256 of some bytes: the host's, or in tests another.
type Sha256 = fn(&[u8]) -> [u8; 32];

/// The largest block that is taken: <https://specs.ipfs.tech/bitswap-protocol/#block-sizes>.
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
        let (cid, size) = add(&settings, data, &hint, Keep::Pinned(&name)).await?;
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
        // What is left there costs space and nothing else.
        if let Err(error) = rpc.forget(&aside).await {
            log::warn(&format!("`{aside}` is left in the daemon's files: {error:?}"));
        }
        stored
    }

    async fn stat(id: ObjectId) -> Result<ObjectStat, Error> {
        let (cid, rpc) = (parse(&id)?, Rpc::of(&settings()?));
        rpc.pin(&cid).await?.ok_or_else(|| no_object(&cid))?;
        let lost = || Error::corrupt(["the daemon has pinned ", &cid.to_string(), ", and lost its block"].concat());
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
            try_gateway(gateway).await?;
        }
        Ok(Health::ready(&["Kubo ", &version].concat()))
    }
}

impl Inventory for Ipfs {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        let settings = settings()?;
        let rpc = Rpc::of(&settings);
        // Each call reads all pins, in whatever order they come, and keeps those that are next by name.
        let (mut next, mut more) = (BTreeSet::new(), false);
        rpc.pins(|pin| {
            let codec = Cid::parse(&pin.cid).map(|cid| cid.codec());
            let ours = settings.is_ours(&pin.name) || codec == Ok(Codec::DagCbor);
            if codec.is_ok() && ours && cursor.as_ref().is_none_or(|cursor| pin.cid > *cursor) {
                next.insert(pin.cid);
                if next.len() > limit.min(MAX_LISTED) as usize {
                    next.pop_last();
                    more = true;
                }
            }
        })
        .await?;
        let mut entries = Vec::new();
        for id in &next {
            let cid = Cid::parse(id).map_err(Error::corrupt)?;
            match describe(&rpc, &cid).await? {
                Some(Ok((_, Some(node)))) if !settings.is_ours(&node.name) => {}
                Some(Ok((size, _))) => entries.push(InventoryEntry { id: id.clone(), size, modified: None }),
                Some(Err(_)) => {}
                None => log::warn(&["the daemon has pinned ", id, ", and lost its block"].concat()),
            }
        }
        Ok(InventoryPage { entries, next: next.pop_last().filter(|_| more) })
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
    // The host gives 32 bytes; anything else names nothing.
    digest::sha256(data).try_into().unwrap_or_default()
}

fn parse(id: &ObjectId) -> Result<Cid, Error> {
    Cid::parse(id).map_err(|why| Error::invalid(["`", id.as_str(), "` names no object: ", why].concat()))
}

fn no_object(cid: &Cid) -> Error {
    Error::not_found(["the daemon has not pinned ", &cid.to_string()].concat())
}

fn not_a_file(cid: &Cid, why: &str) -> Error {
    Error::invalid([&cid.to_string(), " cannot be read: ", why].concat())
}

/// Adds bytes, and gives what they are called and how many they are. The daemon has to call them the same.
async fn add(settings: &Settings, data: Data, hint: &StoreHint, keep: Keep<'_>) -> Result<(Cid, u64), Error> {
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
    // What it has pinned under this key is not what was sent.
    if let Keep::Pinned(name) = keep
        && rpc.pin(&said).await.is_ok_and(|pin| pin.as_deref() == Some(name))
    {
        let _ = rpc.unpin(&said).await;
    }
    Err(Error::corrupt(["the daemon stored ", &said.to_string(), ", and was sent ", &cid.to_string()].concat()))
}

/// Stores the delta of a change, kept aside, and the node that makes it one.
async fn change(
    settings: &Settings,
    rpc: &Rpc,
    base: Cid,
    delta: Data,
    hint: &StoreHint,
    aside: &str,
) -> Result<Receipt, Error> {
    let (delta, size) = add(settings, delta, hint, Keep::Aside(aside)).await?;
    let node = Lineage { base, name: settings.name(&hint.key), size, delta };
    let cid = node.cid(sha256);
    let said = rpc.put_lineage(&node).await?;
    if said != cid {
        return Err(Error::corrupt(
            ["the daemon stored ", &said.to_string(), ", and was sent ", &cid.to_string()].concat(),
        ));
    }
    Ok(Receipt { id: cid.to_string(), size })
}

/// The size of what the daemon has itself, and the node if it is a change. The inner error says why it is no object.
async fn describe(rpc: &Rpc, cid: &Cid) -> Result<Option<Parsed<(u64, Option<Lineage>)>>, Error> {
    if let Some(block) = cid.holds() {
        return Ok(Some(measure(cid, block)));
    }
    if cid.codec() == Codec::Raw {
        // The block is the bytes; they are not read for the sake of their number.
        return Ok(rpc.size_here(cid).await?.map(|size| Ok((size, None))));
    }
    Ok(rpc.block_here(cid).await?.map(|block| measure(cid, &block)))
}

fn measure(cid: &Cid, block: &[u8]) -> Parsed<(u64, Option<Lineage>)> {
    match cid.codec() {
        Codec::Raw => Ok((block.len() as u64, None)),
        Codec::DagPb => File::parse(block).map(|file| (file.size, None)),
        Codec::DagCbor => Lineage::parse(block).map(|node| (node.size, Some(node))),
    }
}

/// The root of the bytes of an object, with its block: of a change, that of the delta.
async fn content(source: &Source, cid: Cid) -> Result<(Cid, Vec<u8>), Error> {
    let block = source.block(&cid).await?;
    if cid.codec() != Codec::DagCbor {
        return Ok((cid, block));
    }
    let node = Lineage::parse(&block).map_err(|why| not_a_file(&cid, why))?;
    let block = source.block(&node.delta).await?;
    match measure(&node.delta, &block) {
        Ok((size, None)) if size == node.size => Ok((node.delta, block)),
        Ok(_) => Err(Error::corrupt([&cid.to_string(), " is a change of another size than its delta"].concat())),
        Err(why) => Err(not_a_file(&node.delta, why)),
    }
}

/// What a range means for so many bytes.
fn within(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Error> {
    let Some(ByteRange { start, end }) = range else { return Ok(0..size) };
    let end = end.unwrap_or(size).min(size);
    if start > size || start > end {
        return Err(Error::invalid(format!("there are {size} bytes, and the range begins at {start}")));
    }
    Ok(start..end)
}

/// A part of a block that is at hand.
fn cut(bytes: &[u8], wanted: &Range<u64>) -> Body {
    // Both ends are within the block.
    Body::from_bytes(bytes.get(wanted.start as usize..wanted.end as usize).unwrap_or_default().to_vec())
}

/// The bytes that a walk gives, which have to be so many.
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
