//! A real server whose replies are lost, changed or late, or that is gone for a while.

use super::proxy::{ANSWER, COMMIT, Deed, LINK, Proxy, READ, RENAME, WRITE, refused};
use super::*;

fn through(server: &Ganesha, proxy: &Proxy) -> NfsDirectory {
    NfsDirectory::open(NfsGrant { port: proxy.port, ..grant(server) })
}

/// The server says that it restarted between WRITE and COMMIT: everything that it may have lost is sent again.
#[tokio::test]
async fn another_verifier_means_writing_again() {
    let Some(server) = server("nfs: another_verifier_means_writing_again") else { return };
    let proxy = Proxy::start(server.port, |procedure, count, reply| match (procedure, count) {
        (COMMIT, 2) => {
            let mut other = reply.to_vec();
            *other.last_mut().unwrap() ^= 1;
            Deed::Change(other)
        }
        _ => Deed::Pass,
    });
    let (directory, data) = (through(&server, &proxy), pattern(24 << 20));
    write(&directory, "f", data.clone()).await.unwrap();
    assert!(std::fs::read(server.export().join("f")).unwrap() == data);
    assert_eq!(proxy.seen(COMMIT), 4, "three batches, one of them twice");
    assert!(proxy.seen(WRITE) >= 32, "{}", proxy.seen(WRITE));
}

#[tokio::test]
async fn a_server_that_always_forgets_is_given_up() {
    let Some(server) = server("nfs: a_server_that_always_forgets_is_given_up") else { return };
    let proxy = Proxy::start(server.port, |procedure, count, reply| match procedure {
        COMMIT => Deed::Change([&reply[..reply.len() - 8], &count.to_be_bytes()].concat()),
        _ => Deed::Pass,
    });
    let error = write(&through(&server, &proxy), "f", pattern(9 << 20)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!server.export().join("f").exists());
    cleared(&server).await;
}

/// The server takes half of what it is sent, and gives half of what it is asked for.
#[tokio::test]
async fn short_writes_and_reads_are_continued() {
    let Some(server) = server("nfs: short_writes_and_reads_are_continued") else { return };
    let proxy = Proxy::start(server.port, |procedure, count, reply| match procedure {
        // status, wcc_data (no attributes before; attributes after: 4 + 84), count
        WRITE if count % 3 == 1 => {
            let mut other = reply.to_vec();
            let at = reply.len() - 16;
            let taken = u32::from_be_bytes(other[at..at + 4].try_into().unwrap());
            other[at..at + 4].copy_from_slice(&(taken / 2).max(1).to_be_bytes());
            Deed::Change(other)
        }
        READ if count % 3 == 1 => {
            let body = ANSWER + 4 + if reply[ANSWER + 7] == 1 { 88 } else { 4 };
            let given = u32::from_be_bytes(reply[body..body + 4].try_into().unwrap());
            let half = (given / 2).next_multiple_of(4).max(4).min(given);
            let end = if half < given { [0; 4] } else { reply[body + 4..body + 8].try_into().unwrap() };
            let padded = (half as usize).next_multiple_of(4);
            let data = &reply[body + 12..(body + 12 + padded).min(reply.len())];
            let half = half.to_be_bytes();
            Deed::Change([&reply[..body], &half, &end, &half, data].concat())
        }
        _ => Deed::Pass,
    });
    let directory = through(&server, &proxy);
    for len in [1, 5, 100_000, 3_000_001, 17_000_000] {
        let data = pattern(len);
        write(&directory, "f", data.clone()).await.unwrap();
        assert!(std::fs::read(server.export().join("f")).unwrap() == data, "{len}");
        assert!(read(&directory, "f", None).await.unwrap() == data, "{len}");
    }
}

/// The name was given, and the reply that says so was lost.
#[tokio::test]
async fn a_lost_reply_is_no_failure() {
    let Some(server) = server("nfs: a_lost_reply_is_no_failure") else { return };
    let proxy = Proxy::start(server.port, |procedure, count, _| match (procedure, count) {
        (RENAME | LINK | COMMIT | WRITE, 1) => Deed::Cut,
        _ => Deed::Pass,
    });
    let directory = through(&server, &proxy);
    let data = pattern(9 << 20);
    write(&directory, "replaced", data.clone()).await.unwrap();
    assert!(read(&directory, "replaced", None).await.unwrap() == data);
    let absent = WriteOptions { size: None, if_absent: true };
    directory.write("absent", Body::from_bytes(data.clone()), absent).await.unwrap();
    assert!(read(&directory, "absent", None).await.unwrap() == data);
    let error = directory.write("absent", Body::from_bytes("x"), absent).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    cleared(&server).await;
}

#[tokio::test]
async fn a_stale_handle_is_looked_up_again() {
    let Some(server) = server("nfs: a_stale_handle_is_looked_up_again") else { return };
    const STALE: u32 = 70;
    let proxy = Proxy::start(server.port, |procedure, count, reply| match (procedure, count) {
        (READ, 1) | (3, 1) => Deed::Change(refused(reply, STALE)),
        _ => Deed::Pass,
    });
    std::fs::create_dir(server.export().join("d")).unwrap();
    std::fs::write(server.export().join("d/f"), "here").unwrap();
    assert_eq!(read(&through(&server, &proxy), "d/f", None).await.unwrap(), "here");
    let always = Proxy::start(server.port, |procedure, _, reply| match procedure {
        READ => Deed::Change([&reply[..ANSWER], &STALE.to_be_bytes(), &[0; 4]].concat()),
        _ => Deed::Pass,
    });
    let error = read(&through(&server, &always), "d/f", None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_a_full_one_is_not() {
    let Some(server) = server("nfs: a_busy_server_is_asked_again_and_a_full_one_is_not") else { return };
    let busy = Proxy::start(server.port, |procedure, count, reply| match (procedure, count) {
        (WRITE, 1 | 2) => Deed::Change(refused(reply, 10008)),
        _ => Deed::Pass,
    });
    write(&through(&server, &busy), "f", "x").await.unwrap();
    assert_eq!(busy.seen(WRITE), 3);
    let full = Proxy::start(server.port, |procedure, _, reply| match procedure {
        WRITE => Deed::Change(refused(reply, 28)),
        _ => Deed::Pass,
    });
    let error = write(&through(&server, &full), "g", "x").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no space left") && error.advice().is_some(), "{error}");
    assert_eq!(full.seen(WRITE), 1);
    cleared(&server).await;
}

/// Killed and started again while a file is written, and while one is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_is_survived() {
    let Some(mut server) = server("nfs: a_restart_in_the_middle_is_survived") else { return };
    let (directory, data) = (open(&server), pattern(30 << 20));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = Body::new(
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }),
        None,
    );
    let writing = {
        let directory = directory.clone();
        tokio::spawn(async move { directory.write("f", body, WriteOptions::default()).await })
    };
    for (number, chunk) in data.chunks(1 << 20).enumerate() {
        if number == 20 {
            tokio::task::block_in_place(|| server.restart()).unwrap_or_else(|error| panic!("{error:#}"));
        }
        sender.send(Ok(Bytes::copy_from_slice(chunk))).await.unwrap();
    }
    drop(sender);
    writing.await.unwrap().unwrap();
    let mut opened = directory.read("f", None).await.unwrap().body;
    let mut seen = opened.next().await.unwrap().unwrap().to_vec();
    tokio::task::block_in_place(|| server.restart()).unwrap();
    while let Some(chunk) = opened.next().await {
        seen.extend(chunk.unwrap());
    }
    assert!(seen == data);
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_until_it_is_back() {
    let Some(mut server) = server("nfs: a_server_that_is_gone_is_unavailable_until_it_is_back") else { return };
    let before = open(&server);
    write(&before, "f", "x").await.unwrap();
    let hasty = NfsDirectory::open(NfsGrant { patience: Duration::from_millis(100), ..grant(&server) });
    while hasty.stat("f").await.is_err() {}
    server.kill();
    for directory in [&hasty, &open(&server)] {
        let error = directory.stat("f").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("connect") && error.advice().is_some(), "{error}");
    }
    server.restart().unwrap();
    for directory in [&before, &hasty] {
        assert_eq!(read(directory, "f", None).await.unwrap(), "x");
    }
    // One that hangs: connections stay open, and nothing answers.
    let impatient = NfsDirectory::open(NfsGrant { stall_timeout: Duration::from_millis(300), ..grant(&server) });
    while impatient.stat("f").await.is_err() {}
    server.pause().unwrap();
    // It takes a moment until the last of its threads has stopped.
    let error = loop {
        if let Err(error) = impatient.stat("f").await {
            break error;
        }
    };
    server.resume().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    while impatient.stat("f").await.is_err() {}
}
