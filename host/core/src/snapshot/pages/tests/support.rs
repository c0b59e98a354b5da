//! Packs in memory: written, kept, and read through the public interface.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::snapshot::pages::{
    Base, Chain, Encoded, Limits, Opened, Options, Pack, PackId, PageDigests, encode_delta, encode_full, read_pages,
};
use crate::snapshot::{Identifier, Identity};
use crate::types::{Error, Result};

/// The identity of bytes, by the code that packs do not use.
pub(super) fn identify(bytes: &[u8]) -> Identity {
    let mut identifier = Identifier::new();
    identifier.update(bytes);
    identifier.finish()
}

/// A version of an image, with all that an update can have of it.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) identity: Arc<Identity>,
    pub(super) encoded: Encoded,
    pub(super) object: Arc<Vec<u8>>,
    pub(super) digests: Arc<Vec<u8>>,
}

impl Version {
    pub(super) fn pack(&self) -> &Arc<Pack> {
        &self.encoded.pack
    }

    pub(super) fn page_digests(&self) -> PageDigests {
        PageDigests::open(Box::new((*self.digests).clone()), self.identity.clone()).unwrap()
    }
}

/// What an update may use of its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) image: bool,
    pub(super) digests: bool,
}

/// All packs that were written, by id.
#[derive(Default, Clone)]
pub(super) struct Store {
    objects: BTreeMap<PackId, (Arc<Pack>, Arc<Vec<u8>>)>,
}

impl Store {
    fn put(&mut self, bytes: &[u8], encoded: Encoded, object: Vec<u8>, digests: Vec<u8>) -> Version {
        assert_eq!(encoded.pack.stored(), object.len() as u64);
        let object = Arc::new(object);
        self.objects.insert(encoded.pack.id(), (encoded.pack.clone(), object.clone()));
        Version {
            bytes: Arc::new(bytes.to_vec()),
            identity: Arc::new(encoded.identity.clone()),
            encoded,
            object,
            digests: Arc::new(digests),
        }
    }

    pub(super) fn full(&mut self, bytes: &[u8], options: &Options) -> Version {
        let (mut object, mut digests) = (Vec::new(), Vec::new());
        let mut sink = |piece: bytes::Bytes| {
            object.extend_from_slice(&piece);
            Ok(())
        };
        let encoded = encode_full(&bytes.to_vec(), options, Some(&mut digests), &mut sink).unwrap();
        self.put(bytes, encoded, object, digests)
    }

    pub(super) fn delta(
        &mut self,
        base: &Version,
        bytes: &[u8],
        uses: Uses,
        changed: Option<&[Range<u64>]>,
        options: &Options,
    ) -> Result<Version> {
        let chain = self.chain(base.pack().id());
        let known = base.page_digests();
        let against = Base {
            chain: &chain,
            identity: &base.identity,
            image: uses.image.then_some(&*base.bytes),
            digests: uses.digests.then_some(&known),
        };
        let (mut object, mut digests) = (Vec::new(), Vec::new());
        let mut sink = |piece: bytes::Bytes| {
            object.extend_from_slice(&piece);
            Ok(())
        };
        let new = bytes.to_vec();
        let encoded = encode_delta(&new, &against, changed, options, Some(&mut digests), &mut sink)?;
        Ok(self.put(bytes, encoded, object, digests))
    }

    /// A pack and its sources, each opened from its object again.
    pub(super) fn chain(&self, id: PackId) -> Chain {
        let first = self.open(id);
        let sources = first.sources().iter().map(|source| self.open(source.id)).collect();
        Chain::new(first, sources).unwrap()
    }

    pub(super) fn object(&self, id: PackId) -> Arc<Vec<u8>> {
        self.objects[&id].1.clone()
    }

    pub(super) fn open(&self, id: PackId) -> Arc<Pack> {
        open(&self.objects[&id].1, Some(id)).unwrap()
    }

    pub(super) fn read(&self, chain: &Chain, range: Range<u64>) -> Result<Vec<u8>> {
        read_pages(chain, range, &mut |pack, range| {
            let object = &self.objects[&pack.id()].1;
            Ok(object[range.start as usize..range.end as usize].to_vec())
        })
    }

    /// Checks all that must hold of a version: its bytes, whole and in parts, its identity, its counts.
    pub(super) fn check(&self, version: &Version, base: Option<&Version>) {
        let chain = self.chain(version.pack().id());
        assert!(self.read(&chain, 0..u64::MAX).unwrap() == *version.bytes, "other bytes");
        let expected = identify(&version.bytes);
        assert_eq!(*version.identity, expected);
        let from_pack = chain.pack().identity(base.map(|base| &*base.identity)).unwrap();
        assert_eq!(from_pack, expected);
        let size = version.bytes.len() as u64;
        for at in [0, size / 3, size / 2, size.saturating_sub(5)] {
            let range = at..(at + 5000).min(size);
            let part = &version.bytes[range.start as usize..range.end as usize];
            assert!(self.read(&chain, range).unwrap() == part, "other bytes at {at}");
        }
        let counts = version.encoded.counts;
        let all = counts.zero + counts.unchanged + counts.moved + counts.repeated + counts.stored;
        assert_eq!(all, size.div_ceil(4096), "{counts:?}");
        assert_eq!(counts.stored, u64::from(chain.pack().frames().pages()));
        let digests = version.page_digests();
        for (number, segment) in (0..).zip(version.bytes.chunks(crate::snapshot::SEGMENT)) {
            assert_eq!(digests.segment(number).unwrap(), crate::snapshot::pages_of(segment), "segment {number}");
        }
    }
}

/// The pack of a whole object, if there is one.
pub(super) fn open(object: &[u8], known: Option<PackId>) -> Result<Arc<Pack>> {
    match Pack::open(object, object.len() as u64, known, Limits::default())? {
        Opened::Pack(pack) => {
            let header = object.get(..32).ok_or_else(|| Error::corrupt("no header"))?;
            pack.check_header(header)?;
            Ok(pack)
        }
        Opened::Longer { .. } => Err(Error::corrupt("longer than the object")),
    }
}

/// The pack of a whole object, if a reader with these limits takes it.
pub(super) fn open_within(object: &[u8], id: PackId, limits: Limits) -> Result<Arc<Pack>> {
    match Pack::open(object, object.len() as u64, Some(id), limits)? {
        Opened::Pack(pack) => Ok(pack),
        Opened::Longer { from } => panic!("all of it was given, and it is wanted from {from}"),
    }
}
