//! The bucket capability and what proxies, gateways and young services do to it.

use std::time::Duration;

use tidelock::capabilities::bucket::{Bucket as _, Page, PutOptions, S3Bucket};
use tidelock::capabilities::grant::{BucketGrant, ConnectionSettings};
use tidelock::types::{Body, ByteRange, ErrorKind, Result};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::odd::{Odd, Request, Then, on, refuse, when};

pub(crate) const KEY: &str = "snap-01abcdefghijklmnopqrstuv01";
const NEVER: usize = 0;
pub(crate) const ALWAYS: usize = usize::MAX;

pub(crate) fn grant(server: &Odd) -> BucketGrant {
    BucketGrant {
        endpoint: Some(server.endpoint.clone()),
        path_style: true,
        part_size: 5 << 20,
        connection: ConnectionSettings { stall_timeout: Duration::from_secs(10), ..ConnectionSettings::new(true) },
        ..BucketGrant::of("us-east-1", "b")
    }
}

pub(crate) fn bucket(server: &Odd) -> S3Bucket {
    S3Bucket::open(&grant(server)).unwrap()
}

/// As adapters put objects: on the condition that the key is free.
pub(crate) async fn put(bucket: &S3Bucket, key: &str, bytes: &[u8]) -> Result<u64> {
    let options = PutOptions { if_absent: true, size: Some(bytes.len() as u64), ..PutOptions::default() };
    bucket.put(key, Body::from_bytes(bytes.to_vec()), options).await
}

pub(crate) async fn get(bucket: &S3Bucket, key: &str, range: Option<ByteRange>) -> Result<Vec<u8>> {
    Ok(bucket.get(key, range).await?.body.collect(1 << 30).await?.to_vec())
}

fn slow() -> Then {
    refuse(503, "SlowDown", "Please reduce your request rate.")
}

/// In one request, and in parts.
pub(crate) const SIZES: [usize; 2] = [1000, 11 * MIB + 1];

#[tokio::test]
async fn one_failed_request_of_each_kind_ends_nothing() {
    for then in [
        slow(),
        refuse(500, "InternalError", "try again"),
        Then::Answer { status: 502, headers: String::new(), body: "<html>".into() },
        Then::Vanish,
    ] {
        let all = ["Put", "Begin", "Part", "Complete", "Get", "Head", "List", "Delete"];
        // What `Vanish` has done is done; a begun upload is begun twice.
        let server = Odd::start(all.map(|operation| on(operation, 1, then.clone())).into());
        let bucket = bucket(&server);
        for size in SIZES {
            let (key, bytes) = (format!("k{size}"), noise(size, 1));
            assert_eq!(
                put(&bucket, &key, &bytes).await.unwrap_or_else(|error| panic!("{then:?}: {error:?}")),
                size as u64
            );
            assert_same(&get(&bucket, &key, None).await.unwrap(), &bytes, &key);
            assert_eq!(bucket.head(&key).await.unwrap().size, size as u64);
        }
        assert_eq!(bucket.list_objects("", None, 10).await.unwrap().entries.len(), 2);
        bucket.delete("k1000").await.unwrap();
        let most = if matches!(then, Then::Vanish) { 1 } else { 0 };
        assert!(server.uploads().len() <= most, "{then:?}: {:?}", server.uploads());
        assert_eq!(server.count("Part"), 4, "{then:?}: three parts, one of them twice");
    }
}

#[tokio::test]
async fn lasting_errors_are_tried_once_and_passing_ones_a_few_times() {
    for (status, code, asked) in
        [(403, "AccessDenied", 1), (404, "NoSuchKey", 1), (503, "SlowDown", 4), (500, "InternalError", 4)]
    {
        let server = Odd::start(vec![on("Get", ALWAYS, refuse(status, code, "no"))]);
        get(&bucket(&server), "k", None).await.unwrap_err();
        assert_eq!(server.count("Get"), asked, "{status}");
    }
    // Without a connection there is no wait: another backend is faster.
    let nobody = BucketGrant { endpoint: Some("http://127.0.0.1:1".into()), ..grant(&Odd::start(vec![])) };
    let began = std::time::Instant::now();
    let error = get(&S3Bucket::open(&nobody).unwrap(), "k", None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_requested_pause_is_kept_or_passed_on() {
    let after = |status, value: &str| {
        let headers = format!("retry-after: {value}\r\n");
        Odd::start(vec![on("Get", 1, Then::Refuse { status, code: "SlowDown", says: "slow", headers })])
    };
    let server = after(503, "1");
    server.put("k", "x");
    let began = std::time::Instant::now();
    assert_eq!(get(&bucket(&server), "k", None).await.unwrap(), b"x");
    assert!(began.elapsed() >= Duration::from_secs(1));
    // Too long to be waited for here. The date is that of a clock, so nearly a minute.
    for (status, code) in [(503, ""), (429, ""), (503, "SlowDown"), (503, "ServiceUnavailable")] {
        for date in [false, true] {
            let value = if date { http_date(Duration::from_secs(60)) } else { "60".into() };
            let headers = format!("retry-after: {value}\r\n");
            let server = Odd::start(vec![on("Get", ALWAYS, Then::Refuse { status, code, says: "slow", headers })]);
            let error = get(&bucket(&server), "k", None).await.unwrap_err();
            let ErrorKind::RateLimited(Some(pause)) = error.kind() else { panic!("{status} {code}: {error:?}") };
            assert!((50..=60).contains(&pause.as_secs()), "{value}: {pause:?}");
            assert_eq!(server.count("Get"), 1, "{value}");
        }
    }
}

/// A moment from now, as HTTP writes it.
fn http_date(from_now: Duration) -> String {
    let time = std::time::SystemTime::now() + from_now;
    let time = aws_sdk_s3::primitives::DateTime::from(time);
    time.fmt(aws_sdk_s3::primitives::DateTimeFormat::HttpDate).unwrap()
}

#[tokio::test]
async fn a_completed_upload_counts_only_if_the_object_is_there() {
    let bytes = noise(11 * MIB, 2);
    // Done, and the answer lost each time: the upload is gone, and the object is there.
    let server = Odd::start(vec![on("Complete", ALWAYS, Then::Vanish)]);
    put(&bucket(&server), "k", &bytes).await.unwrap();
    assert_same(&server.objects()["k"], &bytes, "lost answers");
    // A status of 200, and an error in the body.
    let late = Then::Answer {
        status: 200,
        headers: String::new(),
        body: "<?xml version=\"1.0\"?>\n  \n<Error><Code>InternalError</Code><Message>late</Message></Error>".into(),
    };
    let server = Odd::start(vec![on("Complete", 1, late.clone())]);
    put(&bucket(&server), "k", &bytes).await.unwrap();
    assert_same(&server.objects()["k"], &bytes, "a late error");
    assert_eq!(server.count("Complete"), 2);
    // And if it stays so, there is no object, and the upload is aborted.
    let server = Odd::start(vec![on("Complete", ALWAYS, late)]);
    let error = put(&bucket(&server), "k", &bytes).await.unwrap_err();
    assert!(error.message().contains("late"), "{error:?}");
    assert!(server.objects().is_empty() && server.uploads().is_empty());
}

#[tokio::test]
async fn a_put_that_meets_its_own_success_is_no_conflict_and_one_of_others_is() {
    let server = Odd::start(vec![on("Put", 1, Then::Vanish)]);
    put(&bucket(&server), "k", b"mine").await.unwrap();
    assert_eq!(server.count("Put"), 2);
    let server = Odd::start(vec![on("Put", 1, Then::Vanish)]);
    server.put("k", "that of others");
    assert_eq!(*put(&bucket(&server), "k", b"mine").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(server.objects()["k"], b"that of others");
}

fn has(header: &'static str) -> impl Fn(&Request) -> bool + Send + Sync {
    move |request| request.headers.keys().any(|name| name.starts_with(header))
}

#[tokio::test]
async fn a_service_without_conditional_writes_is_served() {
    let vague = "A header you provided implies functionality that is not implemented";
    let odd = || Odd::start(vec![when(has("if-none-match"), ALWAYS, refuse(501, "NotImplemented", vague))]);
    for size in SIZES {
        // Such a service may drop an upload with the request that completes it, so that it must be known before.
        let server = odd();
        let bucket = bucket(&server);
        let bytes = noise(size, 3);
        put(&bucket, "k", &bytes).await.unwrap_or_else(|error| panic!("{size}: {error:?}"));
        assert_same(&server.objects()["k"], &bytes, "stored");
        // Nothing has gone up twice, and a key that is taken is a conflict even so.
        assert!(server.count("Part") <= 3);
        let first = |operation: &str| server.requests().iter().position(|request| request.operation() == operation);
        assert!(first("Part").is_none() || first("Put") < first("Part"), "it was learned before the first part");
        assert_eq!(server.objects().len(), 1);
        assert_eq!(*put(&bucket, "k", &bytes).await.unwrap_err().kind(), ErrorKind::Conflict);
        let refused = server.requests().into_iter().filter(has("if-none-match")).count();
        assert_eq!(refused, 1, "{size}: it has been learned");
    }
    // Said beforehand, it is not tried; and what the grant insists on is not left out.
    let server = odd();
    let off = S3Bucket::open(&BucketGrant { conditional_writes: Some(false), ..grant(&server) }).unwrap();
    put(&off, "k", b"x").await.unwrap();
    assert!(!server.requests().iter().any(has("if-none-match")));
    let on = S3Bucket::open(&BucketGrant { conditional_writes: Some(true), ..grant(&server) }).unwrap();
    let error = put(&on, "l", b"x").await.unwrap_err();
    assert!(error.advice().unwrap().contains("conditional_writes = false"), "{error:?}");
}

#[tokio::test]
async fn a_service_without_checksums_is_served() {
    let odd = || {
        Odd::start(vec![when(
            |request| has("x-amz-checksum")(request) || has("x-amz-sdk-checksum")(request),
            ALWAYS,
            refuse(400, "InvalidArgument", "Unsupported header x-amz-checksum-crc32c"),
        )])
    };
    for size in SIZES {
        let server = odd();
        let bytes = noise(size, 4);
        put(&bucket(&server), "k", &bytes).await.unwrap_or_else(|error| panic!("{size}: {error:?}"));
        assert_same(&server.objects()["k"], &bytes, "stored");
        assert!(server.count("Part") <= 3, "the refusal came before the first part");
    }
    let server = odd();
    let off = S3Bucket::open(&BucketGrant { checksums: Some(false), ..grant(&server) }).unwrap();
    put(&off, "k", b"x").await.unwrap();
    assert_eq!(server.count("Put"), 1);
}

#[tokio::test]
async fn a_missing_size_is_never_zero() {
    let bytes = noise(100_000, 5);
    for then in [Then::NoLength, Then::ZeroLength] {
        let server = Odd::start(vec![on("Head", ALWAYS, then.clone())]);
        server.put("k", bytes.clone());
        server.put("empty", "");
        let bucket = bucket(&server);
        assert_eq!(bucket.head("k").await.unwrap().size, 100_000, "{then:?}");
        assert_eq!(bucket.head("empty").await.unwrap().size, 0, "{then:?}");
    }
    // Nor is it told in answer to the request for the first byte.
    let server = Odd::start(vec![
        on("Head", ALWAYS, Then::NoLength),
        when(
            |request| request.operation() == "Get",
            ALWAYS,
            Then::Answer { status: 206, headers: "content-range: bytes 0-0/*\r\n".into(), body: "x".into() },
        ),
    ]);
    server.put("k", bytes);
    assert_eq!(*bucket(&server).head("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_object_that_comes_in_chunks_is_taken_and_measured() {
    let bytes = noise(100_000, 6);
    for lengths in [NEVER, ALWAYS] {
        let server = Odd::start(vec![on("Get", ALWAYS, Then::NoLength), on("Head", lengths, Then::ZeroLength)]);
        server.put("k", bytes.clone());
        let bucket = bucket(&server);
        let object = bucket.get("k", None).await.unwrap();
        assert_eq!(object.info.size, 100_000);
        assert_same(&object.body.collect(1 << 20).await.unwrap(), &bytes, "all");
        let range = Some(ByteRange { start: 10, end: Some(50_010) });
        assert_same(&get(&bucket, "k", range).await.unwrap(), &bytes[10..50_010], "a range");
    }
    // Chunks that end in good form, and too early or too late.
    for len in [99_999, 100_001] {
        let chunked = move |request: &Request| request.operation() == "Get" && !request.headers.contains_key("range");
        let server = Odd::start(vec![
            when(chunked, ALWAYS, Then::NoLength),
            on("Head", ALWAYS, Then::Answer { status: 200, headers: String::new(), body: "x".repeat(100_000) }),
        ]);
        server.put("k", noise(len, 6));
        let error = get(&bucket(&server), "k", None).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt), "{len}: {error:?}");
    }
}

pub(crate) async fn walk(bucket: &S3Bucket, limit: u32) -> Result<(Vec<String>, usize)> {
    let (mut keys, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let Page { entries, next } = bucket.list_objects("", cursor.as_deref(), limit).await?;
        keys.extend(entries.into_iter().map(|entry| entry.key));
        pages += 1;
        assert!(pages < 10_000, "it has no end");
        cursor = next;
        if cursor.is_none() {
            return Ok((keys, pages));
        }
    }
}

#[tokio::test]
async fn a_listing_goes_on_past_keys_that_are_not_listed() {
    let server = Odd::start(vec![]);
    for n in 0..3_000 {
        server.put(&format!("a/./{n:05}"), "x");
    }
    for key in ["b", "c\u{1}", "c\n", "d", "zz\r\n"] {
        server.put(key, "x");
    }
    for limit in [1000, 7] {
        assert_eq!(walk(&bucket(&server), limit).await.unwrap().0, ["b", "d"], "{limit}");
    }
}

#[tokio::test]
async fn an_empty_page_is_not_the_end_and_a_listing_that_circles_has_one() {
    let page = |more: bool, token: &str| Then::Answer {
        status: 200,
        headers: String::new(),
        body: format!(
            "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>{more}</IsTruncated>{token}</ListBucketResult>"
        ),
    };
    let token = "<NextContinuationToken>!</NextContinuationToken>";
    let server = Odd::start(vec![on("List", 1, page(true, token))]);
    server.put("k", "x");
    assert_eq!(walk(&bucket(&server), 10).await.unwrap().0, ["k"]);
    for endless in [page(true, token), page(true, "")] {
        let server = Odd::start(vec![on("List", ALWAYS, endless)]);
        let error = walk(&bucket(&server), 10).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(server.count("List") < 100);
    }
    // A server that ignores where the page is to begin.
    let keys: String = (0..5).map(|n| format!("<Contents><Key>k{n}</Key><Size>1</Size></Contents>")).collect();
    let same = Then::Answer {
        status: 200,
        headers: String::new(),
        body: format!("<ListBucketResult><IsTruncated>true</IsTruncated>{token}{keys}</ListBucketResult>"),
    };
    let server = Odd::start(vec![on("List", ALWAYS, same)]);
    let error = walk(&bucket(&server), 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
}

/// A page of these keys, and the token of the next one.
fn listed(keys: &[&str], next: Option<&str>) -> Then {
    let keys: String = keys.iter().map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")).collect();
    let token = next.filter(|next| !next.is_empty());
    let token = token.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>")).unwrap_or_default();
    let body =
        format!("<ListBucketResult><IsTruncated>{}</IsTruncated>{token}{keys}</ListBucketResult>", next.is_some());
    Then::Answer { status: 200, headers: String::new(), body }
}

/// A server over a file system lists what is in a folder behind the folder's name.
#[tokio::test]
async fn a_listing_out_of_order_leaves_nothing_out_or_fails() {
    let all = ["snap/x", "snap/y", "snap-1", "snap-2", "t"];
    let server = Odd::start(vec![on("List", ALWAYS, listed(&all, None))]);
    assert_eq!(walk(&bucket(&server), 10).await.unwrap().0, all);
    // In pages, by the server's token.
    let by_token = |token: Option<&'static str>| {
        move |request: &Request| {
            request.operation() == "List" && request.query.get("continuation-token").map(String::as_str) == token
        }
    };
    let server = Odd::start(vec![
        when(by_token(None), ALWAYS, listed(&all[..2], Some("one"))),
        when(by_token(Some("one")), ALWAYS, listed(&all[2..4], Some("two"))),
        when(by_token(Some("two")), ALWAYS, listed(&all[4..], None)),
    ]);
    assert_eq!(walk(&bucket(&server), 2).await.unwrap().0, all);
    // Without a token, or with more than was asked for, nothing but a key could say where to go on.
    let breaks = [(2, listed(&all[..2], Some(""))), (4, listed(&all[..4], Some(""))), (2, listed(&all, None))];
    for (limit, first) in breaks {
        let after = |request: &Request| request.asks("start-after");
        let server = Odd::start(vec![when(after, ALWAYS, listed(&all[2..], None)), on("List", ALWAYS, first)]);
        let error = walk(&bucket(&server), limit).await.unwrap_err();
        assert!(error.message().contains("another order"), "{limit}: {error:?}");
    }
}

#[tokio::test]
async fn any_key_has_an_answer() {
    let server = Odd::start(vec![]);
    for end in ["", "\n", "\r\n", "\t", "\u{7f}", "\u{85}", " ", "\u{a0}", "%0a", "?", "#", "\u{feff}"] {
        for key in [format!("k{end}"), format!("a/{KEY}{end}"), end.to_owned()] {
            server.put(&key, "x");
            server.begin(&key);
        }
    }
    let bucket = bucket(&server);
    for key in server.objects().keys() {
        let got = get(&bucket, key, None).await;
        match key.chars().any(char::is_control) || key.trim().is_empty() {
            true => assert_eq!(*got.unwrap_err().kind(), ErrorKind::Invalid, "{key:?}"),
            false => assert_eq!(got.unwrap(), b"x", "{key:?}"),
        }
        let _ = (
            bucket.head(key).await,
            bucket.list_objects(key, Some(key), 3).await,
            bucket.copy(key, key, PutOptions::default()).await,
        );
    }
    walk(&bucket, 3).await.unwrap();
    let before = server.uploads().len();
    let aborted = bucket.gc(Duration::ZERO).await.unwrap();
    assert!(aborted >= 1 && server.uploads().len() as u64 == before as u64 - aborted);
    assert!(server.uploads().iter().any(|key| key.ends_with('\n')) && !server.uploads().contains(&format!("a/{KEY}")));
}
