//! The environment of the puppet: an engine, its capabilities, and a folder that it must not leave.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use tempfile::TempDir;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::directory::{Directory, File, FileInfo, Page, WriteOptions};
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, DirectoryGrant, HttpGrant, Secret};
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox, Trust};
use tidelock::types::{Description, SettingValue};
use tidelock::{Body, ByteRange, Error, Result};
use tokio::runtime::{Builder, Runtime};

/// A port without a listener.
const NOWHERE: &str = "http://127.0.0.1:1";
/// What nothing here can take unless it hangs.
const HANG: Duration = Duration::from_secs(15);
/// What lies beside the folder of the puppet.
const SENTINEL: &[u8] = b"not the puppet's";

/// All that outlives an input. Each operation has an instance of its own.
pub(super) struct World {
    runtime: Runtime,
    engine: Arc<Sandbox>,
    spec: BackendSpec,
    component: Vec<u8>,
    stage: Arc<Stage>,
    folder: TempDir,
    pub(super) adapter: Arc<Adapter>,
}

impl World {
    pub(super) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(4).build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("sentinel"), SENTINEL).expect("a file in it");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/adapters/puppet.wasm");
        let component = fs::read(&path).expect("the puppet: `cargo xtask guests` builds it");
        let options = EngineOptions {
            operations: 4,
            largest_memory: 64 << 20,
            cache: Some(folder.path().join("compiled")),
            ..EngineOptions::default()
        };
        let engine = Sandbox::new(options).expect("an engine");
        let stage = Arc::new(Stage::default());
        let spec = BackendSpec {
            name: "puppets".to_owned(),
            capabilities: capabilities(&stage, folder.path()),
            settings: BTreeMap::new(),
            limits: Limits {
                memory: 16 << 20,
                deadline: Duration::from_secs(5),
                idle: Duration::from_secs(1),
                cpu: Duration::from_secs(2),
                ..Limits::default()
            },
            trust: Trust::default(),
        };
        let adapter = runtime.block_on(Adapter::load(&engine, &spec, component.clone())).expect("the puppet loads");
        Self { runtime, engine, spec, component, stage, folder, adapter: Arc::new(adapter) }
    }

    /// Puts a script on the stage and runs an operation to its end.
    pub(super) fn act<T>(&self, script: &[u8], operation: impl Future<Output = Result<T>>) -> Result<T> {
        *self.stage.0.lock().unwrap_or_else(PoisonError::into_inner) = Bytes::copy_from_slice(script);
        let bounded = async { tokio::time::timeout(HANG, operation).await };
        self.runtime.block_on(bounded).expect("an end: the operation hangs")
    }

    /// What the puppet says of itself, told to by a setting.
    pub(super) async fn describe(&self, script: &[u8]) -> Result<Description> {
        let script = SettingValue::Text(String::from_utf8_lossy(script).into_owned());
        let settings = BTreeMap::from([("script".to_owned(), script)]);
        let spec = BackendSpec { settings, ..self.spec.clone() };
        let adapter = Adapter::load(&self.engine, &spec, self.component.clone()).await?;
        Ok(adapter.description().clone())
    }

    /// Everything that was written is in the puppet's folder; it is removed.
    pub(super) fn check_folder(&self) {
        let names = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).expect("the folder");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        };
        let root = self.folder.path();
        let beside = names(root);
        let known = ["compiled", "objects", "sentinel"].map(|name| root.join(name));
        assert!(beside.iter().all(|path| known.contains(path)), "something lies where it must not: {beside:?}");
        assert_eq!(fs::read(root.join("sentinel")).expect("the sentinel"), SENTINEL, "a file outside was changed");
        for path in names(&root.join("objects")) {
            if path.file_name().is_some_and(|name| name == ".tmp") {
                continue;
            }
            let kind = path.symlink_metadata().expect("an entry").file_type();
            let gone = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("an entry that can be removed");
        }
    }
}

fn capabilities(stage: &Arc<Stage>, folder: &Path) -> Capabilities {
    let mut granted = Capabilities::none();
    granted.provide_directory("stage", stage.clone());
    granted.grant_directory("objects", &DirectoryGrant::below(folder.join("objects"))).expect("a directory");
    let mut http = HttpGrant::to([NOWHERE]).expect("an origin");
    http.connection.private_addresses = true;
    granted.grant_http("api", &http).expect("a client");
    let mut bucket = BucketGrant::of("us-east-1", "vm");
    bucket.endpoint = Some(NOWHERE.to_owned());
    bucket.path_style = true;
    bucket.prefix = "agents/".to_owned();
    bucket.credentials = Some(BucketCredentials {
        access_key: "key".to_owned(),
        secret_key: Secret::new("hush-hush"),
        session_token: None,
    });
    granted.grant_bucket("bucket", &bucket).expect("a bucket");
    granted
}

/// The directory that holds the script and nothing else.
#[derive(Default)]
struct Stage(Mutex<Bytes>);

impl Directory for Stage {
    fn write<'a>(&'a self, _: &'a str, data: Body, _: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        async move { data.collect(1 << 20).await.map(|bytes| bytes.len() as u64) }.boxed()
    }

    fn read<'a>(&'a self, _: &'a str, _: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        let script = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let info = FileInfo { size: script.len() as u64, modified: None };
        async move { Ok(File { info, body: Body::from_bytes(script) }) }.boxed()
    }

    fn stat<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        async { Err(Error::not_found("no such file on the stage")) }.boxed()
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn list_entries<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: u32) -> BoxFuture<'a, Result<Page>> {
        async { Ok(Page::default()) }.boxed()
    }

    fn write_holds(&self, size: Option<u64>) -> u64 {
        size.unwrap_or(1 << 20).min(1 << 20)
    }

    fn open_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn read_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        1024 * u64::from(limit)
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        async { Ok(0) }.boxed()
    }
}
