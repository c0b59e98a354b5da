//! A bucket and a folder with a copy each: what a real service and the network before it do to a read, at its start, in its
//! middle and at its end, and to a store.

use std::path::Path;
use std::sync::Arc;

use tidelock::config::Config;
use tidelock::snapshot::SEGMENT;
use tidelock::{ByteRange, ErrorKind, Host, StoreOptions, Stored};
use tidelock_tests::data::{assert_same, noise};
use tidelock_tests::faults::http::{Head, before};
use tidelock_tests::faults::{Fault, On, Plan, Proxy};
use tidelock_tests::server;

use crate::bucket::bare;
use crate::damage::store_file;
use crate::support::Keys;

fn classify(head: &Head) -> Option<On> {
    let of_an_object = head.path().trim_matches('/').contains('/');
    match head.method() {
        "PUT" if of_an_object && head.has_body() => Some(On::Up),
        "GET" if of_an_object && !head.query().contains("upload") => Some(On::Down),
        _ => None,
    }
}

/// A host that stores into a bucket behind a proxy, and into a folder.
struct CloudAndFolder {
    dir: tempfile::TempDir,
    proxy: Proxy,
    prefix: String,
    host: Host,
}

impl CloudAndFolder {
    async fn start(prefix: &str, copies: usize, secret: Option<&str>) -> Self {
        let server = server::shared();
        let port = server.endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let proxy = before(port, classify, 11).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let host = Self::host(dir.path(), prefix, &proxy, copies, secret).await;
        Self { dir, proxy, prefix: prefix.to_owned(), host }
    }

    async fn host(dir: &Path, prefix: &str, proxy: &Proxy, copies: usize, secret: Option<&str>) -> Host {
        let server = server::shared();
        let cloud =
            server::config(server, prefix).replace(&server.endpoint, &format!("http://127.0.0.1:{}", proxy.port));
        let text = format!(
            "data_dir = \"data\"\n{cloud}\n[backends.local]\nadapter = \"fs\"\n\
             grants.directory.objects = {{ path = \"local\" }}\n\
             [routes.default]\nbackends = [\"cloud\", \"local\"]\ncopies = {copies}\n"
        );
        let keys = Keys(server.access_key.clone(), secret.unwrap_or(&server.secret_key).to_owned());
        Host::start_lazily(&Config::parse(&text, dir).unwrap(), Arc::new(keys)).await.unwrap()
    }

    async fn store(&self, bytes: &[u8]) -> Stored {
        let image = self.dir.path().join("image");
        store_file(&self.host, &image, bytes, StoreOptions::default()).await.unwrap()
    }

    async fn state(&self, stored: &Stored, backend: &str) -> &'static str {
        let stat = self.host.stat(stored.id).await.unwrap();
        stat.placements.iter().find(|placement| placement.backend == backend).unwrap().state
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn network_faults_of_a_read_are_not_noticed_and_mark_nothing() {
    let there = CloudAndFolder::start("read-faults", 2, None).await;
    let bytes = noise(6 * SEGMENT + 5, 1);
    let stored = there.store(&bytes).await;
    let refuse = |status| Fault::Refuse { status, retry_after: None };
    let faults = [Fault::Cut, Fault::Reset, Fault::Short, Fault::Flip, refuse(403), refuse(500), refuse(503)];
    for fault in faults {
        there.proxy.plan(Plan::once(fault, On::Down, 0));
        let injected = there.proxy.seen().injected;
        let whole = there.host.retrieve(stored.id, None).await.unwrap();
        let read = whole.body.collect(bytes.len()).await.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_same(&read, &bytes, &format!("{fault:?}"));
        for start in [0, 3 * SEGMENT - 7, bytes.len() - 9] {
            there.proxy.plan(Plan::once(fault, On::Down, 0));
            let part = there.host.retrieve(stored.id, Some(ByteRange::of(start as u64, 9))).await.unwrap();
            let read = part.body.collect(9).await.unwrap_or_else(|error| panic!("{fault:?}, {start}: {error:?}"));
            assert_same(&read, &bytes[start..start + 9], &format!("{fault:?}, {start}"));
        }
        assert!(there.proxy.seen().injected > injected, "{fault:?} was not injected");
        there.proxy.mend();
        // The object is as it was, and a second look has found that out.
        let state = there.state(&stored, "cloud").await;
        assert_ne!(state, "bad", "{fault:?}");
        // A whole read of it, which the folder cannot answer, shows that it can be relied on.
        let object = object_of(&there, &stored);
        let aside = object.with_extension("aside");
        std::fs::rename(&object, &aside).unwrap();
        let alone = there.host.retrieve(stored.id, None).await.unwrap();
        assert_eq!(alone.source, "cloud", "{fault:?}");
        assert_same(&alone.body.collect(bytes.len()).await.unwrap(), &bytes, "from the bucket alone");
        std::fs::rename(&aside, &object).unwrap();
        assert_eq!(there.state(&stored, "cloud").await, "live", "{fault:?}");
        there.host.verify(Some(stored.id), true, None).await.unwrap();
        assert_eq!(there.state(&stored, "local").await, "live", "{fault:?}");
    }
}

fn object_of(there: &CloudAndFolder, stored: &Stored) -> std::path::PathBuf {
    let placement = stored.placements.iter().find(|placement| placement.backend == "local").unwrap();
    there.dir.path().join("local").join(placement.object.as_str())
}

/// A client of the bucket that knows nothing of what lies in it.
fn client() -> aws_sdk_s3::Client {
    let server = server::shared();
    let grant = tidelock::capabilities::grant::BucketGrant {
        endpoint: Some(server.endpoint.clone()),
        path_style: true,
        credentials: Some(tidelock::capabilities::grant::BucketCredentials {
            access_key: server.access_key.clone(),
            secret_key: tidelock::capabilities::grant::Secret::new(server.secret_key.as_str()),
            session_token: None,
        }),
        ..tidelock::capabilities::grant::BucketGrant::of(&server.region, server::BUCKET)
    };
    bare(&grant)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_of_a_bucket_is_found_recorded_and_stored_again() {
    let there = CloudAndFolder::start("damaged", 2, None).await;
    let client = client();
    let len = 3 * SEGMENT + 5;
    for (number, (range, harm)) in
        [(None, 0), (Some(0..5), 1), (Some(SEGMENT..SEGMENT + 5), 2), (Some(len - 5..len), 3)].into_iter().enumerate()
    {
        let bytes = noise(len, 10 + number as u64);
        let stored = there.store(&bytes).await;
        let object = stored.placements.iter().find(|placement| placement.backend == "cloud").unwrap().object.clone();
        let mut damaged = bytes.clone();
        match harm {
            0 => damaged[len / 2] ^= 1,
            1 => damaged.clear(),
            2 => damaged.truncate(SEGMENT),
            _ => damaged.truncate(len - 1),
        }
        let key = format!("{}/{object}", there.prefix);
        let put = client.put_object().bucket(server::BUCKET).key(key).body(damaged.into());
        put.send().await.unwrap();
        let wanted = range.clone().map(|range| ByteRange::of(range.start as u64, range.len() as u64));
        let read = there.host.retrieve(stored.id, wanted).await.unwrap().body.collect(len).await.unwrap();
        assert_same(&read, &bytes[range.unwrap_or(0..len)], &format!("harm {harm}"));
        assert_eq!(there.state(&stored, "cloud").await, "bad", "harm {harm}");
        let again = there.store(&bytes).await;
        let stored_anew: Vec<_> = again.placements.iter().filter(|new| !stored.placements.contains(new)).collect();
        assert_eq!((again.stored_bytes, stored_anew.len()), (len as u64, 1), "harm {harm}");
        assert_eq!(stored_anew[0].backend, "cloud", "harm {harm}");
    }
}

/// One bit, the end, everything, and the object itself: in the bucket, and in the folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_in_a_bucket_and_in_a_folder_repair_each_other() {
    let there = CloudAndFolder::start("repair", 2, None).await;
    let client = client();
    let len = 3 * SEGMENT + 5;
    for (number, backend) in ["cloud", "local"].into_iter().flat_map(|name| [name; 4]).enumerate() {
        let bytes = noise(len, 100 + number as u64);
        let what = format!("harm {number} on {backend}");
        let stored = there.store(&bytes).await;
        let object = stored.placements.iter().find(|placement| placement.backend == backend).unwrap().object.clone();
        let mut damaged = bytes.clone();
        match number % 4 {
            0 => damaged[len / 2] ^= 1,
            1 => damaged.truncate(SEGMENT),
            _ => damaged.clear(),
        }
        let (key, path) = (format!("{}/{object}", there.prefix), object_of(&there, &stored));
        match (backend, number % 4) {
            ("cloud", 3) => drop(client.delete_object().bucket(server::BUCKET).key(key).send().await.unwrap()),
            ("cloud", _) => {
                let put = client.put_object().bucket(server::BUCKET).key(key).body(damaged.into());
                put.send().await.unwrap();
            }
            (_, 3) => std::fs::remove_file(path).unwrap(),
            _ => std::fs::write(path, damaged).unwrap(),
        }
        let read = there.host.retrieve(stored.id, None).await.unwrap().body.collect(len).await.unwrap();
        assert_same(&read, &bytes, &what);
        let repair = there.host.repair(stored.id).await.unwrap();
        let [made] = &repair.repaired[..] else { panic!("{what}: {repair:?}") };
        assert!(made.backend == backend && made.from != backend && repair.unrepaired.is_empty(), "{what}: {repair:?}");
        let verified = there.host.verify(Some(stored.id), true, None).await.unwrap();
        assert!(verified.checked == 2 && verified.bad.is_empty(), "{what}: {verified:?}");
        there.host.remove(stored.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_on_the_primary_end_neither_a_store_nor_a_read() {
    let there = CloudAndFolder::start("keys", 2, None).await;
    let bytes = noise(SEGMENT + 9, 3);
    let stored = there.store(&bytes).await;
    // The same data with keys that have expired meanwhile.
    let host = CloudAndFolder::host(there.dir.path(), &there.prefix, &there.proxy, 1, Some("expired")).await;
    let read = host.retrieve(stored.id, None).await.unwrap();
    assert_eq!(read.source, "local");
    assert_same(&read.body.collect(bytes.len()).await.unwrap(), &bytes, "from the other copy");
    assert_eq!(there.state(&stored, "cloud").await, "live", "keys say nothing about an object");
    let other = noise(5000, 4);
    let saved = store_file(&host, &there.dir.path().join("other"), &other, StoreOptions::default()).await.unwrap();
    assert_eq!(saved.placements[0].backend, "local");
    // With no other backend to turn to, it is a failure that names the keys.
    let host = CloudAndFolder::host(there.dir.path(), &there.prefix, &there.proxy, 2, Some("expired")).await;
    let image = there.dir.path().join("third");
    let error = store_file(&host, &image, &noise(6000, 5), StoreOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (&ErrorKind::Denied, Some("cloud")), "{error:?}");
    assert_eq!(error.left().map(|left| left.placements.len()), Some(1), "{error:?}");
}
