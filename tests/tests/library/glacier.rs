//! The adapters of buckets, called as the host calls them: states of the archive, and lineage without a catalogue.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption, StorageClass};
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{BucketCredentials, BucketGrant, Secret};
use tidelock::config::Config;
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ArchiveState, ErrorKind, ObjectId, SettingValue, StoreHint};
use tidelock::{Body, Host};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::{cold, server};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use xtask::backends::Restores;
use xtask::backends::moto::{BUCKET, LOCKED_BUCKET, REGION};

use crate::bucket::bare;
use crate::support::{Keys, component, read, store};

/// An adapter on a bucket of its own prefix.
async fn load(name: &str, grant: BucketGrant, settings: &[(&str, SettingValue)]) -> Arc<Adapter> {
    let mut capabilities = Capabilities::none();
    capabilities.grant_bucket("objects", &grant).unwrap();
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let (limits, trust) = (Limits::default(), Default::default());
    let spec = BackendSpec { name: "mine".into(), capabilities, settings, limits, trust };
    let engine = Sandbox::new(EngineOptions { operations: 8, ..Default::default() }).unwrap();
    Arc::new(Adapter::load(&engine, &spec, component(name)).await.unwrap_or_else(|error| panic!("{name}: {error:?}")))
}

fn text(value: &str) -> SettingValue {
    SettingValue::Text(value.into())
}

fn grant(endpoint: &str, bucket: &str, keys: (&str, &str), prefix: &str) -> BucketGrant {
    let (access_key, secret_key) = (keys.0.to_owned(), Secret::new(keys.1));
    BucketGrant {
        endpoint: Some(endpoint.into()),
        path_style: true,
        prefix: prefix.into(),
        credentials: Some(BucketCredentials { access_key, secret_key, session_token: None }),
        ..BucketGrant::of(REGION, bucket)
    }
}

fn moto(server: &xtask::backends::Moto, prefix: &str) -> BucketGrant {
    grant(&server.endpoint, BUCKET, (&server.keys.access_key, &server.keys.secret_key), prefix)
}

fn hint(key: &str) -> StoreHint {
    StoreHint { key: key.into(), size: None, labels: vec![("agent".into(), "crawler 7 ü".into())] }
}

#[tokio::test]
async fn lineage_is_kept_by_the_bucket() {
    let seaweed = server::shared();
    let seaweed =
        grant(&seaweed.endpoint, server::BUCKET, (&seaweed.access_key, &seaweed.secret_key), "lineage-of-s3/");
    for (name, grant, class) in [
        ("s3", seaweed, None),
        ("glacier", moto(cold::shared(), "lineage/"), Some("GLACIER")),
        ("glacier", moto(cold::shared(), "lineage-deep/"), Some("DEEP_ARCHIVE")),
        ("s3", moto(cold::shared(), "lineage-s3/"), None),
    ] {
        let settings: Vec<_> = class.map(|class| ("storage-class", text(class))).into_iter().collect();
        let adapter = load(name, grant.clone(), &settings).await;
        let base = adapter.store(Body::from_bytes(noise(MIB, 1)), hint("base")).await.unwrap();
        let delta = adapter.incremental_update(&base.id, Body::from_bytes("change"), hint("delta")).await.unwrap();
        let further = noise(9 * MIB, 2);
        let further = adapter.incremental_update(&delta.id, Body::from_bytes(further), hint("more")).await.unwrap();
        // Another host, without the catalogue.
        let other = load(name, grant, &settings).await;
        let chain = [(&further.id, Some(delta.id.clone()), 9 << 20), (&delta.id, Some(base.id.clone()), 6)];
        for (id, expected, size) in chain.into_iter().chain([(&base.id, None, 1 << 20)]) {
            let stat = other.stat(id).await.unwrap();
            assert_eq!((stat.base, stat.size), (expected, size), "{name}");
            assert_eq!(stat.labels, [("agent".to_owned(), "crawler 7 ü".to_owned())], "{name}");
            assert_eq!(stat.archive, class.map(|_| ArchiveState::Archived), "{name}");
        }
        let page = other.list_objects(None, 10).await.unwrap();
        let mut listed: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
        listed.sort_unstable();
        assert_eq!(listed, ["base", "delta", "more"], "{name}");
        let nothing = ObjectId::new("nothing").unwrap();
        let error = other.incremental_update(&nothing, Body::from_bytes("x"), hint("x")).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{name}: {error:?}");
        let error = other.store(Body::from_bytes("x"), hint("base")).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{name}: a key is used once: {error:?}");
        for _ in 0..2 {
            other.remove(&base.id).await.unwrap();
        }
        assert_eq!(*other.stat(&base.id).await.unwrap_err().kind(), ErrorKind::NotFound, "{name}");
    }
}

/// What is said to the adapter comes out at the server, as Amazon's own client sees it there.
#[tokio::test]
async fn settings_for_s3_reach_the_server() {
    let grant = BucketGrant { bucket: LOCKED_BUCKET.into(), ..moto(cold::shared(), "settings/") };
    let settings = [
        ("layout", text("fan-out")),
        ("storage-class", text("STANDARD_IA")),
        ("sse", text("aws:kms")),
        ("sse-kms-key", text("arn:aws:kms:us-east-1:123456789012:key/k1")),
        ("retention-days", SettingValue::Integer(30)),
        ("retention-mode", text("COMPLIANCE")),
    ];
    let adapter = load("s3", grant.clone(), &settings).await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let stored = adapter.store(Body::from_bytes(noise(1000, 1)), hint("base")).await.unwrap();
    let after = now();
    assert!(stored.id.as_str().ends_with("/base"), "{:?}", stored.id);
    let asked = bare(&grant).head_object().bucket(LOCKED_BUCKET).key(format!("settings/{}", stored.id));
    let said = asked.send().await.unwrap();
    assert_eq!(said.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(said.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(said.ssekms_key_id(), Some("arn:aws:kms:us-east-1:123456789012:key/k1"));
    assert_eq!(said.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    let kept_until = u64::try_from(said.object_lock_retain_until_date().unwrap().secs()).unwrap();
    assert!((before + 30 * 86_400..=after + 30 * 86_400).contains(&kept_until), "{before} {kept_until} {after}");
    assert_eq!(adapter.stat(&stored.id).await.unwrap().archive, None);
}

fn vault(dir: &Path, server: &xtask::backends::Moto) -> Config {
    let text = cold::config(server, "states", "restore-tier = \"Bulk\"").replace("tier = \"cold\"", "restore_days = 7");
    Config::parse(&format!("data_dir = \"data\"\n{text}"), dir).unwrap()
}

#[tokio::test]
async fn from_archived_to_readable_and_back() {
    let server = cold::start();
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys(server.keys.access_key.clone(), server.keys.secret_key.clone());
    let host = Host::start(&vault(dir.path(), &server), &keys).await.unwrap();
    let bytes = noise(3 * MIB, 5);
    let stored = store(&host, &bytes).await.unwrap();
    let state = async || host.archive_states(stored.id).await.unwrap().remove(0).state;
    assert_eq!(state().await, ArchiveState::Archived);
    assert_eq!(state().await, ArchiveState::Archived, "looking asks for nothing");

    let pending = async || host.retrieve(stored.id, None).await.err().map(|error| error.kind().clone());
    let half_a_day = Duration::from_secs(12 * 3600);
    assert_eq!(pending().await, Some(ErrorKind::Archived(ArchiveState::Restoring(Some(half_a_day)))));
    server.restores(Restores::Stand).unwrap();
    assert_eq!(state().await, ArchiveState::Restoring(None));
    let mut looks = 0;
    let looked = |state: &ArchiveState| {
        assert_eq!(*state, ArchiveState::Restoring(None));
        looks += 1;
        if looks == 2 {
            server.restores(Restores::Done).unwrap();
        }
    };
    host.until_restored(stored.id, looked).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ArchiveState::Readable(Some(until)) = state().await else { panic!("it is restored") };
    assert!((now + 6 * 86_400..now + 8 * 86_400).contains(&until), "the days of the configuration: {until}");
    assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "restored");

    // moto lets no time pass: the same object put anew is as one whose days are over.
    let keys = (server.keys.access_key.as_str(), server.keys.secret_key.as_str());
    let bucket = grant(&server.endpoint, BUCKET, keys, "states/");
    let bucket = tidelock::capabilities::bucket::S3Bucket::open(&bucket).unwrap();
    let options =
        tidelock::capabilities::bucket::PutOptions { storage_class: Some("GLACIER".into()), ..Default::default() };
    let key = stored.placements[0].object.as_str();
    tidelock::capabilities::bucket::Bucket::put(&bucket, key, Body::from_bytes(bytes.clone()), options).await.unwrap();
    assert_eq!(state().await, ArchiveState::Archived, "and cold again");
    server.restores(Restores::AtTheNextLook).unwrap();
    assert!(matches!(pending().await, Some(ErrorKind::Archived(ArchiveState::Restoring(_)))), "asked for again");
    host.until_restored(stored.id, |_| {}).await.unwrap();
    assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "restored a second time");
}

/// Passes connections on to a server. Closed, it cuts them, and counts those that are tried.
struct Gate {
    endpoint: String,
    open: watch::Sender<bool>,
    refused: Arc<AtomicUsize>,
}

impl Gate {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (open, watched) = watch::channel(true);
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = refused.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut open = watched.clone();
                if !*open.borrow() {
                    counted.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { endpoint, open, refused }
    }
}

#[tokio::test]
async fn waiting_for_a_restore_survives_an_outage() {
    let server = cold::start();
    let gate = Gate::before(server.port).await;
    let text = cold::config(&server, "outage", "").replace(&server.endpoint, &gate.endpoint);
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys(server.keys.access_key.clone(), server.keys.secret_key.clone());
    let config = Config::parse(&format!("data_dir = \"data\"\n{text}"), dir.path()).unwrap();
    let host = Host::start(&config, &keys).await.unwrap();
    let bytes = noise(MIB, 6);
    let stored = store(&host, &bytes).await.unwrap();
    assert!(matches!(host.retrieve(stored.id, None).await.unwrap_err().kind(), ErrorKind::Archived(_)));
    server.restores(Restores::Stand).unwrap();

    let waiting = host.until_restored(stored.id, |_| {
        gate.open.send_replace(false);
    });
    let over = async {
        while gate.refused.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.restores(Restores::Done).unwrap();
        gate.open.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        waited = waiting => waited.unwrap(),
        () = over => {}
    }
    assert!(gate.refused.load(Ordering::SeqCst) >= 2, "it waited through the outage");
    assert_same(&read(&host, stored.id).await.unwrap(), &bytes, "after the outage");
}
