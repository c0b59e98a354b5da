//! The adapter `ton` on real storage daemons in a private network: each operation, and other clients. Malicious daemons
//! are in `ton_faults.rs`, money in `ton_chain.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::grant::{ConnectionSettings, DirectoryGrant, HeaderCredential, HttpGrant, Secret};
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{ErrorKind, ObjectId, SettingValue, StoreHint};
use tidelock::{Body, ByteRange};
use tidelock_tests::data::{MIB, assert_same, noise};
use tidelock_tests::program::Home;
use xtask::backends::ton::{self, storage::AUTHORIZATION};
use xtask::backends::{TonNetwork, TonStorage};

use crate::support::component;

/// Bytes of a piece of any bag here.
pub const PIECE: usize = 128 << 10;
/// Bytes of the header of a bag whose file has a name of two letters.
pub const HEADER: usize = 50;

/// A network, and two daemons in it. They are not stopped: a test that stops one starts its own.
pub struct World {
    pub network: TonNetwork,
    pub first: TonStorage,
    pub second: TonStorage,
}

/// The daemons that tests share; none, said aloud, where they cannot run.
pub fn world(test: &str) -> Option<&'static World> {
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        let network = TonNetwork::start().expect("the TON network starts");
        let first = TonStorage::start(&network.config()).expect("a storage daemon starts");
        let second = TonStorage::start(&network.config()).expect("a second one starts");
        World { network, first, second }
    });
    match ton::why_not() {
        Some(why) => {
            xtask::skip::skip(test, &why);
            None
        }
        None => Some(&WORLD),
    }
}

/// The settings and grants of an adapter.
#[derive(Clone)]
pub struct Setup {
    pub endpoint: String,
    pub authorization: &'static str,
    /// The directory: its path for the adapter, and its path for the daemon.
    pub shared: PathBuf,
    pub shared_path: PathBuf,
    pub rpc: Option<(String, Option<&'static str>)>,
    pub settings: Vec<(&'static str, SettingValue)>,
}

impl Setup {
    pub fn of(server: &TonStorage) -> Self {
        let settings = vec![("download_timeout", SettingValue::Integer(170))];
        Self {
            endpoint: server.endpoint.clone(),
            authorization: AUTHORIZATION,
            shared: server.shared(),
            shared_path: server.shared(),
            rpc: None,
            settings,
        }
    }

    pub fn through(self, endpoint: String) -> Self {
        Self { endpoint, ..self }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, SettingValue::Text(value.into())));
        self
    }

    /// With an API of toncenter, with or without a key.
    pub fn rpc(self, endpoint: &str, key: Option<&'static str>) -> Self {
        Self { rpc: Some((endpoint.to_owned(), key)), ..self }.with("rpc_endpoint", endpoint)
    }

    pub async fn load(&self) -> Arc<Adapter> {
        let mut capabilities = Capabilities::none();
        let origin = |url: &str| url.split('/').take(3).collect::<Vec<_>>().join("/");
        let http = |url: &str, credentials: Option<(&str, &str)>| {
            let credentials = credentials
                .map(|(header, secret)| HeaderCredential { header: header.into(), secret: Secret::new(secret) });
            let grant = HttpGrant::to([origin(url).as_str()]).unwrap();
            HttpGrant { connection: ConnectionSettings::new(true), credentials, ..grant }
        };
        let daemon = http(&self.endpoint, Some(("authorization", self.authorization)));
        capabilities.grant_http("daemon", &daemon).unwrap();
        capabilities.grant_directory("shared", &DirectoryGrant::below(&self.shared)).unwrap();
        if let Some((endpoint, key)) = &self.rpc {
            capabilities.grant_http("rpc", &http(endpoint, key.map(|key| ("x-api-key", key)))).unwrap();
        }
        let shared = self.shared_path.display().to_string();
        let own = [("daemon_endpoint", &self.endpoint), ("shared_path", &shared)];
        let own = own.map(|(name, value)| (name, SettingValue::Text(value.clone())));
        let settings = self.settings.iter().cloned().chain(own).map(|(name, value)| (name.to_owned(), value)).collect();
        let (limits, trust) = (Limits::default(), Default::default());
        let spec = BackendSpec { name: "bags".into(), capabilities, settings, limits, trust };
        let engine = Sandbox::new(EngineOptions { operations: 8, ..Default::default() }).unwrap();
        Arc::new(Adapter::load(&engine, &spec, component("ton")).await.unwrap_or_else(|error| panic!("{error:?}")))
    }
}

pub fn hint(key: &str, size: Option<usize>) -> StoreHint {
    StoreHint { key: key.into(), size: size.map(|size| size as u64), labels: Vec::new() }
}

pub async fn store(adapter: &Adapter, key: &str, bytes: &[u8]) -> ObjectId {
    let body = Body::from_bytes(bytes.to_vec());
    adapter.store(body, hint(key, Some(bytes.len()))).await.unwrap_or_else(|error| panic!("{key}: {error:?}")).id
}

pub async fn read(adapter: &Arc<Adapter>, id: &ObjectId, range: Option<(usize, usize)>) -> tidelock::Result<Vec<u8>> {
    let range = range.map(|(start, end)| ByteRange { start: start as u64, end: Some(end as u64) });
    Ok(adapter.retrieve(id, range).await?.collect(1 << 30).await?.to_vec())
}

/// Why something failed, which it has to. What it gave if it did not is too much to be printed.
pub async fn kind<T>(outcome: impl Future<Output = tidelock::Result<T>>) -> ErrorKind {
    match outcome.await {
        Ok(_) => panic!("it did not fail"),
        Err(error) => error.kind().clone(),
    }
}

/// What a daemon says of a bag.
pub fn details(server: &TonStorage, id: &ObjectId) -> Option<Value> {
    let said = server.ask("GET", &format!("details?bag_id={id}"), "").ok()?;
    Some(serde_json::from_str(&said).unwrap())
}

/// A bag of a file or a folder that is made without the adapter.
fn by_hand(server: &TonStorage, path: &Path, description: &str) -> ObjectId {
    let body = json!({ "path": path, "description": description }).to_string();
    let said: Value = serde_json::from_str(&server.ask("POST", "create", &body).unwrap()).unwrap();
    ObjectId::new(said["bag_id"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn every_operation_works() {
    let Some(world) = world("ton: every_operation_works") else { return };
    let bags = Setup::of(&world.first).load().await;
    assert_eq!(bags.description().name, "ton");
    let mut stored = Vec::new();
    let edges = [PIECE - HEADER - 1, PIECE - HEADER, PIECE - HEADER + 1, PIECE, PIECE + 1, 2 * PIECE - HEADER];
    for (number, size) in [0, 1, 5 * PIECE + 7, 9 * MIB + 1].into_iter().chain(edges).enumerate() {
        for known in [true, false] {
            let key = format!("{}{number}", if known { 'k' } else { 'u' });
            let bytes = noise(size, number as u64);
            let hint = hint(&key, known.then_some(size));
            let receipt = bags.store(Body::from_bytes(bytes.clone()), hint).await.unwrap();
            assert_eq!(receipt.size, size as u64);
            let said = details(&world.first, &receipt.id).unwrap();
            assert_eq!((&said["completed"], &said["size"]), (&json!(true), &json!(size)), "{key}");
            let name = said["files"][0]["name"].as_str().unwrap();
            assert!(name.starts_with(&key), "{name}");
            assert_same(&fs::read(world.first.shared().join("stored").join(name)).unwrap(), &bytes, &key);
            assert_same(&read(&bags, &receipt.id, None).await.unwrap(), &bytes, &key);
            let at = |part: usize| size * part / 7;
            for (start, end) in [(0, 1), (at(2), at(5)), (at(3), size + 9), (size, size), (at(6), size)] {
                let part = read(&bags, &receipt.id, Some((start, end))).await.unwrap();
                assert_same(&part, &bytes[start..end.min(size)], &format!("{key} {start}..{end}"));
            }
            assert_eq!(kind(read(&bags, &receipt.id, Some((size + 1, size + 2)))).await, ErrorKind::Invalid, "{key}");
            let stat = bags.stat(&receipt.id).await.unwrap();
            assert_eq!((stat.size, stat.base), (size as u64, None));
            stored.push(receipt.id);
        }
    }
    listed(&bags, &stored).await;
    let again = bags.store(Body::from_bytes("x"), hint("k0", Some(1)));
    assert_eq!(kind(again).await, ErrorKind::Conflict, "a key is used once");
    for id in &stored {
        for _ in 0..2 {
            bags.remove(id).await.unwrap();
        }
        assert_eq!(kind(bags.stat(id)).await, ErrorKind::NotFound);
        assert!(details(&world.first, id).is_none());
    }
    assert_eq!(
        fs::read_dir(world.first.shared().join("stored"))
            .unwrap()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name().into_string().unwrap();
                name.starts_with('u') || name.starts_with('k')
            })
            .count(),
        0
    );
}

/// Every object is in the inventory, once.
async fn listed(bags: &Adapter, stored: &[ObjectId]) {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = bags.list_objects(cursor, 3).await.unwrap();
        assert!(page.entries.len() <= 3);
        found.extend(page.entries.into_iter().map(|entry| entry.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for id in stored {
        assert_eq!(found.iter().filter(|other| *other == id).count(), 1, "{id}");
    }
}

/// The control for what `files.rs` promises: whole objects of known size pass by, in and out.
#[tokio::test]
async fn no_byte_of_a_whole_object_crosses_the_memory_of_ton() {
    let Some(world) = world("ton: no_byte_of_a_whole_object_crosses_the_memory_of_ton") else { return };
    let bags = Setup::of(&world.first).load().await;
    let bytes = noise(32 * MIB, 1);
    let id = store(&bags, "passing", &bytes).await;
    assert_same(&read(&bags, &id, None).await.unwrap(), &bytes, "whole");
    assert!(bags.bytes_through_guest() < 10_000, "{}: requests and answers", bags.bytes_through_guest());
    let before = bags.bytes_through_guest();
    read(&bags, &id, Some((5, 3 * PIECE))).await.unwrap();
    assert!(bags.bytes_through_guest() - before >= 3 * PIECE as u64, "a counter that stays at 0 counts nothing");
    let stored = bags.store(Body::from_bytes(bytes), hint("unsized", None)).await.unwrap();
    assert!(bags.bytes_through_guest() < 2 * MIB as u64, "of unknown size: no more than the first piece");
    for id in [&id, &stored.id] {
        bags.remove(id).await.unwrap();
    }
}

#[tokio::test]
async fn lineage_is_in_the_bag_and_travels_with_it() {
    let Some(world) = world("ton: lineage_is_in_the_bag_and_travels_with_it") else { return };
    let (here, there) = (Setup::of(&world.first).load().await, Setup::of(&world.second).load().await);
    let base = store(&here, "base", &noise(PIECE, 1)).await;
    let mut chain = vec![base];
    for number in 0..5 {
        let delta = Body::from_bytes(noise(1000 + number, 2));
        let last = chain.last().unwrap();
        let next = here.incremental_update(last, delta, hint(&format!("delta-{number}"), None)).await.unwrap();
        chain.push(next.id);
    }
    // The other daemon has only what it fetches, and its adapter nothing but the id.
    let last = chain.last().unwrap();
    read(&there, last, None).await.unwrap();
    for pair in chain.windows(2).rev() {
        assert_eq!(here.stat(&pair[1]).await.unwrap().base.as_ref(), Some(&pair[0]));
    }
    assert_eq!(there.stat(last).await.unwrap().base.as_ref(), Some(&chain[4]));
    let absent = ObjectId::new("07".repeat(32)).unwrap();
    let orphan = here.incremental_update(&absent, Body::from_bytes("x"), hint("orphan", None));
    assert_eq!(kind(orphan).await, ErrorKind::NotFound);
    let nonsense = ObjectId::new("stored/base").unwrap();
    assert_eq!(kind(here.stat(&nonsense)).await, ErrorKind::Invalid);
}

#[tokio::test]
async fn another_daemon_fetches_what_it_lacks() {
    let Some(world) = world("ton: another_daemon_fetches_what_it_lacks") else { return };
    let (here, there) = (Setup::of(&world.first).load().await, Setup::of(&world.second).load().await);
    let bytes = noise(3 * MIB + 11, 4);
    for (key, bytes) in [("far-empty", &[][..]), ("far-one", &[7]), ("far", &bytes)] {
        let id = store(&here, key, bytes).await;
        assert_eq!(kind(there.stat(&id)).await, ErrorKind::NotFound, "not yet");
        assert_same(&read(&there, &id, None).await.unwrap(), bytes, key);
        assert_eq!(there.stat(&id).await.unwrap().size, bytes.len() as u64);
        let part = read(&there, &id, Some((bytes.len() / 2, bytes.len()))).await.unwrap();
        assert_same(&part, &bytes[bytes.len() / 2..], "a part");
        there.remove(&id).await.unwrap();
        assert!(details(&world.second, &id).is_none());
        assert!(!world.second.shared().join("fetched").join(id.as_str()).exists(), "its folder goes with it");
        assert_same(&read(&here, &id, None).await.unwrap(), bytes, "still here");
    }
}

#[tokio::test]
async fn a_bag_of_no_daemon_is_unavailable() {
    let Some(world) = world("ton: a_bag_of_no_daemon_is_unavailable") else { return };
    let mut setup = Setup::of(&world.first);
    setup.settings = vec![("download_timeout", SettingValue::Integer(2))];
    let bags = setup.load().await;
    let nobodys = ObjectId::new("5a".repeat(32)).unwrap();
    let error = bags.retrieve(&nobodys, None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no peer with the bag was found"), "{error}");
    assert!(details(&world.first, &nobodys).is_none(), "nobody goes on looking for it");
    assert_eq!(kind(bags.stat(&nobodys)).await, ErrorKind::NotFound);
    bags.remove(&nobodys).await.unwrap();
    let nonsense = ObjectId::new("5a").unwrap();
    assert_eq!(kind(bags.retrieve(&nonsense, None)).await, ErrorKind::Invalid);
}

#[tokio::test]
async fn bags_of_others_are_read() {
    let Some(world) = world("ton: bags_of_others_are_read") else { return };
    let bags = Setup::of(&world.first).load().await;
    let shared = world.first.shared();
    let bytes = noise(2 * PIECE + 5, 6);
    let folder = shared.join("holiday");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("photo.raw"), &bytes).unwrap();
    let long = "a description that is longer than what fits into one cell, and then some more ".repeat(5);
    for (path, description) in
        [(folder.clone(), ""), (folder.join("photo.raw"), "a photo"), (folder.join("photo.raw"), &*long)]
    {
        let id = by_hand(&world.first, &path, description);
        assert_same(&read(&bags, &id, None).await.unwrap(), &bytes, description);
        let part = read(&bags, &id, Some((PIECE - 3, PIECE + 3))).await.unwrap();
        assert_same(&part, &bytes[PIECE - 3..PIECE + 3], description);
        assert_eq!(bags.stat(&id).await.unwrap().base, None);
        let upper = ObjectId::new(id.as_str().to_uppercase()).unwrap();
        assert_eq!(bags.stat(&upper).await.unwrap().size, bytes.len() as u64);
        let page = bags.list_objects(None, 1000).await.unwrap();
        assert!(page.entries.iter().all(|entry| entry.id != id), "it was not stored here");
    }
    fs::write(folder.join("another.raw"), "x").unwrap();
    let two = by_hand(&world.first, &folder, "");
    assert_eq!(kind(bags.retrieve(&two, None)).await, ErrorKind::Unsupported);
    assert_eq!(kind(bags.remove(&two)).await, ErrorKind::Unsupported, "nor is it taken away");
    assert!(folder.join("another.raw").exists() && details(&world.first, &two).is_some());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("f"), "x").unwrap();
    let outside = by_hand(&world.first, &elsewhere.path().join("f"), "");
    assert_eq!(kind(bags.retrieve(&outside, None)).await, ErrorKind::Unsupported);
}

#[test]
fn a_raw_image_is_a_bag_for_every_daemon() {
    let Some(world) = world("ton: a_raw_image_is_a_bag_for_every_daemon") else { return };
    let (endpoint, shared) = (&world.first.endpoint, world.first.shared().display().to_string());
    let mut home = Home::with(&format!(
        r#"
[backends.bags]
adapter = "ton"
settings = {{ daemon_endpoint = "{endpoint}", shared_path = "{shared}" }}
[backends.bags.grants.http.daemon]
origins = ["{endpoint}"]
private_addresses = true
credentials = {{ header = "authorization", env = "TON_DAEMON" }}
[backends.bags.grants.directory.shared]
path = "{shared}"
"#
    ));
    home.env("TON_DAEMON", AUTHORIZATION);
    let bytes = noise(2 * MIB + 3, 8);
    let image = home.file("image", &bytes);
    let said = home.json(&["store", "--raw", &image]);
    let id = said["id"].as_str().unwrap().to_owned();
    let bag = said["placements"][0]["object"].as_str().unwrap().to_owned();
    assert_same(&home.bytes(&["retrieve", &id]), &bytes, "by the program");
    assert_same(&home.bytes(&["retrieve", &id, "--range", "5..1500000"]), &bytes[5..1_500_000], "a range");
    home.json(&["verify", "--deep"]);
    // Another daemon, which gets the id only.
    let folder = world.second.shared().join("plain");
    let body = json!({ "bag_id": bag, "path": folder, "download_all": true }).to_string();
    world.second.ask("POST", "add", &body).unwrap();
    let bag = ObjectId::new(bag).unwrap();
    tidelock_tests::program::until("the second daemon has the bag", || {
        details(&world.second, &bag).is_some_and(|said| said["completed"] == true)
    });
    let said = details(&world.second, &bag).unwrap();
    let file = folder.join(bag.as_str()).join(said["files"][0]["name"].as_str().unwrap());
    assert_same(&fs::read(file).unwrap(), &bytes, "by the second daemon");
    home.line_with(&["update", &id, "-"], &noise(MIB, 9));
    home.line(&["rm", &id]);
    assert!(details(&world.first, &bag).is_none());
}

/// Wrong settings are found before anything is stored.
#[tokio::test]
async fn settings_are_checked_by_a_probe() {
    let Some(world) = world("ton: settings_are_checked_by_a_probe") else { return };
    let bags = Setup::of(&world.first).with("wallet_address", "EQ").load().await;
    let error = bags.probe().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("wallet_address"), "{error}");
}
