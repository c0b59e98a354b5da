//! Objects of many sizes through a backend in memory: whole, in parts, damaged, without their key.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proptest::prelude::*;

use super::format::{CHUNK, HEADER, SEALED_CHUNK, opened_size, sealed_size};
use super::*;
use crate::backend::testing::{MemoryAttempt, MemoryBackend, MemoryUpload};
use crate::types::{ErrorKind, StoreHint};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn keys(texts: &[&str]) -> Arc<Keyring> {
    Arc::new(Keyring::new(texts.iter().map(|text| EncryptionKey::parse(text).unwrap()).collect()))
}

fn sealed(memory: &Arc<MemoryBackend>, texts: &[&str]) -> SealedBackend {
    SealedBackend::new(memory.clone(), keys(texts), true, names_its_key, Platform::system())
}

/// Whether this is the key of an upload in memory.
fn names_its_key(name: &str) -> bool {
    name.starts_with("key-")
}

fn noise(size: u64) -> Bytes {
    let mut bytes = vec![0; size as usize];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// The sizes at which something changes.
fn sizes() -> Vec<u64> {
    let around = |size: u64| [size - 1, size, size + 1];
    [vec![0, 1, 4096], around(CHUNK).to_vec(), around(2 * CHUNK).to_vec(), vec![5 * CHUNK + 77]].concat()
}

async fn stored(backend: &SealedBackend, bytes: &Bytes) -> ObjectId {
    let upload = Arc::new(MemoryUpload::new(bytes.clone(), true));
    let receipt = backend.put(Upload::new(upload.clone())).await.unwrap();
    assert_eq!(receipt.size, bytes.len() as u64);
    assert_eq!(upload.attempts(), [MemoryAttempt::Stored(receipt.id.clone())]);
    receipt.id
}

async fn read(backend: &SealedBackend, id: &ObjectId, range: Option<ByteRange>) -> Result<Bytes> {
    backend.get(id, range).await?.collect(64 << 20).await
}

#[tokio::test]
async fn objects_come_back_whole_and_in_parts() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    for size in sizes() {
        let (backend, bytes) = (sealed(&memory, &[KEY]), noise(size));
        let id = stored(&backend, &bytes).await;
        assert!(id.as_str().starts_with(MARK));
        let held = memory.bytes(id.as_str().strip_prefix(MARK).unwrap()).unwrap();
        assert_eq!((held.len() as u64, opened_size(held.len() as u64)), (sealed_size(size), Some(size)));
        assert_eq!(backend.stat(&id).await.unwrap().size, size);
        assert_eq!(read(&backend, &id, None).await.unwrap(), bytes, "{size}");
        // One that knows no salt yet, and one that does.
        for backend in [&sealed(&memory, &[OTHER, KEY]), &backend] {
            for start in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, size.saturating_sub(1), size] {
                for len in [1, 16, CHUNK, CHUNK + 1, 9 * CHUNK] {
                    let range = ByteRange::of(start, len);
                    match range.within(size) {
                        Ok((at, len)) => {
                            let wanted = bytes.slice(at as usize..(at + len) as usize);
                            let got = read(backend, &id, Some(range)).await;
                            // Just at the end, a backend may have nothing to give.
                            let at_end =
                                len == 0 && got.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Invalid);
                            assert!(at_end || got.unwrap() == wanted, "{range} of {size}");
                        }
                        Err(_) => {
                            let error = read(backend, &id, Some(range)).await.unwrap_err();
                            assert_eq!(*error.kind(), ErrorKind::Invalid, "{range} of {size}: {error:?}");
                        }
                    }
                }
                let range = ByteRange { start, end: None };
                if start < size {
                    assert_eq!(read(backend, &id, Some(range)).await.unwrap(), bytes.slice(start as usize..));
                }
            }
        }
    }
}

#[tokio::test]
async fn no_byte_of_an_object_can_be_changed_moved_or_cut_off() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let bytes = noise(2 * CHUNK + 100);
    let id = stored(&sealed(&memory, &[KEY]), &bytes).await;
    let name = id.as_str().strip_prefix(MARK).unwrap().to_owned();
    let whole = memory.bytes(&name).unwrap().to_vec();
    let second = (HEADER + SEALED_CHUNK) as usize;
    let mut wrong: Vec<Vec<u8>> = (0..whole.len())
        .step_by(997)
        .chain(0..HEADER as usize)
        .map(|at| {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            changed
        })
        .collect();
    wrong.extend([0, 10, HEADER as usize, second, 2 * second, whole.len() - 1].map(|len| whole[..len].to_vec()));
    let (first, rest) = (&whole[..HEADER as usize], &whole[HEADER as usize..]);
    let (one, two) = rest.split_at(SEALED_CHUNK as usize);
    let (two, three) = two.split_at(SEALED_CHUNK as usize);
    wrong.extend([
        [first, two, one, three].concat(),
        [first, one, three].concat(),
        [first, one, one, two, three].concat(),
    ]);
    for changed in wrong {
        memory.damage(&name, |held| *held = changed.clone());
        let backend = sealed(&memory, &[KEY]);
        let error = read(&backend, &id, None).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{} bytes: {error:?}", changed.len());
    }
}

#[tokio::test]
async fn a_part_is_proven_too() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let id = stored(&sealed(&memory, &[KEY]), &noise(3 * CHUNK)).await;
    memory.damage(&id.as_str()[MARK.len()..], |held| held[(HEADER + SEALED_CHUNK) as usize + 5] ^= 1);
    let backend = sealed(&memory, &[KEY]);
    read(&backend, &id, Some(ByteRange::of(0, CHUNK))).await.unwrap();
    read(&backend, &id, Some(ByteRange::of(2 * CHUNK, CHUNK))).await.unwrap();
    let error = read(&backend, &id, Some(ByteRange::of(CHUNK + 100, 1))).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Corrupt, Some("memory")));
}

#[tokio::test]
async fn without_its_key_an_object_is_encrypted_and_not_damaged() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let bytes = noise(5000);
    let id = stored(&sealed(&memory, &[KEY]), &bytes).await;
    for texts in [&[][..], &[OTHER][..]] {
        let backend = sealed(&memory, texts);
        for range in [None, Some(ByteRange::of(7, 9))] {
            let error = read(&backend, &id, range).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Denied);
            assert!(error.message().contains(&EncryptionKey::parse(KEY).unwrap().id()), "{error:?}");
        }
        let error = backend.stat(&id).await.unwrap_err();
        assert_eq!((error.kind(), error.backend()), (&ErrorKind::Denied, Some("memory")), "{error:?}");
        assert_eq!(error.missing_key(), Some(EncryptionKey::parse(KEY).unwrap().id().as_str()));
        assert_eq!(backend.list(None, 10).await.unwrap().entries[0].id, id);
    }
    // After a change of keys, what is old is read, and what is new has the new key.
    let both = sealed(&memory, &[OTHER, KEY]);
    assert_eq!(read(&both, &id, None).await.unwrap(), bytes);
    let new = stored(&both, &bytes).await;
    assert_eq!(read(&sealed(&memory, &[OTHER]), &new, None).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_is_not_sealed_passes_as_it_is() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let plain = SealedBackend::new(memory.clone(), keys(&[KEY]), false, names_its_key, Platform::system());
    let bytes = noise(300);
    let id = plain.put(Upload::new(Arc::new(MemoryUpload::new(bytes.clone(), true)))).await.unwrap().id;
    let backend = sealed(&memory, &[KEY]);
    let hidden = stored(&backend, &bytes).await;
    assert_eq!(memory.bytes(id.as_str()).unwrap(), bytes);
    for backend in [&plain, &backend] {
        assert_eq!(read(backend, &id, None).await.unwrap(), bytes);
        assert_eq!(read(backend, &hidden, None).await.unwrap(), bytes);
        let page = backend.list(None, 10).await.unwrap();
        let listed: Vec<_> = page.entries.iter().map(|entry| (&entry.id, entry.size)).collect();
        assert_eq!(listed, [(&id, 300), (&hidden, 300)]);
        backend.delete(&hidden).await.unwrap();
        assert!(read(backend, &hidden, None).await.is_err());
        stored(&sealed(&memory, &[KEY]), &bytes).await;
    }
}

#[tokio::test]
async fn objects_that_are_named_after_their_bytes_tell_by_them() {
    let memory = Arc::new(MemoryBackend::named_by_content("memory"));
    let backend = sealed(&memory, &[KEY]);
    let first = stored(&backend, &noise(300)).await;
    // The same image once more is another object: nobody can tell that they are equal.
    let second = stored(&backend, &noise(300)).await;
    assert_ne!(first, second);
    let listed = |backend: SealedBackend| async move {
        let page = backend.list(None, 10).await.unwrap();
        page.entries.iter().map(|entry| entry.id.as_str().starts_with(MARK)).collect::<Vec<_>>()
    };
    assert_eq!(listed(sealed(&memory, &[KEY])).await, [true, true]);
    // Without a key nobody looks; what is read then is known by how it begins.
    assert_eq!(listed(sealed(&memory, &[])).await, [false, false]);
    let raw = memory.bytes(&first.as_str()[MARK.len()..]).unwrap();
    assert!(looks_sealed(&raw[..8]) && !looks_sealed(b"TLSEAL1"));
}

/// An upload with labels and a base.
struct Labelled;

impl UploadSource for Labelled {
    fn is_replayable(&self) -> bool {
        true
    }

    fn begin(&self, features: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        assert!(features.labels && features.lineage);
        let labels = vec![("tidelock-name".to_owned(), "payroll".to_owned())];
        let hint = StoreHint { key: "key-0".into(), size: Some(3), labels };
        let base = Some(ObjectId::new("sealed:base-1").unwrap());
        std::future::ready(Ok(UploadAttempt { body: Body::from_bytes("abc"), hint, base })).boxed()
    }

    fn end<'a>(&'a self, key: &'a str, _: std::result::Result<&'a Receipt, &'a Error>) -> BoxFuture<'a, Result<()>> {
        assert_eq!(key, "key-0");
        std::future::ready(Ok(())).boxed()
    }
}

#[tokio::test]
async fn names_and_bases_are_sealed_too() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let id = sealed(&memory, &[KEY]).put(Upload::new(Arc::new(Labelled))).await.unwrap().id;
    let shown = memory.stat(&ObjectId::new(&id.as_str()[MARK.len()..]).unwrap()).await.unwrap();
    assert_eq!(shown.base, None);
    assert!(!format!("{shown:?}").contains("payroll") && !format!("{shown:?}").contains("base-1"), "{shown:?}");
    let stat = sealed(&memory, &[OTHER, KEY]).stat(&id).await.unwrap();
    assert_eq!(stat.base.unwrap().as_str(), "sealed:base-1");
    assert_eq!(stat.labels, [("tidelock-name".to_owned(), "payroll".to_owned())]);
    let without = sealed(&memory, &[OTHER]).stat(&id).await.unwrap_err();
    assert_eq!(without.missing_key(), Some(EncryptionKey::parse(KEY).unwrap().id().as_str()), "{without:?}");
}

/// A listing tells what is sealed by the end of its name, and whatever became of it.
#[tokio::test]
async fn what_is_listed_as_sealed_ends_so() {
    let memory = Arc::new(MemoryBackend::new("memory"));
    let backend = sealed(&memory, &[KEY]);
    let listed = |name: &str, size: u64| {
        let entry = InventoryEntry { id: ObjectId::new(name).unwrap(), size, modified: None };
        let listed = backend.listed(entry).now_or_never().unwrap().unwrap();
        listed.id.as_str().starts_with(MARK)
    };
    assert!(listed("key-1-sealed", sealed_size(300)));
    // One that was cut off is damaged, and no image of another length.
    assert!(listed("key-1-sealed", 0) && listed("key-1-sealed", 66));
    for name in ["vm-sealed/key-1", "key-1-sealed/key-2", "key-1"] {
        assert!(!listed(name, sealed_size(300)), "{name}");
    }
    assert!(!listed("notes-sealed", 0), "not a key of a host");
}

#[test]
fn a_key_has_64_digits_and_is_never_shown() {
    for wrong in ["", "00", &KEY[1..], &format!("{KEY}0"), &KEY.replace('0', "g"), "ü"] {
        let error = EncryptionKey::parse(wrong).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Invalid);
        assert!(
            wrong.is_empty()
                || !error.to_string().contains(wrong)
                || wrong == "00" && !error.to_string().contains("00")
        );
    }
    let key = EncryptionKey::parse(&format!(" {}\n", KEY.to_uppercase())).unwrap();
    assert_eq!(key.id(), EncryptionKey::parse(KEY).unwrap().id());
    assert!(!format!("{key:?}").contains(&KEY[..8]), "{key:?}");
}

proptest! {
    #[test]
    fn sizes_go_forth_and_back(size in 0u64..1 << 45) {
        prop_assert_eq!(opened_size(sealed_size(size)), Some(size));
    }

    #[test]
    fn any_size_and_header_is_answered(size: u64, bytes: Vec<u8>) {
        prop_assert!(opened_size(size).is_none_or(|opened| sealed_size(opened) == size));
        prop_assert!(Header::parse(&bytes).is_err());
    }
}

/// The vector of `docs/formats.md`.
#[tokio::test]
async fn the_bytes_are_those_of_the_documentation() {
    let keys = keys(&[KEY]);
    let header = keys.header([7; SALT]).unwrap();
    let sealed = stream::sealed(Body::from_bytes("tidelock"), header.clone(), keys.object_key(&header).unwrap());
    let bytes = sealed.collect(1000).await.unwrap();
    let shown = data_encoding::HEXLOWER.encode(&bytes);
    let page = include_str!("../../../../docs/formats.md").replace(char::is_whitespace, "");
    assert!(page.contains(&shown), "{shown}");
}
