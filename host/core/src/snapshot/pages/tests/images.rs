//! Images that are sparse, that change, and that cannot be read; and sinks that give up.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::support::{Store, Uses, open};
use crate::snapshot::SEGMENT;
use crate::snapshot::pages::{
    Base, Chain, FileImage, Image, Options, PageDigests, Profile, compare, encode_delta, encode_full, read_pages,
};
use crate::snapshot::testing::pattern;
use crate::types::{Error, ErrorKind, Result};

const GIB: u64 = 1 << 30;

/// Counts what is read.
struct Counted<I>(I, AtomicU64);

impl<I: Image> Image for Counted<I> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        self.0.next_data(from, end)
    }
}

fn sparse(pages: &[u64]) -> (File, Counted<FileImage>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(64 * GIB + 100).unwrap();
    for page in pages {
        file.write_all_at(&pattern(4096), page * 4096).unwrap();
    }
    let image = FileImage::new(file.try_clone().unwrap(), 64 * GIB + 100, "a sparse file");
    (file, Counted(image, AtomicU64::new(0)))
}

#[test]
fn a_sparse_file_costs_its_data() {
    let pages = [3, 1 << 20, (1 << 24) - 1];
    let (file, image) = sparse(&pages);
    let options = Options::new(Profile::Compact);
    let (mut object, mut digests) = (Vec::new(), Vec::new());
    let full = encode_full(&image, &options, Some(&mut digests), &mut |piece| {
        object.extend_from_slice(&piece);
        Ok(())
    });
    let full = full.unwrap();
    let read = image.1.swap(0, Ordering::Relaxed);
    assert!(read <= 4 * SEGMENT as u64 + 3 * 4096, "{read} bytes were read");
    // One page is stored: the others equal it.
    assert_eq!((full.counts.stored, full.counts.repeated), (1, 2));
    assert!(object.len() < 10_000, "{}", object.len());
    let pack = open(&object, Some(full.pack.id())).unwrap();
    let chain = Chain::new(pack, Vec::new()).unwrap();
    let bytes = read_pages(&chain, (1 << 32) - 4096..(1 << 32) + 8192, &mut |_, range| {
        Ok(object[range.start as usize..range.end as usize].to_vec())
    });
    assert!(bytes.unwrap() == [vec![0; 4096], pattern(4096), vec![0; 4096]].concat());

    // A delta reads what has changed, and no more if it is told.
    file.write_all_at(&[1; 10], 40 * GIB).unwrap();
    let known = PageDigests::open(Box::new(digests), full.identity.clone().into()).unwrap();
    let (_, old) = sparse(&pages);
    let against = Base { chain: &chain, identity: &full.identity, image: Some(&old), digests: Some(&known) };
    let range = 40 * GIB..40 * GIB + 10;
    for changed in [None, Some(&[range.clone()][..])] {
        let next = encode_delta(&image, &against, changed, &options, None, &mut |_| Ok(())).unwrap();
        assert_eq!(next.counts.stored, 1);
        let read = image.1.swap(0, Ordering::Relaxed) + old.1.swap(0, Ordering::Relaxed);
        let most = if changed.is_some() { 10 * 4096 } else { 10 * SEGMENT as u64 };
        assert!(read <= most, "{read} bytes were read");
    }
    let found = compare(&image, (&old, &full.identity), None, 2).unwrap();
    assert_eq!(found, std::slice::from_ref(&(40 * GIB..40 * GIB + 4096)));
}

#[test]
fn what_differs_is_found_to_the_page() {
    let mut store = Store::default();
    let old = pattern(2 * SEGMENT + 9000);
    let base = store.full(&old, &Options::new(Profile::Compact));
    let mut new = old.clone();
    for at in [0, 4096 * 7 + 4095, 4096 * 8, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 8999] {
        new[at] ^= 1;
    }
    let pages = |range: Range<u64>| range.start * 4096..range.end * 4096;
    let found = compare(&new, (&old, &base.identity), None, 2).unwrap();
    assert_eq!(found, [pages(0..1), pages(7..9), pages(511..513), pages(1026..1027)]);
    assert_eq!(compare(&old, (&old, &base.identity), None, 2).unwrap(), []);
    new.truncate(5000);
    assert_eq!(compare(&new, (&old, &base.identity), None, 2).unwrap(), [pages(0..2)]);
}

/// An image that changes after it has been compared.
struct Changing {
    bytes: Vec<u8>,
    later: AtomicBool,
}

impl Image for Changing {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_at(buffer, offset)?;
        // Whole segments are compared, and what has changed is read again by the page.
        if self.later.load(Ordering::Relaxed) && buffer.len() == 4096 {
            buffer[17] ^= 1;
        }
        Ok(())
    }
}

#[test]
fn an_image_that_changes_meanwhile_is_refused() {
    let mut store = Store::default();
    let old = pattern(SEGMENT);
    let base = store.full(&old, &Options::new(Profile::Compact));
    let chain = store.chain(base.pack().id());
    let mut bytes = old.clone();
    bytes[5] ^= 1;
    let against = Base { chain: &chain, identity: &base.identity, image: Some(&old), digests: None };
    for later in [false, true] {
        let new = Changing { bytes: bytes.clone(), later: later.into() };
        let encoded = encode_delta(&new, &against, None, &Options::new(Profile::Compact), None, &mut |_| Ok(()));
        assert_eq!(encoded.err().map(|error| error.kind().clone()), later.then_some(ErrorKind::Conflict));
    }
}

#[test]
fn a_file_that_becomes_shorter_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(SEGMENT), 0).unwrap();
    let image = FileImage::new(file, SEGMENT as u64 + 1, "a file");
    let error = encode_full(&image, &Options::new(Profile::Compact), None, &mut |_| Ok(())).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
}

#[test]
fn a_sink_that_gives_up_ends_the_encoder() {
    let image = pattern(3 * SEGMENT);
    let mut store = Store::default();
    let options = Options { frame_pages: 64, ..Options::new(Profile::Compact) };
    let base = store.full(&vec![0; 3 * SEGMENT], &options);
    let chain = store.chain(base.pack().id());
    let against = Base { chain: &chain, identity: &base.identity, image: Some(&*base.bytes), digests: None };
    for pieces in 0..8 {
        let mut left = pieces;
        let mut sink = |_| {
            left -= 1;
            if left < 0 { Err(Error::other("gives up")) } else { Ok(()) }
        };
        let error = encode_full(&image, &options, None, &mut sink).unwrap_err();
        assert_eq!(error.message(), "gives up", "{pieces}");
        let mut left = pieces;
        let mut sink = |_| {
            left -= 1;
            if left < 0 { Err(Error::other("gives up")) } else { Ok(()) }
        };
        let error = encode_delta(&image, &against, None, &options, None, &mut sink).unwrap_err();
        assert_eq!(error.message(), "gives up", "{pieces}");
    }
}

#[test]
fn parts_of_another_base_are_refused() {
    let mut store = Store::default();
    let options = Options::new(Profile::Compact);
    let (one, two) = (store.full(&pattern(5000), &options), store.full(&pattern(6000), &options));
    let chain = store.chain(one.pack().id());
    let known = two.page_digests();
    let right = Base { chain: &chain, identity: &one.identity, image: Some(&*one.bytes), digests: None };
    let new = pattern(7000);
    for wrong in [
        Base { identity: &two.identity, ..right },
        Base { image: Some(&*two.bytes), ..right },
        Base { digests: Some(&known), ..right },
    ] {
        let error = encode_delta(&new, &wrong, None, &options, None, &mut |_| Ok(())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let mut bytes = pattern(3 * SEGMENT);
    bytes[SEGMENT..2 * SEGMENT].fill(0);
    let pack = |threads| {
        let mut store = Store::default();
        let options = Options { threads, frame_pages: 100, ..Options::new(Profile::Compact) };
        let base = store.full(&bytes, &options);
        let mut new = bytes.clone();
        (0..new.len()).step_by(50_000).for_each(|at| new[at] ^= 1);
        let uses = Uses { image: true, digests: true };
        store.delta(&base, &new, uses, None, &options).unwrap().pack().id()
    };
    assert!([2, 3, 16].into_iter().all(|threads| pack(threads) == pack(1)));
}

/// An image that is read over a network.
struct Far(Vec<u8>, AtomicU64);

impl Image for Far {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn is_near(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
}

/// A file of page digests of which some parts cannot be read.
struct Broken(Vec<u8>, Range<u64>);

impl Image for Broken {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match offset < self.1.end && offset + buffer.len() as u64 > self.1.start {
            true => Err(Error::io("page digests", std::io::Error::from_raw_os_error(5))),
            false => self.0.read_at(buffer, offset),
        }
    }
}

/// An image of four segments, and another one with changed pages, new zeros, and what were zeros.
fn changed_pages() -> (Vec<u8>, Vec<u8>) {
    let mut old = pattern(3 * SEGMENT + 9000);
    old[40 * 4096..50 * 4096].fill(0);
    let mut new = old.clone();
    for page in [7, 45, 600, 601, 1538] {
        new[page * 4096 + 5] ^= 3;
    }
    new[700 * 4096..720 * 4096].fill(0);
    (old, new)
}

#[test]
fn with_page_digests_only_what_changed_pages_used_to_be_is_read_of_a_far_base() {
    let (old, new) = changed_pages();
    let mut store = Store::default();
    let options = Options { threads: 2, ..Options::new(Profile::Compact) };
    let base = store.full(&old, &options);
    let chain = store.chain(base.pack().id());
    let near = store.delta(&base, &new, Uses { image: true, digests: true }, None, &options).unwrap();
    let known = base.page_digests();
    let ranges = [7 * 4096..8 * 4096, 40 * 4096..1000 * 4096, 1500 * 4096..1539 * 4096];
    for changed in [None, Some(&ranges[..])] {
        let far = Far(old.clone(), AtomicU64::new(0));
        let against = Base { chain: &chain, identity: &base.identity, image: Some(&far), digests: Some(&known) };
        let mut digests = Vec::new();
        let made = encode_delta(&new, &against, changed, &options, Some(&mut digests), &mut |_| Ok(())).unwrap();
        // The same pack as from a comparison of everything.
        assert_eq!(made.pack.id(), near.pack().id());
        assert_eq!(
            (made.identity, made.counts, digests),
            (near.encoded.identity.clone(), near.encoded.counts, near.digests.to_vec())
        );
        // Once to compare, once as prefix.
        let read = far.1.load(Ordering::Relaxed);
        assert!(read <= 2 * 5 * 4096, "{read} bytes of the base were read");
    }
    // A page that is not what its digest says is not taken as a prefix.
    let mut rotten = old.clone();
    rotten[600 * 4096 + 100] ^= 1;
    let far = Far(rotten, AtomicU64::new(0));
    let against = Base { chain: &chain, identity: &base.identity, image: Some(&far), digests: Some(&known) };
    let error = encode_delta(&new, &against, None, &options, None, &mut |_| Ok(())).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
}

#[test]
fn page_digests_that_cannot_be_read_are_not_there() {
    let (old, new) = changed_pages();
    let mut store = Store::default();
    let options = Options { threads: 2, ..Options::new(Profile::Compact) };
    let base = store.full(&old, &options);
    let chain = store.chain(base.pack().id());
    let whole = store.delta(&base, &new, Uses { image: true, digests: false }, None, &options).unwrap();
    let all = old.len() as u64;
    let range = 7 * 4096..1539 * 4096;
    for changed in [None, Some(std::slice::from_ref(&range)), Some(std::slice::from_ref(&(0..all)))] {
        for lost in [24..25, 20_000..30_000, 24..40_000] {
            let file = Broken(base.digests.to_vec(), lost.clone());
            let known = PageDigests::open(Box::new(file), base.identity.clone()).unwrap();
            let against =
                Base { chain: &chain, identity: &base.identity, image: Some(&*base.bytes), digests: Some(&known) };
            let (mut digests, mut object) = (Vec::new(), 0);
            let made = encode_delta(&new, &against, changed, &options, Some(&mut digests), &mut |piece| {
                object += piece.len();
                Ok(())
            });
            assert_eq!(made.unwrap().pack.id(), whole.pack().id(), "{lost:?}");
        }
    }
}
