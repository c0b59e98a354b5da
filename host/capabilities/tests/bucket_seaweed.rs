//! The `bucket` capability against a real SeaweedFS.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tidelock_capabilities::bucket::{Bucket, PutOptions, S3Bucket};
use tidelock_capabilities::grant::{BucketCredentials, BucketGrant, Secret};
use tidelock_types::{Body, ByteRange, Error, ErrorKind};
use xtask::backends::Seaweed;

const MIB: usize = 1 << 20;
const BUCKET: &str = "capability";

/// One server for all tests of this file.
fn server() -> &'static Seaweed {
    static SERVER: LazyLock<Seaweed> = LazyLock::new(|| {
        let server = Seaweed::start().unwrap();
        server.create_bucket(BUCKET).unwrap();
        server
    });
    &SERVER
}

/// A grant below a prefix of the test's own.
async fn grant(test: &str) -> BucketGrant {
    let server = tokio::task::spawn_blocking(server).await.unwrap();
    let credentials = BucketCredentials {
        access_key: server.access_key.clone(),
        secret_key: Secret::new(server.secret_key.as_str()),
        session_token: None,
    };
    BucketGrant {
        endpoint: Some(server.endpoint.clone()),
        prefix: format!("{test}/"),
        path_style: true,
        credentials: Some(credentials),
        part_size: 5 << 20,
        ..BucketGrant::of(&server.region, BUCKET)
    }
}

/// The SDK itself, to look from outside.
fn raw(grant: &BucketGrant) -> aws_sdk_s3::Client {
    let keys = grant.credentials.as_ref().unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .region(aws_sdk_s3::config::Region::new(grant.region.clone()))
        .force_path_style(true)
        .endpoint_url(grant.endpoint.clone().unwrap())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(aws_sdk_s3::config::Credentials::new(
            &keys.access_key,
            keys.secret_key.expose(),
            None,
            None,
            "test",
        ));
    aws_sdk_s3::Client::from_conf(config.build())
}

async fn uploads(grant: &BucketGrant) -> usize {
    let page = raw(grant).list_multipart_uploads().bucket(&grant.bucket).prefix(&grant.prefix).send().await.unwrap();
    page.uploads().len()
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n / 3 + n / 100_003) as u8).collect::<Vec<u8>>().into()
}

/// In chunks of a length that fits no part, without a known size.
fn stream(data: &Bytes) -> Body {
    let data = data.clone();
    let chunks = (0..data.len()).step_by(77_777).map(move |at| Ok(data.slice(at..data.len().min(at + 77_777))));
    Body::new(futures::stream::iter(chunks.collect::<Vec<_>>()), None)
}

async fn read(bucket: &S3Bucket, key: &str, range: Option<ByteRange>) -> Result<Bytes, Error> {
    bucket.get(key, range).await?.body.collect(200 * MIB).await
}

#[tokio::test]
async fn stored_objects_are_read_back() {
    let grant = grant("stored_objects_are_read_back").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    for len in [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 33 * MIB + 7] {
        let data = pattern(len);
        let options = PutOptions { labels: vec![("base".into(), "a b".into())], ..PutOptions::default() };
        assert_eq!(bucket.put("dir/k +ü", stream(&data), options.clone()).await.unwrap(), len as u64);
        assert!(read(&bucket, "dir/k +ü", None).await.unwrap() == data, "{len}");
        let sized = PutOptions { size: Some(len as u64), ..options };
        assert_eq!(bucket.put("dir/k +ü", stream(&data), sized).await.unwrap(), len as u64);
        let object = bucket.get("dir/k +ü", None).await.unwrap();
        assert_eq!((object.info.size, object.body.remaining()), (len as u64, Some(len as u64)));
        assert_eq!(object.info.labels, [("base".to_owned(), "a b".to_owned())]);
        assert!(object.body.collect(200 * MIB).await.unwrap() == data, "{len}");
        let info = bucket.head("dir/k +ü").await.unwrap();
        assert_eq!(info.size, len as u64);
        assert!(info.modified.is_some() && info.etag.is_some() && info.archive.is_none());
    }
    assert_eq!(uploads(&grant).await, 0);
    bucket.delete("dir/k +ü").await.unwrap();
    bucket.delete("dir/k +ü").await.unwrap();
    assert_eq!(*bucket.head("dir/k +ü").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*read(&bucket, "dir/k +ü", None).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn ranges() {
    let grant = grant("ranges").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    let data = pattern(12 * MIB);
    bucket.put("k", stream(&data), PutOptions::default()).await.unwrap();
    bucket.put("empty", Body::from_bytes(""), PutOptions::default()).await.unwrap();
    let end = data.len() as u64;
    for (start, stop) in [(0, Some(1)), (1, Some(6_000_000)), (end - 1, None), (end - 1, Some(end + 5)), (0, None)] {
        let object = bucket.get("k", Some(ByteRange { start, end: stop })).await.unwrap();
        assert_eq!(object.info.size, end);
        let part = data.slice(start as usize..stop.unwrap_or(end).min(end) as usize);
        assert!(object.body.collect(200 * MIB).await.unwrap() == part, "{start} {stop:?}");
    }
    for (key, start, stop) in [("k", end, None), ("k", 7, Some(7)), ("empty", 0, None), ("empty", 0, Some(9))] {
        assert_eq!(read(&bucket, key, Some(ByteRange { start, end: stop })).await.unwrap(), "", "{key} {start}");
    }
    for (start, stop) in [(end + 1, None), (end + 1, Some(end + 2)), (7, Some(3))] {
        let error = bucket.get("k", Some(ByteRange { start, end: stop })).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn only_where_it_is_absent() {
    let grant = grant("only_where_it_is_absent").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    for len in [10, 12 * MIB] {
        let key = format!("k{len}");
        let options = || PutOptions { if_absent: true, ..PutOptions::default() };
        bucket.put(&key, stream(&pattern(len)), options()).await.unwrap();
        let error = bucket.put(&key, stream(&pattern(len + 1)), options()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(bucket.head(&key).await.unwrap().size, len as u64);
    }
    assert_eq!(uploads(&grant).await, 0);
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let grant = grant("a_failed_put_leaves_nothing").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    let data = pattern(12 * MIB);
    let broken = stream(&data).chain(futures::stream::iter([Err(Error::corrupt("the source broke"))]));
    let error = bucket.put("k", Body::new(broken, None), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the source broke");
    for size in [data.len() as u64 - 1, data.len() as u64 + 1] {
        let options = PutOptions { size: Some(size), ..PutOptions::default() };
        assert!(bucket.put("k", stream(&data), options.clone()).await.is_err());
        let body = Body::from_bytes(data.clone());
        assert_eq!(*bucket.put("k", body, options).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(uploads(&grant).await, 0);
    // Given up half-way: the abort goes on by itself.
    let stuck = Body::new(stream(&data).chain(futures::stream::pending()), None);
    let put = bucket.put("k", stuck, PutOptions::default());
    assert!(tokio::time::timeout(Duration::from_secs(2), put).await.is_err());
    for _ in 0..100 {
        if uploads(&grant).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(uploads(&grant).await, 0);
    assert_eq!(*bucket.head("k").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn dead_uploads_of_stores_are_collected_below_the_prefix_only() {
    let grant = grant("dead_uploads").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    bucket.gc(Duration::ZERO).await.unwrap();
    let begin = |key: String| raw(&grant).create_multipart_upload().bucket(&grant.bucket).key(key).send();
    // An upload of a store that died, and one of another program below the same prefix.
    begin(format!("{}e4/snap-01abcdefghijklmnopqrstuv01", grant.prefix)).await.unwrap();
    let foreign = begin(format!("{}backup.img", grant.prefix)).await.unwrap();
    let other = begin("elsewhere/alive".into()).await.unwrap();
    assert_eq!(bucket.gc(Duration::from_secs(3600)).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bucket.gc(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(uploads(&grant).await, 1);
    let (key, id) = (format!("{}backup.img", grant.prefix), foreign.upload_id().unwrap());
    raw(&grant).abort_multipart_upload().bucket(&grant.bucket).key(key).upload_id(id).send().await.unwrap();
    let elsewhere = raw(&grant).list_multipart_uploads().bucket(&grant.bucket).prefix("elsewhere/").send().await;
    assert!(!elsewhere.unwrap().uploads().is_empty());
    let id = other.upload_id().unwrap();
    let abort = raw(&grant).abort_multipart_upload().bucket(&grant.bucket).key("elsewhere/alive").upload_id(id);
    abort.send().await.unwrap();
}

#[tokio::test]
async fn listings_and_copies() {
    let grant = grant("listings").await;
    let bucket = S3Bucket::open(&grant).unwrap();
    let keys = ["a", "a/b", "a/c", "b", "c"];
    for key in keys {
        bucket.put(key, Body::from_bytes(key), PutOptions::default()).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_objects("", cursor.as_deref(), 2).await.unwrap();
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.into_iter().map(|entry| entry.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, keys);
    let below = bucket.list_objects("a/", None, 10).await.unwrap();
    assert_eq!(
        below.entries.iter().map(|entry| (entry.key.as_str(), entry.size)).collect::<Vec<_>>(),
        [("a/b", 3), ("a/c", 3)]
    );
    let labelled = PutOptions { labels: vec![("n".into(), "1".into())], ..PutOptions::default() };
    bucket.copy("a/b", "copy +ü", labelled).await.unwrap();
    assert_eq!(read(&bucket, "copy +ü", None).await.unwrap(), "a/b");
    assert_eq!(bucket.head("copy +ü").await.unwrap().labels, [("n".to_owned(), "1".to_owned())]);
    assert_eq!(*bucket.copy("no", "x", PutOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
    for out in ["../listings/a", "/a", "a/../../b"] {
        assert_eq!(*bucket.head(out).await.unwrap_err().kind(), ErrorKind::Denied, "{out}");
        assert_eq!(*bucket.list_objects(out, None, 1).await.unwrap_err().kind(), ErrorKind::Denied, "{out}");
        assert_eq!(*bucket.copy(out, "x", PutOptions::default()).await.unwrap_err().kind(), ErrorKind::Denied, "{out}");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let grant = grant("refusals").await;
    let (endpoint, secret) = (server().endpoint.clone(), server().secret_key.clone());
    let with = |secret: &str, bucket: &str, endpoint: &str| {
        let mut grant = grant.clone();
        grant.credentials.as_mut().unwrap().secret_key = Secret::new(secret);
        grant.bucket = bucket.into();
        grant.endpoint = Some(endpoint.into());
        grant.connection.stall_timeout = Duration::from_millis(500);
        S3Bucket::open(&grant).unwrap()
    };
    let put = async |bucket: S3Bucket| bucket.put("k", Body::from_bytes("x"), PutOptions::default()).await.unwrap_err();
    let error = put(with("hush-hush", BUCKET, &endpoint)).await;
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error:?}").contains("hush-hush"));
    assert!(error.advice().is_some());
    let error = with(&secret, "no-such-bucket", &endpoint).get("k", None).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{error}");
    let error = put(with(&secret, BUCKET, "http://127.0.0.1:1")).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
    // Somebody who listens and never answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = put(with(&secret, BUCKET, &format!("http://{}", mute.local_addr().unwrap()))).await;
    assert!(error.to_string().contains("transferred almost no bytes"), "{error}");
}

/// That the server verifies the checksum that uploads carry, so that damage on the way is found.
#[tokio::test]
async fn the_server_verifies_checksums() {
    let grant = grant("checksums").await;
    let sent = raw(&grant)
        .put_object()
        .bucket(&grant.bucket)
        .key("checksums/k")
        .checksum_crc32_c("AAAAAA==")
        .body(aws_sdk_s3::primitives::ByteStream::from_static(b"not that"))
        .send()
        .await;
    assert!(sent.is_err(), "a wrong CRC-32C was accepted");
}
