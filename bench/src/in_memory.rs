//! A directory in memory: the `directory` capability at minimal cost, so that the sandbox dominates the
//! measurement.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use tidelock::capabilities::directory::{Directory, Entry, File, FileInfo, LIST_LIMIT, Page, WriteOptions};
use tidelock::types::{Body, ByteRange, Error, Result};

/// The largest file that it takes.
const LARGEST: usize = 64 << 20;

/// Files by their paths. Directories are what the paths of files imply.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<String, Bytes>>);

impl InMemory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, path: &str) -> Result<Bytes> {
        self.files().get(path).cloned().ok_or_else(|| Error::not_found(format!("there is no `{path}`")))
    }
}

fn info(bytes: &Bytes) -> FileInfo {
    FileInfo { size: bytes.len() as u64, modified: None }
}

impl Directory for InMemory {
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let bytes = data.collect(LARGEST).await?;
            let size = bytes.len() as u64;
            if options.size.is_some_and(|said| said != size) {
                return Err(Error::corrupt(format!("`{path}` has {size} bytes, and others were announced")));
            }
            let mut files = self.files();
            if options.if_absent && files.contains_key(path) {
                return Err(Error::conflict(format!("`{path}` is there already")));
            }
            files.insert(path.to_owned(), bytes);
            Ok(size)
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        Box::pin(async move {
            let bytes = self.find(path)?;
            let info = info(&bytes);
            let (start, len) = range.unwrap_or_default().within(info.size)?;
            // Within a size that is a usize.
            let part = bytes.slice(start as usize..(start + len) as usize);
            Ok(File { info, body: Body::from_bytes(part) })
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(async move { self.find(path).map(|bytes| info(&bytes)) })
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.files().remove(path);
            Ok(())
        })
    }

    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let base = if path.is_empty() { String::new() } else { format!("{path}/") };
            let limit = limit.clamp(1, LIST_LIMIT) as usize;
            let mut found: BTreeMap<String, Entry> = BTreeMap::new();
            let files = self.files();
            for (key, bytes) in files.range::<str, _>((Bound::Included(base.as_str()), Bound::Unbounded)) {
                let Some(rest) = key.strip_prefix(&base) else { break };
                let (name, is_directory) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
                if cursor.is_none_or(|cursor| name > cursor) {
                    let size = if is_directory { 0 } else { bytes.len() as u64 };
                    let entry = Entry { name: name.to_owned(), is_directory, size, modified: None };
                    found.entry(name.to_owned()).or_insert(entry);
                }
            }
            let more = found.len() > limit;
            let entries: Vec<Entry> = found.into_values().take(limit).collect();
            let next = if more { entries.last().map(|entry| entry.name.clone()) } else { None };
            let page = Page { entries, next };
            Ok(page)
        })
    }

    fn write_holds(&self, size: Option<u64>) -> u64 {
        size.unwrap_or(u64::MAX).min(LARGEST as u64)
    }

    fn open_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn read_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        1024 * u64::from(limit)
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_a_directory() {
        let directory = InMemory::default();
        let absent = WriteOptions { size: Some(4), if_absent: true };
        for path in ["a/b/1", "a/b/2", "c/3"] {
            assert_eq!(directory.write(path, Body::from_bytes("0123"), absent).await.unwrap(), 4);
        }
        assert!(directory.write("c/3", Body::from_bytes("0123"), absent).await.is_err());
        assert!(directory.write("d", Body::from_bytes("012"), absent).await.is_err());
        let part = directory.read("c/3", Some(ByteRange::of(1, 2))).await.unwrap();
        assert_eq!((part.info.size, part.body.collect(10).await.unwrap()), (4, Bytes::from("12")));
        let first = directory.list_entries("", None, 1).await.unwrap();
        assert_eq!((first.entries[0].name.as_str(), first.next.as_deref()), ("a", Some("a")));
        let second = directory.list_entries("", Some("a"), 10).await.unwrap();
        assert_eq!((second.entries[0].name.as_str(), second.next), ("c", None));
        assert_eq!(directory.list_entries("a/b", None, 10).await.unwrap().entries.len(), 2);
        directory.remove("a/b/1").await.unwrap();
        assert!(directory.stat("a/b/1").await.is_err());
    }
}
