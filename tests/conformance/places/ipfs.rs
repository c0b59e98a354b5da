//! `ipfs`: a Kubo daemon, with its own command line as the second client.
//!
//! Objects of a case are pins whose names begin with its prefix. Equal bytes have one CID, so cases never store the same
//! bytes. Removed objects may stay readable until the daemon's garbage collection; and permissions are not tested, since
//! its RPC has no users.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tidelock::types::ObjectId;
use tidelock_tests::faults::http::Head;
use tidelock_tests::faults::{On, Proxy, http};
use tidelock_tests::program::{files, guest};
use xtask::backends::{Kubo, kubo};

use super::fs;
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

pub fn entry() -> Entry {
    Entry {
        name: "ipfs".into(),
        has: vec![
            Need::Ranges,
            Need::Lineage,
            Need::Unsized,
            Need::Inventory,
            Need::HandsOn,
            Need::Wire,
            Need::DataOnWire,
            Need::Server,
            Need::AtRest,
            Need::Alone,
        ],
        lacks: |_| None,
        own: Vec::new,
        start: Box::new(start),
    }
}

fn start() -> Started {
    if let Some(why) = kubo::why_not() {
        return Err(why);
    }
    let node = Kubo::start().expect("Kubo starts");
    let repository: Value = serde_json::from_str(&node.ask("repo/stat").expect("Kubo answers")).expect("JSON");
    let blocks = Path::new(repository["RepoPath"].as_str().expect("a path")).join("blocks");
    Ok(Arc::new(Ipfs { rpc: node.rpc.clone(), port: node.port, blocks, node: Mutex::new(node) }))
}

struct Ipfs {
    rpc: String,
    port: u16,
    /// Where the daemon keeps blocks, a file each.
    blocks: PathBuf,
    node: Mutex<Kubo>,
}

impl Ipfs {
    fn node(&self) -> MutexGuard<'_, Kubo> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, command: &str) -> Value {
        let said = self.node().ask(command).unwrap_or_else(|error| panic!("{command}: {error:#}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{command}: {error}: {said}"))
    }

    /// What Kubo's own command line prints.
    fn ipfs(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.node().ipfs().args(arguments).output().expect("ipfs runs");
        assert!(output.status.success(), "ipfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn visible(&self, prefix: &str) -> BTreeMap<String, u64> {
        let pins = self.ask("pin/ls?type=recursive&names=true");
        let mut found = BTreeMap::new();
        for (cid, pin) in pins["Keys"].as_object().into_iter().flatten() {
            let of_us = |name: &Value| name.as_str().is_some_and(|name| name.starts_with(&format!("{prefix}/")));
            // A change is a node of its own kind (DAG-CBOR), which says itself whose it is.
            if cid.starts_with("bafyrei") {
                let node = self.ask(&format!("dag/get?arg={cid}"));
                if of_us(&node["name"]) {
                    found.insert(cid.clone(), node["size"].as_u64().expect("a size"));
                }
            } else if of_us(&pin["Name"]) {
                let stat = self.ask(&format!("files/stat?arg=/ipfs/{cid}"));
                found.insert(cid.clone(), stat["Size"].as_u64().expect("a size"));
            }
        }
        found
    }

    /// The file of one of the blocks in the middle of an object.
    fn block_of(&self, id: &ObjectId) -> PathBuf {
        let leaves = String::from_utf8(self.ipfs(&["refs", "-r", id.as_str()])).expect("CIDs");
        let leaves: Vec<&str> = leaves.lines().collect();
        let leaf = leaves.get(leaves.len() / 2).copied().unwrap_or(id.as_str());
        let bytes = self.ipfs(&["block", "get", leaf]);
        let holds = |path: &PathBuf| std::fs::read(path).is_ok_and(|found| found == bytes);
        files(&self.blocks).into_iter().find(holds).expect("the block's file")
    }
}

impl Place for Ipfs {
    fn servers(&self) -> Vec<Server> {
        vec![Server { name: "Kubo", version: kubo::VERSION.into(), real: true }]
    }

    fn component(&self) -> PathBuf {
        guest("ipfs")
    }

    fn mends(&self) -> bool {
        false
    }

    fn table(&self, want: &Want<'_>) -> String {
        let rpc = match want.through {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => self.rpc.clone(),
        };
        // An object without a provider is searched for this long.
        format!(
            "settings = {{ rpc = {rpc:?}, namespace = {:?}, timeout = 2 }}\n\
             grants.http.rpc = {{ origins = [{rpc:?}], private_addresses = true }}",
            want.prefix
        )
    }

    fn keys(&self, _: bool) -> Keys {
        Keys::default()
    }

    fn proxy(&self, seed: u64) -> Proxy {
        http::before(self.port, classify, seed).expect("a proxy")
    }

    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>> {
        async move { self.visible(prefix) }.boxed()
    }

    fn bytes<'a>(&'a self, _: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>> {
        async move { self.ipfs(&["cat", id.as_str()]) }.boxed()
    }

    fn damage<'a>(&'a self, _: &'a str, id: &'a ObjectId, how: Damage) -> BoxFuture<'a, ()> {
        async move {
            let file = self.block_of(id);
            if how == Damage::Lose {
                self.ask(&format!("pin/rm?arg={id}"));
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

    fn mortal(&self) -> bool {
        true
    }

    fn kill(&self) {
        self.node().kill();
    }

    fn restart(&self) {
        self.node().restart().expect("Kubo starts again");
    }
}

/// Files go up, and blocks come down, one at a time or as a CAR.
fn classify(head: &Head) -> Option<On> {
    match head.path().strip_prefix("/api/v0/")? {
        "add" => Some(On::Up),
        "block/get" | "dag/export" | "cat" => Some(On::Down),
        _ => None,
    }
}
