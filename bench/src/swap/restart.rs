//! The alternative to swaps: restarting the program under the same load, and counting failures.
//!
//! The real program serves over HTTP on loopback. The same number of clients store, read back and compare. It is
//! stopped (SIGTERM, after which requests in progress end), and restarted as soon as it has ended, with everything
//! compiled already: the best case of a restart. A client whose operation fails counts it once and waits until the
//! program is ready again, as a patient user would.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{BACKENDS, Plan, Shared};
use crate::place::{CREDENTIALS, Server};
use crate::stats::{median, rounded};
use crate::{data, peak};

/// How often the program is restarted.
const RESTARTS: usize = 10;
/// Load between two restarts.
const BETWEEN: Duration = Duration::from_secs(2);
/// How often one looks whether the program is ready.
const LOOK: Duration = Duration::from_millis(1);
/// A program that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What restarting costs.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// How often.
    pub restarts: usize,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed, all restarts together.
    pub failed: u64,
    /// Images that came back wrong.
    pub wrong: u64,
    /// The longest time around a restart in which no client got an answer: the median of all restarts.
    pub gap_ms: f64,
    /// The longest of all.
    pub most_ms: f64,
}

/// Restarts the program under load.
pub async fn run(plan: &Plan, dir: &Path, server: &Server, note: &impl Fn(&str)) -> Result<Restart> {
    let place = Place::new(dir, server)?;
    note(&format!("restarting the program {RESTARTS} times under {} clients", plan.clients));
    let mut daemon = place.start().await?;
    let common = Arc::new(Common::default());
    let client = |number: usize| {
        let client = Client {
            http: place.http.clone(),
            base: place.base.clone(),
            token: place.token.clone(),
            route: BACKENDS[number % BACKENDS.len()].0,
            common: common.clone(),
        };
        tokio::spawn(client.work(plan.size))
    };
    let clients: Vec<_> = (0..plan.clients).map(client).collect();
    let mut gaps = Vec::new();
    sleep(BETWEEN).await;
    for _ in 0..RESTARTS {
        let asked = Instant::now();
        daemon.stop().await?;
        daemon = place.start().await?;
        sleep(BETWEEN).await;
        gaps.push(gap(&lock(&common.answers), asked));
    }
    common.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    daemon.stop().await?;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(Restart {
        restarts: RESTARTS,
        operations: lock(&common.answers).len() as u64,
        failed: count(&common.failed),
        wrong: count(&common.wrong),
        gap_ms: rounded(median(&gaps), 0),
        most_ms: rounded(gaps.iter().copied().fold(0.0, f64::max), 0),
    })
}

/// The longest time between two answers of which the second came after `asked`, in milliseconds.
fn gap(answers: &[Instant], asked: Instant) -> f64 {
    let mut answers = answers.to_vec();
    answers.sort();
    let gaps = answers.windows(2).filter(|pair| pair[1] > asked).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3);
    gaps.fold(0.0, f64::max)
}

struct Place {
    program: PathBuf,
    config: PathBuf,
    keys: [(String, String); 2],
    log: PathBuf,
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Place {
    fn new(dir: &Path, server: &Server) -> Result<Self> {
        let dir = dir.join("restart");
        fs::create_dir_all(&dir)?;
        // Free now, and hardly anybody takes it within a moment.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let token = "a-token-of-the-benchmark".to_owned();
        fs::write(dir.join("token"), &token)?;
        // A token that others can read is refused.
        fs::set_permissions(dir.join("token"), fs::Permissions::from_mode(0o600))?;
        let service = format!("[service]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"token\"\n");
        let config = dir.join("tidelock.toml");
        fs::write(&config, super::config(&dir, server) + &service)?;
        let seaweed = server.seaweed();
        // The HTTP client is built with TLS even where none is used, and then needs a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keys = [("ACCESS_KEY_ID", &seaweed.access_key), ("SECRET_ACCESS_KEY", &seaweed.secret_key)];
        Ok(Self {
            program: peak::program()?,
            config,
            keys: keys.map(|(name, value)| (format!("{CREDENTIALS}_{name}"), value.clone())),
            log: dir.join("serve.log"),
            base: format!("http://127.0.0.1:{port}"),
            token,
            http: reqwest::Client::builder().build()?,
        })
    }

    async fn start(&self) -> Result<Daemon> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).arg("serve").envs(self.keys.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut daemon = Daemon(command.spawn().context("cannot start tidelock serve")?);
        let began = Instant::now();
        while !ready(&self.http, &self.base).await {
            if let Some(status) = daemon.0.try_wait()? {
                bail!("tidelock serve ended ({status}): {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            ensure!(began.elapsed() < PATIENCE, "tidelock serve is not ready");
            sleep(LOOK).await;
        }
        Ok(daemon)
    }
}

async fn ready(http: &reqwest::Client, base: &str) -> bool {
    http.get(format!("{base}/readyz")).send().await.is_ok_and(|answer| answer.status().is_success())
}

struct Daemon(Child);

impl Daemon {
    async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM)?;
        let began = Instant::now();
        while self.0.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "tidelock serve does not stop");
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Default)]
struct Common {
    stop: AtomicBool,
    failed: AtomicU64,
    wrong: AtomicU64,
    answers: Shared<Vec<Instant>>,
}

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
    route: &'static str,
    common: Arc<Common>,
}

/// What a store answers.
#[derive(Deserialize)]
struct Stored {
    id: String,
}

impl Client {
    async fn work(self, size: u64) -> Result<()> {
        let mut bytes = data::random(size)?;
        let mut round = 0_u64;
        while !self.common.stop.load(Ordering::Relaxed) {
            bytes[..8].copy_from_slice(&round.to_le_bytes());
            round += 1;
            let image = Bytes::from(bytes.clone());
            let Some(id) = self.counted(self.store(image.clone())).await else { continue };
            let Some(found) = self.counted(self.retrieve(&id)).await else { continue };
            if found != image {
                self.common.wrong.fetch_add(1, Ordering::Relaxed);
            }
            self.counted(self.remove(&id)).await;
        }
        Ok(())
    }

    async fn store(&self, image: Bytes) -> Result<String> {
        let url = format!("{}/v1/snapshots?route={}", self.base, self.route);
        let answer = self.http.put(url).bearer_auth(&self.token).body(image).send().await?.error_for_status()?;
        Ok(serde_json::from_slice::<Stored>(&answer.bytes().await?)?.id)
    }

    async fn retrieve(&self, id: &str) -> Result<Bytes> {
        let url = format!("{}/v1/snapshots/{id}", self.base);
        Ok(self.http.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.bytes().await?)
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let url = format!("{}/v1/snapshots/{id}", self.base);
        self.http.delete(url).bearer_auth(&self.token).send().await?.error_for_status()?;
        Ok(())
    }

    async fn counted<T>(&self, work: impl Future<Output = Result<T>>) -> Option<T> {
        match work.await {
            Ok(answer) => {
                lock(&self.common.answers).push(Instant::now());
                Some(answer)
            }
            Err(_) => {
                self.common.failed.fetch_add(1, Ordering::Relaxed);
                while !ready(&self.http, &self.base).await && !self.common.stop.load(Ordering::Relaxed) {
                    sleep(LOOK).await;
                }
                None
            }
        }
    }
}

fn lock<T>(shared: &Shared<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_one_after_the_restart_began() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let answers = [at(0), at(500), at(510), at(700), at(705)];
        assert_eq!(gap(&answers, at(505)), 190.0);
        assert_eq!(gap(&answers, at(520)), 190.0, "the last answer before it counts too");
    }
}
