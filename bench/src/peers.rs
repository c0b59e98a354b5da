//! The peers: aws-sdk-s3 alone and OpenDAL, each as fast as it goes.
//!
//! Both sign with `UNSIGNED-PAYLOAD` and neither computes checksums, which is less than the adapter does. Both put whole
//! objects in one request and in parts, and read in one stream and in ranges; parts and ranges have the size and the
//! number at once that the host uses. The faster of these is the peer.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, StorageClass};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use opendal::Operator;
use opendal::services::S3;
use tidelock::capabilities::bucket::{CONCURRENCY, PART_SIZE};
use xtask::backends::Seaweed;

use crate::place::BUCKET;

/// Something that takes the chunks of an object as they come.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Amazon's SDK with the HTTP client that the host uses too.
#[derive(Clone)]
pub struct Sdk {
    client: Client,
    bucket: String,
    class: Option<StorageClass>,
}

/// A bucket, and the keys to it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The service's URL.
    pub endpoint: &'a str,
    /// The region to sign for.
    pub region: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    /// Access key and secret key.
    pub keys: (&'a str, &'a str),
    /// The class of what is stored, if not the bucket's own.
    pub class: Option<&'a str>,
}

impl Sdk {
    /// A client of a SeaweedFS.
    pub fn new(server: &Seaweed) -> Self {
        let Seaweed { endpoint, region, access_key, secret_key, .. } = server;
        Self::of(Place { endpoint, region, bucket: BUCKET, keys: (access_key, secret_key), class: None })
    }

    /// A client of a bucket.
    pub fn of(place: Place<'_>) -> Self {
        let credentials = Credentials::new(place.keys.0, place.keys.1, None, None, "bench");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(place.region.to_owned()))
            .force_path_style(true)
            .endpoint_url(place.endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let class = place.class.map(StorageClass::from);
        Self { client: Client::from_conf(config.build()), bucket: place.bucket.into(), class }
    }

    /// One PutObject.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .set_storage_class(self.class.clone())
            .body(ByteStream::from(data));
        request.customize().disable_payload_signing().send().await?;
        Ok(())
    }

    /// An upload in parts, some at once.
    pub async fn put_parts(&self, key: &str, data: Bytes) -> Result<()> {
        let upload = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .set_storage_class(self.class.clone())
            .send()
            .await?;
        let id: Arc<str> = upload.upload_id().context("no upload id")?.into();
        let part_size = PART_SIZE as usize;
        let parts = (0..data.len()).step_by(part_size).enumerate().map(|(index, at)| {
            let part = data.slice(at..data.len().min(at + part_size));
            let (sdk, key, id) = (self.clone(), key.to_owned(), Arc::clone(&id));
            let number = i32::try_from(index + 1);
            // A task each, so that parts are sent by both cores.
            async move { tokio::spawn(send_part(sdk, key, id, number?, part)).await? }
        });
        let parts: Vec<CompletedPart> = futures::stream::iter(parts).buffered(CONCURRENCY).try_collect().await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(&*id);
        request.multipart_upload(parts).send().await?;
        Ok(())
    }

    /// One GetObject.
    pub async fn get(&self, key: &str, sink: Sink<'_>) -> Result<()> {
        let mut body = self.client.get_object().bucket(&self.bucket).key(key).send().await?.body;
        while let Some(chunk) = body.next().await {
            sink(&chunk?);
        }
        Ok(())
    }

    /// Ranges, some at once, handed on in order.
    pub async fn get_ranges(&self, key: &str, len: u64, sink: Sink<'_>) -> Result<()> {
        let ranges = (0..len).step_by(PART_SIZE as usize).map(|start| {
            let range = format!("bytes={start}-{}", len.min(start + PART_SIZE) - 1);
            let request = self.client.get_object().bucket(&self.bucket).key(key).range(range);
            async move { tokio::spawn(async move { anyhow::Ok(request.send().await?.body.collect().await?) }).await? }
        });
        let mut ranges = futures::stream::iter(ranges).buffered(CONCURRENCY);
        while let Some(range) = ranges.next().await {
            // Not `to_vec`: the chunks are handed on as they came.
            let mut range = range?;
            while bytes::Buf::has_remaining(&range) {
                let chunk = bytes::Buf::chunk(&range);
                sink(chunk);
                let taken = chunk.len();
                bytes::Buf::advance(&mut range, taken);
            }
        }
        Ok(())
    }

    /// Removes an object.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.client.delete_object().bucket(&self.bucket).key(key).send().await?;
        Ok(())
    }
}

async fn send_part(sdk: Sdk, key: String, id: Arc<str>, number: i32, part: Bytes) -> Result<CompletedPart> {
    let request = sdk.client.upload_part().bucket(&sdk.bucket).key(key).upload_id(&*id).part_number(number);
    let sent = request.body(ByteStream::from(part)).customize().disable_payload_signing().send().await?;
    Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build())
}

/// OpenDAL's S3 service, without any layer but those that it always has.
#[derive(Clone)]
pub struct OpenDal(Operator);

impl OpenDal {
    /// An operator of a server.
    pub fn new(server: &Seaweed) -> Result<Self> {
        // Its HTTP client is built with TLS even where none is used, and then needs a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        opendal_http_transport_reqwest::install_default();
        let service = S3::default()
            .bucket(BUCKET)
            .endpoint(&server.endpoint)
            .region(&server.region)
            .access_key_id(&server.access_key)
            .secret_access_key(&server.secret_key)
            .disable_config_load()
            .disable_ec2_metadata();
        Ok(Self(Operator::new(service)?))
    }

    /// One request.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<()> {
        self.0.write(key, data).await?;
        Ok(())
    }

    /// Parts, some at once.
    pub async fn put_parts(&self, key: &str, data: Bytes) -> Result<()> {
        self.0.write_with(key, data).chunk(PART_SIZE as usize).concurrent(CONCURRENCY).await?;
        Ok(())
    }

    /// One stream.
    pub async fn get(&self, key: &str, len: u64, sink: Sink<'_>) -> Result<()> {
        let reader = self.0.reader(key).await?;
        drain(reader, len, sink).await
    }

    /// Ranges, some at once, handed on in order.
    pub async fn get_ranges(&self, key: &str, len: u64, sink: Sink<'_>) -> Result<()> {
        let reader = self.0.reader_with(key).chunk(PART_SIZE as usize).concurrent(CONCURRENCY).await?;
        drain(reader, len, sink).await
    }
}

async fn drain(reader: opendal::Reader, len: u64, sink: Sink<'_>) -> Result<()> {
    let mut stream = reader.into_stream(0..len).await?;
    while let Some(buffer) = stream.try_next().await? {
        for chunk in buffer {
            sink(&chunk);
        }
    }
    Ok(())
}
