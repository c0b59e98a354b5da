//! What of a bucket is another's: neighbours of the prefix, uploads of other programs, other hosts and addresses.

use std::time::Duration;

use tidelock::capabilities::bucket::{Bucket as _, PutOptions, S3Bucket};
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, ConnectionSettings, Proxies, Secret};
use tidelock::types::ErrorKind;
use tidelock_tests::between::Proxy;
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::odd::{Odd, Then, on, refuse};

use crate::bucket_odd::{ALWAYS, KEY, SIZES, bucket, get, grant, put, walk};

#[tokio::test]
async fn uploads_of_other_programs_are_left_alone() {
    let server = Odd::start(vec![]);
    let others = ["backup.img", "vm-prod/backup.img", &format!("vm-prod/{KEY}"), "vm/part-1", "snap-2024"];
    let ours = [format!("vm/{KEY}"), format!("vm/e4/{KEY}"), format!("vm/{KEY}.delta")];
    others.iter().copied().chain(ours.iter().map(String::as_str)).for_each(|key| server.begin(key));
    let below = |prefix: &str| S3Bucket::open(&BucketGrant { prefix: prefix.into(), ..grant(&server) }).unwrap();
    assert_eq!(below("vm").gc(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(below("vm/").gc(Duration::ZERO).await.unwrap(), 3);
    let mut left = server.uploads();
    left.sort();
    let mut expected = others.map(str::to_owned);
    expected.sort();
    assert_eq!(left, expected);
}

#[tokio::test]
async fn a_prefix_covers_nothing_of_its_neighbours() {
    let server = Odd::start(vec![]);
    for key in
        [format!("vm{KEY}"), format!("vme4/{KEY}"), "vm-prod/secret".into(), format!("vm-prod/{KEY}"), "vmware".into()]
    {
        server.put(&key, "x");
    }
    let folder = BucketGrant { prefix: "vm".into(), ..grant(&server) };
    // What has been stored below such a prefix stays readable, and is all that is listed.
    let mine = [format!("e4/{KEY}"), KEY.to_owned()];
    let fanned = S3Bucket::open(&BucketGrant { prefix_without_slash: true, ..folder.clone() }).unwrap();
    assert_eq!(walk(&fanned, 10).await.unwrap().0, mine);
    for key in &mine {
        assert_eq!(get(&fanned, key, None).await.unwrap(), b"x");
    }
    let bucket = S3Bucket::open(&folder).unwrap();
    assert_eq!(walk(&bucket, 10).await.unwrap().0, [KEY]);
    assert_eq!(get(&bucket, KEY, None).await.unwrap(), b"x");
    let asked = server.requests().len();
    for key in ["-prod/secret", &format!("-prod/{KEY}"), "ware"] {
        let error = get(&bucket, key, None).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Denied, "{key}");
        assert_eq!(*put(&bucket, key, b"x").await.unwrap_err().kind(), ErrorKind::Denied, "{key}");
        assert_eq!(*bucket.delete(key).await.unwrap_err().kind(), ErrorKind::Denied, "{key}");
        assert_eq!(*bucket.copy(key, KEY, PutOptions::default()).await.unwrap_err().kind(), ErrorKind::Denied, "{key}");
        assert!(error.advice().unwrap().contains("vm/"), "{error:?}");
    }
    assert_eq!(server.requests().len(), asked, "nothing was asked for");
}

/// The folder of another grant may be called like one of the layout `fan-out`, and hold keys of the same form.
#[tokio::test]
async fn a_prefix_covers_no_folder_of_two_digits_of_its_neighbours() {
    let server = Odd::start(vec![]);
    let below = |prefix: &str| S3Bucket::open(&BucketGrant { prefix: prefix.into(), ..grant(&server) }).unwrap();
    let (theirs, thief) = (below("vme4/"), below("vm"));
    put(&theirs, KEY, b"secret").await.unwrap();
    server.begin(&format!("vme4/{KEY}"));
    let key = format!("e4/{KEY}");
    let denied = |result: tidelock::types::Result<()>| assert_eq!(*result.unwrap_err().kind(), ErrorKind::Denied);
    denied(get(&thief, &key, None).await.map(drop));
    denied(thief.head(&key).await.map(drop));
    denied(thief.delete(&key).await);
    denied(thief.copy(&key, KEY, PutOptions::default()).await);
    denied(thief.copy(KEY, &key, PutOptions::default()).await);
    denied(put(&thief, &key, b"x").await.map(drop));
    assert_eq!(walk(&thief, 10).await.unwrap().0, [""; 0]);
    assert_eq!(thief.gc(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(get(&theirs, KEY, None).await.unwrap(), b"secret");
}

#[tokio::test]
async fn an_endpoint_may_have_a_path() {
    for slash in ["", "/"] {
        let server = Odd::below("/s3/v2", vec![]);
        let endpoint = Some(format!("{}{slash}", server.endpoint));
        let bucket = S3Bucket::open(&BucketGrant { endpoint, ..grant(&server) }).unwrap();
        for size in SIZES {
            put(&bucket, &format!("k{size}"), &noise(size, 7)).await.unwrap();
            assert_same(&get(&bucket, &format!("k{size}"), None).await.unwrap(), &noise(size, 7), "read");
        }
        assert_eq!(walk(&bucket, 1).await.unwrap().0.len(), 2);
        assert!(server.requests().iter().all(|request| request.target.starts_with("/s3/v2/b")));
    }
}

#[tokio::test]
async fn heads_are_bounded_and_redirects_are_not_followed() {
    let headers: String = (0..300).map(|n| format!("x-{n}: y\r\n")).collect();
    let large: String = (0..100).map(|n| format!("x-{n}: {}\r\n", "y".repeat(1000))).collect();
    for headers in [headers, large] {
        let server = Odd::start(vec![on("Get", ALWAYS, Then::Answer { status: 200, headers, body: "x".into() })]);
        assert_eq!(*get(&bucket(&server), "k", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let elsewhere = Odd::start(vec![]);
    elsewhere.put("k", "planted");
    for status in [301, 302, 307, 308] {
        let headers = format!("location: {}/b/k\r\n", elsewhere.endpoint);
        let server = Odd::start(vec![on("Get", ALWAYS, Then::Answer { status, headers, body: String::new() })]);
        get(&bucket(&server), "k", None).await.unwrap_err();
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn an_endpoint_can_be_confined_to_public_addresses() {
    let server = Odd::start(vec![]);
    let confined = |endpoint: &str| {
        let connection = ConnectionSettings::new(false);
        S3Bucket::open(&BucketGrant { connection, endpoint: Some(endpoint.into()), ..grant(&server) })
    };
    assert_eq!(*confined(&server.endpoint).unwrap_err().kind(), ErrorKind::Denied);
    let named = confined(&server.endpoint.replace("127.0.0.1", "localhost")).unwrap();
    let error = get(&named, "k", None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.advice().unwrap().contains("private_addresses"), "{error:?}");
    assert!(server.requests().is_empty());
}

/// A proxy connects to whatever a name means to it, so the names are looked at here.
#[tokio::test]
async fn a_proxy_does_not_lead_to_private_addresses() {
    let (server, proxy) = (Odd::start(vec![]), Proxy::start());
    server.put("k", "x");
    let proxied = |private_addresses: bool, endpoint: String| {
        let proxies = Proxies::all(&format!("http://127.0.0.1:{}", proxy.port));
        let connection = ConnectionSettings { proxies, ..ConnectionSettings::new(private_addresses) };
        S3Bucket::open(&BucketGrant { connection, endpoint: Some(endpoint), ..grant(&server) }).unwrap()
    };
    let named = server.endpoint.replace("127.0.0.1", "localhost");
    let error = get(&proxied(false, named.clone()), "k", None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.advice().unwrap().contains("private_addresses"), "{error:?}");
    assert!(proxy.heads().is_empty() && server.requests().is_empty());
    assert_eq!(get(&proxied(true, named), "k", None).await.unwrap(), b"x");
    assert_eq!(proxy.heads().len(), 1);
}

/// A server that has the secrets returns them in every place of a reply.
#[tokio::test]
async fn no_message_of_a_server_holds_the_credentials() {
    const KEY: &str = "hush-secret/+key";
    const TOKEN: &str = "HUSH-session-token-HUSH";
    let signed = |rules| {
        let server = Odd::start(rules);
        let session_token = Some(Secret::new(TOKEN));
        let credentials = BucketCredentials { access_key: "AK".into(), secret_key: Secret::new(KEY), session_token };
        S3Bucket::open(&BucketGrant { credentials: Some(credentials), ..grant(&server) }).unwrap()
    };
    let quiet = |told: String| assert!(!told.to_lowercase().contains("hush"), "{told}");
    let headers = format!(
        "etag: \"{TOKEN}\"\r\nx-amz-meta-a: my {TOKEN}.\r\nx-amz-meta-b: {KEY}\r\nx-amz-meta-{TOKEN}: c\r\n\
         x-amz-meta-name: kept\r\nx-amz-storage-class: {KEY}\r\nx-amz-restore: {TOKEN}\r\n"
    );
    let answer = |headers: &str, body: String| Then::Answer { status: 200, headers: headers.into(), body };
    let bucket =
        signed(vec![on("Get", ALWAYS, answer(&headers, "x".into())), on("Head", ALWAYS, answer(&headers, "x".into()))]);
    for info in [bucket.head("k").await.unwrap(), bucket.get("k", None).await.unwrap().info] {
        assert_eq!(info.labels, [("name".to_owned(), "kept".to_owned())]);
        quiet(format!("{info:?}"));
    }
    // Whole, in pieces that become whole, at the place where messages are truncated, and as the code.
    let long: &'static str = format!("{}{TOKEN}", "x".repeat(280)).leak();
    for (code, says) in [("AccessDenied", TOKEN), (TOKEN, KEY), ("X", "HUSH-session\u{85}-token-HUSH"), ("X", long)] {
        for status in [400, 403] {
            let all = ["Get", "Put", "List", "Delete", "ListUploads"];
            let bucket = signed(all.map(|operation| on(operation, ALWAYS, refuse(status, code, says))).into());
            quiet(format!("{:?}", get(&bucket, "k", None).await.unwrap_err()));
            quiet(format!("{:?}", put(&bucket, "k", b"x").await.unwrap_err()));
            quiet(format!("{:?}", bucket.list_objects("", None, 10).await.unwrap_err()));
            quiet(format!("{:?}", bucket.delete("k").await.unwrap_err()));
            quiet(format!("{:?}", bucket.gc(Duration::ZERO).await.unwrap_err()));
        }
    }
    let entry = format!("<Contents><Key>{TOKEN}</Key><Size>1</Size></Contents>");
    for truncated in [true, false] {
        let page = format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{entry}</ListBucketResult>");
        let bucket = signed(vec![on("List", ALWAYS, answer("", page))]);
        quiet(format!("{:?}", bucket.list_objects("", None, 10).await.unwrap_err()));
    }
}

/// A server that does not count: a few entries too many wait for the next page, and many are refused unread.
#[tokio::test]
async fn a_listing_has_no_more_entries_than_requested() {
    let page = |entries: usize| {
        let entry = |n| format!("<Contents><Key>{n:04}</Key><Size>1</Size></Contents>");
        let entries: String = (0..entries).map(entry).collect();
        let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>");
        Odd::start(vec![on("List", ALWAYS, Then::Answer { status: 200, headers: String::new(), body })])
    };
    // One that says where to go on by nothing, and begins anew each time, may list in any order.
    assert_eq!(*walk(&bucket(&page(13)), 5).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let first = bucket(&page(13)).list_objects("", None, 5).await.unwrap();
    assert_eq!((first.entries.len(), first.next.as_deref()), (5, Some("0004")));
    for (entries, limit) in [(14, 5), (1009, 1000), (1009, 100_000)] {
        let error = bucket(&page(entries)).list_objects("", None, limit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    assert_eq!(bucket(&page(1000)).list_objects("", None, 1000).await.unwrap().entries.len(), 1000);
}
