//! Versions that are stored as what has changed: chains of them, what becomes of their bases, and damage anywhere.

use std::path::Path;
use std::sync::Arc;

use tidelock::backend::testing::MemoryBackend;
use tidelock::backend::{Backend, Operation};
use tidelock::snapshot::{DirtyRanges, FileSource, SEGMENT};
use tidelock::types::Encoding;
use tidelock::{ByteRange, ErrorKind, Host, ImportOptions, Result, SnapshotId, Source, StoreOptions, Stored};
use tidelock_tests::data::{assert_same, changed, noise};

use crate::support::{host_on, read, store};

const PAGE: usize = 4096;

/// A host with a route over two models.
async fn models(dir: &Path, copies: usize) -> (Host, [Arc<MemoryBackend>; 2]) {
    let memory = ["first", "second"].map(|name| Arc::new(MemoryBackend::new(name)));
    (host_on(dir, &format!("copies = {copies}"), &memory).await, memory)
}

async fn update(host: &Host, base: SnapshotId, bytes: &[u8]) -> Result<Stored> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    host.update(base, Source::open(file.path()).await?, StoreOptions::default()).await
}

/// A chain: an image as it is, and versions of it. Each with its bytes.
async fn chain(host: &Host, versions: usize) -> Vec<(SnapshotId, Vec<u8>)> {
    let mut bytes = noise(3 * SEGMENT + 777, 1);
    bytes[SEGMENT / 2..SEGMENT].fill(0);
    let mut all = vec![(store(host, &bytes).await.unwrap().id, bytes.clone())];
    for version in 0..versions {
        bytes = changed(&bytes, 10 + version as u64);
        let base = all.last().unwrap().0;
        let stored = update(host, base, &bytes).await.unwrap();
        assert_eq!(stored.base, Some(base));
        assert!(stored.stored_bytes < bytes.len() as u64, "{stored:?}");
        all.push((stored.id, bytes.clone()));
    }
    all
}

async fn assert_all_read(host: &Host, versions: &[(SnapshotId, Vec<u8>)]) {
    for (id, bytes) in versions {
        assert_same(&read(host, *id).await.unwrap(), bytes, "whole");
        let image = host.open(*id).await.unwrap();
        for start in [0, PAGE - 3, SEGMENT - 1, 2 * SEGMENT + 100, bytes.len() - 10] {
            let len = 9000.min(bytes.len() - start);
            let part = image.read_range(ByteRange::of(start as u64, len as u64)).await.unwrap();
            assert_same(&part, &bytes[start..start + len], "a part");
        }
    }
}

/// The encodings of a snapshot's placements.
async fn encodings(host: &Host, id: SnapshotId) -> Vec<Encoding> {
    host.stat(id).await.unwrap().placements.iter().map(|placement| placement.encoding).collect()
}

/// The object of a snapshot on a backend.
async fn object(host: &Host, id: SnapshotId, backend: &str) -> String {
    let stat = host.stat(id).await.unwrap();
    let placement = stat.placements.iter().find(|placement| placement.backend == backend).unwrap();
    placement.object.as_str().to_owned()
}

#[tokio::test]
async fn an_update_stores_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let bytes = noise(8 * SEGMENT, 1);
    let base = store(&host, &bytes).await.unwrap().id;
    let mut new = bytes.clone();
    new[5 * PAGE..6 * PAGE].copy_from_slice(&noise(PAGE, 2));
    new.extend_from_slice(&noise(100, 3));
    let stored = update(&host, base, &new).await.unwrap();
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages, Encoding::Pages]);
    assert_eq!(stored.delta_bytes.map(|bytes| 2 * bytes), Some(stored.stored_bytes));
    assert!(stored.stored_bytes < 2 * 16_384, "two pages, twice: {stored:?}");
    for memory in [&first, &second] {
        let object = object(&host, stored.id, memory.name()).await;
        assert_eq!(memory.bytes(&object).unwrap().len() as u64, stored.stored_bytes / 2);
    }
    assert_all_read(&host, &[(stored.id, new.clone())]).await;
    // The same image again is there already.
    let again = update(&host, base, &new).await.unwrap();
    assert_eq!((again.id, again.stored_bytes), (stored.id, 0));
    // Shorter ones, empty ones, and one that has nothing in common.
    for other in [&new[..PAGE], &new[..3], &[], &noise(SEGMENT, 9)] {
        let id = update(&host, stored.id, other).await.unwrap().id;
        assert_same(&read(&host, id).await.unwrap(), other, "another image");
    }
}

#[tokio::test]
async fn raw_demands_the_image_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = models(dir.path(), 1).await;
    let versions = chain(&host, 1).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &versions[1].1).unwrap();
    let options = StoreOptions { raw: true, ..StoreOptions::default() };
    let stored = host.update(versions[0].0, Source::open(file.path()).await.unwrap(), options).await.unwrap();
    assert_eq!(stored.stored_bytes, versions[1].1.len() as u64, "the pack does not count");
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages, Encoding::Raw]);
}

#[tokio::test]
async fn a_backend_without_the_base_gets_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 1).await;
    let versions = chain(&host, 1).await;
    drop(host);
    let host = host_on(dir.path(), "copies = 2", &memory).await;
    let new = changed(&versions[1].1, 50);
    let stored = update(&host, versions[1].0, &new).await.unwrap();
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages, Encoding::Raw]);
    // Each copy is complete on its own backend.
    for away in &memory {
        away.fail_next(Operation::Get, ErrorKind::Unavailable, false);
        assert_same(&read(&host, stored.id).await.unwrap(), &new, "the other one");
        away.fail_no_more();
    }
}

#[tokio::test]
async fn a_removed_base_stays_as_long_as_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, _]) = models(dir.path(), 1).await;
    let versions = chain(&host, 3).await;
    for (at, needed) in [(0, true), (2, true), (1, true)] {
        let removed = host.remove(versions[at].0).await.unwrap();
        assert_eq!((removed.kept, removed.placements, !removed.needed_by.is_empty()), (false, 0, needed));
        assert_eq!(*host.open(versions[at].0).await.unwrap_err().kind(), ErrorKind::NotFound);
        host.gc(std::time::Duration::ZERO).await.unwrap();
        assert_all_read(&host, &versions[3..]).await;
    }
    assert_eq!(host.list(None, 10).await.unwrap().snapshots.len(), 1);
    assert!(host.verify(None, true, None).await.unwrap().bad.is_empty());
    // One that was removed and is kept can be stored again, and nothing is sent.
    assert_eq!(store(&host, &versions[0].1).await.unwrap().stored_bytes, 0);
    assert_all_read(&host, &versions[..1]).await;
    host.remove(versions[0].0).await.unwrap();
    host.remove(versions[3].0).await.unwrap();
    let left: Vec<_> = first.objects().into_iter().filter(|name| !name.contains("container")).collect();
    assert_eq!(left, [""; 0], "nothing needs any of them");
}

#[tokio::test]
async fn a_catalogue_with_packs_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 1).await;
    let versions = chain(&host, 3).await;
    drop(host);
    let other = tempfile::tempdir().unwrap();
    let host = host_on(other.path(), "copies = 1", &memory).await;
    let imported = host.import("first", ImportOptions::default()).await.unwrap();
    assert_eq!((imported.imported, imported.left.len()), (4, 0), "{imported:?}");
    assert_all_read(&host, &versions).await;
    assert_eq!(host.stat(versions[3].0).await.unwrap().base, Some(versions[2].0));
    // What is needed is known again.
    assert!(!host.remove(versions[0].0).await.unwrap().needed_by.is_empty());
    assert_all_read(&host, &versions[1..]).await;
    let again = host.import("first", ImportOptions::default()).await.unwrap();
    assert_eq!((again.imported, again.known), (0, 4));
    // Without its base, a pack is told and not taken.
    let third = tempfile::tempdir().unwrap();
    let base = object(&host, versions[1].0, "first").await;
    assert!(memory[0].damage(&base, |bytes| bytes.truncate(100)));
    let host = host_on(third.path(), "copies = 1", &memory).await;
    let imported = host.import("first", ImportOptions::default()).await.unwrap();
    assert_eq!(imported.imported, 1, "{imported:?}");
    assert_eq!(imported.left.len(), 3, "{imported:?}");
    assert_all_read(&host, &versions[..1]).await;
}

/// A flipped bit anywhere in any object of a chain: the second copy serves every byte, and what is damaged is told.
#[tokio::test]
async fn damage_anywhere_in_a_chain_does_not_show() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 2).await;
    let first = memory[0].clone();
    let versions = chain(&host, 2).await;
    for damaged in 0..versions.len() {
        let name = object(&host, versions[damaged].0, "first").await;
        let len = first.bytes(&name).unwrap().len();
        // Header, frames, digests, columns, footer.
        let places = match damaged {
            0 => vec![0, SEGMENT + 5, len - 1],
            _ => vec![40, len / 2, len - 400, len - 140, len - 100, len - 3],
        };
        for at in places {
            assert!(first.damage(&name, |bytes| bytes[at] ^= 1), "{name}");
            // A host that knows nothing of the object but what the catalogue has.
            let host = host_on(dir.path(), "copies = 2", &memory).await;
            assert_all_read(&host, &versions[damaged..]).await;
            assert!(first.damage(&name, |bytes| bytes[at] ^= 1));
        }
    }
}

#[tokio::test]
async fn only_dirty_ranges_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = models(dir.path(), 1).await;
    let bytes = noise(4 * SEGMENT + 10, 1);
    let base = store(&host, &bytes).await.unwrap().id;
    let path = dir.path().join("image");
    let mut new = bytes.clone();
    new[SEGMENT..SEGMENT + 100].fill(7);
    let expected = new.clone();
    // Not told, and so not stored.
    new[3 * SEGMENT] ^= 1;
    std::fs::write(&path, &new).unwrap();
    let source = || FileSource::new(std::fs::File::open(&path).unwrap(), &path).unwrap();
    let size = new.len() as u64;
    let dirty = DirtyRanges::new(std::iter::once(SEGMENT as u64 + 5..SEGMENT as u64 + 9), size).unwrap();
    let stored = host.update_dirty(base, source(), dirty, StoreOptions::default()).await.unwrap();
    assert_same(&read(&host, stored.id).await.unwrap(), &expected, "the dirty page alone");
    let all = DirtyRanges::new(std::iter::once(0..size), size).unwrap();
    let stored = host.update_dirty(base, source(), all, StoreOptions::default()).await.unwrap();
    assert_same(&read(&host, stored.id).await.unwrap(), &new, "everything may have changed");
    let none = host.update_dirty(base, source(), DirtyRanges::default(), StoreOptions::default()).await.unwrap();
    assert_eq!((none.id, none.stored_bytes), (base, 0));
}

#[tokio::test]
async fn a_base_that_cannot_be_read_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, _]) = models(dir.path(), 1).await;
    let versions = chain(&host, 1).await;
    let name = object(&host, versions[1].0, "first").await;
    let new = changed(&versions[1].1, 99);
    drop(host);
    let memory = [first.clone(), Arc::new(MemoryBackend::new("second"))];
    // Its pack is damaged, and nothing of it is at hand.
    assert!(first.damage(&name, |bytes| bytes.truncate(10)));
    let host = host_on(dir.path(), "copies = 1", &memory).await;
    let stored = update(&host, versions[1].0, &new).await.unwrap();
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Raw]);
    assert_same(&read(&host, stored.id).await.unwrap(), &new, "stored whole");
    // One that is away for a moment.
    first.fail_next(Operation::Get, ErrorKind::Unavailable, false);
    let newer = changed(&new, 100);
    let stored = update(&host, stored.id, &newer).await.unwrap();
    assert_same(&read(&host, stored.id).await.unwrap(), &newer, "stored");
}

/// Another pack of the same snapshot has its pages elsewhere: a copy that would need it there gets the image.
#[tokio::test]
async fn a_backend_with_the_base_in_another_form_gets_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 2).await;
    // The first version on both, the second as a pack on the one and as it is on the other.
    let versions = chain(&host, 0).await;
    drop(host);
    let host = host_on(dir.path(), "copies = 1", &memory).await;
    let second = changed(&versions[0].1, 70);
    let id = update(&host, versions[0].0, &second).await.unwrap().id;
    drop(host);
    let host = host_on(dir.path(), "copies = 2", &memory).await;
    assert_eq!(store(&host, &second).await.unwrap().stored_bytes, second.len() as u64);
    assert_eq!(encodings(&host, id).await, [Encoding::Pages, Encoding::Raw]);
    let third = changed(&second, 71);
    let stored = update(&host, id, &third).await.unwrap();
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages, Encoding::Raw]);
    // All objects of the first backend are lost: each copy is complete on its own.
    for name in memory[0].objects() {
        assert!(memory[0].damage(&name, Vec::clear));
    }
    let host = host_on(dir.path(), "copies = 2", &memory).await;
    assert_all_read(&host, &[(id, second), (stored.id, third)]).await;
}

/// The second copy of a stream is read from the first one, which was just made, and not from what was there in another form.
#[tokio::test]
async fn a_stream_of_what_is_there_as_a_pack_is_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 1).await;
    let versions = chain(&host, 1).await;
    drop(host);
    let host = host_on(dir.path(), "copies = 2", &memory).await;
    let (id, bytes) = &versions[1];
    let stream = tidelock::snapshot::StreamSource::new(std::io::Cursor::new(bytes.clone()), "a stream");
    let stored = host.store(Source::Stream(stream), StoreOptions::default()).await.unwrap();
    assert_eq!((stored.id, stored.placements.len()), (*id, 2));
    assert_eq!(encodings(&host, *id).await, [Encoding::Pages, Encoding::Raw]);
    assert!(memory[0].damage(&object(&host, *id, "first").await, Vec::clear));
    assert_all_read(&host, &versions[1..]).await;
}

/// A version whose base is lost is not sound, whether the base is known to users, or kept for others alone, and in whatever
/// order they are looked at. Storing the image again makes it whole.
#[tokio::test]
async fn a_version_is_not_sound_without_its_base() {
    for (removed, deep, whole) in [(false, false, true), (true, false, true), (true, true, true), (true, true, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (host, [first, second]) = models(dir.path(), 1).await;
        let versions = chain(&host, 2).await;
        let base = object(&host, versions[0].0, "first").await;
        if removed {
            host.remove(versions[0].0).await.unwrap();
        }
        let listed = 3 - u64::from(removed);
        let sound = host.verify(None, deep, None).await.unwrap();
        assert_eq!((sound.checked, sound.bad.len(), sound.unreachable.len()), (listed, 0, 0), "{sound:?}");
        match whole {
            true => assert!(first.damage(&base, Vec::clear)),
            // Of the same size: what is wrong is seen when it is read.
            false => assert!(first.damage(&base, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1))),
        }
        // What was read before is no proof.
        drop(host);
        let memory = [first.clone(), second.clone()];
        let host = host_on(dir.path(), "copies = 1", &memory).await;
        let one = host.verify(Some(versions[2].0), deep, None).await.unwrap();
        assert_eq!((one.checked, one.bad.len(), one.unreachable.len()), (1, 1, 0), "{one:?}");
        assert!(one.bad[0].why.contains(&versions[0].0.to_string()), "{one:?}");
        let all = host.verify(None, deep, None).await.unwrap();
        assert_eq!((all.checked, all.bad.len(), all.unreachable.len()), (listed, listed as usize, 0), "{all:?}");
        // Its own object is not at fault, and it counts for nothing until it has its base again.
        assert_eq!(host.stat(versions[2].0).await.unwrap().placements[0].state, "bad");
        // What is there does not count, and the image is sent as it is.
        for (id, bytes) in &versions[1..] {
            let again = store(&host, bytes).await.unwrap();
            assert_eq!((again.id, again.stored_bytes), (*id, bytes.len() as u64));
            assert_same(&read(&host, *id).await.unwrap(), bytes, "again");
        }
        let all = host.verify(None, false, None).await.unwrap();
        assert_eq!(all.bad.len(), usize::from(!removed), "the base alone: {all:?}");
        // So is the base, and then all are sound.
        assert_eq!(store(&host, &versions[0].1).await.unwrap().stored_bytes, versions[0].1.len() as u64);
        let all = host.verify(None, true, None).await.unwrap();
        assert!(all.bad.is_empty() && all.unreachable.is_empty(), "{all:?}");
        assert_all_read(&host, &versions).await;
    }
}

/// An object of a snapshot that was removed, and is kept for others, is found by an import: it is known again.
#[tokio::test]
async fn an_import_brings_back_what_is_kept_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let (host, memory) = models(dir.path(), 1).await;
    let versions = chain(&host, 1).await;
    // A copy that this catalogue does not know, made by a host with another one.
    let elsewhere = tempfile::tempdir().unwrap();
    let turned = [Arc::new(MemoryBackend::new("first")), memory[1].clone()];
    let other = host_on(elsewhere.path(), "copies = 2", &turned).await;
    store(&other, &versions[0].1).await.unwrap();
    drop(other);
    host.remove(versions[0].0).await.unwrap();
    assert!(host.stat(versions[0].0).await.is_err());
    assert_eq!(host.import("second", ImportOptions::default()).await.unwrap().imported, 1);
    assert_all_read(&host, &versions).await;
    // Both copies go in the end.
    for (id, _) in versions.iter().rev() {
        host.remove(*id).await.unwrap();
    }
    for memory in &memory {
        let left: Vec<_> = memory.objects().into_iter().filter(|name| !name.contains("container")).collect();
        assert_eq!(left, [""; 0], "nothing needs any of them");
    }
}

/// What was read of one copy proves nothing about another: damage at rest is found although all of it was read just before.
#[tokio::test]
async fn a_copy_is_proven_by_its_own_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [_, second]) = models(dir.path(), 2).await;
    let versions = chain(&host, 2).await;
    assert_all_read(&host, &versions).await;
    assert!(host.verify(None, true, None).await.unwrap().bad.is_empty());
    let name = object(&host, versions[2].0, "second").await;
    assert!(second.damage(&name, |bytes| bytes[200] ^= 1));
    let found = host.verify(None, true, None).await.unwrap();
    assert_eq!(
        found.bad.iter().map(|bad| (bad.id, bad.backend.as_str())).collect::<Vec<_>>(),
        [(versions[2].0, "second")]
    );
    // It stays known, whatever is read of the other one.
    assert_all_read(&host, &versions).await;
    assert_eq!(host.verify(None, true, None).await.unwrap().bad.len(), 1);
    // Damage of what it takes pages from is that of its backend too.
    assert!(second.damage(&name, |bytes| bytes[200] ^= 1));
    assert!(host.verify(None, true, None).await.unwrap().bad.is_empty(), "it is whole again");
    let base = object(&host, versions[0].0, "second").await;
    assert!(second.damage(&base, |bytes| bytes[10] ^= 1));
    let bad = host.verify(None, true, None).await.unwrap().bad;
    assert!(!bad.is_empty() && bad.iter().all(|bad| bad.backend == "second"), "{bad:?}");
    assert_all_read(&host, &versions).await;
}
