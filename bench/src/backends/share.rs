//! An export of NFS-Ganesha, next to the tools of libnfs, which speak NFSv3 without a mount too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::NfsGrant;
use xtask::backends::Ganesha;

use super::{Contest, Input, Native, adapter, program};
use crate::peers::Sink;

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let server = Arc::new(Ganesha::start_in(dir)?);
        let mut capabilities = Capabilities::none();
        capabilities.grant_nfs("objects", NfsGrant::parse(&server.url(), Some(server.mount_port))?);
        Ok(Contest {
            backend: "nfs",
            adapter: adapter("nfs", capabilities, &[]).await?,
            reader: None,
            natives: vec![Box::new(Libnfs { server: server.clone(), output: dir.join("output") })],
            small: None,
            cold: false,
            _server: Box::new(server),
        })
    })
}

struct Libnfs {
    server: Arc<Ganesha>,
    /// Where it writes what it reads: a file that is not there yet is all that it takes.
    output: PathBuf,
}

impl Native for Libnfs {
    fn name(&self) -> &'static str {
        "nfs-cp"
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let mut command = self.server.tool("nfs-cp")?;
            command.arg(&input.file).arg(self.server.libnfs_url(key));
            program::run(command).await?;
            Ok(key.to_owned())
        })
    }

    fn prepare<'a>(&'a self, _object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Ok(std::fs::remove_file(&self.output).or_else(absent)?) })
    }

    fn retrieve<'a>(&'a self, object: &'a str, compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut command = self.server.tool(if compare { "nfs-cat" } else { "nfs-cp" })?;
            command.arg(self.server.libnfs_url(object));
            if !compare {
                command.arg(&self.output);
            }
            program::read(command, compare, sink).await
        })
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        let path = self.server.export().join(object);
        Box::pin(async move { Ok(tokio::fs::remove_file(path).await?) })
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
