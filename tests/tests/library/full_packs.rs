//! Images that are stored as full packs: from files and streams, on several backends, and what is read of them.

use std::sync::Arc;

use tidelock::backend::testing::MemoryBackend;
use tidelock::backend::{Backend, Operation};
use tidelock::snapshot::{FileSource, SEGMENT, StreamSource};
use tidelock::types::Encoding;
use tidelock::{ByteRange, ErrorKind, Host, ImportOptions, SnapshotId, Source, StoreOptions, Stored};
use tidelock_tests::data::{assert_same, changed, noise};

use crate::support::{host_on, read, store};

const PAGE: usize = 4096;

fn models() -> [Arc<MemoryBackend>; 2] {
    ["first", "second"].map(|name| Arc::new(MemoryBackend::new(name)))
}

/// Zeros, text, noise, and a page at the end that is not whole.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 10 * SEGMENT + 777];
    bytes[SEGMENT..2 * SEGMENT].copy_from_slice(&noise(SEGMENT, 1));
    for (at, byte) in bytes[3 * SEGMENT..9 * SEGMENT].iter_mut().enumerate() {
        *byte = b"pages of text "[at % 14];
    }
    bytes[5 * SEGMENT..5 * SEGMENT + 40 * PAGE].copy_from_slice(&noise(40 * PAGE, 2));
    let end = bytes.len();
    bytes[end - 9..].copy_from_slice(b"the end.\n");
    bytes
}

async fn stream(host: &Host, bytes: &[u8], size: Option<u64>) -> Stored {
    let stream = StreamSource::new(std::io::Cursor::new(bytes.to_vec()), "a stream");
    let stream = if let Some(size) = size { stream.of_size(size) } else { stream };
    host.store(Source::Stream(stream), StoreOptions::default()).await.unwrap()
}

async fn encodings(host: &Host, id: SnapshotId) -> Vec<Encoding> {
    host.stat(id).await.unwrap().placements.iter().map(|placement| placement.encoding).collect()
}

async fn object(host: &Host, id: SnapshotId, backend: &str) -> String {
    let stat = host.stat(id).await.unwrap();
    let placement = stat.placements.iter().find(|placement| placement.backend == backend).unwrap();
    placement.object.as_str().to_owned()
}

fn images_in(memory: &MemoryBackend) -> usize {
    memory.objects().into_iter().filter(|name| !name.contains("container")).count()
}

async fn assert_reads(host: &Host, id: SnapshotId, bytes: &[u8]) {
    assert_same(&read(host, id).await.unwrap(), bytes, "whole");
    let image = host.open(id).await.unwrap();
    let size = bytes.len();
    for (start, len) in [(0, 5), (SEGMENT - 3, 9000), (5 * SEGMENT + 100, 5 * SEGMENT), (7, size - 10), (size - 3, 3)] {
        let part = image.read_range(ByteRange::of(start as u64, len as u64)).await.unwrap();
        assert_same(&part, &bytes[start..start + len], "a part");
        let mut body = image.stream(Some(ByteRange::of(start as u64, len as u64))).await.unwrap().body;
        let mut all = Vec::new();
        while let Some(chunk) = futures::StreamExt::next(&mut body).await {
            all.extend_from_slice(&chunk.unwrap());
        }
        assert_same(&all, &bytes[start..start + len], "a streamed part");
    }
}

#[tokio::test]
async fn an_image_is_stored_as_a_full_pack_where_the_route_says_so() {
    let bytes = image();
    for profile in ["compact", "random"] {
        let (dir, memory) = (tempfile::tempdir().unwrap(), models());
        let lines = format!("encoding = \"pages\"\nprofile = \"{profile}\"");
        let host = host_on(dir.path(), &lines, &memory).await;
        let stored = store(&host, &bytes).await.unwrap();
        assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages]);
        let object = object(&host, stored.id, "first").await;
        assert_eq!(memory[0].bytes(&object).unwrap().len() as u64, stored.stored_bytes);
        assert!(stored.stored_bytes < bytes.len() as u64 / 4, "{stored:?}");
        assert_reads(&host, stored.id, &bytes).await;
        // What a stream gives is the same image, and is there already.
        for size in [None, Some(bytes.len() as u64)] {
            let again = stream(&host, &bytes, size).await;
            assert_eq!((again.id, again.stored_bytes), (stored.id, 0), "{again:?}");
        }
        assert_eq!(images_in(&memory[0]), 1);
        // The next version needs the image alone.
        let new = changed(&bytes, 3);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &new).unwrap();
        let source = Source::open(file.path()).await.unwrap();
        let next = host.update(stored.id, source, StoreOptions::default()).await.unwrap();
        assert!(next.stored_bytes < stored.stored_bytes, "{next:?}");
        assert_reads(&host, next.id, &new).await;
        let raw = StoreOptions { raw: true, ..StoreOptions::default() };
        let source = Source::open(file.path()).await.unwrap();
        assert_eq!(host.store(source, raw).await.unwrap().stored_bytes, new.len() as u64);
    }
}

#[tokio::test]
async fn a_route_without_an_encoding_stores_images_as_they_are() {
    let bytes = image();
    for lines in ["", "encoding = \"raw\""] {
        let (dir, memory) = (tempfile::tempdir().unwrap(), models());
        let host = host_on(dir.path(), lines, &memory).await;
        let stored = store(&host, &bytes).await.unwrap();
        assert_eq!((encodings(&host, stored.id).await, stored.stored_bytes), (vec![Encoding::Raw], bytes.len() as u64));
    }
}

#[tokio::test]
async fn every_copy_of_a_stream_is_a_pack_of_its_own() {
    let (dir, memory, bytes) = (tempfile::tempdir().unwrap(), models(), image());
    let host = host_on(dir.path(), "encoding = \"pages\"\ncopies = 2", &memory).await;
    let stored = stream(&host, &bytes, None).await;
    assert_eq!(encodings(&host, stored.id).await, [Encoding::Pages, Encoding::Pages]);
    for lost in ["first", "second"] {
        let name = object(&host, stored.id, lost).await;
        let model = memory.iter().find(|model| model.name() == lost).unwrap();
        let (middle, end) = (model.bytes(&name).unwrap().len() / 2, model.bytes(&name).unwrap().len() - 3);
        for at in [40, middle, end] {
            assert!(model.damage(&name, |bytes| bytes[at] ^= 4));
            let host = host_on(dir.path(), "encoding = \"pages\"\ncopies = 2", &memory).await;
            assert_reads(&host, stored.id, &bytes).await;
            assert!(model.damage(&name, |bytes| bytes[at] ^= 4));
        }
    }
}

/// An attempt whose outcome is not known, and one that had no effect: the next one encodes again.
#[tokio::test]
async fn an_attempt_that_begins_again_encodes_again() {
    let (dir, memory, bytes) = (tempfile::tempdir().unwrap(), models(), image());
    let host = host_on(dir.path(), "encoding = \"pages\"", &memory).await;
    for takes_effect in [false, true] {
        memory[0].fail_next(Operation::Put, ErrorKind::Unavailable, takes_effect);
        let stored = store(&host, &bytes).await.unwrap();
        assert_reads(&host, stored.id, &bytes).await;
        host.remove(stored.id).await.unwrap();
    }
    drop(host);
    // What the attempt has left whose outcome was not known goes with the garbage.
    let host = host_on(dir.path(), "encoding = \"pages\"", &memory).await;
    host.gc(std::time::Duration::ZERO).await.unwrap();
    assert_eq!((images_in(&memory[0]), images_in(&memory[1])), (0, 0));
}

#[tokio::test]
async fn an_image_that_changes_while_it_is_encoded_leaves_nothing() {
    let (dir, memory, bytes) = (tempfile::tempdir().unwrap(), models(), image());
    let host = host_on(dir.path(), "encoding = \"pages\"", &memory).await;
    let path = dir.path().join("image");
    std::fs::write(&path, &bytes).unwrap();
    let source = FileSource::new(std::fs::File::open(&path).unwrap(), &path).unwrap();
    std::fs::write(&path, changed(&bytes, 1)).unwrap();
    let error = host.store(Source::File(source), StoreOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!((images_in(&memory[0]), images_in(&memory[1])), (0, 0));
    // A stream that fails on its way.
    let short = StreamSource::new(std::io::Cursor::new(bytes.clone()), "a stream").of_size(bytes.len() as u64 + 1);
    host.store(Source::Stream(short), StoreOptions::default()).await.unwrap_err();
    assert_eq!((images_in(&memory[0]), images_in(&memory[1])), (0, 0));
}

#[tokio::test]
async fn a_catalogue_with_full_packs_is_rebuilt() {
    let (dir, memory, bytes) = (tempfile::tempdir().unwrap(), models(), image());
    let host = host_on(dir.path(), "encoding = \"pages\"", &memory).await;
    let id = store(&host, &bytes).await.unwrap().id;
    drop(host);
    let other = tempfile::tempdir().unwrap();
    let host = host_on(other.path(), "", &memory).await;
    let imported = host.import("first", ImportOptions::default()).await.unwrap();
    assert_eq!((imported.imported, imported.left.len()), (1, 0), "{imported:?}");
    assert_reads(&host, id, &bytes).await;
    assert!(host.verify(None, true, None).await.unwrap().bad.is_empty());
}

/// A chain above a base as it is, long enough to be read by a plan: damage in any object, in what windows take from it directly
/// too, is found where it is, and the other copy serves.
#[tokio::test]
async fn damage_in_a_chain_that_is_read_by_a_plan_does_not_show() {
    for encoding in ["raw", "pages"] {
        let (dir, memory) = (tempfile::tempdir().unwrap(), models());
        let lines = format!("encoding = \"{encoding}\"\ncopies = 2");
        let host = host_on(dir.path(), &lines, &memory).await;
        let mut bytes = noise(10 * SEGMENT + 777, 5);
        bytes[SEGMENT..2 * SEGMENT].fill(0);
        let mut versions = vec![store(&host, &bytes).await.unwrap().id];
        for version in 0..3 {
            bytes = changed(&bytes, 20 + version);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let source = Source::open(file.path()).await.unwrap();
            versions.push(host.update(versions[version as usize], source, StoreOptions::default()).await.unwrap().id);
        }
        let last = versions[3];
        assert_reads(&host, last, &bytes).await;
        for (number, damaged) in versions.iter().enumerate() {
            let name = object(&host, *damaged, "first").await;
            let len = memory[0].bytes(&name).unwrap().len();
            for at in [40, len / 2, len - 1000, len - 100] {
                assert!(memory[0].damage(&name, |bytes| bytes[at] ^= 1));
                let host = host_on(dir.path(), &lines, &memory).await;
                assert_same(&read(&host, last).await.unwrap(), &bytes, &format!("{encoding} {number} {at}"));
                // A pack is never blamed for what it takes pages from.
                let mut bad = host.stat(last).await.unwrap().placements;
                bad.retain(|placement| placement.state != "live");
                let lacks = bad.iter().all(|bad| bad.reason.as_ref().unwrap().contains("takes pages from"));
                assert!(lacks || number == 3, "{encoding} {number} {at}: {bad:?}");
                assert!(memory[0].damage(&name, |bytes| bytes[at] ^= 1));
                // A pack that lacked what it takes pages from is live again with that.
                host.verify(None, true, None).await.unwrap();
                let placements = host.stat(last).await.unwrap().placements;
                let live = placements.iter().filter(|placement| placement.state == "live").count();
                assert_eq!(live, 2, "{encoding} {number} {at}: {placements:?}");
            }
        }
    }
}

/// One page of a `random` pack is one request, and so is one of an image as it is whose page digests are at hand.
#[tokio::test]
async fn a_page_is_one_request() {
    let bytes = noise(10 * SEGMENT, 6);
    for (raw, lines) in [(false, "encoding = \"pages\"\nprofile = \"random\""), (true, "encoding = \"pages\"")] {
        let (dir, memory) = (tempfile::tempdir().unwrap(), models());
        let host = host_on(dir.path(), lines, &memory).await;
        let mut id = store(&host, &bytes).await.unwrap().id;
        if raw {
            // Its digests stay here when its object goes.
            host.remove(id).await.unwrap();
            let raw = StoreOptions { raw: true, ..StoreOptions::default() };
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            id = host.store(Source::open(file.path()).await.unwrap(), raw).await.unwrap().id;
        }
        drop(host);
        let host = host_on(dir.path(), lines, &memory).await;
        let image = host.open(id).await.unwrap();
        let gets = || {
            let counts = host.operation_counts().remove("first").unwrap_or_default();
            counts.iter().filter(|count| count.operation == Operation::Get).map(|count| count.operations).sum::<u64>()
        };
        let mut page = [0; PAGE];
        // The first one opens the pack, too.
        image.read_at(SEGMENT as u64, &mut page).await.unwrap();
        for at in [5 * SEGMENT + 3 * PAGE, 8 * SEGMENT + 7 * PAGE, 3 * SEGMENT + 100 * PAGE] {
            let before = gets();
            assert_eq!(image.read_at(at as u64, &mut page).await.unwrap(), PAGE);
            assert_same(&page, &bytes[at..at + PAGE], "a page");
            assert_eq!(gets() - before, 1, "raw: {raw}, {at}");
        }
        // A page that is wrong is not returned; the second copy is not there, so the read fails.
        let name = object(&host, id, "first").await;
        let wrong = if raw { 6 * SEGMENT + 11 * PAGE } else { 40 };
        assert!(memory[0].damage(&name, |bytes| bytes[wrong] ^= 1));
        let host = host_on(dir.path(), lines, &memory).await;
        let at = if raw { wrong } else { 0 };
        let error = host.open(id).await.unwrap().read_at(at as u64, &mut page).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
