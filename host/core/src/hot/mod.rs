//! The hot tier as a backend: objects as files in one directory of this machine, without an adapter.
//!
//! It differs from a backend with an adapter in what the connector can do beside the trait [`Backend`]: read and compare an
//! object in place ([`Backend::local_file`]), and ask how much room each takes and when it was used last ([`HotBackend::usage`]), to
//! make room for others. Its objects are recorded, removed, claimed, verified and imported as all others are.
//!
//! The files are written, made durable and collected by the capability `directory`: a temporary file that is locked while it is
//! written, then its name. Zeros are holes. An object has the name of its key; one in another encoding than `raw` also has
//! that in its name, so that no moment shows it without. Its labels are in a file beside it, which is written after it and removed after it:
//! one without its object belongs to a removal that was cut short.
//!
//! When an object was used last is the access time of its file, which is set here, since file systems set it seldom or never.

mod side;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use tokio::sync::OnceCell;

use crate::backend::{Backend, BackendInfo, Upload, UploadAttempt};
use crate::capabilities::directory::{Directory as _, LocalDirectory};
use crate::capabilities::grant::DirectoryGrant;
use crate::types::files::WriteOptions;
use crate::types::{
    AccountState, ArchiveState, Body, ByteRange, Encoding, Error, ErrorKind, Features, Health, InventoryEntry,
    InventoryPage, ObjectId, ObjectStat, Platform, Receipt, Result, blocking,
};

/// The end of the name of a file of labels.
const SIDE: &str = ".side";
/// The most bytes of such a file.
const SIDE_BYTES: usize = 64 << 10;

/// A directory of objects.
pub struct HotBackend {
    name: String,
    path: PathBuf,
    platform: Platform,
    /// Opened by the first operation: a directory that is not there keeps no host from starting.
    directory: OnceCell<LocalDirectory>,
    hits: AtomicU64,
    evictions: AtomicU64,
}

/// An object, and what it costs to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotEntry {
    /// Its name.
    pub object: ObjectId,
    /// The bytes that it takes of the file system.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
}

/// What the directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HotUsage {
    /// The bytes that objects take of the file system.
    pub objects: u64,
    /// Those of files that are being written, or were.
    pub unfinished: u64,
    /// The objects, the one that was not used for longest first.
    pub entries: Vec<HotEntry>,
}

impl HotUsage {
    /// The bytes that all files take of the file system.
    pub fn bytes(&self) -> u64 {
        self.objects.saturating_add(self.unfinished)
    }
}

impl HotBackend {
    /// The objects in a directory, which is made by the first operation if it is not there.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, platform: Platform) -> Self {
        let (hits, evictions) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { name: name.into(), path: path.into(), platform, directory: OnceCell::new(), hits, evictions }
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often an object was opened to be read.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How many objects have made room for others.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Counts an object that has made room.
    pub fn evicted(&self) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what the directory holds. Blocks.
    ///
    /// # Errors
    /// What the operating system refuses. A directory that is not there holds nothing.
    pub fn usage(&self) -> Result<HotUsage> {
        let mut usage = HotUsage::default();
        self.add(&self.path, &mut usage)?;
        self.add(&self.path.join(crate::types::path::TEMPORARY), &mut usage)?;
        usage.entries.sort_by(|one, other| (one.used, &one.object).cmp(&(other.used, &other.object)));
        Ok(usage)
    }

    fn add(&self, directory: &Path, usage: &mut HotUsage) -> Result<()> {
        let fail = |error| Error::io(directory.display(), error).on_backend(&self.name);
        let listed = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            listed => listed.map_err(fail)?,
        };
        for entry in listed {
            let entry = entry.map_err(fail)?;
            // It may be gone by now.
            let Ok(about) = entry.metadata() else { continue };
            if !about.is_file() {
                continue;
            }
            let bytes = about.blocks().saturating_mul(512);
            if *directory != *self.path {
                usage.unfinished = usage.unfinished.saturating_add(bytes);
                continue;
            }
            usage.objects = usage.objects.saturating_add(bytes);
            let name = entry.file_name();
            let object = name.to_str().filter(|name| is_object(name)).and_then(|name| ObjectId::new(name).ok());
            if let Some(object) = object {
                let used = Duration::new(about.atime().max(0) as u64, about.atime_nsec().clamp(0, 999_999_999) as u32);
                usage.entries.push(HotEntry { object, bytes, used: UNIX_EPOCH + used });
            }
        }
        Ok(())
    }

    /// Removes what writers and removals that were cut short have left, and returns the number of files. Those of objects that
    /// nothing records are left to whoever knows what is recorded.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub async fn sweep(&self) -> Result<u64> {
        let directory = self.directory().await?;
        let mut removed = directory.gc().await?;
        let mut cursor = None;
        loop {
            let page = directory.list_entries("", cursor.as_deref(), 1000).await?;
            for entry in &page.entries {
                let Some(object) = entry.name.strip_suffix(SIDE).filter(|name| is_object(name)) else { continue };
                if directory.stat(object).await.is_err_and(|error| *error.kind() == ErrorKind::NotFound) {
                    directory.remove(&entry.name).await?;
                    removed += 1;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(removed);
            }
        }
    }

    /// Notes that an object is used.
    pub fn touch(&self, object: &ObjectId) {
        let Ok(name) = self.file_of(object) else { return };
        let time = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
        let now = Timestamps { last_access: time(UTIME_NOW), last_modification: time(UTIME_OMIT) };
        // On read-only media it stays as it is.
        let _ = utimensat(CWD, self.path.join(name), &now, AtFlags::SYMLINK_NOFOLLOW);
    }

    async fn directory(&self) -> Result<&LocalDirectory> {
        let open = || {
            let (grant, platform) = (DirectoryGrant::below(self.path.clone()), self.platform.clone());
            blocking(move || LocalDirectory::open_with(&grant, platform))
        };
        self.directory.get_or_try_init(open).await
    }

    /// The name of an object's file.
    fn file_of<'a>(&self, object: &'a ObjectId) -> Result<&'a str> {
        let name = object.as_str();
        match is_object(name) {
            true => Ok(name),
            false => Err(Error::not_found(format!("there is no object `{object}`")).on_backend(&self.name)),
        }
    }

    async fn store(&self, UploadAttempt { body, hint, .. }: UploadAttempt) -> Result<Receipt> {
        let directory = self.directory().await?;
        let encoding = hint.labels.iter().find(|(name, _)| name == Encoding::LABEL).map(|(_, value)| value.as_str());
        let name = encoding.map_or(hint.key.clone(), |encoding| format!("{}.{encoding}", hint.key));
        let id = ObjectId::new(name.as_str())?;
        self.file_of(&id)?;
        let size = directory.write(&name, body, WriteOptions { size: hint.size, if_absent: true }).await?;
        if !hint.labels.is_empty() {
            let side = Body::from_bytes(side::text(&hint.labels));
            directory.write(&format!("{name}{SIDE}"), side, WriteOptions::default()).await?;
        }
        Ok(Receipt { id, size })
    }

    async fn labels(&self, name: &str) -> Result<Vec<(String, String)>> {
        let mut labels = match self.directory().await?.read(&format!("{name}{SIDE}"), None).await {
            Ok(file) => side::parse(&file.body.collect(SIDE_BYTES).await?),
            Err(error) if *error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        labels.retain(|(name, _)| name != Encoding::LABEL);
        if let Some((_, encoding)) = name.split_once('.') {
            labels.push((Encoding::LABEL.to_owned(), encoding.to_owned()));
        }
        Ok(labels)
    }

    async fn page(&self, cursor: Option<String>, limit: u32) -> Result<InventoryPage> {
        let page = self.directory().await?.list_entries("", cursor.as_deref(), limit).await?;
        let files = page.entries.into_iter().filter(|entry| !entry.is_directory && is_object(&entry.name));
        let entries = files.filter_map(|entry| {
            Some(InventoryEntry { id: ObjectId::new(entry.name).ok()?, size: entry.size, modified: entry.modified })
        });
        Ok(InventoryPage { entries: entries.collect(), next: page.next })
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.on_backend(&self.name).during(operation)
    }

    fn unsupported<'a, T: Send + 'a>(&'a self, operation: &'static str) -> BoxFuture<'a, Result<T>> {
        let error = Error::unsupported("the hot tier has nothing of the kind");
        Box::pin(std::future::ready(Err(self.failed(operation)(error))))
    }
}

/// Returns whether a file of this name can be an object: nothing else has a name of letters, digits, `-` and, before its encoding, a dot.
fn is_object(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let (key, encoding) = name.split_once('.').map_or((name, None), |(key, encoding)| (key, Some(encoding)));
    name.len() <= 200 && part(key) && encoding.is_none_or(part) && !name.ends_with(SIDE)
}

impl Backend for HotBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BackendInfo {
        let features = Features { ranges: true, lineage: false, unsized_input: true, labels: true };
        BackendInfo { features, inventory: true, archive: false, account: false }
    }

    fn put(&self, upload: Upload) -> BoxFuture<'_, Result<Receipt>> {
        Box::pin(async move {
            let store = |attempt| async { self.store(attempt).await.map_err(self.failed("store")) };
            upload.attempt(self.info().features, store).await
        })
    }

    fn get<'a>(&'a self, id: &'a ObjectId, range: Option<ByteRange>) -> BoxFuture<'a, Result<Body>> {
        Box::pin(async move {
            let read = async {
                let name = self.file_of(id)?;
                Ok(self.directory().await?.read(name, range).await?.body)
            };
            let body = read.await.map_err(self.failed("retrieve"))?;
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.touch(id);
            Ok(body)
        })
    }

    fn stat<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<ObjectStat>> {
        Box::pin(async move {
            let stat = async {
                let name = self.file_of(id)?;
                let info = self.directory().await?.stat(name).await?;
                let labels = self.labels(name).await?;
                Ok(ObjectStat { size: info.size, base: None, archive: None, modified: info.modified, labels })
            };
            stat.await.map_err(self.failed("stat"))
        })
    }

    fn delete<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Ok(name) = self.file_of(id) else { return Ok(()) };
            let remove = async {
                let directory = self.directory().await?;
                directory.remove(name).await?;
                directory.remove(&format!("{name}{SIDE}")).await
            };
            remove.await.map_err(self.failed("remove"))
        })
    }

    fn list(&self, cursor: Option<String>, limit: u32) -> BoxFuture<'_, Result<InventoryPage>> {
        Box::pin(async move { self.page(cursor, limit).await.map_err(self.failed("list")) })
    }

    fn restore<'a>(&'a self, _: &'a ObjectId, _: u32) -> BoxFuture<'a, Result<ArchiveState>> {
        self.unsupported("restore")
    }

    fn health(&self) -> BoxFuture<'_, Result<Health>> {
        Box::pin(async move {
            self.page(None, 1).await.map_err(self.failed("health"))?;
            Ok(Health { ready: true, detail: self.path.display().to_string() })
        })
    }

    fn balance(&self) -> BoxFuture<'_, Result<AccountState>> {
        self.unsupported("balance")
    }

    fn local_file(&self, id: &ObjectId) -> Option<File> {
        let name = self.file_of(id).ok()?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.path.join(name), flags | rustix::fs::OFlags::NONBLOCK, 0.into()).ok()?;
        let file = File::from(file);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.touch(id);
        Some(file)
    }

    fn report(&self, _: &ObjectId, _: &Error) {}
}

#[cfg(test)]
mod tests;
