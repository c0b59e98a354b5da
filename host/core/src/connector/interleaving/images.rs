//! The images of all runs, and packs of the changes between them.

use std::sync::Arc;

use crate::catalogue::NewPack;
use crate::connector::packs::needs_of;
use crate::connector::payload::PackFile;
use crate::snapshot::pages::{Base, Chain, Options, Pack, PackSource, Profile, encode_delta};
use crate::snapshot::{FileSource, Identity, PAGE, SegmentDigests, pages, segment_digest};
use crate::types::{Result, SnapshotId};

/// The images that there are: two of one size, and one of none. All others begin with the same page.
pub(super) const IMAGES: [&[u8]; 4] = [
    &image::<{ 2 * PAGE + 3 }>(&[1, 2], b"one"),
    &image::<{ 2 * PAGE + 3 }>(&[1, 3], b"two"),
    &image::<{ 3 * PAGE + 6 }>(&[1, 3, 4], b"longer"),
    &[],
];

/// Pages of one byte each, and an end.
const fn image<const SIZE: usize>(pages: &[u8], end: &[u8]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut at = 0;
    while at < SIZE {
        bytes[at] = if at < pages.len() * PAGE { pages[at / PAGE] } else { end[at - pages.len() * PAGE] };
        at += 1;
    }
    bytes
}

/// The changes that packs are made of: the base, and the change whose pack it lies in, if not as it is; the image.
pub(super) const CHANGES: [(usize, Option<usize>, usize); 5] =
    [(0, None, 1), (1, Some(0), 2), (1, None, 2), (1, None, 0), (2, Some(1), 0)];

pub(super) fn identity_of(image: usize) -> Identity {
    let bytes = IMAGES[image];
    let digests = if bytes.is_empty() { Vec::new() } else { vec![segment_digest(bytes)] };
    Identity::new(bytes.len() as u64, SegmentDigests::new(digests)).unwrap()
}

pub(super) fn id_of(image: usize) -> SnapshotId {
    identity_of(image).id()
}

/// The packs of all changes.
pub(super) fn packs() -> Vec<Arc<PackFile>> {
    let mut chains: Vec<(Arc<Pack>, Vec<Arc<Pack>>)> = Vec::new();
    let mut files = Vec::new();
    for (base, within, image) in CHANGES {
        let identity = identity_of(base);
        let chain = match within {
            Some(change) => Chain::new(chains[change].0.clone(), chains[change].1.clone()).unwrap(),
            None => Chain::new(Arc::new(Pack::raw(&identity).unwrap()), Vec::new()).unwrap(),
        };
        let [old, new] = [base, image].map(|image| MemoryImage(IMAGES[image]));
        let parts = Base { chain: &chain, identity: &identity, image: Some(&old), digests: None };
        let mut bytes = Vec::new();
        let mut sink = |some: bytes::Bytes| {
            bytes.extend_from_slice(&some);
            Ok(())
        };
        let encoded = encode_delta(&new, &parts, None, &Options::new(Profile::Compact), None, &mut sink).unwrap();
        assert_eq!(encoded.identity.id(), id_of(image));
        let pack = NewPack { id: encoded.pack.id(), needs: needs_of(&encoded.pack) };
        assert!(!pack.needs.is_empty());
        let of_chain = |source: &PackSource| chain.packs().iter().find(|pack| pack.id() == source.id).unwrap().clone();
        let sources = encoded.pack.sources().iter().map(of_chain).collect();
        chains.push((encoded.pack.clone(), sources));
        let file = FileSource::new(temporary(&bytes), "the delta").unwrap();
        files.push(Arc::new(PackFile { file, identity: Arc::new(encoded.identity), pack, changed: Vec::new() }));
    }
    files
}

struct MemoryImage(&'static [u8]);

impl pages::Image for MemoryImage {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

pub(super) fn temporary(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}
