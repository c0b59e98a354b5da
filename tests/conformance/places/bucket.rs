//! Shared code of bucket places: Amazon's own client, to inspect and damage objects.

use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use tidelock::types::ObjectId;
use tidelock_tests::faults::On;
use tidelock_tests::faults::http::Head;

use crate::place::{Damage, Keys, Want};

/// A bucket, and who may do anything with it.
pub struct Bucket {
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub keys: Keys,
    client: Client,
}

impl Bucket {
    pub fn new(endpoint: &str, region: &str, bucket: &str, access_key: &str, secret_key: &str) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .force_path_style(true)
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"));
        let keys = Keys { access_key: access_key.into(), secret_key: secret_key.into(), ..Keys::default() };
        let (endpoint, region, bucket) = (endpoint.to_owned(), region.to_owned(), bucket.to_owned());
        Self { endpoint, region, bucket, keys, client: Client::from_conf(config.build()) }
    }

    /// The grant, with the proxy's port for the server's.
    pub fn grant(&self, want: &Want<'_>) -> String {
        let endpoint = match want.through {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => self.endpoint.clone(),
        };
        format!(
            "grants.bucket.objects = {{ endpoint = {endpoint:?}, region = {:?}, bucket = {:?}, prefix = {:?}, \
             path_style = true, credentials = {{ env = \"PLACE\" }} }}",
            self.region,
            self.bucket,
            format!("{}/", want.prefix)
        )
    }

    /// The keys; for a stranger with another secret.
    pub fn keys(&self, stranger: bool) -> Keys {
        let mut keys = self.keys.clone();
        if stranger {
            keys.secret_key = "not/the/secret/of/anybody/here/0123456789".into();
        }
        keys
    }

    pub async fn visible(&self, prefix: &str) -> BTreeMap<String, u64> {
        let prefix = format!("{prefix}/");
        let mut found = BTreeMap::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.expect("the bucket can be listed").contents() {
                let id = object.key().unwrap_or_default().strip_prefix(&prefix).unwrap_or_default();
                found.insert(id.to_owned(), object.size().unwrap_or_default() as u64);
            }
        }
        found
    }

    pub async fn bytes(&self, prefix: &str, id: &ObjectId) -> Vec<u8> {
        let object = self.client.get_object().bucket(&self.bucket).key(format!("{prefix}/{id}")).send().await;
        object.expect("the object can be read").body.collect().await.expect("whole").to_vec()
    }

    /// Puts something else in an object's place, of the same class and with the same metadata.
    pub async fn damage(&self, prefix: &str, id: &ObjectId, how: Damage) {
        let key = format!("{prefix}/{id}");
        if how == Damage::Lose {
            self.client.delete_object().bucket(&self.bucket).key(key).send().await.expect("it can be removed");
            return;
        }
        let object = self.client.get_object().bucket(&self.bucket).key(&key).send().await.expect("it can be read");
        let (metadata, class) = (object.metadata().cloned(), object.storage_class().cloned());
        let mut bytes = object.body.collect().await.expect("whole").to_vec();
        let middle = bytes.len() / 2;
        match how {
            Damage::Flip => bytes[middle] ^= 4,
            _ => bytes.truncate(middle),
        }
        let put = self.client.put_object().bucket(&self.bucket).key(&key).body(ByteStream::from(bytes));
        put.set_metadata(metadata).set_storage_class(class).send().await.expect("it can be put");
    }
}

/// Puts of objects and of parts carry data; so do the answers to gets of objects. Listings and `?uploads` do not.
pub fn classify(head: &Head) -> Option<On> {
    let of_an_object = head.path().trim_matches('/').contains('/');
    match head.method() {
        "PUT" if of_an_object && head.has_body() => Some(On::Up),
        "GET" if of_an_object && !head.query().contains("upload") => Some(On::Down),
        _ => None,
    }
}
