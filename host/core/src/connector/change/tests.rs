//! Caches that cannot be written.

use std::fs::File;
use std::io::Write as _;

use super::*;
use crate::NoSecrets;
use crate::backend::Backend as _;
use crate::backend::testing::MemoryBackend;
use crate::config::Config;
use crate::connector::HostOptions;
use crate::snapshot::pages::PAGE_BYTES;

pub(in crate::connector) const SIZE: usize = 5 << 20;

pub(in crate::connector) fn file(bytes: &[u8]) -> FileSource {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    FileSource::new(file, "image").unwrap()
}

/// An image, and a change of it in half of its pages, which does not compress.
pub(in crate::connector) fn images() -> (Vec<u8>, Vec<u8>) {
    let mut old = vec![0; SIZE];
    blake3::Hasher::new().update(b"old").finalize_xof().fill(&mut old);
    let mut new = old.clone();
    blake3::Hasher::new().update(b"new").finalize_xof().fill(&mut new[..SIZE / 2]);
    (old, new)
}

/// A host with one backend in memory, which has the image as the base.
pub(in crate::connector) async fn host(dir: &std::path::Path, old: &[u8]) -> (Host, Arc<MemoryBackend>, SnapshotId) {
    let memory = Arc::new(MemoryBackend::new("local"));
    let backends = [(memory.name().to_owned(), memory.clone() as Arc<dyn crate::backend::Backend>)].into();
    let options = HostOptions { backends, ..HostOptions::default() };
    let host = Host::start_with(&Config::embedded_default(dir), Arc::new(NoSecrets), options).await.unwrap();
    let base = host.store(Source::File(file(old)), StoreOptions::default()).await.unwrap().id;
    (host, memory, base)
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
