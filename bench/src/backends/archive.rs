//! Cold storage: moto in the class `GLACIER`, beside aws-sdk-s3 in one request and in parts. Only reads of restored
//! objects are measured; the duration of a restore is up to the backend.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, Secret};
use tidelock::runtime::Adapter;
use tidelock::types::{ArchiveState, ObjectId};
use xtask::backends::Moto;
use xtask::backends::moto::{BUCKET, REGION};

use super::bucket::{Parts, Whole};
use super::{Contest, Input, Native, adapter};
use crate::peers::{Place, Sdk, Sink};

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let server = Moto::start_in(dir)?;
        let credentials = BucketCredentials {
            access_key: server.keys.access_key.clone(),
            secret_key: Secret::new(server.keys.secret_key.clone()),
            session_token: None,
        };
        let grant = BucketGrant {
            endpoint: Some(server.endpoint.clone()),
            path_style: true,
            credentials: Some(credentials),
            ..BucketGrant::of(REGION, BUCKET)
        };
        let mut capabilities = Capabilities::none();
        capabilities.grant_bucket("objects", &grant)?;
        let adapter = adapter("glacier", capabilities, &[]).await?;
        let sdk = Sdk::of(Place {
            endpoint: &server.endpoint,
            region: REGION,
            bucket: BUCKET,
            keys: (&server.keys.access_key, &server.keys.secret_key),
            class: Some("GLACIER"),
        });
        Ok(Contest {
            backend: "glacier",
            natives: vec![
                Box::new(Cold { sdk: Whole(sdk.clone()), adapter: adapter.clone() }),
                Box::new(Cold { sdk: Parts(sdk), adapter: adapter.clone() }),
            ],
            adapter,
            reader: None,
            small: Some(30),
            cold: true,
            _server: Box::new(server),
        })
    })
}

/// Restores an object and waits until it can be read.
pub(super) async fn thaw(adapter: &Adapter, id: &ObjectId) -> Result<()> {
    adapter.restore(id, 1).await?;
    for _ in 0..500 {
        if matches!(adapter.stat(id).await?.archive, Some(ArchiveState::Readable(_))) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{id} is not restored after ten seconds")
}

/// The SDK; the adapter restores for it, outside of what is measured.
struct Cold<N> {
    sdk: N,
    adapter: Arc<Adapter>,
}

impl<N: Native> Native for Cold<N> {
    fn name(&self) -> &'static str {
        self.sdk.name()
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        self.sdk.store(key, input)
    }

    fn prepare<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        let (key, _) = object.split_once(' ').unwrap_or((object, ""));
        Box::pin(async move { thaw(&self.adapter, &ObjectId::new(key)?).await })
    }

    fn retrieve<'a>(&'a self, object: &'a str, compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        self.sdk.retrieve(object, compare, sink)
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        self.sdk.remove(object)
    }
}
