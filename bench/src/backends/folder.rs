//! A local folder, next to the standard library's own calls in the order that makes a file durable.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::DirectoryGrant;

use super::{Contest, Input, Native, adapter};
use crate::peers::Sink;

/// In how large pieces a file is read.
const CHUNK: usize = 2 << 20;

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let mut capabilities = Capabilities::none();
        capabilities.grant_directory("objects", &DirectoryGrant::below(dir.join("objects")))?;
        let files = dir.join("files");
        std::fs::create_dir_all(&files)?;
        Ok(Contest {
            backend: "fs",
            adapter: adapter("fs", capabilities, &[]).await?,
            reader: None,
            natives: vec![Box::new(Files(files))],
            small: None,
            cold: false,
            _server: Box::new(()),
        })
    })
}

struct Files(PathBuf);

impl Native for Files {
    fn name(&self) -> &'static str {
        "std::fs"
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        let (path, temporary) = (self.0.join(key), self.0.join(format!("{key}.part")));
        let (folder, bytes) = (self.0.clone(), input.bytes.clone());
        Box::pin(async move {
            tokio::task::spawn_blocking(move || -> Result<()> {
                let mut file = std::fs::File::create(&temporary)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)?;
                Ok(std::fs::File::open(folder)?.sync_all()?)
            })
            .await??;
            Ok(key.to_owned())
        })
    }

    fn retrieve<'a>(&'a self, object: &'a str, _compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        let path = self.0.join(object);
        Box::pin(async move {
            // On this thread: nothing else wants it meanwhile.
            let mut file = std::fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let mut chunk = vec![0; CHUNK];
            loop {
                match file.read(&mut chunk)? {
                    0 => return Ok(()),
                    count => sink(&chunk[..count]),
                }
            }
        })
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        let path = self.0.join(object);
        Box::pin(async move { Ok(tokio::fs::remove_file(path).await?) })
    }
}
