//! Bags: a header and one file, which determine the id.
//!
//! ```text
//! id     = hash of the cell  piece size:u32  size of header and file:u64  root hash  header size:u64  header hash  Text
//! header = 0x9128aab7:u32 files:u32 bytes of names:u64 0:u64 0xc82a1964:u32 bytes of the folder's name:u32
//!          folder's name, ends of the names:u64…, ends of the files:u64…, names
//! ```
//!
//! The cell is big-endian, the header little-endian. The root hash is that of the Merkle tree (`cell.rs`) over the SHA-256
//! of each piece of header and file, one after the other. `Text` is the description: 0 if there is none, else the number
//! of chunks and then chunks, each its length and its bytes, the first in this cell and each further one in a cell that the
//! one before it refers to. The lengths of chunks (41 bytes here, then 125) are those of `tonutils-go`; other
//! implementations cut longer texts otherwise, so no description that is written here has more than one cell.
//!
//! An object is a bag of one file. Its base is in the description, which the id covers.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};
use tidelock_sdk::Error;

use crate::cell::{Hash, Node, ordinary};

const HEADER_MAGIC: u32 = 0x9128_aab7;
const NO_FEC: u32 = 0xc82a_1964;

/// The piece size of bags up to 512 MiB, the smallest that the daemon uses.
pub const SMALLEST_PIECE: u32 = 128 << 10;
/// The largest piece size that the daemon can be configured to use.
const LARGEST_PIECE: u32 = 8 << 20;
/// The largest file that is accepted: a PiB.
const LARGEST_FILE: u64 = 1 << 50;
/// The longest name of a file with its folder.
const LONGEST_NAME: usize = 4096;

/// The first chunk of a description in the cell of the bag, and those after it.
const FIRST_CHUNK: usize = 41;
const CHUNK: usize = 125;

/// The start of the description of a bag that this adapter stored.
const MARK: &str = "tidelock";
const BASE: &str = "tidelock base=";

/// The id of a bag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BagId(pub Hash);

impl BagId {
    /// Parses 64 hexadecimal digits in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }

    /// Parses an object id. Fails with `invalid` if it is not the id of a bag.
    pub fn of_object(id: &str) -> Result<Self, Error> {
        Self::parse(id)
            .ok_or_else(|| Error::invalid(["`", id, "` is not a bag id, which has 64 hexadecimal digits"].concat()))
    }

    /// Returns the digits in lower case, as the daemon does.
    pub fn hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// A bag of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bag {
    /// Bytes of a piece, the last of which may be shorter. Not 0.
    pub piece_size: u32,
    /// The folder's name and a `/`, or empty.
    pub dir: String,
    /// The file's name.
    pub name: String,
    /// The size of the file, in bytes.
    pub size: u64,
    /// The description, which holds the base of an incremental object.
    pub description: String,
}

impl Bag {
    /// Returns the bag that the daemon makes of a file without a folder, as tonutils-storage 1.4.1 does unless a piece size is forced.
    ///
    /// The file is named after the key. A bag that ends with the end of a piece makes that daemon crash when it verifies
    /// it, now and after each start, so the name of such a file is a `_` longer. (No key has one.)
    pub fn of_file(key: &str, size: u64, base: Option<BagId>) -> Self {
        let bag = Self::named(key, size, base);
        let ends_with_a_piece = (size.saturating_add(bag.header().len() as u64)).is_multiple_of(bag.piece_size.into());
        if ends_with_a_piece { Self::named(&[key, "_"].concat(), size, base) } else { bag }
    }

    fn named(name: &str, size: u64, base: Option<BagId>) -> Self {
        let piece_size = match size {
            _ if size > 10 << 30 => 1 << 20,
            _ if size > 2 << 30 => 512 << 10,
            _ if size > 512 << 20 => 256 << 10,
            _ => SMALLEST_PIECE,
        };
        let description = base.map_or(MARK.into(), |base| [BASE, &base.hex()].concat());
        Self { piece_size, dir: String::new(), name: name.into(), size, description }
    }

    /// Returns the header, with which the first piece begins.
    pub fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(48 + self.dir.len() + self.name.len());
        header.extend(HEADER_MAGIC.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend((self.name.len() as u64).to_le_bytes());
        header.extend(0_u64.to_le_bytes());
        header.extend(NO_FEC.to_le_bytes());
        header.extend((self.dir.len() as u32).to_le_bytes());
        header.extend(self.dir.as_bytes());
        header.extend((self.name.len() as u64).to_le_bytes());
        header.extend(self.size.to_le_bytes());
        header.extend(self.name.as_bytes());
        header
    }

    /// Returns its id, given the root of the tree over its pieces. `None` if description or sizes do not fit in a bag.
    pub fn id(&self, root: &Hash) -> Option<BagId> {
        let header = self.header();
        let header_size = header.len() as u64;
        let mut data = Vec::with_capacity(127);
        data.extend(self.piece_size.to_be_bytes());
        data.extend(self.size.checked_add(header_size)?.to_be_bytes());
        data.extend(root);
        data.extend(header_size.to_be_bytes());
        data.extend(Sha256::digest(&header));
        let below = text(self.description.as_bytes(), &mut data)?;
        ordinary(&data, below.as_slice()).map(|cell| BagId(cell.hash))
    }

    /// Returns whether its numbers are within bounds. The id alone does not ensure that.
    pub fn is_possible(&self) -> bool {
        (1..=LARGEST_PIECE).contains(&self.piece_size)
            && self.size <= LARGEST_FILE
            && self.dir.len() + self.name.len() <= LONGEST_NAME
    }

    /// Returns the number of pieces. It is not 0, since there is always a header.
    pub fn pieces(&self) -> u64 {
        self.size.saturating_add(self.header().len() as u64).div_ceil(u64::from(self.piece_size.max(1)))
    }

    /// Returns its base, if it is incremental.
    pub fn base(&self) -> Option<BagId> {
        self.description.strip_prefix(BASE).and_then(BagId::parse)
    }
}

/// Returns whether this adapter stored a bag with this description, on any host.
pub fn is_ours(description: &str) -> bool {
    description == MARK || description.strip_prefix(BASE).and_then(BagId::parse).is_some()
}

/// Appends a text to a cell's data. Returns the cell that holds the rest of it, if any.
fn text(text: &[u8], data: &mut Vec<u8>) -> Option<Option<Node>> {
    if text.is_empty() {
        data.push(0);
        return Some(None);
    }
    let (first, rest) = text.split_at(text.len().min(FIRST_CHUNK));
    data.push(u8::try_from(1 + rest.len().div_ceil(CHUNK)).ok()?);
    chunk(first, data);
    let mut below = None;
    for part in rest.chunks(CHUNK).rev() {
        let mut data = Vec::with_capacity(1 + CHUNK);
        chunk(part, &mut data);
        below = Some(ordinary(&data, below.as_slice())?);
    }
    Some(below)
}

fn chunk(bytes: &[u8], data: &mut Vec<u8>) {
    // At most 125.
    data.push(bytes.len() as u8);
    data.extend(bytes);
}

#[cfg(test)]
#[path = "bag_tests.rs"]
mod tests;
