//! For tests: a backend in memory with injected failures, and an upload that records the outcome of its attempts.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, stream};

use tidelock_types::{
    AccountState, ArchiveState, Body, ByteRange, Error, ErrorKind, Features, Health, InventoryEntry, InventoryPage,
    ObjectId, ObjectStat, Receipt, Result, StoreHint,
};

use crate::{Backend, BackendInfo, Operation, Upload, UploadAttempt, UploadSource};

/// The most bytes of an object.
const MAX_OBJECT: usize = 64 << 20;

/// A backend that keeps its objects in memory. Their names are the keys of their attempts, or follow from their bytes.
#[derive(Default)]
pub struct MemoryBackend {
    name: String,
    info: BackendInfo,
    named_by_content: bool,
    objects: Mutex<BTreeMap<String, Object>>,
    faults: Mutex<VecDeque<Fault>>,
    after_put: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    base: Option<ObjectId>,
    labels: Vec<(String, String)>,
}

/// How an operation is to fail.
struct Fault {
    operation: Operation,
    kind: ErrorKind,
    /// Whether it does its work all the same, as where only the answer is lost.
    takes_effect: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that follows from bytes, long enough to be taken for a digest.
fn content_name(bytes: &[u8]) -> String {
    let [first, second] = [0u8, 1].map(|salt| {
        let mut hasher = std::hash::DefaultHasher::new();
        (salt, bytes).hash(&mut hasher);
        hasher.finish()
    });
    format!("content{first:016x}{second:016x}")
}

impl MemoryBackend {
    /// An empty one that can do everything but archive and pay.
    pub fn new(name: &str) -> Self {
        let features = Features { ranges: true, lineage: true, unsized_input: true, labels: true };
        let info = BackendInfo { features, inventory: true, ..BackendInfo::default() };
        Self { name: name.to_owned(), info, ..Self::default() }
    }

    /// An empty one that names objects after their bytes, as IPFS does: equal bytes are one object.
    pub fn named_by_content(name: &str) -> Self {
        Self { named_by_content: true, ..Self::new(name) }
    }

    /// Lets the next operation of this kind fail. One that `takes_effect` does its work all the same. Faults of one
    /// operation are injected in the order in which they were given.
    pub fn fail_next(&self, operation: Operation, kind: ErrorKind, takes_effect: bool) {
        lock(&self.faults).push_back(Fault { operation, kind, takes_effect });
    }

    /// Removes the faults that have not been injected.
    pub fn fail_no_more(&self) {
        lock(&self.faults).clear();
    }

    /// Does something once the next object has been stored, before that is answered.
    pub fn after_next_put(&self, then: impl FnOnce() + Send + 'static) {
        *lock(&self.after_put) = Some(Box::new(then));
    }

    /// Replaces the bytes of an object. Returns whether it is there.
    pub fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut objects = lock(&self.objects);
        let Some(object) = objects.get_mut(name) else { return false };
        let mut bytes = object.bytes.to_vec();
        damage(&mut bytes);
        object.bytes = bytes.into();
        true
    }

    /// The bytes of an object, if it is there.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        lock(&self.objects).get(name).map(|object| object.bytes.clone())
    }

    /// The names of its objects, in order.
    pub fn objects(&self) -> Vec<String> {
        lock(&self.objects).keys().cloned().collect()
    }

    fn error(&self, kind: ErrorKind, operation: Operation) -> Error {
        Error::new(kind, "an injected failure").on_backend(&self.name).during(operation.name())
    }

    fn object(&self, id: &ObjectId) -> Result<Object> {
        let found = lock(&self.objects).get(id.as_str()).cloned();
        found.ok_or_else(|| Error::not_found(format!("there is no object {id}")).on_backend(&self.name))
    }

    /// Runs an operation, or lets it fail.
    async fn run<T>(&self, operation: Operation, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = {
            let mut faults = lock(&self.faults);
            let at = faults.iter().position(|fault| fault.operation == operation);
            at.and_then(|at| faults.remove(at))
        };
        match fault {
            Some(Fault { kind, takes_effect, .. }) => {
                if takes_effect {
                    work.await?;
                }
                Err(self.error(kind, operation))
            }
            None => work.await,
        }
    }
}

impl Backend for MemoryBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BackendInfo {
        self.info
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        let store = move |UploadAttempt { body, hint, base }| {
            self.run(Operation::Put, async move {
                let bytes = body.collect(MAX_OBJECT).await?;
                let name = if self.named_by_content { content_name(&bytes) } else { hint.key };
                let receipt = Receipt { id: ObjectId::new(name.as_str())?, size: bytes.len() as u64 };
                lock(&self.objects).insert(name, Object { bytes, base, labels: hint.labels });
                if let Some(then) = lock(&self.after_put).take() {
                    then();
                }
                Ok(receipt)
            })
        };
        async move { upload.attempt(self.info.features, store).await }.boxed()
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        let read = async move {
            let bytes = self.object(id)?.bytes;
            let (start, len) = range.unwrap_or_default().within(bytes.len() as u64)?;
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let part = bytes.slice(start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)));
            Ok(Body::new(stream::iter([Ok(part)]), Some(len)))
        };
        self.run(Operation::Get, read).boxed()
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        let stat = async move {
            let Object { bytes, base, labels } = self.object(id)?;
            Ok(ObjectStat { size: bytes.len() as u64, base, archive: None, modified: None, labels })
        };
        self.run(Operation::Stat, stat).boxed()
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        let delete = async move {
            lock(&self.objects).remove(id.as_str());
            Ok(())
        };
        self.run(Operation::Delete, delete).boxed()
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        let list = async move {
            let objects = lock(&self.objects);
            let after = cursor.unwrap_or_default();
            let mut rest = objects.iter().filter(|(key, _)| **key > after).peekable();
            let mut entries = Vec::new();
            while let Some((key, object)) = rest.next_if(|_| entries.len() < limit as usize) {
                entries.push(InventoryEntry {
                    id: ObjectId::new(key.as_str())?,
                    size: object.bytes.len() as u64,
                    modified: None,
                });
            }
            let next = rest.peek().and(entries.last()).map(|last| last.id.as_str().to_owned());
            Ok(InventoryPage { entries, next })
        };
        self.run(Operation::List, list).boxed()
    }

    fn restore<'a>(&'a self, _: &'a ObjectId, _: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        let none = async { Err(self.error(ErrorKind::Unsupported, Operation::Restore)) };
        self.run(Operation::Restore, none).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.run(Operation::Health, async { Ok(Health { ready: true, detail: String::new() }) }).boxed()
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        let none = async { Err(self.error(ErrorKind::Unsupported, Operation::Balance)) };
        self.run(Operation::Balance, none).boxed()
    }

    fn report(&self, _: &ObjectId, _: &Error) {}
}

/// An upload of bytes in memory that notes its attempts.
pub struct MemoryUpload {
    bytes: Bytes,
    replayable: bool,
    attempts: Mutex<Vec<MemoryAttempt>>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryAttempt {
    /// It was begun and has not ended.
    Begun,
    /// It has stored this object.
    Stored(ObjectId),
    /// It has failed.
    Failed(ErrorKind),
}

impl MemoryUpload {
    /// The upload of these bytes.
    pub fn new(bytes: impl Into<Bytes>, replayable: bool) -> Self {
        Self { bytes: bytes.into(), replayable, attempts: Mutex::default() }
    }

    /// All attempts so far. The key of the first is `key-0`.
    pub fn attempts(&self) -> Vec<MemoryAttempt> {
        lock(&self.attempts).clone()
    }
}

impl UploadSource for MemoryUpload {
    fn is_replayable(&self) -> bool {
        self.replayable
    }

    fn begin(&self, _: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        let begun = || {
            let mut attempts = lock(&self.attempts);
            if !self.replayable && !attempts.is_empty() {
                return Err(Error::invalid("these bytes can be read only once"));
            }
            let key = format!("key-{}", attempts.len());
            attempts.push(MemoryAttempt::Begun);
            let hint = StoreHint { key, size: Some(self.bytes.len() as u64), labels: Vec::new() };
            Ok(UploadAttempt { body: Body::from_bytes(self.bytes.clone()), hint, base: None })
        };
        Box::pin(std::future::ready(begun()))
    }

    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>> {
        let number = key.strip_prefix("key-").and_then(|number| number.parse::<usize>().ok());
        let mut attempts = lock(&self.attempts);
        let ended = match number.and_then(|number| attempts.get_mut(number)) {
            Some(attempt) => {
                *attempt = match outcome {
                    Ok(receipt) => MemoryAttempt::Stored(receipt.id.clone()),
                    Err(error) => MemoryAttempt::Failed(error.kind().clone()),
                };
                Ok(())
            }
            None => Err(Error::invalid(format!("there is no attempt `{key}`"))),
        };
        Box::pin(std::future::ready(ended))
    }
}
