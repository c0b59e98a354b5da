//! `glacier`: a bucket of moto, with the storage class GLACIER.
//!
//! moto is a stand-in for Amazon's archive, the one that there is. It keeps everything in memory, so for an outage it is
//! taken off the network rather than killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidelock::runtime::Adapter;
use tidelock::types::{ArchiveState, ObjectId};
use tidelock_tests::cold;
use tidelock_tests::faults::{Proxy, http};
use tidelock_tests::program::guest;
use xtask::backends::Moto;
use xtask::backends::moto::{self, BUCKET, REGION};

use super::bucket::{Bucket, classify};
use crate::place::{Damage, Entry, Keys, Need, Place, Server, Started, Want};

pub fn entry() -> Entry {
    Entry {
        name: "glacier".into(),
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
            Need::Cold,
        ],
        lacks: |_| None,
        own: Vec::new,
        start: Box::new(start),
    }
}

fn start() -> Started {
    let server = cold::start();
    let bucket = Bucket::new(&server.endpoint, REGION, BUCKET, &server.keys.access_key, &server.keys.secret_key);
    Ok(Arc::new(Glacier { bucket, server }))
}

struct Glacier {
    bucket: Bucket,
    server: Moto,
}

impl Glacier {
    /// Without the adapter: requests a restore, and polls until it is done.
    async fn restored(&self, adapter: &Adapter, id: &ObjectId) {
        for _ in 0..1000 {
            match adapter.stat(id).await.unwrap_or_else(|error| panic!("stat of what is cold: {error:?}")).archive {
                Some(ArchiveState::Archived) => {
                    adapter.restore(id, 1).await.unwrap_or_else(|error| panic!("restore: {error:?}"));
                }
                Some(ArchiveState::Restoring(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
                Some(ArchiveState::Readable(_)) | None => return,
            }
        }
        panic!("{id} is never restored");
    }
}

impl Place for Glacier {
    fn servers(&self) -> Vec<Server> {
        vec![Server { name: "moto", version: moto::VERSION.into(), real: false }]
    }

    fn component(&self) -> PathBuf {
        guest("glacier")
    }

    fn table(&self, want: &Want<'_>) -> String {
        format!("tier = \"cold\"\n{}", self.bucket.grant(want))
    }

    fn keys(&self, stranger: bool) -> Keys {
        self.bucket.keys(stranger)
    }

    fn proxy(&self, seed: u64) -> Proxy {
        http::before(self.server.port, classify, seed).expect("a proxy")
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

    fn thaw<'a>(&'a self, adapter: &'a Adapter, id: &'a ObjectId) -> BoxFuture<'a, ()> {
        self.restored(adapter, id).boxed()
    }
}
