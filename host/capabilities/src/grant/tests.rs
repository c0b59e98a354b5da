//! What grants refuse.

use super::*;

#[test]
fn secrets_do_not_print() {
    let credentials = BucketCredentials {
        access_key: "AK".into(),
        secret_key: Secret::new("hush"),
        session_token: Some(Secret::new("hush")),
    };
    let grant = BucketGrant { credentials: Some(credentials), ..BucketGrant::of("r", "b") };
    assert!(!format!("{grant:?}").contains("hush"));
    assert!(format!("{grant:?}").contains("***"));
}

#[test]
fn errors_name_the_invalid_field() {
    let good = BucketGrant::of("us-east-1", "vm");
    good.validate().unwrap();
    let says = |grant: BucketGrant| grant.validate().unwrap_err().to_string();
    assert!(says(BucketGrant { bucket: "a/b".into(), ..good.clone() }).starts_with("bucket:"));
    assert!(says(BucketGrant { bucket: "..".into(), ..good.clone() }).starts_with("bucket:"));
    assert!(says(BucketGrant { prefix: "a/../b".into(), ..good.clone() }).starts_with("prefix:"));
    assert!(says(BucketGrant { prefix_without_slash: true, ..good.clone() }).starts_with("prefix_without_slash:"));
    assert!(says(BucketGrant { part_size: 1, ..good.clone() }).starts_with("part_size:"));
    assert!(says(BucketGrant { copy_limit: 1, ..good.clone() }).starts_with("copy_limit:"));
    assert!(says(BucketGrant { concurrency: 0, ..good.clone() }).starts_with("concurrency:"));
    assert!(says(BucketGrant { region: String::new(), ..good.clone() }).starts_with("region:"));
    for endpoint in ["x", "ftp://x", "http://u:p@x", "http://x?y"] {
        let grant = BucketGrant { endpoint: Some(endpoint.into()), ..good.clone() };
        assert!(says(grant).starts_with("endpoint:"), "{endpoint}");
    }
    assert!(DirectoryGrant::below("").validate().is_err());
}

#[test]
fn credentials_of_http_are_a_real_header() {
    let with = |header: &str, secret: &str| {
        let mut grant = HttpGrant::to(["https://a.example"]).unwrap();
        grant.credentials = Some(HeaderCredential { header: header.into(), secret: Secret::new(secret) });
        grant.validate()
    };
    with("authorization", "Bearer x").unwrap();
    assert!(with("content-length", "1").is_err());
    assert!(with("a b", "1").is_err());
    let error = with("x-key", "hush\r\nx: y").unwrap_err();
    assert!(!format!("{error:?}").contains("hush"));
    assert!(HttpGrant::to([]).unwrap().validate().is_err());
}

#[test]
fn an_invalid_proxy_is_reported_without_its_text() {
    for good in ["http://proxy:3128", "https://u:p@proxy.example", "http://[::1]:8080/"] {
        check_proxy(good).unwrap();
    }
    for wrong in ["", "proxy:3128", "socks5://hush@proxy:1080", "http://", "u:hush@proxy"] {
        let error = check_proxy(wrong).unwrap_err();
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}
