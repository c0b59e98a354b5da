//! Layers that treat every operation alike: one implementation of [`Backend`] for all of them.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Error, Health, InventoryPage, ObjectId, ObjectStat, Receipt, Result,
};

use crate::{Backend, BackendInfo, Operation, Upload};

/// A layer that does the same around every operation.
pub(super) trait Around: Send + Sync + 'static {
    /// Runs an operation.
    fn around<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        work: BoxFuture<'a, Result<T>>,
    ) -> impl Future<Output = Result<T>> + Send + 'a;

    /// Looks at the bytes of a get.
    fn body(&self, body: Body) -> Body;
}

/// A backend with something around each of its operations.
pub(super) struct Surrounded<A> {
    around: A,
    inner: Arc<dyn Backend>,
}

impl<A: Around> Surrounded<A> {
    pub(super) fn wrap(around: A, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { around, inner })
    }
}

impl<A: Around> Backend for Surrounded<A> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        Box::pin(self.around.around(Operation::Put, self.inner.put(upload)))
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        let opening = self.around.around(Operation::Get, self.inner.get(id, range));
        Box::pin(async move { opening.await.map(|body| self.around.body(body)) })
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        Box::pin(self.around.around(Operation::Stat, self.inner.stat(id)))
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.around.around(Operation::Delete, self.inner.delete(id)))
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        Box::pin(self.around.around(Operation::List, self.inner.list(cursor, limit)))
    }

    fn restore<'a>(&'a self, id: &'a ObjectId, days: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        Box::pin(self.around.around(Operation::Restore, self.inner.restore(id, days)))
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        Box::pin(self.around.around(Operation::Health, self.inner.health()))
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        Box::pin(self.around.around(Operation::Balance, self.inner.balance()))
    }

    fn local_file(&self, id: &ObjectId) -> Option<std::fs::File> {
        self.inner.local_file(id)
    }

    fn report(&self, id: &ObjectId, error: &Error) {
        self.inner.report(id, error);
    }
}
