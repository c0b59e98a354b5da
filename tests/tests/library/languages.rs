//! Adapters in other languages, and the world of synchronous functions: real components with interpreters, on a real
//! file system. They use the layout of `fs`, so each can replace the other.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::iter;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{DirectoryGrant, HttpGrant};
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ErrorKind, ObjectId, SettingValue, StoreHint};
use tidelock::{Body, ByteRange, Host, NoSecrets};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::files;
use xtask::languages::{self, Language};

use crate::support::{component, config, read, round_trip, store, until};

/// The adapter of a language; none, said aloud, where it cannot be built.
fn adapter_of(language: Language, test: &str) -> Option<Vec<u8>> {
    if let Some(why) = language.why_not() {
        xtask::skip::skip(&format!("languages: {test}"), &why);
        return None;
    }
    let built = languages::ensure().expect("adapters in other languages can be built");
    Some(std::fs::read(&built[language.component()]).unwrap())
}

/// Where components are kept compiled, for all tests and runs: an interpreter takes the compiler seconds.
fn compiled() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")
}

fn engine() -> Arc<Sandbox> {
    static ENGINE: OnceLock<Arc<Sandbox>> = OnceLock::new();
    let options = || EngineOptions { operations: 64, cache: Some(compiled()), ..Default::default() };
    ENGINE.get_or_init(|| Sandbox::new(options()).unwrap()).clone()
}

/// A backend below a folder, with settings.
fn spec(dir: &Path, settings: &[(&str, &str)]) -> BackendSpec {
    let mut capabilities = Capabilities::none();
    capabilities.grant_directory("objects", &DirectoryGrant::below(dir.join("objects"))).unwrap();
    // The guest of synchronous functions imports it, but does not call it here.
    capabilities.grant_http("api", &HttpGrant::to(["http://127.0.0.1:1"]).unwrap()).unwrap();
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), SettingValue::Text((*value).to_owned()));
    let settings = settings.iter().map(text).collect();
    BackendSpec { name: "mine".into(), capabilities, settings, limits: Limits::default(), trust: Default::default() }
}

async fn load(dir: &Path, settings: &[(&str, &str)], component: Vec<u8>) -> Arc<Adapter> {
    let loaded = Adapter::load(&engine(), &spec(dir, settings), component).await;
    Arc::new(loaded.unwrap_or_else(|error| panic!("{error:?}")))
}

fn hint(key: &str, size: Option<u64>) -> StoreHint {
    StoreHint { key: key.into(), size, labels: Vec::new() }
}

async fn all(body: Body) -> tidelock::Result<bytes::Bytes> {
    body.collect(1 << 30).await
}

/// Bytes in chunks of all sizes, as a slow source gives them.
fn in_pieces(bytes: &[u8], size: Option<u64>) -> Body {
    let (mut left, mut take, mut chunks) = (bytes::Bytes::copy_from_slice(bytes), 1, Vec::new());
    while !left.is_empty() {
        chunks.push(Ok(left.split_to(take.min(left.len()))));
        take = (take * 3 + 1) % 100_000;
    }
    Body::new(iter(chunks), size)
}

/// What every adapter of a directory has to do: sizes, known and not, ranges, what is there and what is not.
async fn serves(adapter: &Arc<Adapter>) {
    for size in [0, 1, 4095, 4096, 4097, MIB - 1, MIB + 1, 9 * MIB + 3] {
        let (bytes, length) = (noise(size, size as u64), size as u64);
        for known in [Some(length), None] {
            let key = format!("size-{size}-{}", known.is_some());
            let stored = adapter.store(in_pieces(&bytes, known), hint(&key, known)).await.unwrap();
            assert_eq!(stored.size, length);
            assert_same(&all(adapter.retrieve(&stored.id, None).await.unwrap()).await.unwrap(), &bytes, &key);
            for (start, end) in [(0, size / 2), (size / 3, size), (size, size)] {
                let range = ByteRange { start: start as u64, end: Some(end as u64) };
                let part = all(adapter.retrieve(&stored.id, Some(range)).await.unwrap()).await.unwrap();
                assert_same(&part, &bytes[start..end], "a range");
            }
            let open = ByteRange { start: length / 2, end: None };
            let rest = all(adapter.retrieve(&stored.id, Some(open)).await.unwrap()).await.unwrap();
            assert_same(&rest, &bytes[size / 2..], "an open range");
            let beyond = ByteRange { start: length + 1, end: None };
            let error = adapter.retrieve(&stored.id, Some(beyond)).await.err().unwrap();
            assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
            let stat = adapter.stat(&stored.id).await.unwrap();
            assert_eq!((stat.size, stat.base, stat.labels), (length, None, Vec::new()));
            assert!(stat.modified.is_some());
            // A key is used once.
            let again = adapter.store(Body::from_bytes("x"), hint(&key, None)).await.unwrap_err();
            assert_eq!(*again.kind(), ErrorKind::Conflict, "{again}");
            for _ in 0..2 {
                adapter.remove(&stored.id).await.unwrap();
            }
            let gone = adapter.retrieve(&stored.id, None).await.err().unwrap();
            assert_eq!(*gone.kind(), ErrorKind::NotFound, "{gone}");
            assert_eq!(*adapter.stat(&stored.id).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
    assert!(adapter.probe().await.unwrap().ready);
    for wrong in ["../way-out", "/etc/passwd", "a/../../b", ".tmp/x"] {
        let error = adapter.stat(&ObjectId::new(wrong).unwrap()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied), "{wrong}: {error:?}");
    }
}

/// Thirty-two at once, each stored, read, and read in part.
async fn serves_many(adapter: &Arc<Adapter>) {
    let one = |number: usize| {
        let adapter = adapter.clone();
        tokio::spawn(async move {
            let bytes = noise(300_000 + 1000 * number, number as u64);
            let stored = adapter.store(Body::from_bytes(bytes.clone()), hint(&format!("many-{number}"), None)).await?;
            assert_same(&all(adapter.retrieve(&stored.id, None).await?).await?, &bytes, "one of many");
            let range = ByteRange { start: number as u64, end: Some(200_000) };
            let part = all(adapter.retrieve(&stored.id, Some(range)).await?).await?;
            assert_same(&part, &bytes[number..200_000], "a part of one of many");
            Ok::<(), tidelock::Error>(())
        })
    };
    let running: Vec<_> = (0..32).map(one).collect();
    for one in running {
        one.await.unwrap().unwrap();
    }
}

/// A source that breaks off stores nothing, whatever the adapter is written in.
async fn stores_nothing_of_a_broken_source(adapter: &Arc<Adapter>, dir: &Path) {
    let before = files(&dir.join("objects")).len();
    let broken = iter([Ok(bytes::Bytes::from(noise(100_000, 1))), Err(tidelock::Error::unavailable("it broke"))]);
    let error = adapter.store(Body::new(broken, None), hint("broken", None)).await.unwrap_err();
    assert_eq!(error.message(), "it broke");
    // What was begun is taken away behind the scenes.
    until("nothing of it is left", || files(&dir.join("objects")).len() == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_does_what_fs_does() {
    let Some(python) = adapter_of(Language::Python, "python_does_what_fs_does") else { return };
    let dir = tempfile::tempdir().unwrap();
    let adapter = load(dir.path(), &[], python).await;
    assert_eq!(adapter.description().name, "python-fs");
    serves(&adapter).await;
    serves_many(&adapter).await;
    stores_nothing_of_a_broken_source(&adapter, dir.path()).await;
    assert_eq!(adapter.bytes_through_guest(), 0, "what is handed on does not enter the interpreter");
    assert_eq!(adapter.optional_interfaces(), ["inventory"]);
}

/// Lineage and labels are in the files that `fs` writes, read by the other and listed alike.
#[tokio::test]
async fn python_and_fs_read_each_others_files() {
    let Some(python) = adapter_of(Language::Python, "python_and_fs_read_each_others_files") else { return };
    for layout in ["flat", "fan-out"] {
        let dir = tempfile::tempdir().unwrap();
        let settings = [("layout", layout), ("prefix", "vm/images")];
        let python = load(dir.path(), &settings, python.clone()).await;
        let fs = load(dir.path(), &settings, component("fs")).await;
        let labels = vec![("agent".to_owned(), "crawler 7 % é".to_owned()), ("n-1".to_owned(), String::new())];
        for (number, (writer, reader)) in [(&python, &fs), (&fs, &python)].into_iter().enumerate() {
            let first = writer.store(Body::from_bytes("base"), hint(&format!("base-{number}"), None)).await.unwrap();
            let hint = StoreHint { labels: labels.clone(), ..hint(&format!("delta-{number}"), Some(5)) };
            let delta = writer.incremental_update(&first.id, Body::from_bytes("delta"), hint).await.unwrap();
            let stat = reader.stat(&delta.id).await.unwrap();
            assert_eq!((stat.base, stat.labels), (Some(first.id.clone()), labels.clone()));
            assert_eq!(all(reader.retrieve(&delta.id, None).await.unwrap()).await.unwrap(), "delta");
        }
        let absent = ObjectId::new("vm/images/absent").unwrap();
        let orphan = python.incremental_update(&absent, Body::from_bytes("x"), hint("orphan", None)).await;
        assert_eq!(*orphan.unwrap_err().kind(), ErrorKind::NotFound);
        for page in [1, 3, 100] {
            assert_eq!(listed(&python, page).await, listed(&fs, page).await, "{layout}, {page} at a time");
        }
        assert_eq!(listed(&python, 100).await.len(), 4);
        for id in listed(&fs, 100).await {
            python.remove(&ObjectId::new(id).unwrap()).await.unwrap();
        }
        let left = files(&dir.path().join("objects"));
        assert!(left.iter().all(|path| path.starts_with(dir.path().join("objects/.tmp"))), "{left:?}");
    }
}

/// All objects, so many at a time.
async fn listed(adapter: &Arc<Adapter>, page: u32) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let listed = adapter.list_objects(cursor, page).await.unwrap();
        found.extend(listed.entries.into_iter().map(|entry| entry.id.as_str().to_owned()));
        cursor = listed.next;
        if cursor.is_none() {
            found.sort();
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_does_what_it_declares() {
    let Some(javascript) = adapter_of(Language::JavaScript, "javascript_does_what_it_declares") else { return };
    let dir = tempfile::tempdir().unwrap();
    let adapter = load(dir.path(), &[], javascript).await;
    let features = adapter.description().features;
    assert!(features.ranges && features.unsized_input && !features.lineage && !features.labels, "{features:?}");
    serves(&adapter).await;
    serves_many(&adapter).await;
    stores_nothing_of_a_broken_source(&adapter, dir.path()).await;
    assert_eq!(adapter.bytes_through_guest(), 0, "what is handed on does not enter the interpreter");
    assert_eq!(adapter.optional_interfaces(), Vec::<&str>::new());
    let base = adapter.store(Body::from_bytes("x"), hint("base", None)).await.unwrap();
    // The first byte of the SHA-256 of `base`.
    assert_eq!(base.id.as_str(), "ca/base");
    let error = adapter.incremental_update(&base.id, Body::from_bytes("y"), hint("delta", None)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (&ErrorKind::Unsupported, "this adapter keeps no lineage"));
    assert_eq!(*adapter.list_objects(None, 10).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// The world itself, without an interpreter: a body that is handed back is the host's own again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_functions_hand_on_or_copy() {
    let dir = tempfile::tempdir().unwrap();
    let sync = load(dir.path(), &[], component("sync")).await;
    serves(&sync).await;
    serves_many(&sync).await;
    stores_nothing_of_a_broken_source(&sync, dir.path()).await;
    assert_eq!(sync.bytes_through_guest(), 0);
    // The control: a counter that stays at 0 here would count nothing above.
    let other = tempfile::tempdir().unwrap();
    let copying = load(other.path(), &[("act", "copy")], component("sync")).await;
    serves(&copying).await;
    serves_many(&copying).await;
    stores_nothing_of_a_broken_source(&copying, other.path()).await;
    let before = copying.bytes_through_guest();
    let bytes = noise(5 * MIB, 1);
    let stored = copying.store(Body::from_bytes(bytes.clone()), hint("copied", None)).await.unwrap();
    assert!(copying.bytes_through_guest() - before >= 10 * MIB as u64, "in and out");
    assert_same(&all(copying.retrieve(&stored.id, None).await.unwrap()).await.unwrap(), &bytes, "copied");
    assert!(copying.bytes_through_guest() - before >= 20 * MIB as u64, "in and out again");
}

/// A guest of synchronous functions that waits holds no thread: on one thread, another is served meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn a_plain_guest_that_waits_holds_no_thread() {
    let dir = tempfile::tempdir().unwrap();
    let copying = load(dir.path(), &[("act", "copy")], component("sync")).await;
    let (send, chunks) = futures::channel::mpsc::unbounded();
    let waiting = {
        let copying = copying.clone();
        tokio::spawn(async move { copying.store(Body::new(chunks, None), hint("waiting", None)).await })
    };
    for number in 0..20 {
        send.unbounded_send(Ok(bytes::Bytes::from(noise(1000, number)))).unwrap();
        let key = format!("other-{number}");
        copying.store(Body::from_bytes("x"), hint(&key, Some(1))).await.unwrap();
    }
    assert!(!waiting.is_finished(), "it has not been given all");
    drop(send);
    assert_eq!(waiting.await.unwrap().unwrap().size, 20_000);
}

/// What the defaults do not give is refused by the number that is needed, the limit, and the key that raises it.
#[tokio::test]
async fn a_component_beyond_its_limits_is_refused_with_the_numbers() {
    let Some(python) = adapter_of(Language::Python, "a_component_beyond_its_limits_is_refused_with_the_numbers") else {
        return;
    };
    let needs = tidelock::inspect(python.clone()).await.unwrap().needs.unwrap();
    assert!(needs.core_instances > 16 && needs.table_elements > 1000 && needs.components == 1, "{needs:?}");
    let dir = tempfile::tempdir().unwrap();
    let limited = |limits: Limits| BackendSpec { limits, ..spec(dir.path(), &[]) };
    for (limits, says, key) in [
        (Limits { instances: 16, ..Limits::default() }, "limit: instances 16", "limits.instances"),
        (Limits { memory: 1 << 20, ..Limits::default() }, "limit: memory 1 MiB", "limits.memory"),
        (Limits { table_elements: 100, ..Limits::default() }, "limit: table elements 100", "limits.table_elements"),
    ] {
        let error = Adapter::load(&engine(), &limited(limits), python.clone()).await.err().unwrap();
        assert!(error.message().starts_with(says), "{error}");
        assert!(error.advice().unwrap().contains(key), "{error:?}");
        assert_eq!((error.kind(), error.operation()), (&ErrorKind::Limit, Some("check")));
    }
    load(dir.path(), &[], python).await;
}

/// A host in which what was compiled for these tests is there already.
async fn host_with(dir: &Path, compiled_here: &[&Vec<u8>]) -> Host {
    for component in compiled_here {
        load(dir, &[], (*component).clone()).await;
    }
    let data = dir.join("data/compiled");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).unwrap();
    for file in files(&compiled()) {
        // Another test may be writing there.
        let _ = std::fs::hard_link(&file, data.join(file.file_name().unwrap()));
    }
    Host::start(&config(dir, "fs", "settings = { layout = \"flat\" }"), &NoSecrets).await.unwrap()
}

/// From Rust to Python and back, while objects are stored and read all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_while_python_takes_over_and_gives_back() {
    let test = "nothing_fails_while_python_takes_over_and_gives_back";
    let Some(python) = adapter_of(Language::Python, test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = host_with(dir.path(), &[&python]).await;
    let kept = round_trip(&host, &noise(MIB, 1)).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let worker = |worker: u64| {
        let (host, stop, done) = (host.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let bytes = noise(200_000 + ids.len(), worker << 32 | ids.len() as u64);
                let stored = store(&host, &bytes).await.unwrap_or_else(|error| panic!("store: {error:?}"));
                let found = read(&host, stored.id).await.unwrap_or_else(|error| panic!("retrieve: {error:?}"));
                assert_same(&found, &bytes, "across a swap");
                ids.push(stored.id);
                done.fetch_add(1, Ordering::Relaxed);
            }
            ids
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    for turn in 0..4 {
        let before = done.load(Ordering::Relaxed);
        let failed = || workers.iter().any(|worker| worker.is_finished());
        until("operations go on", || done.load(Ordering::Relaxed) >= before + 8 || failed()).await;
        let next = if turn % 2 == 0 { python.clone() } else { component("fs") };
        let report = host.swap("mine", next).await.unwrap();
        assert_eq!(host.adapters()[0].digest, report.to);
        assert_eq!(host.adapters()[0].adapter, if turn % 2 == 0 { "python-fs" } else { "fs" });
        assert_same(&read(&host, kept.id).await.unwrap(), &noise(MIB, 1), "stored by the first");
    }
    stop.store(true, Ordering::Relaxed);
    let mut stored = 1;
    for worker in workers {
        stored += worker.await.expect("no operation fails").len();
    }
    let found = host.verify(None, true, None).await.unwrap();
    assert!(found.bad.is_empty() && found.checked == stored as u64, "{found:?}");
}

/// A body that began on an interpreter comes to its end although that has been replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_began_in_python_ends_there() {
    let Some(python) = adapter_of(Language::Python, "an_operation_that_began_in_python_ends_there") else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = host_with(dir.path(), &[&python]).await;
    host.swap("mine", python).await.unwrap();
    let bytes = noise(16 * MIB, 1);
    let stored = store(&host, &bytes).await.unwrap();
    let mut body = host.retrieve(stored.id, None).await.unwrap().body;
    let mut found = body.next().await.unwrap().unwrap().to_vec();
    host.swap("mine", component("fs")).await.unwrap();
    while let Some(chunk) = body.next().await {
        found.extend_from_slice(&chunk.unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_same(&found, &bytes, "a body over a swap");
}
