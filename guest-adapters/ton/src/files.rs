//! The file of a bag in the shared directory: written, read whole or in part, and never believed.
//!
//! **Whole.** The bytes go from file to reader without entering this adapter's memory, and the host digests them as they
//! pass. The body ends well only if the tree over those digests has the bag's root.
//!
//! **In part.** The pieces that the part touches are read one by one, each is compared with a proof of it, and only then
//! are its bytes given out. They pass through memory here, a piece at a time: the part begins and ends within pieces.

use tidelock_sdk::directory::{Directory, WriteOptions};
use tidelock_sdk::piece_digests::{Algorithm, Digests, Plan, tap};
use tidelock_sdk::{Body, BodyWriter, ByteRange, Data, Error, StoreHint, digest};

use crate::bag::{Bag, BagId, SMALLEST_PIECE};
use crate::boc::Proof;
use crate::cell::{Hash, merkle_root};
use crate::daemon::{Daemon, Verified};

/// `grants.directory.shared` in the configuration.
pub const SHARED: Directory = Directory::granted("shared");

/// Where what is stored goes, below the shared directory.
const STORED: &str = "stored/";

/// Where the file of a bag that is stored here lies.
pub fn stored(bag: &Bag) -> String {
    [STORED, &bag.name].concat()
}

/// Writes a file that no bag is made of yet, and gives the bag that it makes and that bag's id.
///
/// Of bytes whose number is known, the header is known before the first of them, and the host digests header and bytes in
/// one pass. Of others it is not, since it holds their number; but its length is, and so is where each piece begins. So
/// they are digested behind the header of a file without bytes, and of a file of the smallest pieces the first one is then
/// read and digested again. A file that is so long that its pieces are larger (over 512 MiB) is read again from end to end.
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
            mend(&mut pieces, &bag).await?;
        }
        let id = merkle_root(&pieces).and_then(|root| bag.id(&root.hash));
        id.ok_or_else(|| Error::other("the digests of the pieces are not digests"))
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

/// Gives a file of which only now is known what it has to be called its name, by copying it. Happens to one in as many
/// files as a piece has bytes. Gives the digests of its pieces.
async fn rename(from: &Bag, to: &Bag) -> Result<Vec<u8>, Error> {
    let (_, body) = SHARED.read(&stored(from), None).await?;
    let (body, digests) = tap(body, &plan(to));
    SHARED.write(&stored(to), body, WriteOptions { size: Some(to.size), if_absent: true }).await?;
    SHARED.remove(&stored(from)).await?;
    Ok(digests.await?.pieces)
}

/// Makes the digests of a file behind another header those of this bag.
async fn mend(pieces: &mut Vec<u8>, bag: &Bag) -> Result<(), Error> {
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

/// All bytes of a bag's file, checked.
pub async fn whole(verified: Verified, path: &str) -> Result<Body, Error> {
    let Verified { bag, root, .. } = verified;
    let (info, body) = SHARED.read(path, None).await.map_err(missing)?;
    if info.size != bag.size {
        let (found, said) = (info.size.to_string(), bag.size.to_string());
        return Err(Error::corrupt(["the bag's file has ", &found, " bytes, and the bag has ", &said].concat()));
    }
    let (body, digests) = tap(body, &plan(&bag));
    Ok(body.checked(async move { same(&digests.await?, &root) }))
}

/// The one piece of a bag without bytes is its header: no file is needed to know it.
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

/// The bytes from `start` to before `end`, both within the file and not the same, checked.
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

/// The bytes of a piece: of the header, if it is the first one, and of the file.
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
    Error::corrupt("the bytes of the bag's file are not those of the bag")
}

/// That there is no such file is not that there is no such object: the daemon says that there is.
fn missing(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::unavailable(
            "the bag's file is not in the shared directory: is that the same directory as `shared_path` at the daemon?",
        ),
        Error::Invalid(why) => Error::corrupt(["the bag's file is shorter than the bag: ", &why].concat()),
        other => other,
    }
}
