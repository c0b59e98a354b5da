//! As `killed.rs`, with versions that are stored as what has changed: updates, removals of what others need, the end of all
//! that was kept for one, and imports, killed before each of their steps.

use tidelock::{Host, ImportOptions, SnapshotId, Source, StoreOptions};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::files;

use crate::killed::{Ended, Place, assert_kept, at_every_step, file_name, sound, sound_and};
use crate::support::{read, store};

/// Not a multiple of a page.
const SIZE: usize = 150_001;

/// Another version: one page of it is another one.
fn version(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = 4096 * (number as usize % (SIZE / 4096));
    bytes[at..at + 4096].copy_from_slice(&noise(4096, 50_000 + number));
    bytes
}

async fn update(host: &Host, base: SnapshotId, bytes: &[u8]) -> SnapshotId {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let source = Source::open(file.path()).await.unwrap();
    let stored = host.update(base, source, StoreOptions::default()).await.unwrap();
    assert!(stored.stored_bytes < SIZE as u64 / 2, "{stored:?}");
    stored.id
}

/// An image and versions of it, each stored as what has changed since the one before.
async fn chain(host: &Host, seed: u64, versions: u64) -> Vec<(SnapshotId, Vec<u8>)> {
    let mut bytes = noise(SIZE, seed);
    let mut all = vec![(store(host, &bytes).await.unwrap().id, bytes.clone())];
    for number in 1..=versions {
        bytes = version(&bytes, seed + number);
        let base = all.last().unwrap().0;
        all.push((update(host, base, &bytes).await, bytes.clone()));
    }
    all
}

#[tokio::test]
async fn an_update_that_is_killed_at_any_step() {
    let place = Place::new();
    let original = noise(SIZE, 1);
    let base = store(&place.open().await, &original).await.unwrap().id;
    let before = async |number: u64| {
        let bytes = version(&original, number);
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
        let again = update(&host, base, &bytes).await;
        assert_same(&read(&host, again).await.unwrap(), &bytes, &step);
        host.remove(again).await.unwrap();
        assert_eq!(place.objects().len(), 1, "{step}");
    };
    at_every_step(&place, &["pwrite", "fsync", "rename", "write"], before, after).await;
}

/// A store that is encoded while it is sent.
#[tokio::test]
async fn a_store_of_a_full_pack_that_is_killed_at_any_step() {
    let place = Place::new();
    let config = "data_dir = \"tidelock-data\"\n[backends.local]\nadapter = \"fs\"\n\
                  grants.directory.objects = { path = \"tidelock-data/objects\" }\n\
                  [routes.default]\nbackends = [\"local\"]\nencoding = \"pages\"\n";
    std::fs::write(place.path("tidelock.toml"), config).unwrap();
    let original = noise(SIZE, 7);
    let before = async |number: u64| {
        let bytes = version(&original, number);
        place.named(&["--config", "tidelock.toml", "store"], number, bytes)
    };
    let after = async |ended: &Ended, (named, bytes): (String, Vec<u8>)| {
        let step = format!("{named}, {:?}", ended.killed_before);
        let host = place.open().await;
        sound(&place, &host, &step).await;
        let found = host.find(&named).await.ok();
        assert_kept(ended, found, &step);
        if let Some(id) = found {
            assert_same(&read(&host, id).await.unwrap(), &bytes, &step);
            assert_eq!(host.stat(id).await.unwrap().placements[0].encoding.to_string(), "pages", "{step}");
            host.remove(id).await.unwrap();
        }
        assert_eq!(place.objects().len(), 0, "{step}");
    };
    at_every_step(&place, &["pwrite", "fsync", "rename", "write"], before, after).await;
}

#[tokio::test]
async fn a_removal_of_what_is_needed_that_is_killed_at_any_step() {
    let place = Place::new();
    let before = async |number: u64| {
        let versions = chain(&place.open().await, 1000 + 10 * number, 1).await;
        (vec!["rm".to_owned(), versions[0].0.to_string()], versions)
    };
    let after = async |ended: &Ended, versions: Vec<(SnapshotId, Vec<u8>)>| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let [(base, old), (delta, new)] = &versions[..] else { panic!("two versions") };
        let removed = host.stat(*base).await.is_err();
        assert!(removed || ended.status != Some(0), "{step}: it was acknowledged");
        sound_and(&place, &host, &step, usize::from(removed)).await;
        assert_same(&read(&host, *delta).await.unwrap(), new, &step);
        // It can be had again at once, and nothing is sent.
        let again = store(&host, old).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_eq!((again.id, again.stored_bytes), (*base, 0), "{step}");
        assert_same(&read(&host, *base).await.unwrap(), old, &step);
        host.remove(*base).await.unwrap();
        host.remove(*delta).await.unwrap();
        assert_eq!(sound(&place, &host, &step).await.len(), 0, "{step}");
    };
    at_every_step(&place, &[], before, after).await;
}

#[tokio::test]
async fn a_removal_of_the_last_that_is_killed_at_any_step() {
    let place = Place::new();
    let before = async |number: u64| {
        let host = place.open().await;
        let versions = chain(&host, 100_000 + 10 * number, 2).await;
        host.remove(versions[0].0).await.unwrap();
        host.remove(versions[1].0).await.unwrap();
        (vec!["rm".to_owned(), versions[2].0.to_string()], versions)
    };
    let after = async |ended: &Ended, versions: Vec<(SnapshotId, Vec<u8>)>| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let (last, bytes) = &versions[2];
        let there = host.stat(*last).await.is_ok_and(|stat| stat.placements.iter().all(|p| p.state == "live"));
        assert!(!there || ended.status != Some(0), "{step}: it was acknowledged");
        let ids = sound_and(&place, &host, &step, if there { 2 } else { 0 }).await;
        assert_eq!(ids.contains(last), there, "{step}");
        if there {
            assert_same(&read(&host, *last).await.unwrap(), bytes, &step);
            host.remove(*last).await.unwrap();
        }
        assert_eq!(sound(&place, &host, &step).await.len(), 0, "{step}");
        // All of it can be stored at once.
        let again = store(&host, &versions[0].1).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_same(&read(&host, again.id).await.unwrap(), &versions[0].1, &step);
        host.remove(again.id).await.unwrap();
    };
    at_every_step(&place, &[], before, after).await;
}

#[tokio::test]
async fn an_import_of_packs_that_is_killed_at_any_step() {
    let place = Place::new();
    let host = place.open().await;
    let versions = chain(&host, 5, 2).await;
    drop(host);
    let catalogue =
        || files(&place.path("tidelock-data")).into_iter().filter(|p| file_name(p).starts_with("catalogue."));
    let before = async |_| {
        // The host before may be closing it still.
        catalogue().for_each(|file| drop(std::fs::remove_file(file)));
        (vec!["import".to_owned(), "local".to_owned()], ())
    };
    let after = async |ended: &Ended, ()| {
        let step = format!("{:?}", ended.killed_before);
        let host = place.open().await;
        let again = host.import("local", ImportOptions::default()).await.unwrap();
        assert_eq!((again.imported + again.known, again.left.len()), (3, 0), "{step}: {again:?}");
        sound(&place, &host, &step).await;
        for (id, bytes) in &versions {
            assert_same(&read(&host, *id).await.unwrap(), bytes, &step);
        }
    };
    at_every_step(&place, &[], before, after).await;
}
