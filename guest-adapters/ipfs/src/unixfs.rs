//! Files in IPFS: UnixFS in DAG-PB, which is protobuf in protobuf.
//!
//! A node has links and data; the data of a file gives the number of bytes below each link, and may hold bytes itself.
//! The reader accepts what any implementation of `ipfs add` writes: fields in any order, leaves as raw blocks or as nodes.
//! The writer writes what Kubo writes for a file with raw leaves, byte for byte, since the CID depends on it.
//!
//! The formats: <https://ipld.io/specs/codecs/dag-pb/spec/>, <https://specs.ipfs.tech/unixfs/>.

use crate::cid::Cid;
use crate::{Parsed, varint};

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the next field. Returns its number and value.
fn field<'a>(bytes: &mut &'a [u8]) -> Parsed<(u64, Field<'a>)> {
    let key = varint::read(bytes)?;
    let value = match key & 7 {
        0 => Field::Number(varint::read(bytes)?),
        2 => Field::Bytes(varint::read_slice(bytes)?),
        _ => return Err("a node has a field of an unexpected wire type"),
    };
    Ok((key >> 3, value))
}

/// A node of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// The bytes of the file in the node itself; they come before those of its children.
    pub data: &'a [u8],
    /// The children in order, each with the number of bytes of the file below it.
    pub children: Vec<(Cid, u64)>,
    /// The number of bytes of the file in and below the node.
    pub size: u64,
}

impl<'a> File<'a> {
    /// Parses a DAG-PB block.
    pub fn parse(mut block: &'a [u8]) -> Parsed<Self> {
        let (mut links, mut data) = (Vec::new(), None);
        while !block.is_empty() {
            match field(&mut block)? {
                (1, Field::Bytes(bytes)) if data.is_none() => data = Some(bytes),
                (2, Field::Bytes(bytes)) => links.push(link(bytes)?),
                _ => return Err("it is not a DAG-PB node"),
            }
        }
        let (data, sizes, size) = content(data.ok_or("it is not a UnixFS node")?)?;
        if links.len() != sizes.len() {
            return Err("a node has another number of sizes than of children");
        }
        let all = sizes.iter().try_fold(data.len() as u64, |all, size| all.checked_add(*size));
        let all = all.ok_or("a file exceeds 64 bits")?;
        if size.is_some_and(|size| size != all) {
            return Err("the sizes of a node do not add up");
        }
        Ok(Self { data, children: links.into_iter().zip(sizes).collect(), size: all })
    }
}

/// Parses the target of a link. Its name and its total size are not used.
fn link(mut bytes: &[u8]) -> Parsed<Cid> {
    let mut target = None;
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Field::Bytes(bytes)) if target.is_none() => target = Some(Cid::of_bytes(bytes)?),
            (2, Field::Bytes(_)) | (3, Field::Number(_)) => {}
            _ => return Err("it is not a link of a DAG-PB node"),
        }
    }
    target.ok_or("a link has no target")
}

/// Parses a UnixFS message that is a file. Returns its bytes, the sizes of its children, and its own size.
fn content(mut bytes: &[u8]) -> Parsed<(&[u8], Vec<u64>, Option<u64>)> {
    let (mut kind, mut data, mut sizes, mut size) = (None, &[][..], Vec::new(), None);
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Field::Number(number)) => kind = Some(number),
            (2, Field::Bytes(bytes)) => data = bytes,
            (3, Field::Number(number)) => size = Some(number),
            (4, Field::Number(number)) => sizes.push(number),
            // Packed.
            (4, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    sizes.push(varint::read(&mut packed)?);
                }
            }
            // Mode, time and other fields are not used.
            _ => {}
        }
    }
    match kind {
        Some(0 | 2) => Ok((data, sizes, size)),
        Some(1 | 5) => Err("it is a directory, not a file"),
        Some(4) => Err("it is a symbolic link, not a file"),
        _ => Err("it is not a file"),
    }
}

/// A child of a node that is written.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its CID.
    pub cid: Cid,
    /// The bytes of the file below it.
    pub size: u64,
    /// The bytes of all blocks below it, itself included; a block that is there twice counts twice.
    pub total: u64,
}

/// The block of a node of a file that has these children and no bytes of its own.
pub fn encode(children: &[Child]) -> Vec<u8> {
    let mut out = Vec::with_capacity(children.len() * 56 + 32);
    let mut message = vec![0x08, 2, 0x18];
    // Those of a file that exists add up.
    varint::write(children.iter().fold(0, |all, child| all.wrapping_add(child.size)), &mut message);
    for child in children {
        let mut link = vec![0x0a];
        write_slice(&child.cid.to_bytes(), &mut link);
        // An empty name, which is written all the same.
        link.extend([0x12, 0, 0x18]);
        varint::write(child.total, &mut link);
        out.push(0x12);
        write_slice(&link, &mut out);
        message.push(0x20);
        varint::write(child.size, &mut message);
    }
    out.push(0x0a);
    write_slice(&message, &mut out);
    out
}

fn write_slice(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cid::Codec;

    fn child(digest: [u8; 32], size: u64) -> Child {
        Child { cid: Cid::of_digest(Codec::Raw, digest), size, total: size }
    }

    #[test]
    fn a_file_in_one_node() {
        let file = File::parse(b"\x0a\x12\x08\x02\x12\x0chello world\n\x18\x0c").unwrap();
        assert_eq!((file.data, file.children.len(), file.size), (&b"hello world\n"[..], 0, 12));
        // Without a size, and of the kind that older leaves are.
        assert_eq!(File::parse(b"\x0a\x05\x08\x00\x12\x01x").unwrap().size, 1);
    }

    #[test]
    fn blocks_that_are_not_files() {
        let block = encode(&[child([1; 32], 5), child([2; 32], 7)]);
        let endless = encode(&[child([1; 32], u64::MAX), child([2; 32], u64::MAX)]);
        for (bad, why) in [
            (&b""[..], "not a UnixFS"),
            (b"\x0a\x02\x08\x01", "directory"),
            (b"\x0a\x02\x08\x05", "directory"),
            (b"\x0a\x02\x08\x04", "symbolic"),
            (b"\x0a\x02\x08\x03", "not a file"),
            (b"\x0a\x00", "not a file"),
            (b"\x0a\x04\x08\x02\x18\x01", "add up"),
            (b"\x0a\x04\x08\x02\x20\x01", "number of sizes"),
            (b"\x0a\x02\x08\x02\x0a\x02\x08\x02", "DAG-PB"),
            (&endless, "exceeds"),
            (&block[..block.len() - 1], "exceeds"),
            (b"\x12\x02\x12\x00\x0a\x02\x08\x02", "no target"),
            (b"\x0d\x00\x00\x00\x00", "wire type"),
        ] {
            let said = File::parse(bad).unwrap_err();
            assert!(said.contains(why), "{bad:?}: {said}");
        }
    }

    proptest! {
        #[test]
        fn nodes_round_trip(children in prop::collection::vec((any::<[u8; 32]>(), 0u64..1 << 40), 1..40)) {
            let children: Vec<_> = children.into_iter().map(|(digest, size)| child(digest, size)).collect();
            let block = encode(&children);
            let file = File::parse(&block).unwrap();
            prop_assert_eq!(file.size, children.iter().map(|child| child.size).sum::<u64>());
            prop_assert!(file.data.is_empty());
            let expected: Vec<_> = children.into_iter().map(|child| (child.cid, child.size)).collect();
            prop_assert_eq!(file.children, expected);
        }

        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let _ = File::parse(&bytes);
        }

        #[test]
        fn damage_is_handled(children in prop::collection::vec(any::<[u8; 32]>(), 1..5), at: prop::sample::Index, with: u8) {
            let children: Vec<_> = children.into_iter().map(|digest| child(digest, 1 << 20)).collect();
            let mut block = encode(&children);
            let at = at.index(block.len());
            block[at] = with;
            if let Ok(file) = File::parse(&block) {
                let below: u64 = file.children.iter().map(|(_, size)| size).sum();
                prop_assert_eq!(file.size, file.data.len() as u64 + below);
            }
        }
    }
}
