//! Where a local directory is: the one that its path leads to now.
//!
//! A disk that is mounted after the start, or a folder that is moved and put back, is another directory at the same path. So each
//! operation begins in the one that is there then. Where there is none, it begins in the one that was there last, and fails as what
//! is in a directory that was removed does. Whether it is the directory that objects were stored into is for the caller to know.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::inner::DirectoryInner;
use tidelock_types::Platform;

/// A path, and the directory that was last found there.
pub(super) struct Place {
    path: PathBuf,
    platform: Platform,
    last: RwLock<Arc<DirectoryInner>>,
}

impl Place {
    pub(super) fn new(root: Dir, path: PathBuf, platform: Platform) -> Self {
        let last = Arc::new(DirectoryInner::below(root, path.clone(), platform.clone()));
        Self { path, platform, last: RwLock::new(last) }
    }

    /// The directory that was found last.
    pub(super) fn last(&self) -> Arc<DirectoryInner> {
        Arc::clone(&self.last.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directory that is there now, or else the last one. Blocks.
    pub(super) fn now(&self) -> Arc<DirectoryInner> {
        let last = self.last();
        let same = |found: &std::fs::Metadata| last.is(found.dev(), found.ino());
        match std::fs::metadata(&self.path) {
            Ok(found) if found.is_dir() && !same(&found) => {}
            _ => return last,
        }
        match Dir::open_ambient_dir(&self.path, ambient_authority()) {
            Ok(root) => {
                tracing::info!(path = %self.path.display(), "another directory is there now");
                let now = Arc::new(DirectoryInner::below(root, self.path.clone(), self.platform.clone()));
                *self.last.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&now);
                now
            }
            // What it was is in the error of the operation.
            Err(_) => last,
        }
    }
}
