//! The location of a benchmark's files and server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, Secret};
use xtask::backends::Seaweed;

use crate::GIB;

/// The bucket of every server here.
pub const BUCKET: &str = "bench";
/// What the rest of the machine keeps when files go into memory.
const LEFT_OVER: u64 = 4 * GIB;

/// A folder in memory with room for `need` bytes; without such a one, a folder of the target directory.
pub fn fast(need: u64) -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map(|stat| stat.f_bavail * stat.f_frsize).unwrap_or(0);
    if room.min(available_memory().saturating_sub(LEFT_OVER)) < need {
        return on_disk();
    }
    Ok(tempfile::Builder::new().prefix("tidelock-bench-").tempdir_in(memory)?)
}

/// A folder on the disk that holds the target directory.
pub fn on_disk() -> Result<TempDir> {
    let parent = xtask::run::root().join("target/bench");
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    Ok(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?)
}

/// Memory that the kernel could give, caches included.
fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemAvailable:").unwrap_or(0)
}

/// A value of `/proc/meminfo` or `/proc/PID/status`, in bytes.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// A SeaweedFS of one's own with an empty bucket, and where its data is.
pub struct Server {
    /// The server. Before its folder, so that it is killed first.
    seaweed: Seaweed,
    dir: PathBuf,
}

impl Server {
    /// Starts one with its data below `parent`.
    pub fn start(parent: &Path) -> Result<Self> {
        let dir = parent.join("seaweed");
        fs::create_dir_all(&dir)?;
        let seaweed = Seaweed::start_in(&dir)?;
        seaweed.create_bucket(BUCKET)?;
        Ok(Self { seaweed, dir })
    }

    /// Where its data is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its endpoint and keys.
    pub fn seaweed(&self) -> &Seaweed {
        &self.seaweed
    }

    /// The grant of its bucket.
    pub fn grant(&self) -> BucketGrant {
        let credentials = BucketCredentials {
            access_key: self.seaweed.access_key.clone(),
            secret_key: Secret::new(self.seaweed.secret_key.clone()),
            session_token: None,
        };
        BucketGrant {
            endpoint: Some(self.seaweed.endpoint.clone()),
            path_style: true,
            credentials: Some(credentials),
            ..BucketGrant::of(self.seaweed.region.clone(), BUCKET)
        }
    }

    /// A configuration whose one backend `cloud` is this bucket, with its credentials in the environment under
    /// [`CREDENTIALS`].
    pub fn config(&self, data_dir: &Path) -> String {
        let Seaweed { endpoint, region, .. } = &self.seaweed;
        format!(
            "data_dir = {data_dir:?}\n[backends.cloud]\nadapter = \"s3\"\n\
             grants.bucket.objects = {{ endpoint = {endpoint:?}, region = {region:?}, bucket = {BUCKET:?}, \
             path_style = true, credentials = {{ env = {CREDENTIALS:?} }} }}\n\
             [routes.default]\nbackends = [\"cloud\"]\n"
        )
    }
}

/// What [`Server::config`] calls its credentials.
pub const CREDENTIALS: &str = "TIDELOCK_BENCH";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_bytes() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   12 kB\n";
        assert_eq!(field(status, "VmHWM:"), Some(12 << 10));
        assert_eq!(field(status, "VmRSS:"), None);
    }
}
