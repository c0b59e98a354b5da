//! How long the SDK takes to read the worst page of a listing, on the thread that polls it. Printed, not asserted:
//! `cargo test --release -p tidelock-capabilities page_time -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

use super::LIST_LIMIT;
use super::connector::largest_listing;
use super::scan::Scan;

/// Answers every request with one document.
#[derive(Debug, Clone)]
struct Always(bytes::Bytes);

impl HttpConnector for Always {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(self.0.clone()))))
    }
}

impl HttpClient for Always {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn client(document: String) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("x"))
        .endpoint_url("http://127.0.0.1/")
        .allow_no_auth()
        .http_client(Always(document.into()));
    Client::from_conf(config.build())
}

#[tokio::test]
#[ignore = "it measures"]
async fn page_time() {
    let entry = |filling: &str, each: usize, text: usize| {
        format!("<Contents><Key>{}</Key><Size>1</Size>{}</Contents>", "&amp;".repeat(text / 5), filling.repeat(each))
    };
    for (what, entry) in [
        ("an honest one", entry("<ETag>0123456789abcdef0123456789abcdef</ETag>", 1, 50)),
        ("of elements", entry("<ChecksumAlgorithm>CRC32C</ChecksumAlgorithm>", 28, 2700)),
        ("of small elements", entry("<ChecksumAlgorithm/>", 57, 2700)),
        ("of unknown elements", entry("<a/>", 57, 3700)),
        ("of attributes", entry(&format!("<a {}/>", "b='' ".repeat(13)), 56, 5)),
        ("of text", entry("", 0, 4000)),
    ] {
        let document = format!("<ListBucketResult>{}</ListBucketResult>", entry.repeat(1000));
        let (len, marks) = (document.len(), document.matches('<').count());
        assert!(len as u64 <= largest_listing(LIST_LIMIT), "{what}: {len}");
        assert!(Scan::of(u64::from(LIST_LIMIT)).pass(document.as_bytes()).is_some(), "{what}");
        let client = client(document);
        let mut best = Duration::MAX;
        for _ in 0..10 {
            // Nothing in it waits: all the time is work of this thread.
            let began = Instant::now();
            let page = client.list_objects_v2().bucket("b").send().await;
            best = best.min(began.elapsed());
            assert_eq!(page.unwrap().contents().len(), 1000, "{what}");
        }
        println!("a page {what}, {len} bytes, {marks} elements: {best:?}");
    }
}
