//! The `directory` capability on a local file system.

use std::io;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures::future::BoxFuture;

use super::place::Place;
use super::{Directory, File, FileInfo, Page, WriteOptions, names, read, temporary, write};
use crate::grant::DirectoryGrant;
use tidelock_types::path::check_path;
use tidelock_types::{Account, Body, ByteRange, Error, Platform, Result, Stop, Unlimited, blocking, durable, job};

/// The files below one directory of a local file system. Cheap to clone.
#[derive(Clone)]
pub struct LocalDirectory {
    place: Arc<Place>,
    /// Of the operation that uses it.
    account: Arc<dyn Account>,
}

impl LocalDirectory {
    /// Opens a directory, creates it (with its parents) if it does not exist, and removes leftovers. Blocks briefly. What is
    /// there can be read also where nothing can be written: on read-only media, and on a full disk.
    ///
    /// What is made here, the directory too, is for its owner alone, whatever the umask; below a directory with the
    /// set-group-ID bit it is for the group as well, as far as the umask lets it.
    ///
    /// # Errors
    /// `invalid` for an invalid grant or one that names a file; `denied` or `unavailable` for errors of the system.
    pub fn open(grant: &DirectoryGrant) -> Result<Self> {
        Self::open_with(grant, Platform::system())
    }

    /// As [`Self::open`], with the caller's random numbers.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(grant: &DirectoryGrant, platform: Platform) -> Result<Self> {
        grant.validate()?;
        let shown = grant.path.display();
        durable::make_dir(&grant.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => Error::invalid(format!("`{shown}` is not a directory")),
            _ => Error::io(format!("making the directory `{shown}`"), error),
        })?;
        let root = Dir::open_ambient_dir(&grant.path, ambient_authority())
            .map_err(|error| Error::io(format!("opening the directory `{shown}`"), error))?;
        let path = std::path::absolute(&grant.path).map_err(|error| Error::io(format!("`{shown}`"), error))?;
        let place = Place::new(root, path, platform);
        match place.last().home() {
            Ok(home) => drop(temporary::gc(&home)?),
            // Readers need none, and a writer gets an error.
            Err(error) => tracing::debug!(%error, "no temporary files can be made"),
        }
        Ok(Self { place: Arc::new(place), account: Arc::new(Unlimited::default()) })
    }
}

impl Directory for LocalDirectory {
    fn write<'a>(&'a self, path: &'a str, data: Body, options: WriteOptions) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            check_path(path)?;
            let place = Arc::clone(&self.place);
            let inner = job(&self.account, move |_| Ok(place.now())).await?;
            inner.present(write::write(&inner, &self.account, path.to_owned(), data, options).await)
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: Option<ByteRange>) -> BoxFuture<'a, Result<File>> {
        Box::pin(async move {
            check_path(path)?;
            let (place, path) = (Arc::clone(&self.place), path.to_owned());
            let account = Arc::clone(&self.account);
            let open = move |_: &Stop| {
                let inner = place.now();
                inner.present(read::open(&inner.root, &path, range.unwrap_or_default(), account))
            };
            job(&self.account, open).await
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileInfo>> {
        Box::pin(async move {
            check_path(path)?;
            let (place, path) = (Arc::clone(&self.place), path.to_owned());
            let stat = move |_: &Stop| {
                let inner = place.now();
                inner.in_place(inner.stat(&path))
            };
            job(&self.account, stat).await
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_path(path)?;
            let (place, path) = (Arc::clone(&self.place), path.to_owned());
            let remove = move |_: &Stop| {
                let inner = place.now();
                inner.in_place(inner.remove(&path))
            };
            job(&self.account, remove).await
        })
    }

    fn list_entries<'a>(&'a self, path: &'a str, cursor: Option<&'a str>, limit: u32) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            if !path.is_empty() {
                check_path(path)?;
            }
            let (place, path, cursor) = (Arc::clone(&self.place), path.to_owned(), cursor.map(str::to_owned));
            job(&self.account, move |stop| {
                let inner = place.now();
                // The kernel lists nothing in a directory that was removed.
                inner.in_place(inner.list(&path, cursor.as_deref(), limit, stop))
            })
            .await
        })
    }

    fn write_holds(&self, size: Option<u64>) -> u64 {
        write::holds(size)
    }

    fn open_holds(&self, _: Option<u64>) -> u64 {
        0
    }

    fn read_holds(&self, len: Option<u64>) -> u64 {
        read::holds(len)
    }

    fn listing_holds(&self, limit: u32) -> u64 {
        names::page_holds(limit)
    }

    fn for_operation(&self, account: &Arc<dyn Account>) -> Option<Arc<dyn Directory>> {
        Some(Arc::new(Self { place: Arc::clone(&self.place), account: Arc::clone(account) }))
    }

    fn gc(&self) -> BoxFuture<'_, Result<u64>> {
        let place = Arc::clone(&self.place);
        Box::pin(blocking(move || temporary::gc(&*place.now().home()?)))
    }
}

impl std::fmt::Debug for LocalDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalDirectory").field(&self.place.last().root).finish()
    }
}
