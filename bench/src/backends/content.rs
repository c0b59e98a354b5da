//! IPFS: a Kubo node, beside Kubo's own command line on the same node, with the same chunker and kind of CID.
//!
//! The adapter reads from the node's trustless gateway and verifies every block; `ipfs cat` trusts its node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::HttpGrant;
use xtask::backends::Kubo;

use super::{Contest, Input, Native, adapter, program};
use crate::peers::Sink;

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let node = Arc::new(Kubo::start_in(dir)?);
        let mut capabilities = Capabilities::none();
        for (name, origin) in [("rpc", &node.rpc), ("gateway", &node.gateway)] {
            let mut grant = HttpGrant::to([origin.as_str()])?;
            grant.connection.private_addresses = true;
            capabilities.grant_http(name, &grant)?;
        }
        let settings = [("rpc", node.rpc.as_str()), ("gateway", node.gateway.as_str())];
        Ok(Contest {
            backend: "ipfs",
            adapter: adapter("ipfs", capabilities, &settings).await?,
            reader: None,
            natives: vec![Box::new(CommandLine(node.clone()))],
            small: None,
            cold: false,
            _server: Box::new(node),
        })
    })
}

struct CommandLine(Arc<Kubo>);

impl Native for CommandLine {
    fn name(&self) -> &'static str {
        "ipfs add, ipfs cat"
    }

    fn store<'a>(&'a self, _key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let mut command = self.0.ipfs();
            // As the adapter stores: one MiB to a leaf.
            command.args(["add", "--quieter", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576"]);
            command.arg(&input.file);
            program::run(command).await
        })
    }

    fn retrieve<'a>(&'a self, object: &'a str, compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut command = self.0.ipfs();
            command.args(["cat", "--progress=false", object]);
            program::read(command, compare, sink).await
        })
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut command = self.0.ipfs();
            command.args(["pin", "rm", object]);
            program::run(command).await.map(drop)
        })
    }
}
