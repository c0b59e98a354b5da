//! Hot images: read in place against the file that was stored, and stores that leave one, killed before each of their steps.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelock::config::Config;
use tidelock::snapshot::SEGMENT;
use tidelock::{ErrorKind, Host, Image, NoSecrets, SnapshotId, Source, StoreOptions};
use tidelock_tests::data::{KIB, assert_same, noise};
use tidelock_tests::faults::mix;
use tidelock_tests::program::files;

use crate::killed::{Ended, Place, assert_kept, at_every_step, file_name};
use crate::support::{read, store};

const PAGE: usize = 4096;
/// Not a multiple of a page.
const SIZE: usize = 150_001;

fn text(capacity: &str) -> String {
    format!(
        "[backends.local]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"tidelock-data/objects\" }}\n\
         [hot]\ncapacity = \"{capacity}\"\n"
    )
}

async fn host(dir: &Path) -> Host {
    Host::start(&Config::parse(&text("1 GiB"), dir).unwrap(), &NoSecrets).await.unwrap()
}

async fn update(host: &Host, base: SnapshotId, bytes: &[u8]) -> SnapshotId {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    host.update(base, Source::open(file.path()).await.unwrap(), StoreOptions::default()).await.unwrap().id
}

async fn read_at(image: &Image, offset: usize, len: usize) -> Vec<u8> {
    let mut buffer = vec![0xa5; len];
    let count = image.read_at(offset as u64, &mut buffer).await.unwrap();
    assert!(buffer[count..].iter().all(|byte| *byte == 0xa5), "it wrote beyond what it read");
    buffer.truncate(count);
    buffer
}

fn hot_files(dir: &Path) -> Vec<PathBuf> {
    let all = files(&dir.join("tidelock-data/hot")).into_iter();
    let mut found: Vec<_> =
        all.filter(|path| file_name(path).starts_with("snap-") && !file_name(path).ends_with(".side")).collect();
    found.sort();
    found
}

/// Versions of an image: of another length, with zeros where there was data and the other way round.
fn versions() -> Vec<Vec<u8>> {
    let mut bytes = noise(5 * SEGMENT + 12_345, 1);
    bytes[SEGMENT..2 * SEGMENT].fill(0);
    bytes[3 * SEGMENT + 1..3 * SEGMENT + 40 * PAGE].fill(0);
    let mut all = vec![bytes.clone()];
    for number in 0..4 {
        for page in 0..20 {
            let at = mix(number, page) as usize % (bytes.len() / PAGE) * PAGE;
            bytes[at..at + PAGE].copy_from_slice(&noise(PAGE, number * 1000 + page));
        }
        bytes[number as usize * SEGMENT / 2..][..3 * PAGE].fill(0);
        bytes.truncate(bytes.len() - 5000);
        bytes.extend_from_slice(&noise(if number % 2 == 0 { 9000 } else { 0 }, number));
        all.push(bytes.clone());
    }
    all
}

#[tokio::test]
async fn small_reads_in_place_give_what_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path()).await;
    let versions = versions();
    let mut ids = vec![store(&host, &versions[0]).await.unwrap().id];
    for bytes in &versions[1..] {
        ids.push(update(&host, *ids.last().unwrap(), bytes).await);
    }
    let mut images = Vec::new();
    for id in &ids {
        images.push(host.open(*id).await.unwrap());
    }
    let all = async |what: &str| {
        for (number, (image, bytes)) in images.iter().zip(&versions).enumerate() {
            for round in 0..60 {
                let most = [1, 512, PAGE, 70_000, 300_000][round % 5];
                let len = 1 + mix(number as u64, round as u64) as usize % most;
                let at = mix(round as u64, number as u64) as usize % (bytes.len() + 100);
                let expected = &bytes[at.min(bytes.len())..(at + len).min(bytes.len())];
                assert_same(&read_at(image, at, len).await, expected, &format!("{what}: {len} from {at} of {number}"));
            }
            let end = bytes.len();
            assert_same(&read_at(image, end - 10, 100).await, &bytes[end - 10..], what);
            assert_eq!(read_at(image, end, 100).await, [0; 0], "{what}");
        }
    };
    // The other copies are away: nothing but the hot ones can answer.
    let objects = dir.path().join("tidelock-data/objects");
    std::fs::rename(&objects, dir.path().join("away")).unwrap();
    all("in place").await;
    std::fs::rename(dir.path().join("away"), &objects).unwrap();
    // And the other way round: the files are gone, though still open.
    for id in &ids {
        assert!(host.stat(*id).await.unwrap().placements.iter().any(|placement| placement.backend == "hot"));
    }
    std::fs::rename(dir.path().join("tidelock-data/hot"), dir.path().join("hot-away")).unwrap();
    all("files that were moved").await;
}

#[tokio::test]
async fn a_page_that_has_rotted_is_not_given_and_the_hot_copy_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path()).await;
    let versions = versions();
    let base = store(&host, &versions[0]).await.unwrap().id;
    let next = update(&host, base, &versions[1]).await;
    let cases = [(next, &versions[1], 1, 32 + 1000 + 2 * PAGE), (base, &versions[0], 0, 4 * SEGMENT + 7)];
    for (id, bytes, file, at) in cases {
        let image = host.open(id).await.unwrap();
        read_at(&image, 0, PAGE).await;
        let path = &hot_files(dir.path())[file];
        let opened = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        opened.read_exact_at(&mut byte, at as u64).unwrap();
        opened.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
        for at in (0..bytes.len()).step_by(PAGE) {
            let end = (at + PAGE).min(bytes.len());
            assert_same(&read_at(&image, at, PAGE).await, &bytes[at..end], "a page");
        }
        let placements = host.stat(id).await.unwrap().placements;
        let state = |backend: &str| placements.iter().find(|p| p.backend == backend).unwrap().state;
        assert_eq!((state("local"), state("hot")), ("live", "bad"), "file {file}: {placements:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_removed_is_read_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path()).await;
    let id = store(&host, &noise(SIZE, 7)).await.unwrap().id;
    let image = host.open(id).await.unwrap();
    read_at(&image, 0, PAGE).await;
    host.remove(id).await.unwrap();
    let error = image.read_at(0, &mut [0; 16]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
}

/// What holds at any time: all can be read, and after a collection there is nothing that is not recorded.
async fn sound(place: &Place, host: &Host, what: &str) -> BTreeSet<SnapshotId> {
    host.gc(Duration::from_millis(1)).await.unwrap_or_else(|error| panic!("gc, {what}: {error:?}"));
    let verified = host.verify(None, true, None).await.unwrap();
    assert!(verified.bad.is_empty() && verified.unreachable.is_empty(), "{what}: {verified:?}");
    let (mut ids, mut known) = (BTreeSet::new(), BTreeSet::new());
    for snapshot in host.list(None, 10_000).await.unwrap().snapshots {
        let placements = host.stat(snapshot.id).await.unwrap().placements;
        assert!(placements.iter().any(|placement| placement.backend == "local"), "{what}: {placements:?}");
        for placement in placements {
            assert_eq!(placement.state, "live", "{what}");
            known.insert(placement.object.as_str().rsplit('/').next().unwrap().to_owned());
        }
        ids.insert(snapshot.id);
    }
    for folder in ["hot", "objects"] {
        for file in files(&place.path("tidelock-data").join(folder)) {
            let name = file_name(&file).trim_end_matches(".side").to_owned();
            if name.ends_with(".base") {
                // Of an attempt that was cut off, the adapter may leave the labels, which are written before the object.
                continue;
            }
            assert!(known.contains(&name) || name.starts_with("tidelock-container-"), "{what}: nothing knows {file:?}");
        }
    }
    ids
}

/// A store whose hot copy takes the room of the one before.
#[tokio::test]
async fn a_store_that_evicts_is_killed_at_any_step() {
    let place = Place::with(&text("350 KiB"));
    let first = store(&place.open().await, &noise(SIZE, 1)).await.unwrap().id;
    let before = async |number: u64| place.named(&["store"], number, noise(SIZE, 100 + number));
    let after = async |ended: &Ended, (named, bytes): (String, Vec<u8>)| {
        let step = format!("{named}, {:?}", ended.killed_before);
        let host = place.open().await;
        let ids = sound(&place, &host, &step).await;
        assert!(ids.contains(&first), "{step}");
        let taken: u64 =
            files(&place.path("tidelock-data/hot")).iter().map(|p| p.metadata().unwrap().blocks() * 512).sum();
        assert!(taken <= 350 * KIB as u64, "{step}: {taken}");
        let found = host.find(&named).await.ok();
        assert_kept(ended, found, &step);
        let again = store(&host, &bytes).await.unwrap_or_else(|error| panic!("{step}: stored again: {error:?}"));
        assert_same(&read(&host, again.id).await.unwrap(), &bytes, &step);
        // Most stay, so that nearly every store has to evict.
        for old in ids.iter().filter(|id| **id != first && **id != again.id) {
            if ids.len() > 12 {
                host.remove(*old).await.unwrap();
            }
        }
    };
    // Room is made by removals.
    at_every_step(&place, &["unlink"], before, after).await;
}

#[tokio::test]
async fn an_update_that_leaves_a_hot_pack_is_killed_at_any_step() {
    let place = Place::with(&text("10 MiB"));
    let original = noise(SIZE, 2);
    let base = store(&place.open().await, &original).await.unwrap().id;
    let before = async |number: u64| {
        let mut bytes = original.clone();
        let at = PAGE * (number as usize % (SIZE / PAGE));
        bytes[at..at + PAGE].copy_from_slice(&noise(PAGE, 50_000 + number));
        place.named(&["update", &base.to_string()], number, bytes)
    };
    let after = async |ended: &Ended, (named, bytes): (String, Vec<u8>)| {
        let step = format!("{named}, {:?}", ended.killed_before);
        let host = place.open().await;
        let ids = sound(&place, &host, &step).await;
        assert!(ids.contains(&base), "{step}");
        let found = host.find(&named).await.ok();
        assert_kept(ended, found, &step);
        if let Some(id) = found {
            assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
            host.remove(id).await.unwrap();
        }
        assert_eq!(hot_files(&place.path(".")).len(), 1, "{step}");
    };
    at_every_step(&place, &[], before, after).await;
}
