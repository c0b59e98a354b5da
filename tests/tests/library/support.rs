//! Hosts in folders of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelock::backend::Backend;
use tidelock::backend::testing::MemoryBackend;
use tidelock::capabilities::grant::{BucketCredentials, Secret};
use tidelock::config::{Config, CredentialRef};
use tidelock::{Body, Error, Host, HostOptions, NoSecrets, Result, Secrets, SnapshotId, Source, StoreOptions, Stored};
use tidelock_tests::data::assert_same;
use tidelock_tests::program::guest;

/// A component that was built with the other guests.
pub fn component(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).unwrap()
}

/// The same adapter under another digest: with a custom section behind it, which means nothing.
pub fn variant(name: &str, number: u8) -> Vec<u8> {
    let mut bytes = component(name);
    // Section 0, its length, the length of its name, its name, its content.
    bytes.extend([0, 9, 7]);
    bytes.extend(b"variant");
    bytes.push(number);
    bytes
}

/// One backend `mine`, with a guest or a built-in adapter and further lines of its table.
pub fn config(dir: &Path, adapter: &str, lines: &str) -> Config {
    let adapter = if adapter == "fs" { adapter.into() } else { guest(adapter).display().to_string() };
    let text = format!(
        "data_dir = \"data\"\n[backends.mine]\nadapter = \"{adapter}\"\ngrants.directory.objects = {{ path = \"objects\" }}\n{lines}\n"
    );
    Config::parse(&text, dir).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A host with that backend.
pub async fn host(dir: &Path, adapter: &str, lines: &str) -> Host {
    Host::start(&config(dir, adapter, lines), &NoSecrets).await.unwrap()
}

/// Lets tasks run until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("this never came: {what}");
}

/// Stores bytes that can be read again, as a file's can.
pub async fn store(host: &Host, bytes: &[u8]) -> Result<Stored> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    host.store(Source::open(file.path()).await?, StoreOptions::default()).await
}

/// All bytes of a snapshot.
pub async fn read(host: &Host, id: SnapshotId) -> Result<Bytes> {
    let retrieved = host.retrieve(id, None).await?;
    let body: Body = retrieved.body;
    body.collect(1 << 30).await
}

/// Stores and reads back.
pub async fn round_trip(host: &Host, bytes: &[u8]) -> Stored {
    let stored = store(host, bytes).await.unwrap();
    assert_same(&read(host, stored.id).await.unwrap(), bytes, "stored and read back");
    stored
}

/// The files that hold objects, those being written aside.
pub fn objects(dir: &Path) -> usize {
    let root = dir.join("objects");
    let all = tidelock_tests::program::files(&root).into_iter();
    let visible = |path: &PathBuf| !path.starts_with(root.join(".tmp")) && path.extension().is_none();
    // The one that identifies the container is not a snapshot.
    let snapshots = |path: &PathBuf| !tidelock_tests::program::is_identity(&path.to_string_lossy());
    all.filter(|path| visible(path) && snapshots(path)).count()
}

/// The one credential of a test server, whatever it is called.
pub struct Keys(pub String, pub String);

impl Secrets for Keys {
    fn bucket(&self, _: &CredentialRef) -> Result<BucketCredentials> {
        let secret_key = Secret::new(self.1.as_str());
        Ok(BucketCredentials { access_key: self.0.clone(), secret_key, session_token: None })
    }

    fn http(&self, _: &CredentialRef) -> Result<Secret> {
        Err(Error::invalid("no test sends a header"))
    }
}

/// A host with a route over the models `first` and `second`, with further lines of its table.
pub async fn host_on(dir: &Path, lines: &str, memory: &[Arc<MemoryBackend>; 2]) -> Host {
    let backend =
        |name| format!("[backends.{name}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = \"{name}\" }}\n");
    let route = format!("[routes.default]\nbackends = [\"first\", \"second\"]\n{lines}\n");
    let text = format!("data_dir = \"data\"\n{}{}{route}", backend("first"), backend("second"));
    let named = |memory: &Arc<MemoryBackend>| (memory.name().to_owned(), memory.clone() as Arc<dyn Backend>);
    let options = HostOptions { backends: memory.iter().map(named).collect(), ..HostOptions::default() };
    let config = Config::parse(&text, dir).unwrap();
    Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap()
}
