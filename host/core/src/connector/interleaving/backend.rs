//! A backend whose calls are points of the scheduler.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::scheduler::Points;
use crate::backend::testing::MemoryBackend;
use crate::backend::{Backend, BackendInfo, Upload};
use crate::connector::labels::is_identity_name;
use crate::types::{
    AccountState, ArchiveState, Body, ByteRange, Error, Health, InventoryPage, ObjectId, ObjectStat, Receipt, Result,
};

/// A backend in memory whose calls are points.
pub(super) struct WatchedBackend {
    pub(super) inner: MemoryBackend,
    points: Arc<Points>,
}

impl WatchedBackend {
    fn around<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        call: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        async move {
            self.points.point(what).await;
            let answer = call.await;
            self.points.point(what).await;
            answer
        }
        .boxed()
    }
}

impl Backend for WatchedBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        self.around("put", self.inner.put(upload))
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        self.around("get", self.inner.get(id, range))
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        // The container stays, so nothing comes of what happens meanwhile.
        if is_identity_name(id.as_str()) {
            return self.inner.stat(id);
        }
        self.around("stat", self.inner.stat(id))
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        self.around("delete", self.inner.delete(id))
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        self.around("inventory", self.inner.list(cursor, limit))
    }

    fn restore<'a>(&'a self, id: &'a ObjectId, days: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        self.inner.restore(id, days)
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.inner.health()
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        self.inner.balance()
    }

    fn report(&self, _: &ObjectId, _: &Error) {}
}

/// A backend that several hosts share.
pub(super) fn shared(inner: MemoryBackend, points: &Arc<Points>) -> Arc<WatchedBackend> {
    Arc::new(WatchedBackend { inner, points: points.clone() })
}
