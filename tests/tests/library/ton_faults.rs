//! The adapter `ton` with malicious daemons, damaged bytes, and servers that die or refuse.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelock::Body;
use tidelock::types::ErrorKind;
use tidelock_tests::data::{assert_same, noise};
use xtask::backends::TonStorage;

use crate::ton::{PIECE, Setup, details, hint, kind, read, store, world};
use crate::ton_proxy::{Answer, before};

#[tokio::test]
async fn wrong_answers_of_a_daemon_are_refused() {
    let Some(world) = world("ton: wrong_answers_of_a_daemon_are_refused") else { return };
    let (honest, port) = (Setup::of(&world.first), world.first.port);
    let bytes = noise(3 * PIECE, 10);
    let true_bags = honest.load().await;
    let id = store(&true_bags, "truth", &bytes).await;
    let other = store(&true_bags, "other", &bytes).await;
    // It made another bag of the bytes: one that it has.
    let lie = format!("{{\"bag_id\":\"{other}\"}}");
    let lie: &'static str = lie.leak();
    let lying = before(port, move |first| {
        if first.contains("/create") {
            Answer::Own(200, "content-type: application/json\r\n", lie)
        } else {
            Answer::Its
        }
    });
    let bags = honest.clone().through(lying.await).load().await;
    let error = bags.store(Body::from_bytes(bytes.clone()), hint("lied-to", None)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!world.first.shared().join("stored/lied-to").exists());
    assert!(details(&world.first, &other).is_some(), "what it named is not touched");
    // What it says of a bag is not of this bag.
    for (from, to) in [("393216", "393215"), ("truth", "wrong"), ("131072", "262144"), ("tidelock", "tideluck")] {
        let lying = before(port, move |_| Answer::Changed(from.into(), to.into())).await;
        let bags = honest.clone().through(lying).load().await;
        for range in [None, Some((0, 10))] {
            assert_eq!(kind(read(&bags, &id, range)).await, ErrorKind::Corrupt, "{from}");
        }
        assert_eq!(kind(bags.stat(&id)).await, ErrorKind::Corrupt, "{from}");
        assert_eq!(kind(bags.remove(&id)).await, ErrorKind::Corrupt, "{from}");
    }
    // Its proofs are of something else.
    let lying = before(port, |first| match first.contains("/proof") {
        true => Answer::Own(200, "content-type: application/json\r\n", r#"{"proof":"te6cckEBAQEAAgAAAEysuc0="}"#),
        false => Answer::Its,
    });
    let bags = honest.clone().through(lying.await).load().await;
    assert_eq!(kind(read(&bags, &id, Some((0, 10)))).await, ErrorKind::Corrupt);
    assert_same(&read(&bags, &id, None).await.unwrap(), &bytes, "whole: no proofs are needed");
}

#[tokio::test]
async fn wrong_bytes_in_the_shared_directory_are_corrupt() {
    let Some(world) = world("ton: wrong_bytes_in_the_shared_directory_are_corrupt") else { return };
    let bags = Setup::of(&world.first).load().await;
    let bytes = noise(5 * PIECE, 12);
    let id = store(&bags, "damaged", &bytes).await;
    let file = world.first.shared().join("stored/damaged");
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut damaged = bytes.clone();
        change(&mut damaged);
        fs::write(&file, damaged).unwrap();
    };
    let proof = world.first.ask("GET", &format!("piece/proof?bag_id={id}&piece=3"), "").unwrap();
    world.first.verify(id.as_str()).unwrap();
    damage(&|bytes| bytes[3 * PIECE] ^= 1);
    assert_eq!(kind(read(&bags, &id, None)).await, ErrorKind::Corrupt);
    assert_eq!(kind(read(&bags, &id, Some((3 * PIECE, 3 * PIECE + 1)))).await, ErrorKind::Corrupt);
    assert_eq!(
        kind(read(&bags, &id, Some((3 * PIECE - 9, 3 * PIECE - 1)))).await,
        ErrorKind::Corrupt,
        "the same piece"
    );
    assert_same(&read(&bags, &id, Some((0, PIECE))).await.unwrap(), &bytes[..PIECE], "pieces that are whole");
    // The daemon, which looks at a piece before it proves it, says so itself. One that does not look is not believed either.
    let proof: &'static str = proof.leak();
    let careless = before(world.first.port, move |first| match first.contains("/proof") {
        true => Answer::Own(200, "content-type: application/json\r\n", proof),
        false => Answer::Its,
    });
    let believing = Setup::of(&world.first).through(careless.await).load().await;
    let range = Some((3 * PIECE - 9, 3 * PIECE - 1));
    assert_eq!(kind(read(&believing, &id, range)).await, ErrorKind::Corrupt);
    damage(&|_| {});
    let part = read(&believing, &id, range).await.unwrap();
    assert_same(&part, &bytes[3 * PIECE - 9..3 * PIECE - 1], "the same proof, and the right bytes");
    for length in [bytes.len() - 1, bytes.len() + 1] {
        damage(&|bytes| bytes.resize(length, 0));
        assert_eq!(kind(read(&bags, &id, None)).await, ErrorKind::Corrupt, "of another length");
    }
    damage(&|bytes| bytes.truncate(PIECE));
    assert_eq!(kind(read(&bags, &id, Some((2 * PIECE, 3 * PIECE)))).await, ErrorKind::Corrupt);
    fs::remove_file(&file).unwrap();
    assert_eq!(kind(read(&bags, &id, None)).await, ErrorKind::Unavailable);
    damage(&|_| {});
    assert_same(&read(&bags, &id, None).await.unwrap(), &bytes, "mended");
}

#[tokio::test]
async fn a_daemon_that_dies_is_unavailable_and_comes_back_with_its_bags() {
    let test = "ton: a_daemon_that_dies_is_unavailable_and_comes_back_with_its_bags";
    let Some(world) = world(test) else { return };
    let mut server = TonStorage::start(&world.network.config()).unwrap();
    let bags = Setup::of(&server).load().await;
    let bytes = noise(2 * PIECE, 14);
    let id = store(&bags, "kept", &bytes).await;
    // During a store: it is there when the first bytes come and gone before the last.
    let (gone, wait) = tokio::sync::oneshot::channel::<()>();
    let (first, rest) = (bytes.clone(), bytes.clone());
    let stream = futures::stream::once(async move { Ok(first.into()) });
    let stream = futures::StreamExt::chain(
        stream,
        futures::stream::once(async move {
            let _ = wait.await;
            Ok(rest.into())
        }),
    );
    let dying = bags.store(Body::new(Box::pin(stream), None), hint("dying", None));
    let killing = async {
        while !server.shared().join(".tmp").exists() {
            tokio::task::yield_now().await;
        }
        server.kill();
        let _ = gone.send(());
    };
    let (outcome, ()) = tokio::join!(dying, killing);
    assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(kind(bags.probe()).await, ErrorKind::Unavailable);
    assert_eq!(kind(bags.stat(&id)).await, ErrorKind::Unavailable);
    assert_eq!(kind(bags.retrieve(&id, None)).await, ErrorKind::Unavailable);
    assert_eq!(kind(bags.store(Body::from_bytes("x"), hint("late", None))).await, ErrorKind::Unavailable);
    server.restart().unwrap();
    assert!(bags.probe().await.unwrap().ready);
    assert_same(&read(&bags, &id, None).await.unwrap(), &bytes, "when it is back");
    let page = bags.list_objects(None, 10).await.unwrap();
    assert_eq!(page.entries.len(), 1, "what was never made is not there");
    store(&bags, "after", &bytes).await;
}

#[tokio::test]
async fn refusals_of_the_daemon_are_typed() {
    let Some(world) = world("ton: refusals_of_the_daemon_are_typed") else { return };
    let honest = Setup::of(&world.first);
    let stranger = Setup { authorization: "Basic c3RyYW5nZXI6eA==", ..honest.clone() }.load().await;
    let error = stranger.probe().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied);
    assert!(!format!("{error:?}").contains("c3RyYW5nZXI6eA=="));
    let refusing = |status, lines, body| {
        before(world.first.port, move |first: &str| match first.contains("/create") {
            true => Answer::Own(status, lines, body),
            false => Answer::Its,
        })
    };
    let asked = honest.clone().through(refusing(429, "retry-after: 7\r\n", "slower").await).load().await;
    let error = asked.store(Body::from_bytes("x"), hint("r1", None)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RateLimited(wait) if format!("{wait:?}").contains('7')), "{error:?}");
    let asked = honest.clone().through(refusing(507, "", "no room that is paid for").await).load().await;
    let error = asked.store(Body::from_bytes("x"), hint("r2", None)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InsufficientBalance(_)), "{error:?}");
    let asked = honest.clone().through(refusing(503, "", "").await).load().await;
    assert_eq!(kind(asked.store(Body::from_bytes("x"), hint("r3", None))).await, ErrorKind::Unavailable);
    for key in ["r1", "r2", "r3"] {
        assert!(!world.first.shared().join("stored").join(key).exists(), "{key}");
    }
    // The daemon sees another directory than the adapter.
    let other = tempfile::tempdir().unwrap();
    let bags = Setup { shared: other.path().to_owned(), ..honest.clone() }.load().await;
    let error = bags.store(Body::from_bytes("x"), hint("astray", None)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no such file"), "{error}");
    assert!(!other.path().join("stored/astray").exists());
    let id = store(&*honest.load().await, "not-astray", b"x").await;
    let error = read(&bags, &id, None).await.unwrap_err();
    assert!(error.to_string().contains("is that the same directory"), "{error}");
}

/// The daemon gives all its bags at once. One reading of them serves all pages.
#[tokio::test]
async fn the_bags_are_read_once_for_many_pages() {
    let Some(world) = world("ton: the_bags_are_read_once_for_many_pages") else { return };
    let readings = Arc::new(AtomicUsize::new(0));
    let counted = readings.clone();
    let counting = before(world.first.port, move |first| {
        counted.fetch_add(usize::from(first.starts_with("GET /api/v1/list ")), Ordering::Relaxed);
        Answer::Its
    });
    let bags = Setup::of(&world.first).through(counting.await).load().await;
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.push(store(&bags, &format!("read-once-{number}"), &noise(90, 400 + number)).await);
    }
    // Other tests store to the same daemon, so there may be more.
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bags.list_objects(cursor, 2).await.unwrap();
        found.extend(page.entries.into_iter().map(|entry| entry.id));
        (cursor, pages) = (page.next, pages + 1);
        if cursor.is_none() {
            break;
        }
    }
    assert!(pages >= 3 && expected.iter().all(|id| found.contains(id)), "{pages}: {found:?}");
    assert_eq!(readings.load(Ordering::Relaxed), 1);
}
