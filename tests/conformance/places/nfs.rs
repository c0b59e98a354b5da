//! `nfs`: an export of NFS-Ganesha, with `libnfs` as the other client that looks.
//!
//! NFSv3 has no waiting times and no money: a server is busy (`JUKEBOX`), full (`NOSPC`, `DQUOT`) or fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidelock::types::ObjectId;
use tidelock_tests::faults::{Proxy, rpc};
use tidelock_tests::program::guest;
use xtask::backends::{Ganesha, ganesha};

use super::fs;
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

pub fn entry() -> Entry {
    Entry {
        name: "nfs".into(),
        has: vec![
            Need::Ranges,
            Need::Lineage,
            Need::Unsized,
            Need::Labels,
            Need::Inventory,
            Need::HandsOn,
            Need::HandsBack,
            Need::Wire,
            Need::DataOnWire,
            Need::Server,
            Need::AtRest,
            Need::Credentials,
            Need::Alone,
        ],
        lacks,
        own: Vec::new,
        start: Box::new(start),
    }
}

fn lacks(case: &str) -> Option<&'static str> {
    case.starts_with("fault_429").then_some("an NFS server that is busy says JUKEBOX and no time: see fault_503")
}

fn start() -> Started {
    if let Some(why) = ganesha::why_not() {
        return Err(why);
    }
    let server = Ganesha::start().expect("NFS-Ganesha starts");
    let version = ganesha::installed_version().expect("NFS-Ganesha says its version");
    let (export, url, ports) = (server.export(), server.url(), (server.port, server.mount_port));
    Ok(Arc::new(Nfs { export, url, ports, version, server: Mutex::new(server) }))
}

struct Nfs {
    export: PathBuf,
    url: String,
    /// Of NFS and of the mount protocol.
    ports: (u16, u16),
    version: String,
    server: Mutex<Ganesha>,
}

impl Nfs {
    fn server(&self) -> MutexGuard<'_, Ganesha> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place for Nfs {
    fn servers(&self) -> Vec<Server> {
        vec![Server { name: "NFS-Ganesha", version: self.version.clone(), real: true }]
    }

    fn component(&self) -> PathBuf {
        guest("nfs")
    }

    fn table(&self, want: &Want<'_>) -> String {
        let url = match want.through {
            Some(port) => self.url.replace(&format!(":{}/", self.ports.0), &format!(":{port}/")),
            None => self.url.clone(),
        };
        let user = if want.stranger { "?uid=4711" } else { "" };
        format!(
            "settings = {{ prefix = {:?} }}\ngrants.directory.objects = {{ nfs = \"{url}{user}\", mount_port = {} }}",
            want.prefix, self.ports.1
        )
    }

    fn keys(&self, _: bool) -> Keys {
        Keys::default()
    }

    fn proxy(&self, seed: u64) -> Proxy {
        rpc::before(self.ports.0, seed).expect("a proxy")
    }

    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>> {
        async move { fs::objects(&self.export, prefix) }.boxed()
    }

    fn bytes<'a>(&'a self, _: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>> {
        let output = {
            let server = self.server();
            server.tool("nfs-cat").expect("libnfs").arg(server.libnfs_url(id.as_str())).output()
        };
        async move {
            let output = output.expect("nfs-cat runs");
            assert!(output.status.success(), "nfs-cat: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        }
        .boxed()
    }

    fn damage<'a>(&'a self, _: &'a str, id: &'a ObjectId, how: Damage) -> BoxFuture<'a, ()> {
        async move { fs::damage(&self.export.join(id.as_str()), how) }.boxed()
    }

    fn strangers_read(&self) -> bool {
        true
    }

    fn refused(&self, _: u16) -> &'static str {
        "unavailable"
    }

    fn mortal(&self) -> bool {
        true
    }

    fn kill(&self) {
        self.server().kill();
    }

    fn restart(&self) {
        self.server().restart().expect("NFS-Ganesha starts again");
    }
}
