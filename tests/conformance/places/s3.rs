//! `s3`: a bucket of SeaweedFS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidelock::types::ObjectId;
use tidelock_tests::faults::{Proxy, http};
use tidelock_tests::program::guest;
use tidelock_tests::server;
use xtask::backends::{Seaweed, seaweed};

use super::bucket::{Bucket, classify};
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

pub fn entry() -> Entry {
    Entry {
        name: "s3".into(),
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
        lacks: |_| None,
        own: Vec::new,
        start: Box::new(start),
    }
}

fn start() -> Started {
    let server = server::start();
    let bucket = Bucket::new(&server.endpoint, &server.region, server::BUCKET, &server.access_key, &server.secret_key);
    Ok(Arc::new(S3 { bucket, server: Mutex::new(server) }))
}

struct S3 {
    bucket: Bucket,
    server: Mutex<Seaweed>,
}

impl S3 {
    fn server(&self) -> std::sync::MutexGuard<'_, Seaweed> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place for S3 {
    fn servers(&self) -> Vec<Server> {
        vec![Server { name: "SeaweedFS", version: seaweed::VERSION.into(), real: true }]
    }

    fn component(&self) -> PathBuf {
        guest("s3")
    }

    fn table(&self, want: &Want<'_>) -> String {
        self.bucket.grant(want)
    }

    fn keys(&self, stranger: bool) -> Keys {
        self.bucket.keys(stranger)
    }

    fn proxy(&self, seed: u64) -> Proxy {
        let port = self.bucket.endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        http::before(port, classify, seed).expect("a proxy")
    }

    fn visible<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, BTreeMap<String, u64>> {
        self.bucket.visible(prefix).boxed()
    }

    fn bytes<'a>(&'a self, prefix: &'a str, id: &'a ObjectId) -> BoxFuture<'a, Vec<u8>> {
        self.bucket.bytes(prefix, id).boxed()
    }

    fn damage<'a>(&'a self, prefix: &'a str, id: &'a ObjectId, how: Damage) -> BoxFuture<'a, ()> {
        self.bucket.damage(prefix, id, how).boxed()
    }

    fn mortal(&self) -> bool {
        true
    }

    fn kill(&self) {
        self.server().kill();
    }

    fn restart(&self) {
        self.server().restart().expect("SeaweedFS starts again");
    }
}
