//! The upload of a store: attempts, each under a fresh key whose intent is in the catalogue.
//!
//! Whoever makes the attempts (a swap slot, a layer that retries), the catalogue knows of each before its first byte
//! leaves. The intent of one that failed is ended if the failure rules out that there is an object; otherwise it stays, and
//! garbage collection looks for the object once the upload has ended. The intents of those that succeeded are ended by
//! the transaction that records the object, or stay if that never comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::Host;
use super::encoding::keeps_packs;
use super::labels::{self, fresh_key};
use super::object_bytes::{Layout, ObjectBytes};
use super::options::StoreOptions;
use super::payload::{self, Payload};
use crate::backend::{UploadAttempt, UploadSource};
use crate::catalogue::NewPack;
use crate::snapshot::Reading;
use crate::types::{Effect, Encoding, Error, Features, Receipt, Result, SnapshotId, StoreHint};

/// The upload of one image to one backend.
pub(super) struct StoreUpload {
    host: Host,
    backend: String,
    /// Empty once what can be read only once has been read.
    payload: Mutex<Option<Payload>>,
    replayable: bool,
    /// Set by an attempt that began with an adapter that cannot keep a pack.
    refused: AtomicBool,
    base: Option<SnapshotId>,
    options: StoreOptions,
    /// Whether nothing counts that the backend has already.
    anew: bool,
    attempts: Mutex<Vec<Attempt>>,
    /// The keys of all attempts: those whose intents have not ended by the end of the upload are given up.
    keys: Mutex<Vec<String>>,
}

struct Attempt {
    key: String,
    layout: Layout,
    made: Option<oneshot::Receiver<NewPack>>,
    reading: Reading,
    receipt: Option<Receipt>,
}

/// An attempt that succeeded.
pub(super) struct StoredAttempt {
    /// Its key, whose intent has yet to be ended.
    pub(super) key: String,
    /// The receipt of the object.
    pub(super) receipt: Receipt,
    /// The layout of the bytes in the object.
    pub(super) layout: Layout,
    /// The pack that they turned out to be, if it is not in the layout.
    pub(super) made: Option<oneshot::Receiver<NewPack>>,
    /// The identity of the bytes that were read.
    pub(super) reading: Reading,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StoreUpload {
    pub(super) fn new(
        host: &Host,
        backend: &str,
        payload: Payload,
        base: Option<SnapshotId>,
        options: &StoreOptions,
    ) -> Self {
        Self {
            host: host.clone(),
            backend: backend.to_owned(),
            replayable: payload.again().is_some(),
            refused: AtomicBool::new(false),
            payload: Mutex::new(Some(payload)),
            base,
            options: options.clone(),
            attempts: Mutex::default(),
            keys: Mutex::default(),
            anew: false,
        }
    }

    /// This one, of an object that is to be made whatever the backend has of the image.
    pub(super) fn anew(mut self) -> Self {
        self.anew = true;
        self
    }

    /// Returns whether nothing counts that the backend has already.
    pub(super) fn is_anew(&self) -> bool {
        self.anew
    }

    /// Takes the attempts that have succeeded: usually one.
    pub(super) fn take_stored(&self) -> Vec<StoredAttempt> {
        let attempts = std::mem::take(&mut *lock(&self.attempts)).into_iter();
        let stored = attempts.filter_map(|Attempt { key, layout, made, reading, receipt }| {
            let receipt = receipt?;
            Some(StoredAttempt { key, receipt, layout, made, reading })
        });
        stored.collect()
    }

    /// Where it goes.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    /// What the image is a change of.
    pub(super) fn base(&self) -> Option<SnapshotId> {
        self.base
    }

    /// How it is stored.
    pub(super) fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Returns whether an attempt did not begin since the adapter cannot keep a pack.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    async fn begin_attempt(&self, features: Features) -> Result<UploadAttempt> {
        if let Some(begun) = &self.options.begun {
            begun.store(true, Ordering::Relaxed);
        }
        let base = match self.base {
            Some(base) if features.lineage => self.host.object_on(&self.backend, base).await?,
            _ => None,
        };
        let key = fresh_key(&self.host.inner.platform)?;
        let ObjectBytes { body, reading, size, layout, made } =
            payload::take(&mut lock(&self.payload))?.open(self.options.progress.clone());
        // The adapter may be another one than when it was decided what to send.
        if layout.encoding == Encoding::Pages && !keeps_packs(features) {
            self.refused.store(true, Ordering::Relaxed);
            return Err(Error::unsupported("the adapter that serves now cannot keep a pack").on_backend(&self.backend));
        }
        let labels = match features.labels {
            true => labels::labels(self.base, self.options.name.as_deref(), layout.encoding),
            false => Vec::new(),
        };
        let hint = StoreHint { key: key.clone(), size, labels };
        let inner = &self.host.inner;
        inner.owner.begin_intent(&key, &self.backend).await?;
        lock(&self.keys).push(key.clone());
        lock(&self.attempts).push(Attempt { key, layout, made, reading, receipt: None });
        Ok(UploadAttempt { body, hint, base })
    }

    async fn end_attempt(&self, key: &str, outcome: std::result::Result<&Receipt, &Error>) -> Result<()> {
        match outcome {
            Ok(receipt) => {
                let mut attempts = lock(&self.attempts);
                if let Some(attempt) = attempts.iter_mut().find(|attempt| attempt.key == key) {
                    attempt.receipt = Some(receipt.clone());
                }
                Ok(())
            }
            Err(error) => {
                lock(&self.attempts).retain(|attempt| attempt.key != key);
                match error.effect() {
                    Effect::Unknown => Ok(()),
                    Effect::None => self.host.inner.catalogue.end_intent(key).await,
                }
            }
        }
    }
}

impl Drop for StoreUpload {
    fn drop(&mut self) {
        let keys = self.keys.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.host.inner.owner.give_up(keys.drain(..));
    }
}

impl UploadSource for StoreUpload {
    fn is_replayable(&self) -> bool {
        self.replayable
    }

    fn begin(&self, features: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        self.begin_attempt(features).boxed()
    }

    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>> {
        self.end_attempt(key, outcome).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::NoSecrets;
    use crate::backend::testing::MemoryBackend;
    use crate::backend::{Backend as _, Operation, Upload};
    use crate::config::Config;
    use crate::snapshot::{FileSource, Source, StreamSource};
    use crate::types::ErrorKind;

    async fn host(dir: &std::path::Path) -> Host {
        Host::start_lazily(&Config::embedded_default(dir), Arc::new(NoSecrets)).await.unwrap()
    }

    fn file(bytes: &[u8]) -> Source {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        Source::File(FileSource::new(file, "image").unwrap())
    }

    fn upload(host: &Host, source: Source) -> Arc<StoreUpload> {
        Arc::new(StoreUpload::new(host, "memory", Payload::Image(source), None, &StoreOptions::default()))
    }

    async fn intents(host: &Host) -> Vec<String> {
        // Asking the catalogue for those without an owner would not show the ones of this host, which lives.
        let file = rusqlite::Connection::open(host.inner.data_dir.join("catalogue.sqlite")).unwrap();
        let mut query = file.prepare("SELECT key FROM intents ORDER BY key").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[tokio::test]
    async fn every_object_that_an_attempt_may_have_left_has_a_placement_or_an_intent() {
        let dir = tempfile::tempdir().unwrap();
        let (host, memory) = (host(dir.path()).await, MemoryBackend::new("memory"));
        let source = upload(&host, file(b"image"));
        let put = || memory.put(Upload::new(source.clone()));
        // Known to have had no effect; an answer that was lost; and one that was given up with its bytes on the way.
        memory.fail_next(Operation::Put, ErrorKind::RateLimited(None), false);
        put().await.unwrap_err();
        assert_eq!(intents(&host).await, [""; 0]);
        memory.fail_next(Operation::Put, ErrorKind::TimedOut, true);
        put().await.unwrap_err();
        assert_eq!(intents(&host).await, memory.objects());
        drop(source.begin(memory.info().features).await.unwrap());
        let receipt = put().await.unwrap();
        assert_eq!(intents(&host).await.len(), 3);
        let stored = source.take_stored();
        assert!(stored.len() == 1 && stored[0].receipt == receipt);
        let copy = host.settle("memory", receipt.clone(), stored, Some(&StoreOptions::default())).await.unwrap();
        host.record(vec![copy], None, &StoreOptions::default(), true).await.unwrap();
        let placement = host.inner.catalogue.placement_of("memory", &receipt.id).await.unwrap().unwrap();
        assert_eq!((placement.object, placement.stored_bytes), (receipt.id.clone(), 5));
        let (left, objects) = (intents(&host).await, memory.objects());
        assert_eq!((left.len(), objects.len()), (2, 2));
        assert!(objects.iter().all(|object| left.contains(object) || *object == receipt.id.as_str()));
    }

    #[tokio::test]
    async fn a_stream_has_one_attempt_and_a_refused_one_leaves_no_intent() {
        let dir = tempfile::tempdir().unwrap();
        let (host, memory) = (host(dir.path()).await, MemoryBackend::new("memory"));
        let source = upload(&host, Source::Stream(StreamSource::new(&b"image"[..], "stream")));
        assert!(!source.is_replayable());
        memory.fail_next(Operation::Put, ErrorKind::Denied, false);
        memory.put(Upload::new(source.clone())).await.unwrap_err();
        let error = memory.put(Upload::new(source)).await.unwrap_err();
        assert_eq!((error.kind(), error.backend()), (&ErrorKind::Invalid, None));
        assert_eq!(intents(&host).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_receipt_of_no_attempt_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path()).await;
        let receipt = Receipt { id: crate::types::ObjectId::new("x").unwrap(), size: 5 };
        let error = host.settle("memory", receipt, Vec::new(), Some(&StoreOptions::default())).await.err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
    }
}
