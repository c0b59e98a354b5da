//! The adapter `nfs` on a real NFSv3 server: each operation, other clients, and missing permissions or
//! servers.

use std::fs;
use std::sync::Arc;

use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::NfsGrant;
use tidelock::config::Config;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ErrorKind, ObjectId, StoreHint};
use tidelock::{Body, ByteRange, Host, NoSecrets};
use tidelock_tests::data::{MIB, assert_same, changed, noise};
use tidelock_tests::program::{Home, files};
use xtask::backends::{Ganesha, ganesha};

use crate::support::{component, read, round_trip, store};

/// A server of the test's own; none, said aloud, where it cannot run.
fn server(test: &str) -> Option<Ganesha> {
    if let Some(why) = ganesha::why_not() {
        xtask::skip::skip(test, &why);
        return None;
    }
    Some(Ganesha::start().expect("NFS-Ganesha starts"))
}

fn table(url: &str, mount_port: u16) -> String {
    format!(
        "[backends.share]\nadapter = \"nfs\"\n\
         grants.directory.objects = {{ nfs = \"{url}\", mount_port = {mount_port} }}\n"
    )
}

async fn adapter(server: &Ganesha, user: &str) -> Arc<Adapter> {
    let engine = Sandbox::new(EngineOptions { operations: 8, ..Default::default() }).unwrap();
    let mut capabilities = Capabilities::none();
    let url = format!("{}{user}", server.url());
    capabilities.grant_nfs("objects", NfsGrant::parse(&url, Some(server.mount_port)).unwrap());
    let settings = Default::default();
    let (limits, trust) = (Limits::default(), Default::default());
    let spec = BackendSpec { name: "share".into(), capabilities, settings, limits, trust };
    Arc::new(Adapter::load(&engine, &spec, component("nfs")).await.unwrap())
}

fn hint(key: &str, size: Option<u64>) -> StoreHint {
    StoreHint { key: key.into(), size, labels: vec![("name".into(), "an image".into())] }
}

#[tokio::test]
async fn every_operation_works() {
    let Some(server) = server("nfs: every_operation_works") else { return };
    let nfs = adapter(&server, "").await;
    assert_eq!(nfs.description().name, "nfs");
    for size in [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 64 * MIB + 1] {
        let bytes = noise(size, size as u64);
        let known = (size % 2 == 0).then_some(size as u64);
        let stored = nfs.store(Body::from_bytes(bytes.clone()), hint(&format!("size-{size}"), known)).await.unwrap();
        assert_eq!(stored.size, size as u64);
        let whole = nfs.retrieve(&stored.id, None).await.unwrap().collect(1 << 30).await.unwrap();
        assert_same(&whole, &bytes, "whole");
        assert_same(&fs::read(server.export().join(stored.id.as_str())).unwrap(), &bytes, "on the server");
        for (start, end) in [(0, size / 2), (size / 3, size), (size, size)] {
            let range = ByteRange { start: start as u64, end: Some(end as u64) };
            let part = nfs.retrieve(&stored.id, Some(range)).await.unwrap().collect(1 << 30).await.unwrap();
            assert_same(&part, &bytes[start..end], "a range");
        }
        let stat = nfs.stat(&stored.id).await.unwrap();
        assert_eq!((stat.size, stat.base), (size as u64, None));
    }
    assert!(nfs.bytes_through_guest() < 100_000, "{}", nfs.bytes_through_guest());
    let (mut listed, mut cursor) = (0, None);
    loop {
        let page = nfs.list_objects(cursor, 4).await.unwrap();
        listed += page.entries.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, 9);
}

#[tokio::test]
async fn lineage_is_kept_on_the_export() {
    let Some(server) = server("nfs: lineage_is_kept_on_the_export") else { return };
    let nfs = adapter(&server, "").await;
    let base = nfs.store(Body::from_bytes(noise(5000, 1)), hint("base", None)).await.unwrap();
    let delta = nfs.incremental_update(&base.id, Body::from_bytes(noise(100, 2)), hint("delta", None)).await.unwrap();
    // Another host, which has the export only.
    let other = adapter(&server, "").await;
    assert_eq!(other.stat(&delta.id).await.unwrap().base, Some(base.id.clone()));
    assert!(server.export().join(format!("{}.base", delta.id.as_str())).exists());
    let taken = nfs.store(Body::from_bytes("x"), hint("base", None)).await.unwrap_err();
    assert_eq!(*taken.kind(), ErrorKind::Conflict, "{taken}");
    let absent = ObjectId::new("absent").unwrap();
    let error = nfs.incremental_update(&absent, Body::from_bytes("x"), hint("orphan", None)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    nfs.remove(&delta.id).await.unwrap();
    nfs.remove(&delta.id).await.unwrap();
    assert_eq!(*nfs.stat(&delta.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let names = files(&server.export()).into_iter().filter(|path| !path.starts_with(server.export().join(".tmp")));
    assert_eq!(names.count(), 2, "the base and its labels");
}

#[tokio::test]
async fn who_may_not_is_denied_and_what_is_gone_is_unavailable() {
    let Some(mut server) = server("nfs: who_may_not_is_denied_and_what_is_gone_is_unavailable") else { return };
    let nobody = adapter(&server, "?uid=4711&gid=4711").await;
    let error = nobody.store(Body::from_bytes("x"), hint("mine", None)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error}");
    let nfs = adapter(&server, "").await;
    let stored = nfs.store(Body::from_bytes("here"), hint("here", None)).await.unwrap();
    server.kill();
    let late = adapter(&server, "").await;
    assert_eq!(*late.stat(&stored.id).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*late.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart().unwrap();
    for nfs in [&nfs, &late] {
        let bytes = nfs.retrieve(&stored.id, None).await.unwrap().collect(100).await.unwrap();
        assert_same(&bytes, b"here", "when it is back");
    }
}

#[tokio::test]
async fn a_host_keeps_snapshots_on_it() {
    let Some(server) = server("nfs: a_host_keeps_snapshots_on_it") else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = format!("data_dir = \"data\"\n{}", table(&server.url(), server.mount_port));
    let host = Host::start(&Config::parse(&text, dir.path()).unwrap(), &NoSecrets).await.unwrap();
    let old = noise(9 * MIB + 5, 1);
    let base = round_trip(&host, &old).await;
    assert_eq!(host.bytes_through_guests(), 0);
    store(&host, &changed(&old, 2)).await.unwrap();
    assert_same(&read(&host, base.id).await.unwrap(), &old, "beside another");
    let collected = host.gc(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(collected.leftovers, 0);
}

#[test]
fn the_program_stores_on_it_and_reports_when_it_is_down() {
    let Some(mut server) = server("nfs: the_program_stores_on_it_and_reports_when_it_is_down") else { return };
    let home = Home::with(&table(&server.url(), server.mount_port));
    let bytes = noise(20 * MIB + 1, 1);
    let id = home.line_with(&["store", "-"], &bytes);
    let next = home.line_with(&["update", &id, "-"], &changed(&bytes, 2));
    assert_eq!(home.json(&["stat", &next])["base"], id);
    assert_same(&home.bytes(&["retrieve", &id, "--range", "4095..9000000"]), &bytes[4095..9_000_000], "a range");
    home.json(&["verify", "--deep"]);
    server.kill();
    let said = home.refused(1, &["retrieve", &id]);
    assert!(said.contains("share") && said.contains("cannot connect"), "{said}");
    server.restart().unwrap();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "after the outage");
    let home = Home::with(&table(&format!("{}?uid=4711", server.url()), server.mount_port));
    let outcome = home.run_with(&["store", "-"], &bytes).refused(1, &["store"]);
    assert!(outcome.contains("share") && outcome.contains("permission denied"), "{outcome}");
}
