//! The setting of a case: its own host whose one backend is the adapter, on a unique prefix.
//!
//! The host is opened from a configuration's text, as a user's is, so grants, limits and manifests apply as usual.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidelock::config::Config;
use tidelock::runtime::Adapter;
use tidelock::types::{ObjectId, Receipt, StoreHint};
use tidelock::{Body, ByteRange, Host, Result, SnapshotId, Source, StoreOptions, Stored};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::faults::{Proxy, mix};

use crate::place::{Entry, Place, Want};

/// The backend of every host here.
pub const BACKEND: &str = "place";

/// The backend that keeps second copies, in a folder, where a case wants one.
pub const SPARE: &str = "spare";

/// How long the other side may stand still before it counts as stalled. Short, since stalls are waited for.
const HASTY: &str = "1500ms";
/// The same where nothing stalls: a busy machine is not a fault.
const PATIENT: &str = "60s";

/// More than any object here.
pub const MAX: usize = 1 << 30;

/// What a case is given.
pub struct Ground {
    /// The adapter.
    pub entry: Arc<Entry>,
    /// Where it keeps objects.
    pub place: Arc<dyn Place>,
    /// This case's own.
    pub prefix: String,
    /// This case's own.
    pub seed: u64,
    count: AtomicU64,
    /// The catalogues of its hosts.
    catalogues: Mutex<Vec<PathBuf>>,
}

/// A host on a place.
pub struct Bench {
    /// What stands for the server, if the case wants that.
    pub proxy: Option<Proxy>,
    /// The host.
    pub host: Host,
    /// What serves its one backend.
    pub adapter: Arc<Adapter>,
    dir: tempfile::TempDir,
}

/// How a host is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Through a proxy.
    pub through: bool,
    /// With little patience: for what stands still or is gone.
    pub hasty: bool,
    /// With credentials that are not allowed.
    pub stranger: bool,
    /// With a folder that keeps a second copy of every snapshot.
    pub spare: bool,
}

/// Compiled components, shared by the hosts of this process.
static COMPILED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new().prefix("tidelock-compiled-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
});

/// A folder for a host's own data.
pub fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("tidelock-conformance-").tempdir().unwrap();
    std::os::unix::fs::symlink(COMPILED.path(), dir.path().join("compiled")).unwrap();
    dir
}

/// Removes what this process has compiled; a `static` is not dropped.
pub fn clear() {
    let _ = std::fs::remove_dir_all(COMPILED.path());
}

impl Ground {
    pub fn new(entry: Arc<Entry>, place: Arc<dyn Place>, case: &str, seed: u64) -> Self {
        let prefix: String = case.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let prefix = prefix.to_ascii_lowercase();
        let seed = case.bytes().chain(entry.name.bytes()).fold(seed, |seed, byte| mix(seed, u64::from(byte)));
        Self { entry, place, prefix, seed, count: AtomicU64::new(1), catalogues: Mutex::default() }
    }

    /// A host that talks to the server itself.
    pub async fn open(&self) -> Bench {
        self.open_with(Options::default()).await
    }

    /// A host that talks to it through a proxy.
    pub async fn open_through(&self) -> Bench {
        self.open_with(Options { through: true, ..Options::default() }).await
    }

    /// A host with a catalogue of its own that is empty.
    pub async fn open_with(&self, options: Options) -> Bench {
        self.try_open(options).await.unwrap_or_else(|error| panic!("the host does not open: {error:?}"))
    }

    /// The same, which may fail.
    pub async fn try_open(&self, options: Options) -> Result<Bench> {
        let proxy = options.through.then(|| self.place.proxy(self.seed));
        let want =
            Want { prefix: &self.prefix, through: proxy.as_ref().map(|proxy| proxy.port), stranger: options.stranger };
        let dir = data_dir();
        let config = self.config(dir.path(), &want, options);
        let host = Host::start(&config, &self.place.keys(options.stranger)).await?;
        let adapter = host.adapter(BACKEND).await?;
        self.catalogues.lock().unwrap().push(dir.path().join("catalogue.sqlite"));
        Ok(Bench { proxy, host, adapter, dir })
    }

    fn config(&self, data: &Path, want: &Want<'_>, options: Options) -> Config {
        let limits = self.place.limits();
        let idle = if options.hasty { HASTY } else { PATIENT };
        let mut text = format!(
            "data_dir = {data:?}\n[backends.{BACKEND}]\nadapter = {:?}\nlimits = {{ idle = \"{idle}\"{limits} }}\n{}\n",
            self.place.component(),
            self.place.table(want)
        );
        if options.spare {
            text += &format!(
                "[backends.{SPARE}]\nadapter = \"fs\"\ngrants.directory.objects = {{ path = {:?} }}\n\
                 [routes.default]\nbackends = [\"{BACKEND}\", \"{SPARE}\"]\ncopies = 2\n",
                data.join(SPARE)
            );
        }
        Config::parse(&text, data).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Unique bytes.
    pub fn noise(&self, len: usize) -> Vec<u8> {
        noise(len, mix(self.seed, self.count.fetch_add(1, Ordering::Relaxed)))
    }

    /// A unique key.
    pub fn key(&self) -> String {
        format!("k{:016x}", mix(self.seed, 1 << 32 | self.count.fetch_add(1, Ordering::Relaxed)))
    }

    /// A hint with a fresh key.
    pub fn hint(&self, size: Option<u64>) -> StoreHint {
        StoreHint { key: self.key(), size, labels: Vec::new() }
    }

    /// What others see of this case's objects, without those by which hosts know the container.
    pub async fn visible(&self) -> BTreeMap<String, u64> {
        let mut seen = self.place.visible(&self.prefix).await;
        let catalogues = self.catalogues.lock().unwrap().clone();
        for catalogue in catalogues.iter().filter(|catalogue| catalogue.exists()) {
            let file = rusqlite::Connection::open(catalogue).unwrap();
            let mut query = file.prepare("SELECT object FROM containers").unwrap();
            let identities = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
            for identity in identities {
                seen.remove(&identity.unwrap());
            }
        }
        seen
    }

    /// Insists that others see just these objects, and soon: what was given up is cleared away behind the scenes.
    pub fn sees_only<'a>(&'a self, what: &'a str, expected: &'a [&'a ObjectId]) -> impl Future<Output = ()> + 'a {
        let mut expected: Vec<&str> = expected.iter().map(|id| id.as_str()).collect();
        expected.sort_unstable();
        async move {
            let mut seen: Vec<String> = Vec::new();
            for _ in 0..400 {
                seen = self.visible().await.into_keys().collect();
                if seen == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            panic!("{what}: others see {seen:?}, and should see {expected:?}");
        }
    }
}

impl Bench {
    /// The proxy.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("this host was opened through a proxy")
    }

    /// Stores bytes whose number is known.
    pub async fn store(&self, ground: &Ground, bytes: &[u8]) -> Result<Receipt> {
        let body = Body::from_bytes(Bytes::copy_from_slice(bytes));
        self.adapter.store(body, ground.hint(Some(bytes.len() as u64))).await
    }

    /// Stores them, makes sure that they can be read, and gives their id.
    pub async fn put(&self, ground: &Ground, bytes: &[u8]) -> ObjectId {
        let receipt = self.store(ground, bytes).await.unwrap_or_else(|error| panic!("store: {error:?}"));
        assert_eq!(receipt.size, bytes.len() as u64, "the receipt's size");
        ground.place.thaw(&self.adapter, &receipt.id).await;
        receipt.id
    }

    /// Reads an object, or a part of it.
    pub async fn read(&self, id: &ObjectId, range: Option<ByteRange>) -> Result<Bytes> {
        self.adapter.retrieve(id, range).await?.collect(MAX).await
    }

    /// Reads an object and insists that it is this.
    pub async fn expect(&self, id: &ObjectId, bytes: &[u8], what: &str) {
        let found = self.read(id, None).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_same(&found, bytes, what);
    }

    /// Stores an image as a user does, from a file.
    pub async fn store_image(&self, bytes: &[u8]) -> Result<Stored> {
        let (image, _file) = image(bytes).await;
        self.host.store(image, StoreOptions::default()).await
    }

    /// Stores an image as a change of another.
    pub async fn update_image(&self, base: SnapshotId, bytes: &[u8]) -> Result<Stored> {
        let (image, _file) = image(bytes).await;
        self.host.update(base, image, StoreOptions::default()).await
    }

    /// The object of a snapshot that was just stored, readable.
    pub async fn object_of(&self, ground: &Ground, stored: &Stored) -> ObjectId {
        let object = stored.placements[0].object.clone();
        ground.place.thaw(&self.adapter, &object).await;
        object
    }

    /// Reads the copy of one backend, through the adapter that serves it.
    pub async fn read_placement(&self, id: SnapshotId, backend: &str) -> Result<Bytes> {
        let stat = self.host.stat(id).await?;
        let live = stat.placements.iter().find(|placement| placement.backend == backend && placement.state == "live");
        let object = live.unwrap_or_else(|| panic!("no live copy on {backend}: {stat:?}")).object.clone();
        self.host.adapter(backend).await?.retrieve(&object, None).await?.collect(MAX).await
    }

    /// The sizes of the files of the backend that keeps second copies.
    pub fn spare_objects(&self) -> Vec<u64> {
        let files = tidelock_tests::program::files(&self.dir.path().join(SPARE));
        files.iter().filter_map(|path| Some(path.metadata().ok()?.len())).collect()
    }

    /// Reads a snapshot.
    pub async fn read_image(&self, id: SnapshotId, range: Option<ByteRange>) -> Result<Bytes> {
        self.host.retrieve(id, range).await?.body.collect(MAX).await
    }
}

/// A file with these bytes, open. A host sees if it changes meanwhile, its number of names too.
async fn image(bytes: &[u8]) -> (Source, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    (Source::open(file.path()).await.unwrap(), file)
}

/// Insists that something failed, and in this way.
#[track_caller]
pub fn fails<T>(outcome: Result<T>, kinds: &[&str], what: &str) -> tidelock::Error {
    match outcome {
        Ok(_) => panic!("{what}: it was taken for a success, and should be {}", kinds.join(" or ")),
        Err(error) => {
            let kind = error.kind().name();
            assert!(kinds.contains(&kind), "{what}: {kind} where it should be {}: {error:?}", kinds.join(" or "));
            error
        }
    }
}
