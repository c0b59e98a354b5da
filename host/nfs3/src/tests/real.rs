//! What the capability promises, kept by a real server.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn what_is_written_is_read() {
    let Some(server) = server("nfs: what_is_written_is_read") else { return };
    let directory = open(&server);
    for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 8 << 20, 20_000_003] {
        let data = pattern(len);
        let options = WriteOptions { size: Some(len as u64), if_absent: false };
        assert_eq!(directory.write("a/b/c", Body::from_bytes(data.clone()), options).await.unwrap(), len as u64);
        assert!(read(&directory, "a/b/c", None).await.unwrap() == data, "{len}");
        assert_eq!(directory.stat("a/b/c").await.unwrap().size, len as u64);
        assert!(std::fs::read(server.export().join("a/b/c")).unwrap() == data, "{len}");
    }
    let data = pattern(20_000_003);
    let ranges =
        [(0, 1), (1_048_575, 1_048_577), (999_999, 9_000_000), (20_000_002, u64::MAX), (20_000_003, u64::MAX), (7, 7)];
    for (start, end) in ranges {
        let range = ByteRange { start, end: Some(end) };
        let cut = data.slice((start as usize)..(end.min(20_000_003) as usize));
        assert!(read(&directory, "a/b/c", Some(range)).await.unwrap() == cut, "{range}");
        assert_eq!(directory.read("a/b/c", Some(range)).await.unwrap().info.size, 20_000_003);
    }
    let beyond = directory.read("a/b/c", Some(ByteRange { start: 20_000_004, end: None })).await.unwrap_err();
    assert_eq!(*beyond.kind(), ErrorKind::Invalid);
    directory.remove("a/b/c").await.unwrap();
    directory.remove("a/b/c").await.unwrap();
    directory.remove("no/such/directory").await.unwrap();
    assert_eq!(*directory.stat("a/b/c").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*read(&directory, "no/such", None).await.unwrap_err().kind(), ErrorKind::NotFound);
    // The files that were replaced keep a name until their readers have had time.
    assert!(left_over(&server) <= 7);
}

#[tokio::test]
async fn zeros_are_not_sent_and_are_read_back() {
    use std::os::unix::fs::MetadataExt;
    let Some(server) = server("nfs: zeros_are_not_sent_and_are_read_back") else { return };
    let directory = open(&server);
    // All zeros; data at the end, at the beginning, and in the middle with a tail of zeros that is no whole piece.
    for (len, at) in
        [(10_000_001, vec![]), (20_000_003, vec![20_000_002]), (9 << 20, vec![0]), (20_000_003, vec![9_999_999])]
    {
        let mut data = vec![0u8; len];
        at.iter().for_each(|at| data[*at] = 7);
        let data = Bytes::from(data);
        write(&directory, "sparse", data.clone()).await.unwrap();
        assert!(read(&directory, "sparse", None).await.unwrap() == data, "{len} {at:?}");
        let metadata = std::fs::metadata(server.export().join("sparse")).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (len as u64, 0o600));
        assert!(metadata.blocks() * 512 < 1 << 20, "{len} {at:?}: {} blocks", metadata.blocks());
    }
}

#[tokio::test]
async fn another_client_reads_it_and_writes_what_is_read() {
    let Some(server) = server("nfs: another_client_reads_it_and_writes_what_is_read") else { return };
    let directory = open(&server);
    let (folder, data) = (tempfile::tempdir().unwrap(), pattern(5_000_001));
    write(&directory, "ours", data.clone()).await.unwrap();
    let copy = |from: &str, to: &str| {
        let output = server.tool("nfs-cp").unwrap().args([from, to]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let (mine, theirs) = (folder.path().join("mine"), folder.path().join("theirs"));
    copy(&server.libnfs_url("ours"), mine.to_str().unwrap());
    assert!(std::fs::read(mine).unwrap() == data);
    std::fs::write(&theirs, &data[1..]).unwrap();
    copy(theirs.to_str().unwrap(), &server.libnfs_url("theirs"));
    assert!(read(&directory, "theirs", None).await.unwrap() == data.slice(1..));
    let listing = server.tool("nfs-ls").unwrap().arg(server.libnfs_url("")).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    assert!(listing.contains("ours") && listing.contains("theirs"), "{listing}");
}

#[tokio::test]
async fn nothing_leads_out_and_directories_are_not_files() {
    let Some(server) = server("nfs: nothing_leads_out_and_directories_are_not_files") else { return };
    let (directory, root) = (open(&server), server.export());
    std::fs::create_dir(root.join("../outside")).unwrap();
    std::fs::write(root.join("../outside/secret"), "x").unwrap();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("f"), "x").unwrap();
    symlink("../outside", root.join("dir")).unwrap();
    symlink("../outside/secret", root.join("file")).unwrap();
    symlink("d", root.join("inside")).unwrap();
    for path in ["dir/secret", "file", "inside/x", "../outside/secret", "/etc/passwd", "d/../../outside/secret"] {
        let errors = [directory.read(path, None).await.unwrap_err(), directory.stat(path).await.unwrap_err()];
        for error in errors {
            assert_eq!(*error.kind(), ErrorKind::Denied, "{path}: {error}");
        }
    }
    for path in ["dir/new", "inside/new", "../outside/new"] {
        assert_eq!(*write(&directory, path, "x").await.unwrap_err().kind(), ErrorKind::Denied, "{path}");
        assert_eq!(*directory.remove(path).await.unwrap_err().kind(), ErrorKind::Denied, "{path}");
    }
    assert_eq!(*directory.list_entries("dir", None, 10).await.unwrap_err().kind(), ErrorKind::Denied);
    let listed = directory.list_entries("", None, 10).await.unwrap();
    assert_eq!(shown(&listed.entries), [("d".to_owned(), true, 0), file("f", 1)]);
    // A link is removed itself, and written over itself.
    directory.remove("file").await.unwrap();
    write(&directory, "dir", "mine").await.unwrap();
    assert_eq!(std::fs::read(root.join("../outside/secret")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(root.join("../outside")).unwrap().count(), 1);
    let errors = [
        write(&directory, "d", "x").await.unwrap_err(),
        write(&directory, "f/g", "x").await.unwrap_err(),
        directory.read("d", None).await.unwrap_err(),
        directory.stat("d").await.unwrap_err(),
        directory.remove("d").await.unwrap_err(),
        directory.list_entries("f", None, 10).await.unwrap_err(),
        directory.stat("a\0b").await.unwrap_err(),
        directory.stat(&"a".repeat(256)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let Some(server) = server("nfs: a_failed_write_leaves_nothing") else { return };
    let directory = open(&server);
    write(&directory, "f", "old").await.unwrap();
    let broken = futures::stream::iter([Ok(pattern(9 << 20)), Err(Error::corrupt("the source broke"))]);
    let error = directory.write("f", Body::new(broken, None), WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the source broke");
    let sized = |size| WriteOptions { size: Some(size), if_absent: false };
    assert!(directory.write("f", Body::from_bytes("abc"), sized(4)).await.is_err());
    for len in [3, 5] {
        let unsized_body = Body::new(futures::stream::iter([Ok(pattern(len))]), None);
        assert!(directory.write("f", unsized_body, sized(4)).await.is_err());
    }
    let writing = directory.write("f", stuck(), WriteOptions::default());
    assert!(tokio::time::timeout(Duration::from_millis(500), writing).await.is_err());
    cleared(&server).await;
    assert_eq!(read(&directory, "f", None).await.unwrap(), "old");
}

#[tokio::test]
async fn only_one_of_many_finds_it_absent() {
    let Some(server) = server("nfs: only_one_of_many_finds_it_absent") else { return };
    let directory = open(&server);
    let writers = (0..16u8).map(|n| {
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
    let seen = read(&directory, "deep/er/f", None).await.unwrap();
    assert!(seen.len() == 100_000 && seen.iter().all(|byte| *byte == seen[0]));
    cleared(&server).await;
}

#[tokio::test]
async fn many_write_one_file_and_readers_see_it_whole() {
    let Some(server) = server("nfs: many_write_one_file_and_readers_see_it_whole") else { return };
    let directory = open(&server);
    write(&directory, "f", vec![0; 9_000_000]).await.unwrap();
    let held = directory.read("f", None).await.unwrap();
    for n in 1..4u8 {
        write(&directory, "f", vec![n; 900_000]).await.unwrap();
    }
    // Whoever had the old one open keeps it.
    assert!(held.body.collect(100 << 20).await.unwrap().iter().all(|byte| *byte == 0));
    let writers = (1..8u8).map(|n| {
        let directory = directory.clone();
        tokio::spawn(async move {
            write(&directory, "f", vec![n; 900_000]).await.unwrap();
            let seen = read(&directory, "f", None).await.unwrap();
            assert!(seen.len() == 900_000 && seen.iter().all(|byte| *byte == seen[0]));
        })
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn leftovers_are_collected_when_their_lease_is_over() {
    let Some(server) = server("nfs: leftovers_are_collected_when_their_lease_is_over") else { return };
    let directory = open(&server);
    let mut writing = Box::pin(directory.write("f", stuck(), WriteOptions::default()));
    while left_over(&server) == 0 {
        assert!(futures::poll!(&mut writing).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::write(server.export().join(".tmp/dead"), "x").unwrap();
    assert_eq!(directory.gc().await.unwrap(), 0, "nobody knows yet that it is dead");
    let living = std::fs::read_dir(server.export().join(".tmp")).unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        (name != "dead").then_some(name)
    });
    // What a writer does that waits for its source: the server's clock shows it.
    let session = &directory.0;
    let home = session.directory(".tmp").await.unwrap();
    let (living, before) = session.lookup(&home, &living.unwrap()).await.unwrap();
    loop {
        session.touch(&living).await.unwrap();
        if session.attributes(&living).await.unwrap().changed > before.changed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(writing);
    let hasty = NfsDirectory::open(NfsGrant { lease: Duration::ZERO, ..grant(&server) });
    while server.export().join(".tmp/dead").exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        hasty.gc().await.unwrap();
    }
    cleared(&server).await;
}

#[tokio::test]
async fn listings_go_by_name_in_pages() {
    let Some(server) = server("nfs: listings_go_by_name_in_pages") else { return };
    let directory = open(&server);
    for name in ["b", "a", "é", "B", "c.tmp", "d/x"] {
        write(&directory, name, "12").await.unwrap();
    }
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = directory.list_entries("", cursor.as_deref(), 2).await.unwrap();
        assert!(page.entries.len() <= 2);
        names.extend(shown(&page.entries));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(
        names,
        [file("B", 2), file("a", 2), file("b", 2), file("c.tmp", 2), ("d".to_owned(), true, 0), file("é", 2)]
    );
    assert_eq!(*directory.list_entries("no", None, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    // More than a reply to READDIR holds.
    std::fs::create_dir(server.export().join("many")).unwrap();
    for n in 0..3000 {
        std::fs::write(server.export().join(format!("many/{n:04}-{}", "long".repeat(20))), "x").unwrap();
    }
    let first = directory.list_entries("many", None, u32::MAX).await.unwrap();
    assert_eq!(first.entries.len(), 1000);
    assert!(first.entries[999].name.starts_with("0999-") && first.next.is_some());
}

#[tokio::test]
async fn who_may_not_is_denied() {
    let Some(server) = server("nfs: who_may_not_is_denied") else { return };
    write(&open(&server), "f", "x").await.unwrap();
    let url = format!("{}?uid=4711", server.url());
    let other = NfsDirectory::open(NfsGrant::parse(&url, Some(server.mount_port)).unwrap());
    let error = write(&other, "g", "x").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.advice().is_some());
    assert_eq!(*other.remove("f").await.unwrap_err().kind(), ErrorKind::Denied);
    let elsewhere = NfsGrant { export: "/no/such/export".into(), ..grant(&server) };
    let error = NfsDirectory::open(elsewhere).stat("f").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable), "{error}");
    assert!(error.to_string().contains("/no/such/export"), "{error}");
}
