//! A slot as a [`Backend`]: each operation runs on the generation that serves, and is done again on another one where a
//! swap preempted it or where it failed on trial.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Slot;
use super::part::Part;
use crate::Adapter;
use tidelock_backend::{Backend, BackendInfo, Upload, UploadAttempt};
use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Error, Health, InventoryPage, ObjectId, ObjectStat, Receipt, Result,
};

impl Slot {
    /// Does an operation that may be done again at any time.
    async fn call<T, B: Future<Output = Result<T>>>(&self, operation: impl Fn(Arc<Adapter>) -> B) -> Result<T> {
        let mut attempt = self.begin();
        loop {
            let outcome = attempt.run(operation(attempt.adapter().clone())).await;
            match attempt.end(outcome.as_ref().map(|_| ()), true) {
                Some(next) => attempt = next,
                None => return outcome,
            }
        }
    }

    /// Stores an object; done again only from bytes that can be read again, and under a fresh key.
    async fn store(&self, upload: Upload) -> Result<Receipt> {
        let mut attempt = self.begin();
        loop {
            let adapter = attempt.adapter();
            let send = |UploadAttempt { body, hint, base }| async {
                match base {
                    Some(base) => attempt.run(adapter.incremental_update(&base, body, hint)).await,
                    None => attempt.run(adapter.store(body, hint)).await,
                }
            };
            let outcome = upload.attempt(adapter.description().features, send).await;
            let next = attempt.end(outcome.as_ref().map(|_| ()), upload.is_replayable());
            let (Err(error), Some(next)) = (&outcome, next) else { return outcome };
            tracing::debug!(backend = self.name(), %error, "storing again on another generation of the adapter");
            attempt = next;
        }
    }
}

impl Backend for Slot {
    fn name(&self) -> &str {
        &self.0.spec.name
    }

    fn info(&self) -> BackendInfo {
        let adapter = self.0.current.load();
        let adapter = adapter.adapter();
        let optional = adapter.optional_interfaces();
        BackendInfo {
            features: adapter.description().features,
            inventory: optional.contains(&"inventory"),
            archive: optional.contains(&"archive"),
            account: optional.contains(&"account"),
        }
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        self.store(upload).boxed()
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        self.read(Part::new(id.clone(), range)).boxed()
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        self.call(move |adapter| async move { adapter.stat(id).await }).boxed()
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        self.call(move |adapter| async move { adapter.remove(id).await }).boxed()
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        let list = move |adapter: Arc<Adapter>| {
            let cursor = cursor.clone();
            async move { adapter.list_objects(cursor, limit).await }
        };
        self.call(list).boxed()
    }

    fn restore<'a>(&'a self, id: &'a ObjectId, days: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        self.call(move |adapter| async move { adapter.restore(id, days).await }).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.call(|adapter| async move { adapter.probe().await }).boxed()
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        self.call(|adapter| async move { adapter.balance().await }).boxed()
    }

    /// Counts as a failure of the generation that serves, while it is on trial once for each object: the caller found it
    /// out when the attempt was over, so the predecessor was not asked, and the object itself may be damaged.
    fn report(&self, id: &ObjectId, error: &Error) {
        tracing::warn!(backend = self.name(), object = %id, %error, "it gave bytes that are not what was stored");
        let generation = self.current();
        match generation.trial.load_full() {
            Some(trial) if trial.is_first_report(id) => self.failed(&generation, &trial),
            Some(_) => {}
            None => generation.tally.add(true),
        }
    }
}
