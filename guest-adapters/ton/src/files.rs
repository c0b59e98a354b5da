//! The file of a bag in the shared directory: written, and read whole or in part. Its contents are not trusted.
//!
//! **Whole.** The bytes do not enter this adapter's memory; the host digests them on their way. The body ends well only if
//! the tree over those digests has the bag's root.
//!
//! **In part.** The adapter reads the pieces that overlap the range one by one, checks each against a proof, and only then
//! passes its bytes on. They enter memory one piece at a time, since a range begins and ends inside pieces.

use tidelock_sdk::directory::{Directory, WriteOptions};
use tidelock_sdk::piece_digests::{Algorithm, Digests, Plan, tap};
use tidelock_sdk::{Body, BodyWriter, ByteRange, Data, Error, StoreHint, digest};

use crate::bag::{Bag, BagId, SMALLEST_PIECE};
use crate::boc::Proof;
use crate::cell::{Hash, merkle_root};
use crate::daemon::{Daemon, Verified};

/// `grants.directory.shared` in the configuration.
pub const SHARED: Directory = Directory::granted("shared");

/// The folder of stored files, below the shared directory.
const STORED: &str = "stored/";

/// Returns the path of the file of a stored bag.
pub fn stored(bag: &Bag) -> String {
    [STORED, &bag.name].concat()
}

/// Writes a file. Returns the bag that the daemon will make of it, and the bag's id.
///
/// The header of a bag holds the size of the file. If the size is known, the host digests header and bytes in one pass. If
/// it is not, the bytes are digested after the header of an empty file, which has the same length. The first piece is then
/// read and digested again, or the whole file if it is so large (over 512 MiB) that its pieces are larger.
pub async fn write(data: Data, hint: &StoreHint, base: Option<BagId>) -> Result<(Bag, BagId), Error> {
    let guess = Bag::of_file(&hint.key, hint.size.unwrap_or(0), base);
    let (body, digests) = tap(data.forward(), &plan(&guess));
    let options = WriteOptions { size: hint.size, if_absent: true };
    let written = SHARED.write(&stored(&guess), body, options).await?;
    let bag = Bag::of_file(&hint.key, written, base);
    let finished = async {
        let mut pieces = digests.await?.pieces;
        if bag.name != guess.name {
            pieces = rename(&guess, &bag).await?;
        } else if bag != guess {
            correct(&mut pieces, &bag).await?;
        }
        let id = merkle_root(&pieces).and_then(|root| bag.id(&root.hash));
        id.ok_or_else(|| Error::other("the host returned no valid digests"))
    };
    match finished.await {
        Ok(id) => Ok((bag, id)),
        Err(error) => {
            for name in [&guess, &bag] {
                let _ = SHARED.remove(&stored(name)).await;
            }
            Err(error)
        }
    }
}

/// Renames a file, by copying it, whose name depends on a size that was not known before. That is one in as many files as
/// a piece has bytes. Returns the digests of its pieces.
async fn rename(from: &Bag, to: &Bag) -> Result<Vec<u8>, Error> {
    let (_, body) = SHARED.read(&stored(from), None).await?;
    let (body, digests) = tap(body, &plan(to));
    SHARED.write(&stored(to), body, WriteOptions { size: Some(to.size), if_absent: true }).await?;
    SHARED.remove(&stored(from)).await?;
    Ok(digests.await?.pieces)
}

/// Corrects digests that were made with the header of an empty file.
async fn correct(pieces: &mut Vec<u8>, bag: &Bag) -> Result<(), Error> {
    let (header, path) = (bag.header(), stored(bag));
    if bag.piece_size == SMALLEST_PIECE {
        let first = digest::sha256(&piece(bag, &header, &path, 0).await?);
        pieces.splice(..first.len().min(pieces.len()), first);
        return Ok(());
    }
    pieces.clear();
    for index in 0..bag.pieces() {
        pieces.extend(digest::sha256(&piece(bag, &header, &path, index).await?));
    }
    Ok(())
}

/// Returns all bytes of a bag's file, checked.
pub async fn whole(verified: Verified, path: &str) -> Result<Body, Error> {
    let Verified { bag, root, .. } = verified;
    let (info, body) = SHARED.read(path, None).await.map_err(missing)?;
    if info.size != bag.size {
        let (found, said) = (info.size.to_string(), bag.size.to_string());
        return Err(Error::corrupt(["the bag's file has ", &found, " bytes instead of ", &said].concat()));
    }
    let (body, digests) = tap(body, &plan(&bag));
    Ok(body.checked(async move { same(&digests.await?, &root) }))
}

/// Returns the empty body of a bag without bytes. Its only piece is its header, so no file is needed to check it.
pub fn empty(verified: &Verified) -> Result<Body, Error> {
    let digest = digest::sha256(&verified.bag.header());
    match merkle_root(&digest) {
        Some(root) if root.hash == verified.root => Ok(Body::from_bytes(Vec::new())),
        _ => Err(wrong_bytes()),
    }
}

fn same(digests: &Digests, root: &Hash) -> Result<(), Error> {
    match merkle_root(&digests.pieces) {
        Some(found) if found.hash == *root => Ok(()),
        _ => Err(wrong_bytes()),
    }
}

fn plan(bag: &Bag) -> Plan {
    Plan { algorithm: Algorithm::Sha256, piece_size: bag.piece_size.into(), prefix: bag.header() }
}

/// Returns the bytes `start..end`, a non-empty range within the file, checked.
pub fn part(daemon: Daemon, verified: Verified, path: String, start: u64, end: u64) -> Body {
    Body::from_writer(async move |writer| {
        let header = verified.bag.header();
        let (ahead, size) = (header.len() as u64, u64::from(verified.bag.piece_size));
        let (from, to) = (start + ahead, end + ahead);
        let mut shown: Option<Proof> = None;
        for index in from / size..to.div_ceil(size) {
            let bytes = piece(&verified.bag, &header, &path, index).await?;
            check(&daemon, &verified, index, &bytes, &mut shown).await?;
            let at = index * size;
            let (first, last) = (from.saturating_sub(at), (to - at).min(size));
            give(writer, bytes, first as usize, last as usize).await?;
        }
        Ok(())
    })
}

async fn give(writer: &mut BodyWriter, mut bytes: Vec<u8>, first: usize, last: usize) -> Result<(), Error> {
    bytes.truncate(last);
    bytes.drain(..first.min(bytes.len()));
    writer.write(bytes).await
}

/// Compares a piece with a proof of it: the last one, if it shows this piece too.
async fn check(
    daemon: &Daemon,
    verified: &Verified,
    index: u64,
    bytes: &[u8],
    shown: &mut Option<Proof>,
) -> Result<(), Error> {
    let found = digest::sha256(bytes);
    let pieces = verified.bag.pieces();
    if pieces == 1 {
        return if merkle_root(&found).is_some_and(|root| root.hash == verified.root) {
            Ok(())
        } else {
            Err(wrong_bytes())
        };
    }
    let expected = match shown.as_ref().and_then(|proof| proof.digest(index)) {
        Some(digest) => digest,
        None => {
            let proof = daemon.proof(verified.id, index, &verified.root, pieces).await?;
            let digest = proof.digest(index).ok_or_else(|| Error::corrupt("the daemon's proof is of another piece"))?;
            *shown = Some(proof);
            digest
        }
    };
    if found == expected { Ok(()) } else { Err(wrong_bytes()) }
}

/// Returns the bytes of a piece, which are those of header and file.
async fn piece(bag: &Bag, header: &[u8], path: &str, index: u64) -> Result<Vec<u8>, Error> {
    let (ahead, size) = (header.len() as u64, u64::from(bag.piece_size));
    let start = (index * size).saturating_sub(ahead);
    let end = ((index + 1) * size).saturating_sub(ahead).min(bag.size);
    let of_header = (index * size).min(ahead) as usize..((index + 1) * size).min(ahead) as usize;
    let mut bytes = header.get(of_header).unwrap_or_default().to_vec();
    if end > start {
        let range = ByteRange { start, end: Some(end) };
        let (_, body) = SHARED.read(path, Some(range)).await.map_err(missing)?;
        bytes.extend(body.read_all((end - start) as usize).await?);
    }
    Ok(bytes)
}

fn wrong_bytes() -> Error {
    Error::corrupt("the bag's file does not match the bag")
}

/// Maps a missing file to another error than a missing object, since the daemon has the bag.
fn missing(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::unavailable(
            "the bag's file is not in the shared directory: is that the same directory as `shared_path` at the daemon?",
        ),
        Error::Invalid(why) => Error::corrupt(["the bag's file is shorter than the bag: ", &why].concat()),
        other => other,
    }
}
