//! Changes that the disk does not give back as they were written, and caches that cannot be written.

use std::fs::File;
use std::io::Write as _;

use super::*;
use crate::NoSecrets;
use crate::backend::Backend as _;
use crate::backend::testing::MemoryBackend;
use crate::config::Config;
use crate::connector::HostOptions;
use crate::connector::labels::is_identity_name;
use crate::snapshot::Identifier;
use crate::snapshot::pages::{Image as _, PAGE_BYTES};

const SIZE: usize = 5 << 20;

fn file(bytes: &[u8]) -> FileSource {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    FileSource::new(file, "image").unwrap()
}

/// An image, and a change of it in half of its pages, which does not compress.
fn images() -> (Vec<u8>, Vec<u8>) {
    let mut old = vec![0; SIZE];
    blake3::Hasher::new().update(b"old").finalize_xof().fill(&mut old);
    let mut new = old.clone();
    blake3::Hasher::new().update(b"new").finalize_xof().fill(&mut new[..SIZE / 2]);
    (old, new)
}

/// A host with one backend in memory, which has the image as the base.
async fn host(dir: &std::path::Path, old: &[u8]) -> (Host, Arc<MemoryBackend>, SnapshotId) {
    let memory = Arc::new(MemoryBackend::new("local"));
    let backends = [(memory.name().to_owned(), memory.clone() as Arc<dyn crate::backend::Backend>)].into();
    let options = HostOptions { backends, ..HostOptions::default() };
    let host = Host::start_with(&Config::embedded_default(dir), Arc::new(NoSecrets), options).await.unwrap();
    let base = host.store(Source::File(file(old)), StoreOptions::default()).await.unwrap().id;
    (host, memory, base)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_disk_gives_back_otherwise_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = images();
    let (host, memory, base) = host(dir.path(), &old).await;
    let options = StoreOptions::default();
    let pack = host.change_of(base, None, &file(&new), None, &options).await.unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(pack.file.size()).unwrap()];
    pack.file.image().unwrap().read_at(&mut bytes, 0).unwrap();
    let mut written = Identifier::new();
    written.update(&bytes);
    let written = written.finish().id();
    bytes[1_000_000] ^= 1;
    let mut on_disk = tempfile::tempfile().unwrap();
    on_disk.write_all(&bytes).unwrap();
    let damaged = PackFile {
        file: FileSource::own(on_disk, "the pack", Some(written)).unwrap(),
        identity: pack.identity.clone(),
        pack: pack.pack.clone(),
        changed: None,
    };
    let damaged = Arc::new(damaged);
    let change = Change { base: Some(base), pack: Some(&damaged), ..Change::default() };
    let (stored, as_pack) = host.store_change(file(&new), change, &options).await.unwrap();
    assert!(!as_pack, "it was sent as it is on disk");
    let read = host.retrieve(stored.id, None).await.unwrap().body.collect(SIZE).await.unwrap();
    assert!(read == new, "other bytes");
    // What came of the first attempt is gone.
    let objects = memory.objects().into_iter().filter(|name| !is_identity_name(name)).count();
    assert_eq!(objects, 2);
    assert!(memory.objects().iter().any(|name| memory.bytes(name).is_some_and(|bytes| bytes.len() == SIZE)));

    // The same as it was written.
    let change = Change { base: Some(base), pack: Some(&pack), ..Change::default() };
    let (_, as_pack) = host.store_change(file(&new), change, &options).await.unwrap();
    assert!(as_pack);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_digests_that_cannot_be_written_do_not_end_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = images();
    let (host, _, base) = host(dir.path(), &old).await;
    let base = host.base_of(base, None, &StoreOptions::default()).await.unwrap().unwrap();
    let (out, image) = (host.temporary_file().unwrap(), file(&new).image().unwrap());
    let written = blocking(move || {
        let stop = Stop::default();
        let image = Stoppable { image, stop: stop.0.clone() };
        let full = File::options().write(true).open("/dev/full").map_err(|error| Error::io("/dev/full", error))?;
        encode(&image, &base, None, out, Some(full), &pages::Options::new(pages::Profile::Compact))
    });
    let written = written.await.unwrap().unwrap();
    assert!(written.sidecar.is_none() && written.encoded.counts.stored == SIZE as u64 / PAGE_BYTES / 2);
}
