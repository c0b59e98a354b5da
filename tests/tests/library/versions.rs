//! Minor versions of the interface, served at once: a component built against `0.1.0` beside a current one.

use std::path::Path;
use std::sync::Arc;

use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::DirectoryGrant;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ErrorKind, ObjectId, StoreHint};
use tidelock::{Body, ByteRange, inspect};
use tidelock_tests::data::{MIB, assert_same, noise};

use crate::support::{component, host, read, round_trip};

fn spec(dir: &Path, grants: &[&str]) -> BackendSpec {
    let mut capabilities = Capabilities::none();
    for name in grants {
        capabilities.grant_directory(name, &DirectoryGrant::below(dir.join(name))).unwrap();
    }
    let settings = Default::default();
    BackendSpec { name: "mine".into(), capabilities, settings, limits: Limits::default(), trust: Default::default() }
}

async fn load(engine: &Arc<Sandbox>, spec: &BackendSpec, name: &str) -> Arc<Adapter> {
    Arc::new(Adapter::load(engine, spec, component(name)).await.unwrap_or_else(|error| panic!("{name}: {error:?}")))
}

fn engine() -> Arc<Sandbox> {
    Sandbox::new(EngineOptions { operations: 8, ..Default::default() }).unwrap()
}

/// That the two are what they are taken for: otherwise the tests below would show nothing.
#[tokio::test]
async fn the_versions_differ() {
    for (name, version) in [("frozen-0-1-0", "@0.1.0"), ("fs", "@0.1.1")] {
        let found = inspect(component(name)).await.unwrap();
        let ours = found.imports.iter().chain(&found.exports).filter(|name| name.starts_with("tidelock:storage/"));
        let ours: Vec<_> = ours.collect();
        assert!(ours.len() >= 3 && ours.iter().all(|name| name.ends_with(version)), "{name}: {ours:?}");
        assert!(found.is_adapter);
    }
}

#[tokio::test]
async fn every_operation_of_an_old_component_works() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = load(&engine(), &spec(dir.path(), &["objects"]), "frozen-0-1-0").await;
    let hint = |key: &str, size| StoreHint { key: key.into(), size, labels: Vec::new() };
    let bytes = noise(3 * MIB + 7, 1);
    let body = || Body::from_bytes(bytes.clone());
    let base = frozen.store(body(), hint("base", Some(bytes.len() as u64))).await.unwrap();
    assert_eq!((base.id.as_str(), base.size), ("base", bytes.len() as u64));
    let whole = frozen.retrieve(&base.id, None).await.unwrap().collect(1 << 30).await.unwrap();
    assert_same(&whole, &bytes, "whole");
    let range = ByteRange { start: 5, end: Some(4096) };
    let part = frozen.retrieve(&base.id, Some(range)).await.unwrap().collect(1 << 30).await.unwrap();
    assert_same(&part, &bytes[5..4096], "a range");
    let delta = frozen.incremental_update(&base.id, body(), hint("delta", None)).await.unwrap();
    let stat = frozen.stat(&delta.id).await.unwrap();
    assert_eq!((stat.base, stat.size), (Some(base.id.clone()), bytes.len() as u64));
    // Errors are the named ones.
    let error = frozen.store(body(), hint("base", None)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    let absent = ObjectId::new("absent").unwrap();
    assert_eq!(*frozen.stat(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(frozen.probe().await.unwrap().detail, "hello");
    frozen.remove(&base.id).await.unwrap();
    assert_eq!(*frozen.retrieve(&base.id, None).await.err().unwrap().kind(), ErrorKind::NotFound);
    // What it hands on does not enter its memory, as today. It read the name of a base: 4 bytes in, and wrote it out.
    assert!(frozen.bytes_through_guest() < 100, "{}", frozen.bytes_through_guest());
}

/// Back and forth on one backend, while objects of either stay readable by the other.
#[tokio::test]
async fn one_takes_over_from_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "copying", "").await;
    let first = round_trip(&host, &noise(MIB, 1)).await;
    for (turn, name) in ["frozen-0-1-0", "copying", "frozen-0-1-0"].into_iter().enumerate() {
        host.swap("mine", component(name)).await.unwrap();
        round_trip(&host, &noise(MIB, 2 + turn as u64)).await;
        assert_same(&read(&host, first.id).await.unwrap(), &noise(MIB, 1), name);
    }
}

#[tokio::test]
async fn functions_of_a_later_version_are_available() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine();
    // A grant that its manifest does not ask for is none, whatever the operator grants.
    let with = load(&engine, &spec(dir.path(), &["objects", "unasked"]), "optional").await;
    assert_eq!(with.probe().await.unwrap().detail, "objects");
    let without = load(&engine, &spec(dir.path(), &[]), "optional").await;
    assert_eq!(without.probe().await.unwrap().detail, "");
    let absent = ObjectId::new("absent").unwrap();
    assert_eq!(*with.stat(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(*without.stat(&absent).await.unwrap_err().kind(), ErrorKind::Denied);
}
