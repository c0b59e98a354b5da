//! The page digests of the snapshots that were compared last: a cache, without which updates read more.

use std::fs::File;
use std::io::Seek as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::connector::hot::HotTier;
use crate::connector::{Host, data_dir};
use crate::snapshot::Identity;
use crate::snapshot::pages::{FileImage, PageDigests};
use crate::types::{Error, Result, SnapshotId, blocking};

/// The most bytes of page digests that are kept.
const MAX_DIGEST_BYTES: u64 = 1 << 30;

impl Host {
    fn digests_path(&self, id: SnapshotId) -> PathBuf {
        self.inner.data_dir.join("page-digests").join(id.to_string())
    }

    /// The page digests of a snapshot, if they are kept here and are sound.
    pub(in crate::connector) async fn page_digests(&self, identity: &Arc<Identity>) -> Option<PageDigests> {
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
    pub(in crate::connector) async fn keep_page_digests(&self, identity: &Identity, mut written: File) -> Result<()> {
        let path = self.digests_path(identity.id());
        let most = MAX_DIGEST_BYTES.saturating_add(self.inner.hot.as_ref().map_or(0, HotTier::digest_bytes));
        blocking(move || {
            let fail = |error| Error::io(path.display(), error);
            let Some(dir) = path.parent() else { return Ok(()) };
            data_dir::make(dir).map_err(fail)?;
            written.rewind().map_err(fail)?;
            let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
            let size = std::io::copy(&mut written, &mut file).map_err(fail)?;
            make_room(dir, most.saturating_sub(size)).map_err(fail)?;
            file.persist(&path).map_err(|error| fail(error.error))?;
            Ok(())
        })
        .await
    }
}

/// Removes the oldest files until the others have at most so many bytes.
fn make_room(dir: &std::path::Path, most: u64) -> std::io::Result<()> {
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
