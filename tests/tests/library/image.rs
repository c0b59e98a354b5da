//! Images: what they give against the file that was stored, how much they fetch for it, and what they do when a backend
//! fails.

use std::path::{Path, PathBuf};

use tidelock::config::Config;
use tidelock::snapshot::SEGMENT;
use tidelock::{ByteRange, ErrorKind, ExtentKind, Host, Image, NoSecrets, Source, StoreOptions};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::faults::mix;
use tidelock_tests::program::files;

use crate::support::{host, store};

/// An image of data, holes and data again, and a tail that is not a whole segment.
fn holed() -> Vec<u8> {
    let mut bytes = noise(12 * SEGMENT + 12_345, 1);
    bytes[3 * SEGMENT..6 * SEGMENT].fill(0);
    bytes[7 * SEGMENT..8 * SEGMENT].fill(0);
    // Zeros that are not a whole segment are data like any other.
    bytes[9 * SEGMENT + 1..10 * SEGMENT].fill(0);
    bytes
}

async fn open(host: &Host, bytes: &[u8]) -> Image {
    host.open(store(host, bytes).await.unwrap().id).await.unwrap()
}

async fn read_at(image: &Image, offset: usize, len: usize) -> Vec<u8> {
    let mut buffer = vec![0xa5; len];
    let count = image.read_at(offset as u64, &mut buffer).await.unwrap();
    assert!(buffer[count..].iter().all(|byte| *byte == 0xa5), "it wrote beyond what it read");
    buffer.truncate(count);
    buffer
}

/// Bytes that the backends gave: `copying` carries each byte into its memory and out of it.
fn fetched(host: &Host) -> u64 {
    host.bytes_through_guests() / 2
}

/// Returns whether so many bytes are these segments, with what else an adapter is told.
fn about(bytes: u64, segments: u64) -> bool {
    (segments * SEGMENT as u64..segments * SEGMENT as u64 + 64 * 1024).contains(&bytes)
}

#[tokio::test]
async fn reads_give_what_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "").await;
    let bytes = holed();
    let image = open(&host, &bytes).await;
    assert_eq!(image.size(), bytes.len() as u64);
    let mut dice = 0;
    let mut throw = |sides: usize| {
        dice += 1;
        (mix(7, dice) % sides as u64) as usize
    };
    for round in 0..150 {
        let most = [1, 512, 70_000, SEGMENT, 3 * SEGMENT, 12 * SEGMENT][throw(6)];
        let (offset, len) = (throw(bytes.len() + 5000), throw(most) + 1);
        let expected = &bytes[offset.min(bytes.len())..(offset + len).min(bytes.len())];
        let what = format!("round {round}: {len} bytes from {offset}");
        assert_same(&read_at(&image, offset, len).await, expected, &what);
        if offset <= bytes.len() {
            let range = ByteRange::of(offset as u64, len as u64);
            assert_same(&image.read_range(range).await.unwrap(), expected, &what);
            if round % 4 == 0 {
                let part = image.stream(Some(range)).await.unwrap();
                assert_eq!((part.size, part.source.as_str()), (expected.len() as u64, "mine"));
                assert_same(&part.body.collect(bytes.len()).await.unwrap(), expected, &what);
            }
        }
    }
    let whole = image.stream(None).await.unwrap().body.collect(bytes.len()).await.unwrap();
    assert_same(&whole, &bytes, "all of it");
    assert_same(&image.read_range(ByteRange::default()).await.unwrap(), &bytes, "all of it at once");
    assert_eq!(host.bytes_through_guests(), 0);
}

#[tokio::test]
async fn a_read_ends_at_the_end_and_a_range_must_begin_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "fs", "").await;
    let bytes = noise(MIB + 5, 2);
    let image = open(&host, &bytes).await;
    assert_same(&read_at(&image, MIB, 100).await, &bytes[MIB..], "over the end");
    for offset in [MIB + 5, MIB + 6, usize::MAX - 100] {
        assert_eq!(read_at(&image, offset, 200).await.len(), 0, "{offset}");
    }
    assert_eq!(image.read_at(u64::MAX, &mut [0]).await.unwrap(), 0);
    assert_eq!(image.read_at(0, &mut []).await.unwrap(), 0);
    let end = ByteRange { start: image.size(), end: None };
    assert!(image.read_range(end).await.unwrap().is_empty());
    for range in [ByteRange { start: image.size() + 1, end: None }, ByteRange { start: 2, end: Some(1) }] {
        assert_eq!(*image.read_range(range).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(*image.stream(Some(range)).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let nothing = open(&host, b"").await;
    assert_eq!((nothing.size(), nothing.extents().count()), (0, 0));
    assert_eq!(nothing.read_at(0, &mut [0; 9]).await.unwrap(), 0);
    assert!(nothing.read_range(ByteRange::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn small_reads_fetch_each_segment_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = noise(3 * SEGMENT, 3);
    let image = open(&host, &bytes).await;
    let before = fetched(&host);
    let step = 10_007;
    for offset in (0..bytes.len()).step_by(step) {
        let expected = &bytes[offset..(offset + step).min(bytes.len())];
        assert_same(&read_at(&image, offset, step).await, expected, "one after the other");
    }
    let after = fetched(&host) - before;
    assert!(about(after, 3), "{after} bytes were fetched");
    // Two are kept: back and forth across a boundary costs nothing more, and a clone has the same ones.
    let clone = image.clone();
    for offset in [2 * SEGMENT - 5, SEGMENT + 1, 2 * SEGMENT + 7] {
        assert_same(&read_at(&clone, offset, 100).await, &bytes[offset..offset + 100], "back and forth");
    }
    assert_eq!(fetched(&host) - before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_at_once_fetch_a_segment_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = noise(3 * SEGMENT, 4);
    let image = open(&host, &bytes).await;
    let before = fetched(&host);
    let readers: Vec<_> = (0..64)
        .map(|reader| {
            let image = image.clone();
            let offset = SEGMENT + reader * 4096;
            tokio::spawn(async move { (offset, read_at(&image, offset, 4096).await) })
        })
        .collect();
    for reader in readers {
        let (offset, found) = reader.await.unwrap();
        assert_same(&found, &bytes[offset..offset + 4096], "at once");
    }
    let fetched = fetched(&host) - before;
    assert!(about(fetched, 1), "{fetched} bytes were fetched");
}

#[tokio::test]
async fn zeros_are_holes_and_are_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let bytes = holed();
    let image = open(&host, &bytes).await;
    let segment = SEGMENT as u64;
    let extents: Vec<_> = image.extents().map(|extent| (extent.start, extent.len, extent.kind)).collect();
    assert_eq!(
        extents,
        [
            (0, 3 * segment, ExtentKind::Data),
            (3 * segment, 3 * segment, ExtentKind::Zero),
            (6 * segment, segment, ExtentKind::Data),
            (7 * segment, segment, ExtentKind::Zero),
            (8 * segment, image.size() - 8 * segment, ExtentKind::Data),
        ]
    );
    let before = fetched(&host);
    assert_same(&read_at(&image, 3 * SEGMENT, 3 * SEGMENT).await, &bytes[3 * SEGMENT..6 * SEGMENT], "a hole");
    assert_same(&read_at(&image, 7 * SEGMENT + 9, 10).await, &[0; 10], "in a hole");
    assert_eq!(fetched(&host), before);

    // What the extents are for: a copy that has the holes.
    let file = std::fs::File::create(dir.path().join("copy")).unwrap();
    file.set_len(image.size()).unwrap();
    for extent in image.extents().filter(|extent| extent.kind == ExtentKind::Data) {
        let range = ByteRange::of(extent.start, extent.len);
        let data = image.read_range(range).await.unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &data, extent.start).unwrap();
    }
    assert_same(&std::fs::read(dir.path().join("copy")).unwrap(), &bytes, "the copy");
}

/// Two folders, and a copy in each.
async fn two_copies(dir: &Path, bytes: &[u8]) -> Image {
    let backend = |name| {
        format!(
            "[backends.{name}]\nadapter = \"fs\"\nsettings = {{ layout = \"flat\" }}\n\
             grants.directory.objects = {{ path = \"{name}\" }}\n"
        )
    };
    let route = "[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\n";
    let text = format!("data_dir = \"data\"\n{}{}{route}", backend("first"), backend("second"));
    let host = Host::start(&Config::parse(&text, dir).unwrap(), &NoSecrets).await.unwrap();
    let file = dir.join("image");
    std::fs::write(&file, bytes).unwrap();
    let stored = host.store(Source::open(&file).await.unwrap(), StoreOptions::default()).await.unwrap();
    host.open(stored.id).await.unwrap()
}

/// The object in a folder: the largest file, since there is also the identity of the container.
fn object(folder: &Path) -> PathBuf {
    files(folder).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn damage(folder: &Path, at: usize) {
    let object = object(folder);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[at] ^= 1;
    std::fs::write(object, bytes).unwrap();
}

#[tokio::test]
async fn a_read_turns_to_another_placement_whatever_is_wrong_with_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(9 * SEGMENT, 5);
    let image = two_copies(dir.path(), &bytes).await;
    // A segment that fails, alone and amid others that are read with it.
    damage(&dir.path().join("first"), SEGMENT + 77);
    assert_same(&read_at(&image, SEGMENT, 100).await, &bytes[SEGMENT..SEGMENT + 100], "a damaged segment");
    assert_same(&read_at(&image, 5, 5 * SEGMENT).await, &bytes[5..5 + 5 * SEGMENT], "damage in a large read");
    let streamed = image.stream(None).await.unwrap();
    assert_eq!(streamed.source, "second", "what is known to be damaged is read last");
    assert_same(&streamed.body.collect(bytes.len()).await.unwrap(), &bytes, "all of it");

    std::fs::remove_file(object(&dir.path().join("first"))).unwrap();
    assert_same(&read_at(&image, 7 * SEGMENT, 100).await, &bytes[7 * SEGMENT..7 * SEGMENT + 100], "an absent object");
    assert_eq!(image.stream(None).await.unwrap().source, "second");

    damage(&dir.path().join("second"), 8 * SEGMENT + 1);
    let error = image.read_at(8 * SEGMENT as u64, &mut [0; 10]).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Corrupt, Some("second")));
    assert_same(&read_at(&image, 6 * SEGMENT, 9).await, &bytes[6 * SEGMENT..6 * SEGMENT + 9], "beside the damage");
}

#[tokio::test]
async fn an_image_reads_on_across_a_swap_and_not_after_its_removal() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "hostile", "").await;
    let bytes = noise(3 * SEGMENT, 6);
    let image = open(&host, &bytes).await;
    assert_same(&read_at(&image, 3, 30).await, &bytes[3..33], "before");
    host.swap("mine", crate::support::component("copying")).await.unwrap();
    assert_same(&read_at(&image, 2 * SEGMENT, 30).await, &bytes[2 * SEGMENT..2 * SEGMENT + 30], "after");
    host.remove(image.id()).await.unwrap();
    assert_eq!(*image.read_at(SEGMENT as u64, &mut [0; 9]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*host.open(image.id()).await.unwrap_err().kind(), ErrorKind::NotFound);
}
