//! Damage and outages of one copy while another is whole: no reader notices, whatever is wrong and wherever, and a store
//! counts no copy that is known to be bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelock::backend::testing::MemoryBackend;
use tidelock::backend::{Backend, Operation};
use tidelock::config::Config;
use tidelock::snapshot::{SEGMENT, StreamSource};
use tidelock::types::{ArchiveState, PaymentDue};
use tidelock::{ByteRange, ErrorKind, Host, HostOptions, Image, NoSecrets, Result, Source, StoreOptions, Stored};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::program::{files, guest};

/// A route of two backends in folders, `first` and `second`, and as many copies.
fn two(copies: usize) -> String {
    routed(copies, "adapter = \"fs\"\nsettings = { layout = \"flat\" }")
}

/// The same over an adapter that reads no ranges: the host cuts them out of whole objects.
fn two_without_ranges() -> String {
    let adapter = guest("copying");
    routed(2, &format!("adapter = \"{}\"\nsettings = {{ ranges = false }}", adapter.display()))
}

fn routed(copies: usize, adapter: &str) -> String {
    let backend = |name| format!("[backends.{name}]\n{adapter}\ngrants.directory.objects = {{ path = \"{name}\" }}\n");
    let route = format!("[routes.default]\nbackends = [\"first\", \"second\"]\ncopies = {copies}\n");
    format!("data_dir = \"data\"\n{}{}{route}", backend("first"), backend("second"))
}

/// A host with that route over two models.
async fn models(dir: &Path, copies: usize) -> (Host, [Arc<MemoryBackend>; 2]) {
    let memory = ["first", "second"].map(|name| Arc::new(MemoryBackend::new(name)));
    let named = |memory: &Arc<MemoryBackend>| (memory.name().to_owned(), memory.clone() as Arc<dyn Backend>);
    let options = HostOptions { backends: memory.iter().map(named).collect(), ..HostOptions::default() };
    let config = Config::parse(&two(copies), dir).unwrap();
    (Host::start_with(&config, Arc::new(NoSecrets), options).await.unwrap(), memory)
}

pub async fn store_file(host: &Host, path: &Path, bytes: &[u8], options: StoreOptions) -> Result<Stored> {
    fs::write(path, bytes).unwrap();
    host.store(Source::open(path).await?, options).await
}

fn named(name: &str) -> StoreOptions {
    StoreOptions { name: Some(name.to_owned()), ..StoreOptions::default() }
}

/// What a backend can say that keeps it from serving, whatever is asked of another one.
fn refusals() -> Vec<ErrorKind> {
    vec![
        ErrorKind::Denied,
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
        ErrorKind::Conflict,
        ErrorKind::NotFound,
        ErrorKind::Corrupt,
        ErrorKind::Unavailable,
        ErrorKind::RateLimited(None),
        ErrorKind::InsufficientBalance(PaymentDue::default()),
        ErrorKind::Trapped,
        ErrorKind::Limit,
        ErrorKind::TimedOut,
        ErrorKind::Archived(ArchiveState::Archived),
        ErrorKind::Other,
    ]
}

#[tokio::test]
async fn a_store_continues_on_the_secondary_after_any_error() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, _]) = models(dir.path(), 1).await;
    for (number, kind) in refusals().into_iter().enumerate() {
        first.fail_next(Operation::Put, kind.clone(), false);
        let bytes = noise(1000 + number, number as u64);
        let stored = store_file(&host, &dir.path().join("image"), &bytes, StoreOptions::default()).await;
        let stored = stored.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(stored.placements[0].backend, "second", "{kind:?}");
    }
}

#[tokio::test]
async fn a_read_continues_on_the_secondary_after_any_error() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let bytes = noise(3 * SEGMENT + 7, 2);
    let stored = store_file(&host, &dir.path().join("image"), &bytes, StoreOptions::default()).await.unwrap();
    let range = ByteRange::of(SEGMENT as u64 - 9, 100);
    for kind in refusals() {
        // An earlier one may have left the primary to be tried last.
        for memory in [&first, &second] {
            memory.fail_next(Operation::Get, kind.clone(), false);
            memory.fail_next(Operation::Get, kind.clone(), false);
            let read = host.retrieve(stored.id, None).await.unwrap().body.collect(bytes.len()).await;
            assert_same(&read.unwrap_or_else(|error| panic!("{kind:?}: {error}")), &bytes, "whole");
            let part = host.retrieve(stored.id, Some(range)).await.unwrap().body.collect(100).await;
            assert_same(&part.unwrap(), &bytes[SEGMENT - 9..SEGMENT + 91], "a part");
            memory.fail_no_more();
        }
    }
}

#[tokio::test]
async fn a_failed_store_moves_no_name_and_reports_its_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let image = dir.path().join("image");
    let old = store_file(&host, &image, &noise(5000, 1), named("web")).await.unwrap();
    second.fail_next(Operation::Put, ErrorKind::Unavailable, false);
    let bytes = noise(6000, 2);
    let error = store_file(&host, &image, &bytes, named("web")).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Unavailable, Some("second")));
    let left = error.left().expect("it says what is left").clone();
    let kept: tidelock::SnapshotId = left.snapshot.parse().unwrap();
    assert!(error.message().contains(&left.snapshot), "{error}");
    assert!(error.message().contains("kept on `first`, without a name"), "{error}");
    assert_eq!(left.placements.iter().map(|(backend, _)| backend.as_str()).collect::<Vec<_>>(), ["first"]);
    // The name is where it was; the rest is a snapshot without one, and it is whole.
    assert_eq!(host.find("web").await.unwrap(), old.id);
    assert_eq!(host.stat(kept).await.unwrap().name, None);
    let read = host.retrieve(kept, None).await.unwrap().body.collect(bytes.len()).await.unwrap();
    assert_same(&read, &bytes, "what is kept");
    // The second time only what is missing is sent, and the name goes with it.
    let objects = first.objects();
    let done = store_file(&host, &image, &bytes, named("web")).await.unwrap();
    assert_eq!((done.id, done.placements.len(), done.stored_bytes), (kept, 2, bytes.len() as u64));
    assert_eq!((host.find("web").await.unwrap(), first.objects()), (done.id, objects));
}

#[tokio::test]
async fn an_image_that_changes_between_its_copies_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    let image = dir.path().join("image");
    fs::write(&image, noise(3 * SEGMENT, 1)).unwrap();
    let source = Source::open(&image).await.unwrap();
    let path = image.clone();
    first.after_next_put(move || {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 5).unwrap();
    });
    let error = host.store(source, named("web")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(host.list(None, 10).await.unwrap().snapshots, []);
    let images = |memory: &MemoryBackend| memory.objects().iter().filter(|name| name.starts_with("snap-")).count();
    assert_eq!((images(&first), images(&second)), (0, 0), "what was made is removed");
}

fn stream(bytes: &[u8]) -> Source {
    Source::Stream(StreamSource::new(std::io::Cursor::new(bytes.to_vec()), "a pipe").allow_empty())
}

#[tokio::test]
async fn a_stream_gets_as_many_copies_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (host, [first, second]) = models(dir.path(), 2).await;
    for (number, len) in [0, 5000, 3 * SEGMENT, 3 * SEGMENT + 1].into_iter().enumerate() {
        let bytes = noise(len, number as u64);
        let stored = host.store(stream(&bytes), named("web")).await.unwrap();
        assert_eq!(stored.placements.len(), 2, "{len}");
        for (memory, placement) in [&first, &second].into_iter().zip(&stored.placements) {
            assert_eq!(memory.name(), placement.backend);
            assert_same(&memory.bytes(placement.object.as_str()).unwrap(), &bytes, &placement.backend);
        }
        assert_eq!(host.store(stream(&bytes), named("web")).await.unwrap().stored_bytes, 0, "{len}");
    }
    // A second backend that fails leaves the first copy, without a name; one that was damaged on its way leaves nothing.
    let old = host.find("web").await.unwrap();
    second.fail_next(Operation::Put, ErrorKind::Unavailable, false);
    let error = host.store(stream(&noise(7000, 8)), named("web")).await.unwrap_err();
    assert_eq!(error.left().map(|left| left.placements.len()), Some(1), "{error}");
    let (kept, others) = (first.objects(), second.objects());
    let (damaging, before_first) = (first.clone(), kept.clone());
    first.after_next_put(move || {
        let new = damaging.objects().into_iter().find(|name| !before_first.contains(name)).unwrap();
        assert!(damaging.damage(&new, |bytes| bytes[9] ^= 1));
    });
    let count = host.list(None, 100).await.unwrap().snapshots.len();
    let error = host.store(stream(&noise(8000, 9)), named("web")).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Corrupt, Some("first")), "{error:?}");
    assert_eq!((first.objects(), second.objects()), (kept, others));
    assert_eq!((host.find("web").await.unwrap(), host.list(None, 100).await.unwrap().snapshots.len()), (old, count));
}

/// A host over two folders, and a snapshot with a copy in each.
struct TwoFolders {
    dir: tempfile::TempDir,
    host: Host,
    bytes: Vec<u8>,
    stored: Stored,
}

impl TwoFolders {
    async fn start(bytes: Vec<u8>) -> Self {
        Self::with(&two(2), bytes).await
    }

    async fn with(config: &str, bytes: Vec<u8>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(&Config::parse(config, dir.path()).unwrap(), &NoSecrets).await.unwrap();
        let stored = store_file(&host, &dir.path().join("image"), &bytes, StoreOptions::default()).await.unwrap();
        Self { dir, host, bytes, stored }
    }

    /// Goes on with another image.
    async fn store(&mut self, bytes: Vec<u8>) {
        let image = self.dir.path().join("image");
        self.stored = store_file(&self.host, &image, &bytes, StoreOptions::default()).await.unwrap();
        self.bytes = bytes;
    }

    fn object(&self, backend: &str) -> PathBuf {
        let placement = self.stored.placements.iter().find(|placement| placement.backend == backend).unwrap();
        self.dir.path().join(backend).join(placement.object.as_str())
    }

    async fn state(&self, backend: &str) -> (String, Option<String>) {
        let stat = self.host.stat(self.stored.id).await.unwrap();
        let placement = stat.placements.into_iter().find(|placement| placement.backend == backend).unwrap();
        (placement.state.to_owned(), placement.reason)
    }

    async fn open(&self) -> Image {
        self.host.open(self.stored.id).await.unwrap()
    }
}

/// What can be wrong with the object of a copy.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(usize),
    Cut(usize),
    Longer,
    Gone,
}

impl Harm {
    fn all(len: usize) -> Vec<Self> {
        let places = [0, len / 2, len - 1];
        let flips = places.map(Self::Flip).into_iter();
        flips.chain(places.map(Self::Cut)).chain([Self::Longer, Self::Gone]).collect()
    }

    fn apply_to(self, object: &Path) {
        let mut bytes = fs::read(object).unwrap();
        match self {
            Self::Flip(at) => bytes[at] ^= 1,
            Self::Cut(len) => bytes.truncate(len),
            Self::Longer => bytes.push(0),
            Self::Gone => return fs::remove_file(object).unwrap(),
        }
        fs::write(object, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_notices_a_damaged_copy() {
    damaged_copies(&two(2), &["whole", "start", "middle", "end", "read_at", "read_range"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_notices_a_damaged_copy_behind_an_adapter_without_ranges() {
    damaged_copies(&two_without_ranges(), &["whole", "middle", "end"]).await;
}

async fn damaged_copies(config: &str, ways: &[&str]) {
    let len = 2 * SEGMENT + 77;
    let mut two = TwoFolders::with(config, noise(len, 3)).await;
    for (number, harm) in Harm::all(len).into_iter().enumerate() {
        for (way, seed) in ways.iter().copied().zip(10 * (number as u64 + 1)..) {
            two.store(noise(len, seed)).await;
            harm.apply_to(&two.object("first"));
            let image = two.open().await;
            let range = match way {
                "start" => 0..9,
                "middle" => len / 2 - SEGMENT..len / 2 + SEGMENT,
                "end" => len - 9..len,
                _ => 0..len,
            };
            let wanted = (way != "whole").then(|| ByteRange::of(range.start as u64, range.len() as u64));
            let found = match way {
                "read_at" => {
                    let mut buffer = vec![0; len];
                    assert_eq!(image.read_at(0, &mut buffer).await.unwrap(), len);
                    buffer
                }
                "read_range" => image.read_range(wanted.unwrap()).await.unwrap().to_vec(),
                _ => {
                    let part = image.stream(wanted).await.unwrap_or_else(|error| panic!("{harm:?}, {way}: {error:?}"));
                    assert_eq!(part.size, range.len() as u64);
                    let bytes = part.body.collect(len).await;
                    bytes.unwrap_or_else(|error| panic!("{harm:?}, {way}: {error:?}")).to_vec()
                }
            };
            assert_same(&found, &two.bytes[range.clone()], &format!("{harm:?}, {way}"));
            let (state, reason) = two.state("first").await;
            // What lies beside a range is not looked at.
            let met = match harm {
                Harm::Gone => true,
                Harm::Flip(at) => range.start / SEGMENT <= at / SEGMENT && at / SEGMENT <= (range.end - 1) / SEGMENT,
                Harm::Cut(at) => at < range.end.next_multiple_of(SEGMENT).min(len),
                Harm::Longer => way == "whole",
            };
            assert_eq!(state, if met { "bad" } else { "live" }, "{harm:?}, {way}: {reason:?}");
            assert_eq!(reason.is_some(), met, "{harm:?}, {way}");
            assert_eq!(two.state("second").await.0, "live");
        }
    }
}

#[tokio::test]
async fn a_damaged_copy_is_not_counted_and_a_good_one_takes_its_place() {
    for harm in Harm::all(SEGMENT + 5) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(&Config::parse(&two(1), dir.path()).unwrap(), &NoSecrets).await.unwrap();
        let (image, bytes) = (dir.path().join("image"), noise(SEGMENT + 5, 4));
        let stored = store_file(&host, &image, &bytes, StoreOptions::default()).await.unwrap();
        let object = stored.placements[0].object.clone();
        harm.apply_to(&dir.path().join("first").join(object.as_str()));
        let read = host.retrieve(stored.id, None).await;
        let failed = match read {
            Ok(retrieved) => retrieved.body.collect(bytes.len()).await.err(),
            Err(error) => Some(error),
        };
        // The bytes of one that is too long are all there and right.
        assert_eq!(failed.is_none(), matches!(harm, Harm::Longer), "{harm:?}: {failed:?}");
        if let Some(error) = &failed {
            assert_eq!(error.backend(), Some("first"), "{harm:?}");
            assert!(error.advice().is_some_and(|hint| hint.contains("store the image again")), "{harm:?}: {error:?}");
        }
        let again = store_file(&host, &image, &bytes, StoreOptions::default()).await.unwrap();
        assert_eq!((again.id, again.stored_bytes), (stored.id, bytes.len() as u64), "{harm:?}");
        assert_ne!(again.placements[0].object, object, "{harm:?}");
        let read = host.retrieve(stored.id, None).await.unwrap().body.collect(bytes.len()).await.unwrap();
        assert_same(&read, &bytes, "after it was stored again");
        let third = store_file(&host, &image, &bytes, StoreOptions::default()).await.unwrap();
        assert_eq!((third.stored_bytes, &third.placements), (0, &again.placements), "{harm:?}");
    }
}

#[tokio::test]
async fn a_stream_is_kept_unless_what_is_there_already_is_whole() {
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(&Config::parse(&two(1), dir.path()).unwrap(), &NoSecrets).await.unwrap();
        let bytes = noise(SEGMENT + 5, 5);
        let first = host.store(stream(&bytes), StoreOptions::default()).await.unwrap();
        let object = dir.path().join("first").join(first.placements[0].object.as_str());
        if damaged {
            // Of the right size: a look at it alone would find nothing.
            Harm::Flip(SEGMENT + 1).apply_to(&object);
        }
        let second = host.store(stream(&bytes), StoreOptions::default()).await.unwrap();
        assert_eq!(second.placements[0].object == first.placements[0].object, !damaged);
        assert_eq!(second.stored_bytes, if damaged { bytes.len() as u64 } else { 0 });
        let objects = files(&dir.path().join("first"));
        let images = objects.iter().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap-"));
        assert_eq!(images.count(), if damaged { 2 } else { 1 });
        let read = host.retrieve(first.id, None).await.unwrap().body.collect(bytes.len()).await.unwrap();
        assert_same(&read, &bytes, "the copy that counts");
    }
}

#[tokio::test]
async fn a_copy_that_reads_whole_is_live_again() {
    let two = TwoFolders::start(noise(2 * SEGMENT, 6)).await;
    let object = two.object("first");
    let sound = fs::read(&object).unwrap();
    Harm::Flip(7).apply_to(&object);
    two.host.retrieve(two.stored.id, None).await.unwrap().body.collect(two.bytes.len()).await.unwrap();
    assert_eq!(two.state("first").await.0, "bad");
    // The other one goes, and this one is as it was again: a part of it proves nothing, all of it does.
    fs::write(&object, sound).unwrap();
    fs::remove_file(two.object("second")).unwrap();
    let part = two.open().await.stream(Some(ByteRange::of(0, 5))).await.unwrap();
    assert_same(&part.body.collect(5).await.unwrap(), &two.bytes[..5], "a part");
    assert_eq!(two.state("first").await.0, "bad");
    let whole = two.host.retrieve(two.stored.id, None).await.unwrap();
    assert_eq!(whole.source, "first");
    assert_same(&whole.body.collect(two.bytes.len()).await.unwrap(), &two.bytes, "the whole");
    assert_eq!(two.state("first").await, ("live".to_owned(), None));
    assert_eq!(two.state("second").await.0, "bad");
}

#[tokio::test]
async fn a_damaged_side_file_loses_only_the_labels() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(&Config::parse(&two(1), dir.path()).unwrap(), &NoSecrets).await.unwrap();
    let (image, bytes) = (dir.path().join("image"), noise(5000, 7));
    let stored = store_file(&host, &image, &bytes, named("web")).await.unwrap();
    let side = dir.path().join("first").join(format!("{}.base", stored.placements[0].object));
    for damage in [&b"tidelock-side 1\nlabel x"[..], b"", &[0xff; 70_000]] {
        assert!(side.exists());
        fs::write(&side, damage).unwrap();
        let found = host.verify(None, true, None).await.unwrap();
        assert_eq!((found.checked, found.bad.len(), found.unreachable.len()), (1, 0, 0), "{found:?}");
        let read = host.retrieve(stored.id, None).await.unwrap().body.collect(bytes.len()).await.unwrap();
        assert_same(&read, &bytes, "beside a damaged side file");
        let again = store_file(&host, &image, &bytes, StoreOptions::default()).await.unwrap();
        assert_eq!(again.stored_bytes, 0, "it is there already");
    }
}
