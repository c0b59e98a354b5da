//! The directory on a real file system.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use futures::stream::StreamExt;

use super::*;
use crate::grant::DirectoryGrant;
use tidelock_types::{Error, ErrorKind};

fn open(path: &Path) -> LocalDirectory {
    LocalDirectory::open(&DirectoryGrant::below(path)).unwrap()
}

async fn read(directory: &LocalDirectory, path: &str, range: Option<ByteRange>) -> Result<Bytes> {
    directory.read(path, range).await?.body.collect(100 << 20).await
}

fn left_over(root: &Path) -> usize {
    std::fs::read_dir(root.join(".tmp")).unwrap().count()
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n / 7) as u8).collect::<Vec<u8>>().into()
}

/// A body with one chunk that never ends.
fn stuck() -> Body {
    let first = futures::stream::iter([Ok(pattern(3 << 20))]);
    Body::new(first.chain(futures::stream::pending()), None)
}

#[tokio::test]
async fn written_bytes_are_read_back() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(&temp.path().join("made/for/it"));
    for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let data = pattern(len);
        let options = WriteOptions { size: Some(len as u64), if_absent: false };
        assert_eq!(directory.write("a/b/c", Body::from_bytes(data.clone()), options).await.unwrap(), len as u64);
        assert_eq!(read(&directory, "a/b/c", None).await.unwrap(), data);
        assert_eq!(directory.stat("a/b/c").await.unwrap().size, len as u64);
    }
    let data = pattern(5_000_000);
    for (start, end) in [(0, 1), (1_048_575, 1_048_577), (4_999_999, 9_000_000), (5_000_000, 5_000_001), (7, 7)] {
        let range = ByteRange { start, end: Some(end) };
        let part = data.slice((start as usize)..(end as usize).min(5_000_000).max(start as usize));
        assert_eq!(read(&directory, "a/b/c", Some(range)).await.unwrap(), part, "{range}");
        assert_eq!(directory.read("a/b/c", Some(range)).await.unwrap().info.size, 5_000_000);
    }
    let beyond = directory.read("a/b/c", Some(ByteRange { start: 5_000_001, end: None })).await.unwrap_err();
    assert_eq!(*beyond.kind(), ErrorKind::Invalid);
    directory.remove("a/b/c").await.unwrap();
    directory.remove("a/b/c").await.unwrap();
    assert_eq!(*directory.stat("a/b/c").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*read(&directory, "a/b/c", None).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Files of a disk that was removed still exist.
#[tokio::test]
async fn a_missing_root_is_unavailable_and_not_an_absent_file() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let directory = open(&root);
    directory.write("a", Body::from_bytes("x"), WriteOptions::default()).await.unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let errors = [
        directory.write("b", Body::from_bytes("x"), WriteOptions::default()).await.unwrap_err(),
        read(&directory, "a", None).await.unwrap_err(),
        directory.stat("a").await.unwrap_err(),
        directory.remove("a").await.unwrap_err(),
        directory.list_entries("", None, 10).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("removed"), "{error}");
    }
}

/// What is written into a directory that was moved away is not where the next one who opens it looks.
#[tokio::test]
async fn a_directory_that_is_not_at_its_path_any_more_acknowledges_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (root, moved) = (temp.path().join("root"), temp.path().join("moved"));
    let directory = open(&root);
    directory.write("a", Body::from_bytes("x"), WriteOptions::default()).await.unwrap();
    std::fs::rename(&root, &moved).unwrap();
    let errors = [
        directory.write("b", Body::from_bytes("x"), WriteOptions::default()).await.unwrap_err(),
        directory.stat("a").await.unwrap_err(),
        directory.stat("c").await.unwrap_err(),
        directory.remove("c").await.unwrap_err(),
        directory.list_entries("", None, 10).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
    // Back in its place, it goes on.
    std::fs::rename(&moved, &root).unwrap();
    directory.write("d", Body::from_bytes("x"), WriteOptions::default()).await.unwrap();
    assert_eq!(directory.stat("a").await.unwrap().size, 1);
}

/// A disk that is mounted later, or a directory that takes the place of another: what begins then begins there.
#[tokio::test]
async fn another_directory_at_the_path_is_used_from_then_on() {
    let temp = tempfile::tempdir().unwrap();
    let (root, moved) = (temp.path().join("root"), temp.path().join("moved"));
    let directory = open(&root);
    let write = |name| directory.write(name, Body::from_bytes("x"), WriteOptions::default());
    write("a").await.unwrap();
    // Begun in the first one, and ended when that is elsewhere: nothing is acknowledged.
    let (tell, told) = futures::channel::oneshot::channel();
    let late = Body::new(futures::stream::once(async { Ok(told.await.unwrap()) }), None);
    let begun = directory.write("late", late, WriteOptions::default());
    let replace = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        std::fs::rename(&root, &moved).unwrap();
        std::fs::create_dir(&root).unwrap();
        tell.send(bytes::Bytes::from_static(b"x")).unwrap();
    };
    let (outcome, ()) = futures::join!(begun, replace);
    assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*directory.stat("a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*read(&directory, "a", None).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(directory.list_entries("", None, 10).await.unwrap().entries.is_empty());
    write("b").await.unwrap();
    directory.remove("a").await.unwrap();
    assert!(root.join("b").exists() && moved.join("a").exists() && !moved.join("b").exists());
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::rename(&moved, &root).unwrap();
    assert_eq!(directory.stat("a").await.unwrap().size, 1);
}

#[tokio::test]
async fn directories_are_not_files() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    std::fs::create_dir(temp.path().join("d")).unwrap();
    std::fs::write(temp.path().join("f"), "x").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, temp.path().join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let write = directory.write("d", Body::from_bytes("x"), WriteOptions::default()).await.unwrap_err();
    let below = directory.write("f/g", Body::from_bytes("x"), WriteOptions::default()).await.unwrap_err();
    let errors = [
        write,
        below,
        directory.read("d", None).await.unwrap_err(),
        directory.read("fifo", None).await.unwrap_err(),
        directory.stat("d").await.unwrap_err(),
        directory.remove("d").await.unwrap_err(),
        directory.list_entries("f", None, 10).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
    }
    let taken = LocalDirectory::open(&DirectoryGrant::below(temp.path().join("f"))).unwrap_err();
    assert_eq!(*taken.kind(), ErrorKind::Invalid);
    assert_eq!(left_over(temp.path()), 0);
}

#[tokio::test]
async fn nothing_leads_out() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("outside")).unwrap();
    std::fs::write(temp.path().join("outside/secret"), "x").unwrap();
    let root = temp.path().join("root");
    let directory = open(&root);
    symlink("../outside", root.join("dir")).unwrap();
    symlink("../outside/secret", root.join("file")).unwrap();
    symlink(temp.path().join("outside/secret"), root.join("absolute")).unwrap();
    symlink("dir", root.join("chain")).unwrap();
    for path in ["dir/secret", "file", "absolute", "chain/secret", "../outside/secret", "/etc/passwd"] {
        let errors = [directory.read(path, None).await.unwrap_err(), directory.stat(path).await.unwrap_err()];
        for error in errors {
            assert_eq!(*error.kind(), ErrorKind::Denied, "{path}: {error}");
        }
    }
    for path in ["dir/new", "chain/new", "../outside/new"] {
        let error = directory.write(path, Body::from_bytes("x"), WriteOptions::default()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied, "{path}: {error}");
        assert!(directory.remove(path).await.is_err());
    }
    assert!(directory.remove("dir/secret").await.is_err());
    assert_eq!(*directory.list_entries("dir", None, 10).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(directory.list_entries("", None, 10).await.unwrap().entries, []);
    // A link is removed itself, and written over itself.
    directory.remove("absolute").await.unwrap();
    assert_eq!(std::fs::read(temp.path().join("outside/secret")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
    // A link that stays inside is followed.
    directory.write("real/f", Body::from_bytes("in"), WriteOptions::default()).await.unwrap();
    symlink("real", root.join("inside")).unwrap();
    assert_eq!(read(&directory, "inside/f", None).await.unwrap(), "in");
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    directory.write("f", Body::from_bytes("old"), WriteOptions::default()).await.unwrap();
    let broken = futures::stream::iter([Ok(pattern(3 << 20)), Err(Error::corrupt("the source broke"))]);
    let error = directory.write("f", Body::new(broken, None), WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the source broke");
    let sized = |size| WriteOptions { size: Some(size), if_absent: false };
    assert!(directory.write("f", Body::from_bytes("abc"), sized(4)).await.is_err());
    let unsized_body = Body::new(futures::stream::iter([Ok(pattern(3))]), None);
    assert!(directory.write("f", unsized_body, sized(4)).await.is_err());
    let unsized_body = Body::new(futures::stream::iter([Ok(pattern(5))]), None);
    assert!(directory.write("f", unsized_body, sized(4)).await.is_err());
    // Dropped half-way.
    let writing = directory.write("f", stuck(), WriteOptions::default());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), writing).await.is_err());
    assert_eq!(left_over(temp.path()), 0);
    assert_eq!(read(&directory, "f", None).await.unwrap(), "old");
}

#[tokio::test]
async fn only_one_of_many_finds_it_absent() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    let writers = (0..16).map(|n| {
        let directory = directory.clone();
        tokio::spawn(async move {
            let options = WriteOptions { size: None, if_absent: true };
            directory.write("deep/er/f", Body::from_bytes(vec![n; 100_000]), options).await
        })
    });
    let mut won = 0;
    for result in futures::future::join_all(writers).await {
        match result.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(left_over(temp.path()), 0);
}

#[tokio::test]
async fn many_write_one_file_and_readers_see_it_whole() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    directory.write("f", Body::from_bytes(vec![0; 2_000_000]), WriteOptions::default()).await.unwrap();
    let held = directory.read("f", None).await.unwrap();
    let writers = (1..8u8).map(|n| {
        let directory = directory.clone();
        tokio::spawn(async move {
            directory.write("f", Body::from_bytes(vec![n; 2_000_000]), WriteOptions::default()).await.unwrap();
            let seen = read(&directory, "f", None).await.unwrap();
            assert!(seen.len() == 2_000_000 && seen.iter().all(|byte| *byte == seen[0]));
        })
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
    // Readers of the old file keep it.
    assert!(held.body.collect(100 << 20).await.unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(left_over(temp.path()), 0);
}

#[tokio::test]
async fn leftovers_are_collected_and_living_ones_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    let mut writing = directory.write("f", stuck(), WriteOptions::default());
    assert!(futures::poll!(&mut writing).is_pending());
    while left_over(temp.path()) == 0 {
        assert!(futures::poll!(&mut writing).is_pending());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // Let the writer lock its file: after that a collector, of whatever process, leaves it alone.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    for n in 0..3 {
        std::fs::File::create(temp.path().join(format!(".tmp/dead{n}"))).unwrap().write_all(b"x").unwrap();
    }
    assert_eq!(directory.gc().await.unwrap(), 3);
    assert_eq!(left_over(temp.path()), 1);
    std::fs::write(temp.path().join(".tmp/dead"), "x").unwrap();
    let second = open(temp.path());
    assert_eq!(left_over(temp.path()), 1);
    drop(writing);
    assert_eq!(second.gc().await.unwrap(), 0);
    assert_eq!(left_over(temp.path()), 0);
}

/// Collectors that run all the time take files between their making and their locking; writers start over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collectors_never_harm_a_writer() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    let collector = {
        let directory = directory.clone();
        tokio::spawn(async move {
            loop {
                directory.gc().await.unwrap();
            }
        })
    };
    for n in 0..200 {
        directory.write(&format!("f{n}"), Body::from_bytes(pattern(n)), WriteOptions::default()).await.unwrap();
        assert_eq!(read(&directory, &format!("f{n}"), None).await.unwrap(), pattern(n));
    }
    collector.abort();
}

#[tokio::test]
async fn listings_go_by_name_in_pages() {
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    for name in ["b", "a", "é", "B", "c.tmp", "d/x"] {
        directory.write(name, Body::from_bytes("12"), WriteOptions::default()).await.unwrap();
    }
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = directory.list_entries("", cursor.as_deref(), 2).await.unwrap();
        assert!(page.entries.len() <= 2);
        names.extend(page.entries.iter().map(|entry| (entry.name.clone(), entry.is_directory, entry.size)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let file = |name: &str| (name.to_owned(), false, 2);
    assert_eq!(names, [file("B"), file("a"), file("b"), file("c.tmp"), ("d".to_owned(), true, 0), file("é")]);
    assert_eq!(directory.list_entries("d", None, u32::MAX).await.unwrap().entries.len(), 1);
    assert_eq!(*directory.list_entries("no", None, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Needs to mount a file system; prints a note if that is not allowed.
#[tokio::test]
async fn a_full_disk_is_reported_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(temp.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped a_full_disk_is_reported_and_leaves_nothing: mounting a tmpfs is not allowed here");
        return;
    }
    let directory = open(temp.path());
    let error = directory.write("f", Body::from_bytes(pattern(8 << 20)), WriteOptions::default()).await.unwrap_err();
    let after = left_over(temp.path());
    let small = directory.write("g", Body::from_bytes("fits"), WriteOptions::default()).await;
    drop(directory);
    let unmounted = std::process::Command::new("umount").arg(temp.path()).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(error.advice().is_some());
    assert_eq!(after, 0);
    small.unwrap();
}

#[tokio::test]
async fn zeros_take_no_room_and_are_read_back() {
    use std::os::unix::fs::MetadataExt;
    let temp = tempfile::tempdir().unwrap();
    let directory = open(temp.path());
    // Data within a hole, a tail of zeros, and chunks that end nowhere in particular.
    let mut data = vec![0u8; (24 << 20) + 4321];
    data[7_000_001] = 1;
    data[0] = 2;
    let data = Bytes::from(data);
    for chunk in [100_003, 1 << 20, 2 << 20] {
        let chunks: Vec<_> = data.chunks(chunk).map(|part| Ok(data.slice_ref(part))).collect();
        let body = Body::new(futures::stream::iter(chunks), None);
        assert_eq!(directory.write("image", body, WriteOptions::default()).await.unwrap(), data.len() as u64);
        assert!(read(&directory, "image", None).await.unwrap() == data);
        let metadata = std::fs::metadata(temp.path().join("image")).unwrap();
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }
}

#[tokio::test]
async fn new_files_are_private_or_shared_with_the_group_of_the_root() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let (own, shared) = (temp.path().join("own"), temp.path().join("shared"));
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2775)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for root in [&own, &shared] {
        open(root).write("a/b", Body::from_bytes("x"), WriteOptions::default()).await.unwrap();
    }
    assert_eq!(
        [mode(&own), mode(&own.join(".tmp")), mode(&own.join("a")), mode(&own.join("a/b"))],
        [0o700, 0o700, 0o700, 0o600]
    );
    // As far as the umask of this process lets it.
    for (path, most) in [("a", 0o770), ("a/b", 0o660)] {
        assert_eq!(mode(&shared.join(path)) & !most, 0, "{path}");
        assert_ne!(mode(&shared.join(path)) & 0o040, 0, "{path}");
    }
}
