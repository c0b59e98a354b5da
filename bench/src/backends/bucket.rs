//! A bucket of SeaweedFS, next to aws-sdk-s3 alone: in one request, and in parts at once.

use std::path::Path;

use anyhow::Result;
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;

use super::{Contest, Input, Native, adapter};
use crate::peers::{Sdk, Sink};
use crate::place::Server;

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let server = Server::start(dir)?;
        let mut capabilities = Capabilities::none();
        capabilities.grant_bucket("objects", &server.grant())?;
        let sdk = Sdk::new(server.seaweed());
        Ok(Contest {
            backend: "s3",
            adapter: adapter("s3", capabilities, &[]).await?,
            reader: None,
            natives: vec![Box::new(Whole(sdk.clone())), Box::new(Parts(sdk))],
            small: None,
            cold: false,
            _server: Box::new(server),
        })
    })
}

/// One request for an object.
pub(super) struct Whole(pub(super) Sdk);

impl Native for Whole {
    fn name(&self) -> &'static str {
        "aws-sdk-s3, one request"
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            self.0.put(key, input.bytes.clone()).await?;
            Ok(key.to_owned())
        })
    }

    fn retrieve<'a>(&'a self, object: &'a str, _compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.get(object, sink))
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.delete(object))
    }
}

/// Parts, or ranges, some at once.
pub(super) struct Parts(pub(super) Sdk);

impl Native for Parts {
    fn name(&self) -> &'static str {
        "aws-sdk-s3, parts at once"
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            self.0.put_parts(key, input.bytes.clone()).await?;
            // A reader in ranges has to know the size.
            Ok(format!("{key} {}", input.bytes.len()))
        })
    }

    fn retrieve<'a>(&'a self, object: &'a str, _compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        let (key, size) = object.split_once(' ').unwrap_or((object, "0"));
        Box::pin(async move { self.0.get_ranges(key, size.parse()?, sink).await })
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.delete(object.split_once(' ').map_or(object, |(key, _)| key)))
    }
}
