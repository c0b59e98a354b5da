//! The `bucket` capability beyond put and get: the resulting state of objects, checked with Amazon's own client.
//!
//! moto implements Amazon's services, SeaweedFS stores for real; features of both are tested on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption};
use tidelock::capabilities::bucket::{Bucket, Encryption, PutOptions, Retention, S3Bucket};
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, Secret};
use tidelock::types::{ArchiveState, ErrorKind};
use tidelock::{Body, ByteRange};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::{cold, server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use xtask::backends::moto::{BUCKET, Keys, LOCKED_BUCKET, REGION};

fn grant(endpoint: &str, bucket: &str, keys: &Keys) -> BucketGrant {
    let token = keys.session_token.as_deref().map(Secret::new);
    let (access_key, secret_key) = (keys.access_key.clone(), Secret::new(keys.secret_key.as_str()));
    BucketGrant {
        endpoint: Some(endpoint.into()),
        path_style: true,
        prefix: format!("{:x}/", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()),
        credentials: Some(BucketCredentials { access_key, secret_key, session_token: token }),
        part_size: 5 << 20,
        ..BucketGrant::of(REGION, bucket)
    }
}

fn moto(bucket: &str) -> BucketGrant {
    let server = cold::shared();
    grant(&server.endpoint, bucket, &server.keys)
}

fn seaweed() -> BucketGrant {
    let server = server::shared();
    let keys =
        Keys { access_key: server.access_key.clone(), secret_key: server.secret_key.clone(), session_token: None };
    grant(&server.endpoint, server::BUCKET, &keys)
}

/// Amazon's client with nothing of ours in between.
pub fn bare(grant: &BucketGrant) -> Client {
    let keys = grant.credentials.as_ref().unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(grant.region.clone()))
        .force_path_style(true)
        .endpoint_url(grant.endpoint.as_ref().unwrap())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new(&keys.access_key, keys.secret_key.expose(), None, None, "test"));
    Client::from_conf(config.build())
}

async fn read(bucket: &S3Bucket, key: &str) -> Vec<u8> {
    let object = bucket.get(key, None).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
    object.body.collect(1 << 30).await.unwrap().to_vec()
}

/// One put is one request, the other goes up in parts: headers travel differently.
const SIZES: [usize; 2] = [1000, 11 * MIB + 1];

#[tokio::test]
async fn the_requested_encryption_is_used() {
    let grant = moto(BUCKET);
    let (bucket, bare) = (S3Bucket::open(&grant).unwrap(), bare(&grant));
    for (algorithm, key_id, expected) in [
        ("AES256", None, ServerSideEncryption::Aes256),
        ("aws:kms", Some("arn:aws:kms:us-east-1:123456789012:key/k1"), ServerSideEncryption::AwsKms),
        ("aws:kms:dsse", None, ServerSideEncryption::AwsKmsDsse),
    ] {
        for size in SIZES {
            let key = format!("{}-{size}", algorithm.replace(':', "-"));
            let encryption = Some(Encryption { algorithm: algorithm.into(), key_id: key_id.map(Into::into) });
            let bytes = noise(size, 1);
            let options = PutOptions { encryption, if_absent: true, ..Default::default() };
            bucket.put(&key, Body::from_bytes(bytes.clone()), options).await.unwrap();
            assert_same(&read(&bucket, &key).await, &bytes, &key);
            let full = format!("{}{key}", grant.prefix);
            let said = bare.head_object().bucket(BUCKET).key(full).send().await.unwrap();
            assert_eq!(said.server_side_encryption(), Some(&expected), "{key}");
            assert_eq!(said.ssekms_key_id(), key_id, "{key}");
        }
    }
}

#[tokio::test]
async fn a_locked_object_stays() {
    let in_seaweed = BucketGrant { bucket: LOCKED_BUCKET.into(), ..seaweed() };
    bare(&in_seaweed)
        .create_bucket()
        .bucket(LOCKED_BUCKET)
        .object_lock_enabled_for_bucket(true)
        .send()
        .await
        .expect("a bucket with object lock");
    // moto 5.2.5 forgets the lock of an object that comes in parts.
    for (server, grant, sizes) in [("moto", moto(LOCKED_BUCKET), &SIZES[..1]), ("SeaweedFS", in_seaweed, &SIZES[..])] {
        for (mode, expected) in [("GOVERNANCE", ObjectLockMode::Governance), ("COMPLIANCE", ObjectLockMode::Compliance)]
        {
            for size in sizes {
                let what = format!("{server} {mode} {size}");
                is_locked(&what, &grant, mode, &expected, *size).await;
            }
        }
    }
}

async fn is_locked(what: &str, grant: &BucketGrant, mode: &str, expected: &ObjectLockMode, size: usize) {
    let (bucket, bare) = (S3Bucket::open(grant).unwrap(), bare(grant));
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400;
    let (key, bytes) = (format!("{mode}-{size}"), noise(size, 2));
    let retention = Some(Retention { mode: mode.into(), until });
    let options = PutOptions { retention, if_absent: true, ..Default::default() };
    bucket
        .put(&key, Body::from_bytes(bytes.clone()), options)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let full = format!("{}{key}", grant.prefix);
    let said = bare.head_object().bucket(LOCKED_BUCKET).key(&full).send().await.unwrap();
    assert_eq!(said.object_lock_mode(), Some(expected), "{what}");
    let kept_until = said.object_lock_retain_until_date().unwrap().secs();
    assert_eq!(kept_until, i64::try_from(until).unwrap(), "{what}");
    // A removal hides it; the version that is locked cannot be removed.
    let version = said.version_id().unwrap();
    bucket.delete(&key).await.unwrap();
    assert_eq!(*bucket.head(&key).await.unwrap_err().kind(), ErrorKind::NotFound, "{what}");
    let removed = bare.delete_object().bucket(LOCKED_BUCKET).key(&full).version_id(version).send().await;
    assert!(removed.is_err(), "{what}: {removed:?}");
    let kept = bare.get_object().bucket(LOCKED_BUCKET).key(&full).version_id(version).send().await.unwrap();
    assert_same(&kept.body.collect().await.unwrap().to_vec(), &bytes, what);
}

#[tokio::test]
async fn copies_are_made_on_the_server_in_one_piece_or_in_parts() {
    for (name, grant) in [("moto", moto(BUCKET)), ("SeaweedFS", seaweed())] {
        let grant = BucketGrant { copy_limit: 5 << 20, ..grant };
        let bucket = S3Bucket::open(&grant).unwrap();
        for size in [0, 5 * MIB, 5 * MIB + 1, 17 * MIB + 3] {
            let (source, target) = (format!("from {size} ü+&"), format!("to-{size}"));
            let (bytes, options) = (noise(size, 3), PutOptions::default());
            bucket.put(&source, Body::from_bytes(bytes.clone()), options).await.unwrap();
            let options = PutOptions { labels: vec![("note".into(), "copied".into())], ..Default::default() };
            bucket.copy(&source, &target, options).await.unwrap_or_else(|error| panic!("{name} {size}: {error:?}"));
            assert_same(&read(&bucket, &target).await, &bytes, &format!("{name} {size}"));
            let info = bucket.head(&target).await.unwrap();
            assert_eq!((info.size, &info.labels[..]), (size as u64, &[("note".to_owned(), "copied".to_owned())][..]));
        }
        let missing = bucket.copy("nothing", "x", PutOptions::default()).await.unwrap_err();
        assert_eq!(*missing.kind(), ErrorKind::NotFound, "{name}: {missing:?}");
    }
}

/// A bucket in the host's name, with temporary credentials: how Amazon itself is used.
#[tokio::test]
async fn the_virtual_host_style_with_a_session_token() {
    let server = cold::shared();
    let endpoint = format!("http://s3.localhost:{}", server.port);
    let grant = BucketGrant { path_style: false, ..grant(&endpoint, BUCKET, &server.temporary_keys) };
    let bucket = S3Bucket::open(&grant).unwrap();
    for size in SIZES {
        let (key, bytes) = (format!("k {size}"), noise(size, 4));
        bucket.put(&key, Body::from_bytes(bytes.clone()), PutOptions::default()).await.unwrap();
        assert_same(&read(&bucket, &key).await, &bytes, &key);
        // The same object by the other style.
        let in_path = BucketGrant { endpoint: Some(server.endpoint.clone()), path_style: true, ..grant.clone() };
        assert_same(&read(&S3Bucket::open(&in_path).unwrap(), &key).await, &bytes, "in the path style");
    }
    let listed = bucket.list_objects("", None, 10).await.unwrap();
    assert_eq!(listed.entries.len(), SIZES.len());
    let mut wrong = grant;
    wrong.credentials.as_mut().unwrap().session_token = Some(Secret::new("another"));
    let refused = S3Bucket::open(&wrong).unwrap().get("k 1000", None).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Denied, "{refused:?}");
    let refused = S3Bucket::open(&wrong).unwrap().head("k 1000").await.unwrap_err();
    assert!(refused.advice().unwrap().contains("token"), "{refused:?}");
}

/// What a server says when it cannot or will not, word for word as Amazon documents it: the kind decides what the host does
/// next. What may pass within moments is asked a few times; a pause of 7 seconds is for others to wait.
#[tokio::test]
async fn a_refusal_has_its_error_kind() {
    let answers = [
        ("503 Slow Down", "retry-after: 7\r\n", "SlowDown", ErrorKind::RateLimited(Some(Duration::from_secs(7)))),
        ("429 Too Many Requests", "", "TooManyRequests", ErrorKind::RateLimited(None)),
        ("500 Internal Server Error", "", "InternalError", ErrorKind::Unavailable),
        ("503 Service Unavailable", "", "ServiceUnavailable", ErrorKind::Unavailable),
        ("507 Insufficient Storage", "", "QuotaExceeded", ErrorKind::InsufficientBalance(Default::default())),
        ("403 Forbidden", "", "AccessDenied", ErrorKind::Denied),
        ("400 Bad Request", "", "ExpiredToken", ErrorKind::Denied),
        ("400 Bad Request", "", "InvalidStorageClass", ErrorKind::Invalid),
        ("404 Not Found", "", "NoSuchKey", ErrorKind::NotFound),
        ("404 Not Found", "", "NoSuchBucket", ErrorKind::Invalid),
        ("501 Not Implemented", "", "NotImplemented", ErrorKind::Unsupported),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let asked = Arc::new(AtomicUsize::new(0));
    let (counted, script) = (asked.clone(), answers.clone());
    let server = tokio::spawn(async move {
        let often = |entry: &(_, _, &str, _)| match entry.2 {
            "TooManyRequests" | "InternalError" | "ServiceUnavailable" => 4,
            _ => 1,
        };
        for (status, header, code, _) in script.iter().flat_map(|entry| vec![entry; often(entry)]) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let body = format!("<Error><Code>{code}</Code><Message>no {code} today</Message></Error>");
            let length = body.len();
            let reply =
                format!("HTTP/1.1 {status}\r\n{header}connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    let bucket = S3Bucket::open(&BucketGrant { endpoint, ..moto(BUCKET) }).unwrap();
    let mut before = 0;
    for (status, _, code, kind) in &answers {
        let error = bucket.get("k", None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error:?}");
        assert!(error.message().contains(&format!("no {code} today")), "the server's own words: {error}");
        let times = asked.load(Ordering::SeqCst) - before;
        before += times;
        let passing = matches!(*code, "TooManyRequests" | "InternalError" | "ServiceUnavailable");
        assert_eq!(times, if passing { 4 } else { 1 }, "{status} {code}");
    }
    server.abort();
}

/// Amazon takes no signature for another region than the bucket's. Every server here does, so this looks at what is signed.
#[tokio::test]
async fn the_region_is_signed_and_a_refusal_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let grant = BucketGrant { region: "eu-central-1".into(), endpoint, ..moto(BUCKET) };
    let amazon = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'eu-central-1' is wrong; \
                    expecting 'us-east-1'</Message><Region>us-east-1</Region></Error>";
        let reply = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let bucket = S3Bucket::open(&grant).unwrap();
    let (head, refused) = tokio::join!(amazon, bucket.get("k", None));
    assert!(head.contains("/eu-central-1/s3/aws4_request"), "{head}");
    let refused = refused.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Invalid, "{refused:?}");
    assert!(refused.advice().unwrap().contains("region"), "{refused:?}");
}

#[tokio::test]
async fn a_restore_goes_through_its_states() {
    let grant = moto(BUCKET);
    let bucket = S3Bucket::open(&grant).unwrap();
    let cold = PutOptions { storage_class: Some("GLACIER".into()), ..Default::default() };
    bucket.put("k", Body::from_bytes("cold"), cold).await.unwrap();
    assert_eq!(bucket.head("k").await.unwrap().archive, Some(ArchiveState::Archived));
    let refused = bucket.get("k", Some(ByteRange { start: 0, end: Some(1) })).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Archived(ArchiveState::Archived));
    let refused = bucket.copy("k", "other", PutOptions::default()).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Archived(ArchiveState::Archived), "{refused:?}");
    for (days, tier) in [(0, "Standard"), (1, "standard")] {
        assert_eq!(*bucket.restore("k", days, tier).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let asked = bucket.restore("k", 2, "Expedited").await.unwrap();
    assert_eq!(asked, ArchiveState::Restoring(Some(Duration::from_secs(300))));
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let Some(ArchiveState::Readable(Some(until))) = bucket.head("k").await.unwrap().archive else {
        panic!("the second look finds it done")
    };
    assert!(until > before + 86_400, "two days: {until}");
    assert_eq!(read(&bucket, "k").await, b"cold");
    assert!(matches!(bucket.restore("k", 1, "Bulk").await.unwrap(), ArchiveState::Readable(_)), "asking again");

    assert_eq!(*bucket.restore("none", 1, "Bulk").await.unwrap_err().kind(), ErrorKind::NotFound);
    bucket.put("warm", Body::from_bytes("x"), PutOptions::default()).await.unwrap();
    assert_eq!(*bucket.restore("warm", 1, "Bulk").await.unwrap_err().kind(), ErrorKind::Invalid);
}
