//! The adapter `ipfs` with gateways and daemons that lie, refuse, fail, or are absent.
//!
//! Each is a proxy before a real node that passes everything on except the test's changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelock::Body;
use tidelock::types::{ErrorKind, SettingValue};
use tidelock_tests::data::{MIB, assert_same, noise};
use xtask::backends::Kubo;

use crate::ipfs::{adapter, can, get, hint, id, shared};
use crate::liar::{Refuses, Replies, Reply, Requests, before};

fn is_car(path: &str) -> bool {
    path.contains("format=car") || path.contains("/dag/export")
}

/// The last four leaves of a CAR of 5 MiB and 3 bytes: each has a length of three bytes and a name of 36 before it, the
/// last a length of one.
const LAST_FOUR: usize = 3 * (MIB + 39) + 40;

fn place(within: &[u8], what: &[u8]) -> usize {
    within.windows(64).position(|window| window == &what[..64]).expect("it is there")
}

#[tokio::test]
async fn wrong_data_of_a_gateway_is_detected() {
    let Some((first, _)) = shared("ipfs: wrong_data_of_a_gateway_is_detected") else { return };
    let bytes = noise(5 * MIB + 3, 51);
    let writer = adapter(&first.rpc, None, &[]).await;
    let stored = writer.store(Body::from_bytes(bytes.clone()), hint("lied-about", None)).await.unwrap().id;
    let others = writer.store(Body::from_bytes(noise(5 * MIB + 3, 52)), hint("another", None)).await.unwrap().id;
    let (second, third) = (bytes[MIB..2 * MIB].to_vec(), bytes[2 * MIB..3 * MIB].to_vec());
    type Alter = Box<dyn Fn(&str, &mut Reply) + Send + Sync>;
    let car = |alter: fn(&mut Vec<u8>)| -> Alter {
        Box::new(move |path, reply| {
            if is_car(path) {
                alter(&mut reply.body)
            }
        })
    };
    let both = |alter: Alter, otherwise: fn(&mut Reply)| -> Alter {
        Box::new(move |path, reply| {
            if is_car(path) {
                alter(path, reply)
            } else if !path.contains("bafybei") {
                otherwise(reply)
            }
        })
    };
    let cases: Vec<(&str, Alter, ErrorKind)> = vec![
        (
            "flips a bit of a leaf",
            car(|body| {
                let at = body.len() / 2;
                body[at] ^= 16
            }),
            ErrorKind::Corrupt,
        ),
        ("flips a bit of the root", car(|body| body[200] ^= 1), ErrorKind::Corrupt),
        ("flips the last bit", car(|body| *body.last_mut().unwrap() ^= 1), ErrorKind::Corrupt),
        (
            "swaps one block for another",
            Box::new(move |path, reply| {
                if is_car(path) {
                    let at = place(&reply.body, &second);
                    reply.body[at..at + MIB].copy_from_slice(&third);
                }
            }),
            ErrorKind::Corrupt,
        ),
        (
            "announces a block without end",
            car(|body| {
                body.truncate(MIB);
                body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
                body.extend(vec![0; 3 * MIB]);
            }),
            ErrorKind::Corrupt,
        ),
        ("drops the tail in the middle of a block", car(|body| body.truncate(3 * MIB)), ErrorKind::Unavailable),
        (
            "breaks off",
            Box::new(|path, reply| {
                if is_car(path) {
                    reply.announced = Some(reply.body.len());
                    reply.body.truncate(3 * MIB);
                }
            }),
            ErrorKind::Unavailable,
        ),
        (
            "drops the tail and denies to have it",
            both(
                car(|body| {
                    body.truncate(body.len() - LAST_FOUR);
                }),
                |reply| *reply = Reply::of(404, "", "not here"),
            ),
            ErrorKind::Unavailable,
        ),
        ("sends nothing", car(Vec::clear), ErrorKind::Unavailable),
        ("sends a page", car(|body| *body = b"<html>hello</html>".to_vec()), ErrorKind::Unavailable),
    ];
    for (what, alter, kind) in cases {
        let url = before(first.gateway_port, Replies(alter));
        let reader = adapter(&first.rpc, Some(&url), &[]).await;
        let error = get(&reader, &stored, None).await.expect_err(what);
        assert_eq!(*error.kind(), kind, "{what}: {error}");
    }
    // One that gives another file, for the root or for all but the root.
    let (mine, theirs) = (stored.to_string(), others.to_string());
    let url = before(
        first.gateway_port,
        Refuses(move |path: &str| {
            let to = path.replace(&mine, &theirs);
            (to != path).then(|| Reply::of(200, "", "something else"))
        }),
    );
    let error = get(&adapter(&first.rpc, Some(&url), &[]).await, &stored, None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");

    // What is merely in another order, or left out and had by its name, is right all the same.
    let cases: [(&str, Alter); 2] = [
        ("left out", car(|body| body.truncate(body.len() - LAST_FOUR))),
        (
            "in another order",
            car(|body| {
                let at = body.len() - LAST_FOUR;
                body[at..].rotate_left(MIB + 39)
            }),
        ),
    ];
    for (what, alter) in cases {
        let reader = adapter(&first.rpc, Some(&before(first.gateway_port, Replies(alter))), &[]).await;
        assert_same(&get(&reader, &stored, None).await.unwrap(), &bytes, what);
    }
}

#[tokio::test]
async fn wrong_data_of_a_daemon_is_detected() {
    let Some((first, _)) = shared("ipfs: wrong_data_of_a_daemon_is_detected") else { return };
    let bytes = noise(3 * MIB + 3, 53);
    let body = || Body::from_bytes(bytes.clone());
    // It stores other bytes than it was sent.
    let url = before(
        first.port,
        Requests(|path: &str, body: &mut Vec<u8>| {
            if path.contains("/add?") {
                let at = body.len() / 2;
                body[at] ^= 1;
            }
        }),
    );
    let liar = adapter(&url, None, &[]).await;
    let error = liar.store(body(), hint("flipped-on-the-way", Some(bytes.len() as u64))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    let pins = first.ask("pin/ls?type=recursive&names=true&name=flipped-on-the-way").unwrap();
    assert!(!pins.contains("flipped-on-the-way"), "what it stored instead is not kept: {pins}");

    // It says another name, breaks off, or says nothing that makes sense.
    for (what, answer, kind) in [
        (
            "another name",
            "{\"Name\":\"x\",\"Hash\":\"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku\",\"Size\":\"0\"}\n",
            ErrorKind::Corrupt,
        ),
        ("a truncated answer", "{\"Name\":\"x\",\"Hash\":\"bafkreihdwdcefgh4dqkjv67uzcmw7oj", ErrorKind::Unavailable),
        ("nothing", "", ErrorKind::Unavailable),
        ("a page", "<html></html>", ErrorKind::Unavailable),
        ("no name", "{\"Name\":\"x\",\"Hash\":\"../../x\"}\n", ErrorKind::Other),
    ] {
        let change = move |path: &str, reply: &mut Reply| {
            if path.contains("/add?") {
                *reply = Reply::of(200, "", answer)
            }
        };
        let liar = adapter(&before(first.port, Replies(change)), None, &[]).await;
        let error = liar.store(body(), hint("lied", Some(bytes.len() as u64))).await.expect_err(what);
        assert_eq!(*error.kind(), kind, "{what}: {error}");
    }

    // It gives other bytes than were asked for, through its RPC.
    let honest = adapter(&first.rpc, None, &[]).await;
    let stored = honest.store(body(), hint("read-through-a-liar", None)).await.unwrap().id;
    for command in ["/dag/export", "/block/get"] {
        let change = move |path: &str, reply: &mut Reply| {
            if path.contains(command) {
                let at = reply.body.len() / 2;
                reply.body[at] ^= 1;
            }
        };
        let liar = adapter(&before(first.port, Replies(change)), None, &[]).await;
        let error = get(&liar, &stored, None).await.expect_err(command);
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{command}: {error}");
    }
    // A truncated list of pins is not a short list.
    let change = |path: &str, reply: &mut Reply| {
        if path.contains("pin/ls?type") {
            reply.body.truncate(reply.body.len() / 2)
        }
    };
    let liar = adapter(&before(first.port, Replies(change)), None, &[]).await;
    let error = liar.list_objects(None, 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    let Some((first, _)) = shared("ipfs: refusals_keep_their_meaning") else { return };
    let honest = adapter(&first.rpc, None, &[]).await;
    let stored = honest.store(Body::from_bytes(noise(2 * MIB, 54)), hint("refused", None)).await.unwrap().id;
    let second = std::time::Duration::from_secs(1);
    for (status, headers, body, kind) in [
        (429, "", "slow down", ErrorKind::RateLimited(None)),
        (429, "retry-after: 7\r\n", "slow down", ErrorKind::RateLimited(Some(7 * second))),
        (401, "", "who are you", ErrorKind::Denied),
        (403, "", "403 - Forbidden", ErrorKind::Denied),
        (503, "", "", ErrorKind::Unavailable),
        (500, "", "{\"Message\":\"disk on fire\",\"Code\":0,\"Type\":\"error\"}", ErrorKind::Unavailable),
        (404, "", "404 page not found", ErrorKind::Other),
    ] {
        let url = before(first.port, Refuses(move |_: &str| Some(Reply::of(status, headers, body))));
        let refused = adapter(&url, None, &[]).await;
        let small = || Body::from_bytes("small");
        let errors = [
            refused.store(small(), hint("x", Some(5))).await.map(drop),
            refused.incremental_update(&stored, small(), hint("x", Some(5))).await.map(drop),
            refused.retrieve(&stored, None).await.map(drop),
            refused.stat(&stored).await.map(drop),
            refused.remove(&stored).await,
            refused.probe().await.map(drop),
            refused.list_objects(None, 1).await.map(drop),
        ];
        for (operation, error) in errors.into_iter().enumerate() {
            let error = error.expect_err("it is refused");
            assert_eq!(*error.kind(), kind, "{status}, operation {operation}: {error}");
            assert!(
                body.is_empty() || error.to_string().contains(&body.replace(['{', '}'], "")[..4]) || status == 500,
                "{error}"
            );
        }
    }
    let url = before(first.port, Refuses(|_: &str| Some(Reply::of(507, "", "pay first"))));
    let error = adapter(&url, None, &[]).await.store(Body::from_bytes("x"), hint("x", Some(1))).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InsufficientBalance(_)), "{error}");
}

#[tokio::test]
async fn an_object_of_no_node_is_unavailable_and_an_invalid_name_is_invalid() {
    let Some((first, _)) = shared("ipfs: an_object_of_no_node_is_unavailable") else { return };
    let short = [("timeout", SettingValue::Integer(1))];
    let readers =
        [adapter(&first.rpc, None, &short).await, adapter(&first.rpc, Some(first.gateway.as_str()), &short).await];
    // SHA-256 of something that is nowhere.
    let nowhere = id("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy");
    let error = get(&readers[0], &nowhere, None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    for reader in &readers {
        assert_eq!(*reader.stat(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);
        reader.remove(&nowhere).await.unwrap();
        for bad in
            ["snap-1", "../../api/v0/shutdown", "bafk?arg=x", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5", "a b"]
        {
            let bad = id(bad);
            let update = reader.incremental_update(&bad, Body::from_bytes("x"), hint("x", None)).await.map(drop);
            for error in [
                get(reader, &bad, None).await.map(drop),
                reader.stat(&bad).await.map(drop),
                reader.remove(&bad).await,
                update,
            ] {
                assert_eq!(*error.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
            }
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_unavailable_and_comes_back() {
    if !can("ipfs: a_daemon_that_is_gone_is_unavailable_and_comes_back") {
        return;
    }
    let mut node = Kubo::start().unwrap();
    let readers = [adapter(&node.rpc, None, &[]).await, adapter(&node.rpc, Some(node.gateway.as_str()), &[]).await];
    let bytes = noise(24 * MIB, 55);
    let stored = readers[0].store(Body::from_bytes(bytes.clone()), hint("here", None)).await.unwrap().id;
    for reader in &readers {
        // In the middle: what comes is the beginning of it, and then an error.
        let mut body = reader.retrieve(&stored, None).await.unwrap();
        let first = futures::StreamExt::next(&mut body).await.unwrap().unwrap();
        node.kill();
        let rest = body.collect(1 << 30).await;
        assert!(rest.is_err() || rest.is_ok_and(|rest| [&first[..], &rest[..]].concat() == bytes));
        for error in [
            reader.retrieve(&stored, None).await.map(drop),
            reader.stat(&stored).await.map(drop),
            reader.probe().await.map(drop),
            reader.store(Body::from_bytes("x"), hint("x", None)).await.map(drop),
            reader.remove(&stored).await,
            reader.list_objects(None, 1).await.map(drop),
        ] {
            assert_eq!(*error.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        node.restart().unwrap();
        assert_same(&get(reader, &stored, None).await.unwrap(), &bytes, "when it is back");
        assert!(reader.probe().await.unwrap().detail.contains("0.43"));
    }
}

/// A store whose source fails half-way leaves no pin.
#[tokio::test]
async fn a_store_that_breaks_off_leaves_nothing() {
    let Some((first, _)) = shared("ipfs: a_store_that_breaks_off_leaves_nothing") else { return };
    let ipfs = adapter(&first.rpc, None, &[]).await;
    for size in [None, Some(9 << 20)] {
        let chunks = [Ok(bytes::Bytes::from(noise(4 * MIB, 56))), Err(tidelock::Error::other("the cable was pulled"))];
        let source = Body::new(futures::stream::iter(chunks), size);
        let error = ipfs.store(source, hint("half", size)).await.unwrap_err();
        assert!(format!("{error:?}").contains("cable"), "{error:?}");
    }
    let pins = first.ask("pin/ls?type=recursive&names=true&name=half").unwrap();
    assert!(!pins.contains("half"), "{pins}");
}

/// The daemon gives all its pins at once. One reading of them serves all pages.
#[tokio::test]
async fn the_pins_are_read_once_for_many_pages() {
    let Some((first, _)) = shared("ipfs: the_pins_are_read_once_for_many_pages") else { return };
    let readings = Arc::new(AtomicUsize::new(0));
    let counted = readings.clone();
    let count = Replies(move |path: &str, _: &mut Reply| {
        counted.fetch_add(usize::from(path.contains("pin/ls") && path.contains("names=true")), Ordering::Relaxed);
    });
    let port = first.rpc.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok()).unwrap();
    let namespace = ("namespace", SettingValue::Text("read-once".into()));
    let node = adapter(&before(port, count), None, &[namespace]).await;
    let mut expected = Vec::new();
    for number in 0..10 {
        let stored = node.store(Body::from_bytes(noise(90, 300 + number)), hint(&format!("o-{number}"), None)).await;
        expected.push(stored.unwrap().id);
    }
    let before = readings.load(Ordering::Relaxed);
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = node.list_objects(cursor, 2).await.unwrap();
        assert!(page.entries.len() <= 2);
        found.extend(page.entries.into_iter().map(|entry| entry.id));
        (cursor, pages) = (page.next, pages + 1);
        if cursor.is_none() {
            break;
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(pages >= 5, "{pages}");
    assert_eq!(readings.load(Ordering::Relaxed) - before, 1);
}
