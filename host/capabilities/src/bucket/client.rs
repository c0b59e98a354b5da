//! The `bucket` capability over Amazon's SDK, configured from the grant alone.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use futures::future::BoxFuture;

use super::connector::Connector;
use super::errors;
use super::habits::{Extras, Habits, Refused, refused};
use super::secrets::Secrets;
use super::{Bucket, Object, ObjectInfo, Page, PutOptions};
use crate::egress::{Origin, SystemNames};
use crate::grant::BucketGrant;
use crate::key::{check_beginning, check_key, check_within};
use crate::transport::{self, BehindProxy, LocalNames};
use tidelock_types::{Account, ArchiveState, Body, ByteRange, Error, Platform, Result, Unlimited};

/// The objects below a prefix of an S3-compatible bucket. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct S3Bucket(pub(super) Arc<BucketInner>, Arc<dyn Account>);

pub(super) struct BucketInner {
    pub(super) client: Client,
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) without_slash: bool,
    pub(super) part_size: u64,
    pub(super) concurrency: usize,
    pub(super) largest_part: u64,
    pub(super) copy_limit: u64,
    pub(super) habits: Habits,
    pub(super) stall_timeout: Duration,
    pub(super) secrets: Secrets,
    pub(super) platform: Platform,
}

impl S3Bucket {
    /// A client for a grant. Connects to nothing yet.
    ///
    /// # Errors
    /// `invalid` for a grant that makes no sense; `denied` for an endpoint at an address that the grant does not allow;
    /// `unavailable` without trusted certificates.
    pub fn open(grant: &BucketGrant) -> Result<Self> {
        Self::open_with(grant, Platform::system())
    }

    /// As [`Self::open`], with the caller's clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(grant: &BucketGrant, platform: Platform) -> Result<Self> {
        grant.validate()?;
        let secrets = Secrets::of(grant.credentials.as_ref());
        let timeouts = TimeoutConfig::builder().connect_timeout(grant.connection.connect_timeout).build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(grant.region.clone()))
            .force_path_style(grant.path_style)
            .http_client(connector(grant, secrets.clone())?)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // Stalls are detected here, in both directions: see `stall`.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Checksums of uploads are computed here, so that they can stand in a header and not in a trailer.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = &grant.endpoint {
            // The SDK puts the bucket right behind a path, so that has to end in a slash.
            config = config.endpoint_url(format!("{}/", endpoint.trim_end_matches('/')));
        }
        config = match &grant.credentials {
            None => config.allow_no_auth(),
            Some(credentials) => config.credentials_provider(Credentials::new(
                credentials.access_key.clone(),
                credentials.secret_key.expose().to_owned(),
                credentials.session_token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "grant",
            )),
        };
        let inner = Arc::new(BucketInner {
            client: Client::from_conf(config.build()),
            bucket: grant.bucket.clone(),
            prefix: grant.prefix.clone(),
            without_slash: grant.prefix_without_slash,
            part_size: grant.part_size,
            concurrency: grant.concurrency,
            largest_part: grant.largest_part,
            habits: Habits::of(grant),
            copy_limit: grant.copy_limit,
            stall_timeout: grant.connection.stall_timeout,
            secrets,
            platform,
        });
        Ok(Self(inner, Arc::new(Unlimited::default())))
    }
}

fn connector(grant: &BucketGrant, secrets: Secrets) -> Result<Connector> {
    let endpoint = grant.endpoint.as_deref().and_then(|endpoint| url::Url::parse(endpoint).ok());
    let origin = endpoint.map(|endpoint| Origin::of(&endpoint)).transpose()?;
    if let Some(origin) = &origin {
        origin.check_literal(grant.connection.private_addresses)?;
    }
    let settings = transport::Settings {
        // Reading the system's certificates takes milliseconds.
        encrypted: origin.is_none_or(|origin| origin.is_https()),
        http1_only: true,
        connection: &grant.connection,
    };
    Ok(Connector {
        client: transport::client(&settings, Arc::new(LocalNames))?,
        headers: grant.connection.headers,
        connect_timeout: grant.connection.connect_timeout,
        secrets,
        behind_proxy: BehindProxy::of(&grant.connection, Arc::new(SystemNames)),
    })
}

impl BucketInner {
    /// Converts an error of the SDK. `doing` is the step in words (`"sending part 3"`).
    pub(super) fn explain<E>(&self, doing: &str, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        errors::explain(doing, error, self.platform.since_epoch(), &self.secrets)
    }

    /// The same for a request with headers that not every service supports: names the setting that leaves them out.
    pub(super) fn explain_sent<E>(&self, doing: &str, error: &SdkError<E, HttpResponse>, sent: Extras) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let told = self.explain(doing, error);
        match refused(error, sent) {
            Some(Refused::Condition) => told.hint("set `conditional_writes = false` in the grant of this bucket"),
            Some(Refused::Checksum) => told.hint("set `checksums = false` in the grant of this bucket"),
            None => told,
        }
    }

    /// Checks a relative key and returns the full one.
    ///
    /// # Errors
    /// `denied` or `invalid` for one that is not allowed.
    pub(super) fn full_key(&self, key: &str) -> Result<String> {
        check_key(key)?;
        check_within(&self.prefix, self.without_slash, key)?;
        let full = format!("{}{key}", self.prefix);
        // Together they may be too long, or make a `..` of two dots.
        check_key(&full)?;
        Ok(full)
    }

    /// The same for the beginning of keys, which may be empty.
    pub(super) fn full_beginning(&self, beginning: &str) -> Result<String> {
        check_beginning(beginning)?;
        let full = format!("{}{beginning}", self.prefix);
        check_beginning(&full)?;
        Ok(full)
    }
}

impl Bucket for S3Bucket {
    fn put<'a>(&'a self, key: &'a str, data: Body, options: PutOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.0.put(key, data, options))
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<Object>> {
        Box::pin(self.0.get(key, range.unwrap_or_default()))
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<ObjectInfo>> {
        Box::pin(self.0.head(key))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.delete(key))
    }

    fn copy<'a>(&'a self, source: &'a str, target: &'a str, options: PutOptions) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.copy(source, target, options))
    }

    fn restore<'a>(&'a self, key: &'a str, days: u32, tier: &'a str) -> BoxFuture<'a, Result<ArchiveState>> {
        Box::pin(self.0.restore(key, days, tier))
    }

    fn list_objects<'a>(&'a self, prefix: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(self.0.list_objects(&self.1, prefix, cursor, limit))
    }

    fn for_operation(&self, account: &Arc<dyn Account>) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self(self.0.clone(), account.clone())))
    }

    fn gc(&self, older_than: Duration) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.gc(&self.1, older_than))
    }
}

impl std::fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Bucket")
            .field("bucket", &self.0.bucket)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}
