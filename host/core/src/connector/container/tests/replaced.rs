//! Containers that are replaced while something is done in them: only a look that begins afterwards tells.

use tokio::sync::Notify;

use super::*;

/// The host, its mount, and the disk with one image that is recorded.
async fn stored(dir: &Path) -> (Host, Arc<Mount>, Arc<MemoryBackend>, SnapshotId) {
    let disk = container();
    let mount = Mount::of(&disk);
    let host = host(dir, mount.clone()).await;
    let id = store(&host, b"image").await.unwrap();
    (host, mount, disk, id)
}

fn replace_at(mount: &Mount, operation: Operation) -> Arc<MemoryBackend> {
    let other = container();
    *mount.replaced_at.lock().unwrap() = Some((operation, other.clone()));
    other
}

#[tokio::test]
async fn a_look_counts_only_if_it_began_after_what_it_proves() {
    let looks = Arc::new(Looks::default());
    let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let look = |fails: bool| {
        let (looks, begun, gate) = (looks.clone(), begun.clone(), gate.clone());
        tokio::spawn(async move {
            let one = || async {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                if fails { Err(Error::unavailable("away")) } else { Ok(()) }
            };
            looks.after_now(one).await
        })
    };
    let settle = || async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let first = look(false);
    settle().await;
    // They come while one looks, so that proves nothing to them. They share the next, and its failure.
    let waiting: Vec<_> = (0..10).map(|_| look(true)).collect();
    settle().await;
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    gate.notify_one();
    first.await.unwrap().unwrap();
    settle().await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    gate.notify_one();
    for one in waiting {
        assert_eq!(*one.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    // One that is cancelled leaves no outcome behind.
    let cancelled = look(false);
    settle().await;
    let waiting = look(false);
    settle().await;
    cancelled.abort();
    settle().await;
    gate.notify_one();
    waiting.await.unwrap().unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_container_that_is_replaced_at_the_upload_takes_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mount, disk, id) = stored(dir.path()).await;
    replace_at(&mount, Operation::Put);
    is_away(store(&host, b"more").await);
    mount.mount(&disk);
    assert_eq!(host.list(None, 10).await.unwrap().snapshots.len(), 1);
    assert_eq!(read(&host, id).await.unwrap(), b"image");
}

#[tokio::test]
async fn a_listing_of_a_container_that_took_the_place_ends_no_intent() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mount, disk, _) = stored(dir.path()).await;
    disk.fail_next(Operation::Put, ErrorKind::TimedOut, true);
    store(&host, b"lost").await.unwrap_err();
    assert_eq!(disk.objects().len(), 3);
    replace_at(&mount, Operation::List);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().failed.len(), 1);
    assert_eq!(host.inner.catalogue.stats().await.unwrap().intents, 1);
    mount.mount(&disk);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().objects, 1);
    assert_eq!((disk.objects().len(), host.inner.catalogue.stats().await.unwrap().intents), (2, 0));
}

/// A removal, what a removal sets free, and what a collection finds: none of it is forgotten before it is gone.
#[tokio::test]
async fn a_container_that_takes_the_place_during_a_deletion_forgets_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mount, disk, id) = stored(dir.path()).await;
    let other = replace_at(&mount, Operation::Delete);
    is_away(host.remove(id).await);
    assert_eq!((disk.objects().len(), other.objects().len()), (2, 0));
    assert_eq!(placement(&host, id).await.state, PlacementState::Removing);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().failed.len(), 1);
    mount.mount(&disk);
    replace_at(&mount, Operation::Delete);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().removals, 0);
    mount.mount(&disk);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().removals, 1);
    assert_eq!(disk.objects().len(), 1);
    // Of a store that failed, and of which nothing is recorded but its intent.
    disk.fail_next(Operation::Put, ErrorKind::TimedOut, true);
    store(&host, b"lost").await.unwrap_err();
    replace_at(&mount, Operation::Delete);
    let collected = host.gc(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.failed.len()), (0, 1));
    assert_eq!(host.inner.catalogue.stats().await.unwrap().intents, 1);
    mount.mount(&disk);
    assert_eq!(host.gc(Duration::ZERO).await.unwrap().objects, 1);
    assert_eq!(disk.objects().len(), 1);
}

#[tokio::test]
async fn a_removal_looks_once_before_and_once_after() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mount, disk, id) = stored(dir.path()).await;
    let before = mount.gets.load(Ordering::SeqCst);
    host.remove(id).await.unwrap();
    assert_eq!(mount.gets.load(Ordering::SeqCst) - before, 2);
    assert_eq!(disk.objects().len(), 1);
}

#[tokio::test]
async fn a_look_of_some_time_ago_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mount, disk, id) = stored(dir.path()).await;
    disk.fail_next(Operation::Delete, ErrorKind::Unavailable, false);
    host.remove(id).await.unwrap_err();
    let object = placement(&host, id).await.object;
    let looked = host.inner.platform.now();
    let other = container();
    // It would be another error if it were asked to delete something.
    other.fail_next(Operation::Delete, ErrorKind::Denied, false);
    mount.mount(&other);
    let name = object.as_str().to_owned();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    is_away(host.delete_looked_at("local", &object, looked).await);
    mount.mount(&disk);
    assert!(disk.objects().contains(&name));
    assert!(host.delete_looked_at("local", &object, looked).await.unwrap() && !disk.objects().contains(&name));
}

/// Two servers that are mirrored into each other; then the name of the second leads to the first.
#[tokio::test]
async fn two_places_that_become_one_take_no_second_copy() {
    let dir = tempfile::tempdir().unwrap();
    let disks = [container(), container()];
    let mounts = [Mount::of(&disks[0]), Mount::of(&disks[1])];
    let text = "data_dir = \"data\"\n[backends.first]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"one\" }\n\
                [backends.second]\nadapter = \"fs\"\ngrants.directory.objects = { path = \"two\" }\n\
                [routes.default]\nbackends = [\"first\", \"second\"]\ncopies = 2\n";
    let config = Config::parse(text, dir.path()).unwrap();
    let [first, second] = mounts.clone();
    let backends = [("first".to_owned(), first as Arc<dyn Backend>), ("second".to_owned(), second)].into();
    let options = HostOptions { platform: Platform::system(), backends };
    let host = Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap();
    store(&host, b"image").await.unwrap();
    for backend in ["first", "second"] {
        let identity = host.inner.catalogue.container(backend).await.unwrap().unwrap().object;
        mounts.iter().for_each(|mount| mount.everywhere.lock().unwrap().push(identity.clone()));
    }
    store(&host, b"mirrored").await.unwrap();
    assert_eq!(disks[0].objects().len(), 3, "{:?}", disks[0].objects());
    *mounts[1].replaced_at.lock().unwrap() = Some((Operation::Put, disks[0].clone()));
    for _ in 0..2 {
        let error = store(&host, b"more").await.unwrap_err();
        assert!(*error.kind() == ErrorKind::Invalid && error.message().contains("the same place"), "{error}");
        assert_eq!(disks[0].objects().len(), 3, "{:?}", disks[0].objects());
    }
    // And when it is two places again, it takes copies again.
    mounts[1].mount(&disks[1]);
    store(&host, b"more").await.unwrap();
    assert_eq!([disks[0].objects().len(), disks[1].objects().len()], [4, 4]);
}
