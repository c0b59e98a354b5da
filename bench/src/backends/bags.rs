//! TON Storage: two daemons on a private network. Reading means that one fetches a bag from the other and
//! returns it. Beside it the daemon's own API, used directly.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{DirectoryGrant, HeaderCredential, HttpGrant, Secret};
use tidelock::runtime::Adapter;
use xtask::backends::ton::storage::{AUTHORIZATION, NAMES};
use xtask::backends::{TonNetwork, TonStorage};

use super::{Contest, Input, Native, adapter};
use crate::peers::Sink;

/// How often a daemon is asked whether it has a bag.
const POLL: Duration = Duration::from_millis(100);
/// When a fetch is given up.
const PATIENCE: u32 = 3000;

/// The network goes last.
struct Servers {
    first: TonStorage,
    second: TonStorage,
    _network: TonNetwork,
}

pub(super) fn set_up(dir: &Path) -> BoxFuture<'_, Result<Contest>> {
    Box::pin(async move {
        let network = TonNetwork::start_in(&dir.join("network"))?;
        let first = TonStorage::start_in(NAMES[0], &network.config(), &dir.join("first"))?;
        let second = TonStorage::start_in(NAMES[1], &network.config(), &dir.join("second"))?;
        let servers = Arc::new(Servers { first, second, _network: network });
        Ok(Contest {
            backend: "ton",
            adapter: member(&servers.first).await?,
            reader: Some(member(&servers.second).await?),
            natives: vec![Box::new(ByHand(servers.clone()))],
            small: Some(20),
            cold: false,
            _server: Box::new(servers),
        })
    })
}

async fn member(daemon: &TonStorage) -> Result<Arc<Adapter>> {
    let mut grant = HttpGrant::to([daemon.endpoint.as_str()])?;
    grant.connection.private_addresses = true;
    grant.credentials = Some(HeaderCredential { header: "authorization".into(), secret: Secret::new(AUTHORIZATION) });
    let mut capabilities = Capabilities::none();
    capabilities.grant_http("daemon", &grant)?;
    capabilities.grant_directory("shared", &DirectoryGrant::below(daemon.shared()))?;
    let shared = daemon.shared().display().to_string();
    adapter("ton", capabilities, &[("daemon_endpoint", &daemon.endpoint), ("shared_path", &shared)]).await
}

struct ByHand(Arc<Servers>);

impl ByHand {
    /// Asks one of the daemons, on a thread of its own.
    async fn ask(
        &self,
        which: fn(&Servers) -> &TonStorage,
        method: &'static str,
        path: String,
        body: Value,
    ) -> Result<Value> {
        let servers = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let said = which(&servers).ask(method, &path, &body)?;
            serde_json::from_str(&said).with_context(|| format!("{path}: {said}"))
        })
        .await?
    }
}

fn first(servers: &Servers) -> &TonStorage {
    &servers.first
}

fn second(servers: &Servers) -> &TonStorage {
    &servers.second
}

impl Native for ByHand {
    fn name(&self) -> &'static str {
        "the daemon's API"
    }

    fn store<'a>(&'a self, key: &'a str, input: &'a Input) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let path = self.0.first.shared().join(key);
            tokio::fs::copy(&input.file, &path).await.with_context(|| format!("cannot copy to {}", path.display()))?;
            let body = json!({"path": path, "description": ""});
            let made = self.ask(first, "POST", "create".into(), body).await?;
            Ok(format!("{} {key}", made["bag_id"].as_str().context("it names no bag")?))
        })
    }

    fn retrieve<'a>(&'a self, object: &'a str, _compare: bool, sink: Sink<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (object, _) = object.split_once(' ').context("a bag and its file")?;
            let place = self.0.second.shared();
            let body = json!({"bag_id": object, "path": place, "download_all": true});
            self.ask(second, "POST", "add".into(), body).await?;
            let path = format!("details?bag_id={object}");
            for _ in 0..PATIENCE {
                let details = self.ask(second, "GET", path.clone(), Value::Null).await?;
                // Before it knows what the bag holds, it counts it as complete.
                if ["info_loaded", "header_loaded", "completed"].iter().all(|key| details[key] == true) {
                    let text =
                        |value: &Value| value.as_str().map(str::to_owned).context("the details are not complete");
                    let file = Path::new(&text(&details["path"])?).join(text(&details["files"][0]["name"])?);
                    sink(&tokio::fs::read(&file).await.with_context(|| format!("cannot read {}", file.display()))?);
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
            bail!("the second daemon did not get bag {object}")
        })
    }

    fn remove<'a>(&'a self, object: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (object, key) = object.split_once(' ').context("a bag and its file")?;
            // With its files it would remove the folder that is shared.
            self.ask(first, "POST", "remove".into(), json!({"bag_id": object, "with_files": false})).await?;
            self.ask(second, "POST", "remove".into(), json!({"bag_id": object, "with_files": true})).await?;
            tokio::fs::remove_file(self.0.first.shared().join(key)).await?;
            Ok(())
        })
    }
}
