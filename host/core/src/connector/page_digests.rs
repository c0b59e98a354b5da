//! The page digests of the snapshots that were compared last: a cache, without which updates read more.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Host;
use super::sketches;
use crate::snapshot::Identity;
use crate::snapshot::pages::{FileImage, PageDigests};
use crate::types::{Error, Result, SnapshotId, blocking, durable};

/// The most bytes of page digests that are kept, beside those of hot images.
pub(super) const MAX_DIGEST_BYTES: u64 = 1 << 30;

impl Host {
    fn digests_path(&self, id: SnapshotId) -> PathBuf {
        self.inner.data_dir.join("page-digests").join(id.to_string())
    }

    /// The page digests of a snapshot, if they are kept here and are sound.
    pub(super) async fn page_digests(&self, identity: &Arc<Identity>) -> Option<PageDigests> {
        let (path, identity) = (self.digests_path(identity.id()), identity.clone());
        let open = move || {
            let fail = |error| Error::io(path.display(), error);
            let file = File::open(&path).map_err(fail)?;
            let size = file.metadata().map_err(fail)?.len();
            PageDigests::open(Box::new(FileImage::new(file, size, path.display().to_string())), identity)
        };
        blocking(open).await.ok()
    }

    /// Keeps the page digests of a snapshot, and lets those go that were written longest ago.
    pub(super) async fn keep_page_digests(&self, identity: &Identity, written: File) -> Result<()> {
        let (path, most) = (self.digests_path(identity.id()), self.inner.page_digest_bytes);
        let sketches = self.sketches_path();
        let identity = Arc::new(identity.clone());
        blocking(move || {
            if let Err(error) = sketches::keep(&sketches, &identity, &written) {
                tracing::info!(%error, "the sketch of an image is not kept");
            }
            let kept = keep_digests(&path, written, most);
            kept.map_err(|error| Error::io(path.display(), error))
        })
        .await
    }
}

/// Copies a file to a path in a folder whose files have at most so many bytes; one that has more itself is not kept.
fn keep_digests(path: &Path, mut written: File, most: u64) -> std::io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    let size = written.metadata()?.len();
    if size > most {
        return Ok(());
    }
    durable::make_dir(dir)?;
    make_room(dir, most - size)?;
    written.rewind()?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    std::io::copy(&mut written.take(size), &mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the oldest files until the others have at most so many bytes.
fn make_room(dir: &Path, most: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        files.push((about.modified()?, about.len(), entry.path()));
    }
    files.sort();
    let mut all: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in files {
        if all <= most {
            break;
        }
        std::fs::remove_file(path)?;
        all -= len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_digests_are_bounded_whatever_one_file_has() {
        let dir = tempfile::tempdir().unwrap();
        let of = |len: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(len).unwrap();
            file
        };
        let kept = |name: &str, len| keep_digests(&dir.path().join("d").join(name), of(len), 10).unwrap();
        let there = || -> Vec<u64> {
            let files = std::fs::read_dir(dir.path().join("d")).into_iter().flatten();
            files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
        };
        kept("huge", 11);
        assert_eq!(there(), [0u64; 0]);
        kept("first", 6);
        kept("huge", 1 << 40);
        assert_eq!(there(), [6]);
        kept("second", 7);
        assert_eq!(there(), [7]);
        kept("third", 3);
        assert_eq!(there().iter().sum::<u64>(), 10);
    }
}
