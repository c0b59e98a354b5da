//! Containers that are another one, absent objects, and what heals.

mod replaced;

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::backend::testing::MemoryBackend;
use crate::backend::{Backend, BackendInfo, Operation};
use crate::catalogue::{Placement, PlacementState};
use crate::config::Config;
use crate::snapshot::{Source, StreamSource};
use crate::types::{AccountState, ArchiveState, ByteRange, Health, InventoryPage, ObjectStat, Platform, SnapshotId};
use crate::{HostOptions, ImportOptions, NoSecrets, StoreOptions};

/// A backend whose container can be taken away and put back, as a disk.
struct Mount {
    container: Mutex<Arc<MemoryBackend>>,
    /// What it is at the next operation of this kind, and from then on.
    replaced_at: Mutex<Option<(Operation, Arc<MemoryBackend>)>>,
    /// Objects that every container has.
    everywhere: Mutex<Vec<ObjectId>>,
    /// How many objects were read.
    gets: AtomicUsize,
}

impl Mount {
    fn of(container: &Arc<MemoryBackend>) -> Arc<Self> {
        let container = Mutex::new(container.clone());
        Arc::new(Self {
            container,
            replaced_at: Mutex::default(),
            everywhere: Mutex::default(),
            gets: AtomicUsize::new(0),
        })
    }

    fn mount(&self, container: &Arc<MemoryBackend>) {
        *self.container.lock().unwrap() = container.clone();
    }

    fn now(&self) -> Arc<MemoryBackend> {
        self.container.lock().unwrap().clone()
    }

    fn at(&self, operation: Operation) -> Arc<MemoryBackend> {
        if let Some((_, other)) = self.replaced_at.lock().unwrap().take_if(|(at, _)| *at == operation) {
            self.mount(&other);
        }
        self.now()
    }
}

impl Backend for Mount {
    fn name(&self) -> &str {
        "local"
    }

    fn info(&self) -> BackendInfo {
        self.now().info()
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        let now = self.at(Operation::Put);
        async move { now.put(upload).await }.boxed()
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let now = self.now();
        if self.everywhere.lock().unwrap().contains(id) {
            let digits = id.as_str().strip_prefix(CONTAINER_PREFIX).unwrap();
            let bytes = Bytes::from(format!("{MAGIC}{digits}\n"));
            return async move { Ok(Body::from_bytes(bytes)) }.boxed();
        }
        async move { now.get(id, range).await }.boxed()
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        let now = self.now();
        let everywhere = self.everywhere.lock().unwrap().contains(id);
        async move {
            match everywhere {
                true => {
                    Ok(ObjectStat { size: IDENTITY_SIZE, base: None, archive: None, modified: None, labels: vec![] })
                }
                false => now.stat(id).await,
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        let now = self.at(Operation::Delete);
        async move { now.delete(id).await }.boxed()
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        let now = self.at(Operation::List);
        async move { now.list(cursor, limit).await }.boxed()
    }

    fn restore<'a>(&'a self, _: &'a ObjectId, _: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        async { Err(Error::unsupported("no archive")) }.boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        async { Err(Error::unsupported("no health")) }.boxed()
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        async { Err(Error::unsupported("no account")) }.boxed()
    }

    fn report(&self, _: &ObjectId, _: &Error) {}
}

fn container() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new("local"))
}

/// A process with its own host on a data directory.
async fn host(dir: &Path, backend: Arc<dyn Backend>) -> Host {
    let options = HostOptions { platform: Platform::system(), backends: [("local".to_owned(), backend)].into() };
    Host::start_with(&Config::embedded_default(dir), Arc::new(NoSecrets), options).await.unwrap()
}

async fn store(host: &Host, bytes: &'static [u8]) -> Result<SnapshotId> {
    let source = Source::Stream(StreamSource::new(bytes, "stream"));
    Ok(host.store(source, StoreOptions::default()).await?.id)
}

async fn read(host: &Host, id: SnapshotId) -> Result<Vec<u8>> {
    Ok(host.retrieve(id, None).await?.body.collect(1000).await?.to_vec())
}

async fn placement(host: &Host, id: SnapshotId) -> Placement {
    host.inner.catalogue.placements(id).await.unwrap().remove(0)
}

fn is_away<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Unavailable, Some("local")), "{error}");
    assert!(error.message().contains("not the one that snapshots were stored into"), "{error}");
    assert!(error.advice().unwrap().contains("import local --new-container"), "{error}");
}

#[test]
fn an_identity_is_distinguished_from_an_image() {
    let text = format!("{MAGIC}{}\n", "0123456789abcdef".repeat(2));
    assert!(is_identity(text.as_bytes()) && text.len() as u64 == IDENTITY_SIZE);
    for other in [&text[1..], &text[..text.len() - 1], &text.replace('f', "g"), "", MAGIC] {
        assert!(!is_identity(other.as_bytes()), "{other}");
    }
}

#[tokio::test]
async fn in_another_container_nothing_is_marked_stored_removed_or_imported() {
    let (dir, [disk, other]) = (tempfile::tempdir().unwrap(), [container(), container()]);
    let mount = Mount::of(&disk);
    let first = host(dir.path(), mount.clone()).await;
    let id = store(&first, b"image").await.unwrap();
    assert_eq!(disk.objects().len(), 2, "{:?}", disk.objects());
    mount.mount(&other);
    is_away(read(&first, id).await);
    let found = first.verify(None, true, None).await.unwrap();
    assert_eq!((found.checked, found.bad.len(), found.unreachable.len()), (1, 0, 1));
    is_away(first.remove(id).await);
    is_away(first.import("local", ImportOptions::default()).await);
    is_away(host(dir.path(), mount.clone()).await.store_small().await);
    assert_eq!(other.objects(), [""; 0], "nothing was stored into it in silence");
    assert_eq!(placement(&first, id).await.state, PlacementState::Live);
    // Once it is back, nothing has happened.
    mount.mount(&disk);
    assert_eq!(read(&first, id).await.unwrap(), b"image");
    first.remove(id).await.unwrap();
    assert_eq!(disk.objects().len(), 1);
}

impl Host {
    async fn store_small(&self) -> Result<SnapshotId> {
        store(self, b"small").await
    }
}

#[tokio::test]
async fn a_container_that_is_lost_for_good_is_replaced_by_one_command() {
    let (dir, [disk, other]) = (tempfile::tempdir().unwrap(), [container(), container()]);
    let mount = Mount::of(&disk);
    let host = host(dir.path(), mount.clone()).await;
    let id = store(&host, b"image").await.unwrap();
    mount.mount(&other);
    let anew = || ImportOptions { new_container: true, ..ImportOptions::default() };
    let imported = host.import("local", anew()).await.unwrap();
    assert_eq!((imported.objects, imported.imported, other.objects().len()), (0, 0, 1));
    // Now its absence is real.
    assert_eq!(*read(&host, id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(placement(&host, id).await.is_absent());
    assert_eq!(store(&host, b"image").await.unwrap(), id);
    assert_eq!(read(&host, id).await.unwrap(), b"image");
    // Where the recorded one is there, nothing is replaced.
    host.import("local", anew()).await.unwrap();
    assert_eq!(other.objects().len(), 2);
}

#[tokio::test]
async fn an_absent_object_heals_when_it_comes_back_and_a_damaged_one_when_its_bytes_do() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), container());
    let host = host(dir.path(), disk.clone()).await;
    let id = store(&host, b"image").await.unwrap();
    let seen = placement(&host, id).await;
    for (reason, heals) in [(crate::catalogue::ABSENT, true), ("its bytes are wrong", false)] {
        let now = placement(&host, id).await;
        host.inner.catalogue.transition(&now, PlacementState::Bad, Some(reason)).await.unwrap();
        host.verify(None, false, None).await.unwrap();
        assert_eq!(placement(&host, id).await.state == PlacementState::Live, heals, "{reason}");
    }
    host.verify(None, true, None).await.unwrap();
    assert_eq!(placement(&host, id).await.state, PlacementState::Live);
    let now = placement(&host, id).await;
    host.inner.catalogue.transition(&now, PlacementState::Suspect, Some("weak")).await.unwrap();
    host.verify(None, false, None).await.unwrap();
    assert_eq!(placement(&host, id).await.state, PlacementState::Live);
    // And one that is gone is found to be.
    disk.delete(&seen.object).await.unwrap();
    let found = host.verify(None, false, None).await.unwrap();
    assert_eq!((found.bad.len(), found.unreachable.len()), (1, 0));
    assert!(placement(&host, id).await.is_absent());
}

/// As in a catalogue of a version that knew no containers.
#[tokio::test]
async fn a_container_without_an_identity_gets_one_if_the_objects_are_there() {
    let (dir, [disk, other]) = (tempfile::tempdir().unwrap(), [container(), container()]);
    let mount = Mount::of(&disk);
    let id = store(&host(dir.path(), mount.clone()).await, b"image").await.unwrap();
    let forget = || {
        let file = rusqlite::Connection::open(dir.path().join("catalogue.sqlite")).unwrap();
        file.execute("DELETE FROM containers", []).unwrap();
    };
    forget();
    mount.mount(&other);
    let late = host(dir.path(), mount.clone()).await;
    is_away(store(&late, b"more").await);
    assert_eq!(other.objects(), [""; 0]);
    assert_eq!(*read(&late, id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(placement(&late, id).await.state, PlacementState::Suspect);
    mount.mount(&disk);
    late.verify(None, false, None).await.unwrap();
    assert_eq!(placement(&late, id).await.state, PlacementState::Live);
    store(&late, b"more").await.unwrap();
    assert!(late.inner.catalogue.container("local").await.unwrap().is_some());
}

#[tokio::test]
async fn of_two_identities_made_at_once_one_is_left() {
    for _ in 0..20 {
        let (dir, disk) = (tempfile::tempdir().unwrap(), container());
        let [first, second] = [host(dir.path(), disk.clone()).await, host(dir.path(), disk.clone()).await];
        let (one, other) = tokio::join!(store(&first, b"one"), store(&second, b"other"));
        one.unwrap();
        other.unwrap();
        assert_eq!(disk.objects().iter().filter(|name| name.starts_with(CONTAINER_PREFIX)).count(), 1);
        drop(second);
        first.gc(Duration::ZERO).await.unwrap();
        assert_eq!((disk.objects().len(), first.inner.catalogue.stats().await.unwrap().intents), (3, 0));
    }
}

/// One that was made and never recorded is cleared away; the one that is recorded never is.
#[tokio::test]
async fn what_is_left_of_an_identity_is_collected() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), container());
    let host = host(dir.path(), disk.clone()).await;
    disk.fail_next(Operation::Put, ErrorKind::TimedOut, true);
    store(&host, b"image").await.unwrap_err();
    store(&host, b"image").await.unwrap();
    assert_eq!(disk.objects().len(), 3, "the image and two identities");
    let collected = host.gc(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, disk.objects().len()), (0, 2), "it is counted as no object of a store");
    store(&host, b"more").await.unwrap();
}

#[tokio::test]
async fn an_import_takes_identities_for_what_they_are() {
    for disk in [container(), Arc::new(MemoryBackend::named_by_content("local"))] {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = store(&host(old.path(), disk.clone()).await, b"image").await.unwrap();
        let fresh = host(new.path(), disk.clone()).await;
        let imported = fresh.import("local", ImportOptions::default()).await.unwrap();
        assert_eq!((imported.objects, imported.imported, imported.foreign, imported.done()), (1, 1, 0, 1));
        let listed = fresh.list(None, 10).await.unwrap().snapshots;
        assert!(listed.len() == 1 && listed[0].id == id);
        // It is the container of the fresh catalogue now: no other identity is made.
        let identity = fresh.inner.catalogue.container("local").await.unwrap().unwrap().object;
        store(&fresh, b"more").await.unwrap();
        assert_eq!(disk.objects().len(), 3);
        let named = ImportOptions { objects: vec![identity], ..ImportOptions::default() };
        let named = fresh.import("local", named).await.unwrap();
        assert_eq!((named.foreign, named.imported), (1, 0), "{named:?}");
    }
}

/// A store that failed with an effect that is unknown, in a host that lives on, and a backend that is down.
#[tokio::test]
async fn a_collection_finds_what_a_living_host_gave_up_and_goes_on_past_a_failure() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), container());
    let host = host(dir.path(), disk.clone()).await;
    store(&host, b"image").await.unwrap();
    disk.fail_next(Operation::Put, ErrorKind::TimedOut, true);
    store(&host, b"lost").await.unwrap_err();
    assert_eq!(disk.objects().len(), 3);
    disk.fail_next(Operation::List, ErrorKind::Unavailable, false);
    let collected = host.gc(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((collected.failed.len(), collected.failed[0].backend.as_str()), (1, "local"));
    let collected = host.gc(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((collected.failed.len(), collected.objects, disk.objects().len()), (0, 1, 2));
    // Its bytes might still arrive, for some time.
    assert_eq!(host.inner.catalogue.stats().await.unwrap().intents, 1);
    host.gc(Duration::ZERO).await.unwrap();
    assert_eq!(host.inner.catalogue.stats().await.unwrap().intents, 0);
}

/// A removal that fails half-way is completed by the host itself, and by another one after the claim was given up.
#[tokio::test]
async fn a_removal_that_was_cut_short_is_completed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), container());
    let [host, other] = [host(dir.path(), disk.clone()).await, host(dir.path(), disk.clone()).await];
    let id = store(&host, b"image").await.unwrap();
    disk.fail_next(Operation::Delete, ErrorKind::Unavailable, false);
    host.remove(id).await.unwrap_err();
    assert_eq!(other.gc(Duration::ZERO).await.unwrap().removals, 0, "the first may be at it");
    host.gc(Duration::ZERO).await.unwrap();
    assert_eq!((disk.objects().len(), host.list(None, 1).await.unwrap().snapshots.len()), (1, 0));
    let id = store(&host, b"image").await.unwrap();
    disk.fail_next(Operation::Delete, ErrorKind::Unavailable, false);
    host.remove(id).await.unwrap_err();
    drop(host);
    assert_eq!(other.gc(Duration::ZERO).await.unwrap().removals, 1);
    assert_eq!(disk.objects().len(), 1);
}
