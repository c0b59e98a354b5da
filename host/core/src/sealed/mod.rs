//! Encryption around a backend: what an adapter and its backend see of an object is its size and its time.
//!
//! [`SealedBackend`] wraps a backend. It seals each object on its way out and opens it on its way back, parts of it too, so that
//! nothing above it knows. The name of a sealed object begins with [`MARK`] wherever this host keeps it, in the catalogue
//! and in answers: sealed objects and others can lie side by side in one container, and what a host without the key meets
//! is an object that is encrypted, not one that is damaged.
//!
//! | module | contents |
//! | --- | --- |
//! | `keys` | the keys of a host, and what is derived from them |
//! | `format` | the bytes of a sealed object (`docs/formats.md`) |
//! | `stream` | bodies on their way in and out |
//! | `labels` | labels, sealed into one |
//!
//! What it does not hide: sizes, times, how many objects there are, and which parts of them are read.

mod format;
mod keys;
mod labels;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use crate::backend::{Backend, BackendInfo, Upload, UploadAttempt, UploadSource};
use crate::types::{
    AccountState, ArchiveState, Body, ByteRange, Error, ErrorKind, Features, Health, InventoryEntry, InventoryPage,
    ObjectId, ObjectStat, Platform, Receipt, Result,
};
use format::{HEADER, Header, SALT};
pub use keys::{EncryptionKey, Keyring};

/// What the name of a sealed object begins with.
pub const MARK: &str = "sealed:";
/// What the key of a sealed object ends with, so that its name in a listing tells it.
const KEY_SUFFIX: &str = "-sealed";
/// The salts of objects that are kept, so that their headers are not read for each part.
const SALTS: usize = 4096;
/// Headers of listed objects that are read at once, where names do not tell what is sealed.
const HEADERS_AT_ONCE: usize = 8;

/// A backend whose objects are sealed.
pub struct SealedBackend {
    inner: Arc<dyn Backend>,
    keys: Arc<Keyring>,
    /// Whether new objects are sealed.
    seals: bool,
    /// Whether the name of an object has the key that it was stored under, which tells by itself what is sealed.
    names_its_key: fn(&str) -> bool,
    platform: Platform,
    /// The headers of objects that were read last, by their names on the backend.
    headers: Mutex<BTreeMap<String, Header>>,
}

/// The name of an object on its backend, if it is sealed.
fn marked(id: &ObjectId) -> Result<Option<ObjectId>> {
    id.as_str().strip_prefix(MARK).map(ObjectId::new).transpose()
}

/// Returns whether an object is sealed, by its name in this host.
pub fn is_sealed(id: &ObjectId) -> bool {
    id.as_str().starts_with(MARK)
}

/// The name of a sealed object in this host.
fn mark(id: &ObjectId) -> Result<ObjectId> {
    ObjectId::new(format!("{MARK}{id}"))
}

/// Returns whether these are the first bytes of a sealed object, whatever it is called.
pub fn looks_sealed(first: &[u8]) -> bool {
    first.starts_with(format::MAGIC)
}

impl SealedBackend {
    /// Wraps a backend. New objects are sealed with the first key, if there is one and `seals` is set; objects that are
    /// sealed are opened with whichever key they name. In a listing, `names_its_key` says of which objects the name has the key
    /// that the object was stored under.
    pub fn new(
        inner: Arc<dyn Backend>,
        keys: Arc<Keyring>,
        seals: bool,
        names_its_key: fn(&str) -> bool,
        platform: Platform,
    ) -> Self {
        let seals = seals && keys.first().is_some();
        Self { inner, keys, seals, names_its_key, platform, headers: Mutex::default() }
    }

    fn headers(&self) -> MutexGuard<'_, BTreeMap<String, Header>> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, id: &ObjectId, header: Header) {
        let mut headers = self.headers();
        if headers.len() >= SALTS && !headers.contains_key(id.as_str()) {
            headers.pop_first();
        }
        headers.insert(id.as_str().to_owned(), header);
    }

    /// The header of an object, by its name on the backend.
    async fn header(&self, id: &ObjectId) -> Result<Header> {
        let kept = self.headers().get(id.as_str()).cloned();
        if let Some(header) = kept {
            return Ok(header);
        }
        let bytes = self.inner.get(id, Some(ByteRange::of(0, HEADER))).await?.collect(HEADER as usize).await?;
        let header = Header::parse(&bytes).map_err(|error| error.on_backend(self.name()))?;
        self.keep(id, header.clone());
        Ok(header)
    }

    fn opener(&self, header: &Header) -> Result<format::ObjectKey> {
        self.keys.object_key(header).map_err(|error| error.on_backend(self.name()))
    }

    async fn get_sealed(&self, id: &ObjectId, range: Option<ByteRange>) -> Result<Body> {
        let Some(range) = range else {
            let (header, body) = stream::header(self.inner.get(id, None).await?, self.name()).await?;
            let key = self.opener(&header)?;
            self.keep(id, header);
            return stream::opened(body, key, stream::Window::whole(), self.name());
        };
        if let Some(end) = range.end
            && end <= range.start
        {
            // Answers, and refuses, as it does for what is not sealed.
            return self.inner.get(id, Some(range)).await;
        }
        let key = self.opener(&self.header(id).await?)?;
        let window = stream::Window::of(range);
        let part = self.inner.get(id, Some(window.sealed())).await;
        let opened = part.and_then(|part| stream::opened(part, key, window, self.name()));
        if opened.is_err() {
            // It may be another object by now.
            self.headers().remove(id.as_str());
        }
        opened
    }

    /// What a backend says of an object that can be opened: its key is here. Labels that open prove that; without any, the header
    /// of the object does, unless it is in cold storage. What it holds is not proven.
    ///
    /// # Errors
    /// `denied`, with [`Error::missing_key`]; `corrupt` if no sealed object has so many bytes, or the header is none.
    async fn stat_sealed(&self, id: &ObjectId) -> Result<ObjectStat> {
        let told = |error: Error| error.on_backend(self.name()).during("stat");
        let stat = self.inner.stat(id).await?;
        let size = format::opened_size(stat.size)
            .ok_or_else(|| told(Error::corrupt(format!("a sealed object cannot have {} bytes", stat.size))))?;
        let opened = match labels::sealed_in(&stat.labels) {
            // Labels that are damaged may name any key, so they are asked together with the object.
            Some(sealed) => labels::open(sealed, &self.keys),
            None => Ok(None),
        };
        let (labels, base) = match opened {
            Ok(Some(opened)) => opened,
            _ if matches!(stat.archive, Some(ArchiveState::Archived | ArchiveState::Restoring(_))) => {
                opened.map_err(told)?.unwrap_or_default()
            }
            _ => {
                self.opener(&self.header_again(id).await.map_err(told)?).map_err(told)?;
                Default::default()
            }
        };
        Ok(ObjectStat { size, base, labels, ..stat })
    }

    /// The header of an object. One that is damaged is read once more: it may have been damaged on its way.
    async fn header_again(&self, id: &ObjectId) -> Result<Header> {
        match self.header(id).await {
            Err(error) if *error.kind() == ErrorKind::Corrupt => self.header(id).await,
            header => header,
        }
    }

    /// What a listing says of an object, under the name that it has in this host.
    async fn listed(&self, entry: InventoryEntry) -> Result<InventoryEntry> {
        let name = entry.id.as_str();
        let (named, keyed) = (name.ends_with(KEY_SUFFIX), (self.names_its_key)(name));
        let size = match format::opened_size(entry.size) {
            Some(size) => size,
            // One that is damaged stays sealed: taken for an image, it would be another one.
            None if named && keyed => entry.size,
            None => return Ok(entry),
        };
        // An adapter may put something behind the key.
        let within = name.rsplit('/').next().is_some_and(|last| last.contains(KEY_SUFFIX));
        let sealed = match named || self.keys.first().is_none() || (keyed && !within) {
            true => named,
            // Named after its bytes: they tell. One that cannot be read now is looked at again when it is imported.
            false => self.header(&entry.id).await.is_ok(),
        };
        if !sealed || name.starts_with(MARK) {
            return Ok(entry);
        }
        Ok(InventoryEntry { id: mark(&entry.id)?, size, ..entry })
    }
}

impl Backend for SealedBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn info(&self) -> BackendInfo {
        let info = self.inner.info();
        match self.seals {
            true => BackendInfo { features: features(info.features), ..info },
            false => info,
        }
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        if !self.seals {
            return self.inner.put(upload);
        }
        async move {
            let source = SealedUpload { upload, keys: self.keys.clone(), platform: self.platform.clone() };
            let receipt = self.inner.put(Upload::new(Arc::new(source))).await?;
            sealed_receipt(&receipt).map_err(|error| error.on_backend(self.name()))
        }
        .boxed()
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        match marked(id) {
            Ok(None) => self.inner.get(id, range),
            marked => async move { self.get_sealed(marked?.as_ref().unwrap_or(id), range).await }.boxed(),
        }
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        match marked(id) {
            Ok(None) => self.inner.stat(id),
            marked => async move { self.stat_sealed(marked?.as_ref().unwrap_or(id)).await }.boxed(),
        }
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        async move { self.inner.delete(marked(id)?.as_ref().unwrap_or(id)).await }.boxed()
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        async move {
            let page = self.inner.list(cursor, limit).await?;
            let entries = futures::stream::iter(page.entries).map(|entry| self.listed(entry)).buffered(HEADERS_AT_ONCE);
            let entries: Vec<Result<InventoryEntry>> = entries.collect().await;
            Ok(InventoryPage { entries: entries.into_iter().collect::<Result<_>>()?, next: page.next })
        }
        .boxed()
    }

    fn restore<'a>(&'a self, id: &'a ObjectId, days: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        async move { self.inner.restore(marked(id)?.as_ref().unwrap_or(id), days).await }.boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        self.inner.health()
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        self.inner.balance()
    }

    fn local_file(&self, id: &ObjectId) -> Option<std::fs::File> {
        match marked(id) {
            Ok(None) => self.inner.local_file(id),
            _ => None,
        }
    }

    fn report(&self, id: &ObjectId, error: &Error) {
        match marked(id) {
            Ok(Some(inner)) => {
                self.headers().remove(inner.as_str());
                self.inner.report(&inner, error);
            }
            _ => self.inner.report(id, error),
        }
    }
}

/// The features of a backend for what is sealed: a base is kept in the labels.
fn features(inner: Features) -> Features {
    Features { lineage: inner.labels, ..inner }
}

fn sealed_receipt(receipt: &Receipt) -> Result<Receipt> {
    let size = format::opened_size(receipt.size)
        .ok_or_else(|| Error::corrupt(format!("it stored {} bytes, which no sealed object has", receipt.size)))?;
    Ok(Receipt { id: mark(&receipt.id)?, size })
}

/// An upload on its way out. Each attempt has a salt of its own, and so other bytes.
struct SealedUpload {
    upload: Upload,
    keys: Arc<Keyring>,
    platform: Platform,
}

impl UploadSource for SealedUpload {
    fn is_replayable(&self) -> bool {
        self.upload.is_replayable()
    }

    fn begin(&self, inner: Features) -> BoxFuture<'_, Result<UploadAttempt>> {
        async move {
            let mut salt = [0; SALT];
            self.platform.fill(&mut salt)?;
            let header = self.keys.header(salt)?;
            let UploadAttempt { body, mut hint, base } = self.upload.begin(features(inner)).await?;
            if inner.labels {
                hint.labels = vec![labels::seal(&hint.labels, base.as_ref(), &header, &self.keys)?];
            }
            hint.key += KEY_SUFFIX;
            hint.size = hint.size.map(format::sealed_size);
            let key = self.keys.object_key(&header)?;
            Ok(UploadAttempt { body: stream::sealed(body, header, key), hint, base: None })
        }
        .boxed()
    }

    fn end<'a>(
        &'a self,
        key: &'a str,
        outcome: std::result::Result<&'a Receipt, &'a Error>,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let key = key.strip_suffix(KEY_SUFFIX).unwrap_or(key);
            match outcome {
                Ok(receipt) => self.upload.end(key, Ok(&sealed_receipt(receipt)?)).await,
                Err(error) => self.upload.end(key, Err(error)).await,
            }
        }
        .boxed()
    }
}
