//! `ton`: a storage daemon in a private TON network on this machine.
//!
//! No bytes travel between host and daemon: they share a directory, with a part for each case. So the wire
//! carries requests and replies, and faults affect those. The daemon's list has the bags of all cases; the
//! directory of a bag's file tells its case.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tidelock::types::ObjectId;
use tidelock_tests::faults::{Proxy, http};
use tidelock_tests::program::guest;
use xtask::backends::ton::{self, storage};
use xtask::backends::{TonNetwork, TonStorage};

use super::fs;
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

pub fn entry() -> Entry {
    Entry {
        name: "ton".into(),
        has: vec![
            Need::Ranges,
            Need::Lineage,
            Need::Unsized,
            Need::Inventory,
            Need::HandsOn,
            Need::HandsBack,
            Need::Wire,
            Need::Server,
            Need::AtRest,
            Need::Credentials,
            Need::Alone,
        ],
        lacks: |_| None,
        own: Vec::new,
        start: Box::new(start),
    }
}

fn start() -> Started {
    if let Some(why) = ton::why_not() {
        return Err(why);
    }
    let network = TonNetwork::start().expect("the TON network starts");
    let daemon = TonStorage::start(&network.config()).expect("a storage daemon starts");
    let (endpoint, port, shared) = (daemon.endpoint.clone(), daemon.port, daemon.shared());
    Ok(Arc::new(Ton { endpoint, port, shared, files: Mutex::default(), daemon: Mutex::new(daemon), _network: network }))
}

struct Ton {
    endpoint: String,
    port: u16,
    shared: PathBuf,
    /// The file of each bag that was seen, and its size: neither changes.
    files: Mutex<BTreeMap<String, (PathBuf, u64)>>,
    daemon: Mutex<TonStorage>,
    _network: TonNetwork,
}

impl Ton {
    fn daemon(&self) -> MutexGuard<'_, TonStorage> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let said = self.daemon().ask(method, path, body).unwrap_or_else(|error| panic!("{path}: {error:#}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{path}: {error}: {said}"))
    }

    /// The file of a bag that the daemon has whole.
    fn file_of(&self, bag: &str) -> Option<(PathBuf, u64)> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(bag) {
            return Some(known.clone());
        }
        let said = self.daemon().ask("GET", &format!("details?bag_id={bag}"), "").ok()?;
        let details: Value = serde_json::from_str(&said).ok()?;
        let file = details["files"].as_array()?.first()?;
        let path = PathBuf::from(details["path"].as_str()?).join(file["name"].as_str()?);
        let found = (path, file["size"].as_u64()?);
        files.insert(bag.to_owned(), found.clone());
        Some(found)
    }

    fn visible(&self, prefix: &str) -> BTreeMap<String, u64> {
        let list = self.ask("GET", "list", "");
        let bags = list["bags"].as_array().into_iter().flatten().filter_map(|bag| bag["bag_id"].as_str());
        let of_us = |bag: &str| {
            let (path, size) = self.file_of(bag)?;
            path.starts_with(self.shared.join(prefix)).then(|| (bag.to_owned(), size))
        };
        bags.filter_map(of_us).collect()
    }
}

impl Place for Ton {
    fn servers(&self) -> Vec<Server> {
        vec![Server { name: "tonutils-storage", version: storage::VERSION.into(), real: true }]
    }

    fn component(&self) -> PathBuf {
        guest("ton")
    }

    fn table(&self, want: &Want<'_>) -> String {
        let endpoint = match want.through {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => self.endpoint.clone(),
        };
        let shared = self.shared.join(want.prefix);
        // A bag without a provider is waited for this long.
        format!(
            "settings = {{ daemon_endpoint = {endpoint:?}, shared_path = {shared:?}, download_timeout = 2 }}\n\
             grants.http.daemon = {{ origins = [{endpoint:?}], private_addresses = true, \
             credentials = {{ header = \"authorization\", file = \"place\" }} }}\n\
             grants.directory.shared = {{ path = {shared:?} }}"
        )
    }

    fn keys(&self, stranger: bool) -> Keys {
        // The user `somebody` with the password `else`.
        let header = if stranger { "Basic c29tZWJvZHk6ZWxzZQ==" } else { storage::AUTHORIZATION };
        Keys { header: header.into(), ..Keys::default() }
    }

    fn proxy(&self, seed: u64) -> Proxy {
        http::before(self.port, |_| None, seed).expect("a proxy")
    }

    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>> {
        async move { self.visible(prefix) }.boxed()
    }

    fn bytes<'a>(&'a self, _: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>> {
        async move { std::fs::read(self.file_of(id.as_str()).expect("a bag").0).expect("its file") }.boxed()
    }

    fn damage<'a>(&'a self, _: &'a str, id: &'a ObjectId, how: Damage) -> BoxFuture<'a, ()> {
        async move {
            let (file, _) = self.file_of(id.as_str()).expect("a bag");
            self.daemon().verify(id.as_str()).expect("a bag that is whole");
            if how == Damage::Lose {
                self.ask("POST", "remove", &json!({ "bag_id": id, "with_files": false }).to_string());
            }
            fs::damage(&file, how);
        }
        .boxed()
    }

    fn notices_damage(&self) -> bool {
        true
    }

    fn forgets(&self) -> bool {
        false
    }

    fn lists_more(&self) -> bool {
        true
    }

    fn mortal(&self) -> bool {
        true
    }

    fn kill(&self) {
        self.daemon().kill();
    }

    fn restart(&self) {
        self.daemon().restart().expect("tonutils-storage starts again");
    }
}
