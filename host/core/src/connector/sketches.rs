//! The sketches of the images that were stored last, in one file beside the catalogue: a cache, from which a store without a base
//! guesses one. It has a bound, and is written anew each time. Of two hosts that write at once, what one has added is lost.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connector::Host;
use crate::snapshot::Identity;
use crate::snapshot::pages::{FileImage, PageDigests, Sketch};
use crate::types::{Error, Result, SnapshotId, durable};

const FIRST: &[u8; 8] = b"TdLkSkt1";
/// The most sketches that are kept.
const MOST: usize = 512;
/// The bytes of one, with its snapshot.
const EACH: usize = 32 + Sketch::BYTES;
/// The hash at the end.
const HASH: usize = 32;

impl Host {
    pub(super) fn sketches_path(&self) -> PathBuf {
        self.inner.data_dir.join("sketches")
    }
}

/// The sketches that are kept, the latest first; none if the file is damaged or not there.
pub(super) fn recent(path: &Path) -> Vec<(SnapshotId, Sketch)> {
    let Ok(bytes) = read(path) else { return Vec::new() };
    let Some((kept, hash)) = bytes.split_last_chunk::<HASH>() else { return Vec::new() };
    let Some(entries) = kept.strip_prefix(FIRST) else { return Vec::new() };
    if blake3::hash(kept).as_bytes() != hash {
        return Vec::new();
    }
    let entry = |entry: &[u8; EACH]| {
        let (id, sketch) = entry.split_first_chunk::<32>()?;
        Some((SnapshotId::from_bytes(*id), Sketch::from_bytes(sketch.try_into().ok()?)))
    };
    entries.as_chunks::<EACH>().0.iter().filter_map(entry).collect()
}

/// The file, as far as one of ours goes.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len().min((FIRST.len() + MOST * EACH + HASH) as u64);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The sketch of an image from its page digests.
///
/// # Errors
/// Errors of reading; `corrupt` for other page digests.
pub(super) fn sketch(identity: &Arc<Identity>, digests: &File) -> Result<Sketch> {
    let fail = |error| Error::io("page digests", error);
    let size = digests.metadata().map_err(fail)?.len();
    let image = FileImage::new(digests.try_clone().map_err(fail)?, size, "page digests");
    Sketch::of(&PageDigests::open(Box::new(image), identity.clone())?)
}

/// Keeps the sketch of an image, and forgets the oldest.
///
/// # Errors
/// As [`sketch`]; errors of writing.
pub(super) fn keep(path: &Path, identity: &Arc<Identity>, digests: &File) -> Result<()> {
    let (id, new) = (identity.id(), sketch(identity, digests)?);
    let mut all = recent(path);
    if new == Sketch::default() || all.first().is_some_and(|(latest, _)| *latest == id) {
        return Ok(());
    }
    all.retain(|(other, _)| *other != id);
    all.insert(0, (id, new));
    all.truncate(MOST);
    let mut bytes = FIRST.to_vec();
    for (id, sketch) in &all {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&sketch.to_bytes());
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    let write = || {
        let Some(dir) = path.parent() else { return Ok(()) };
        durable::make_dir(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&bytes)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error| Error::io(path.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PAGE;
    use crate::snapshot::pages::write_digests;

    fn stored(path: &Path, number: u64) -> SnapshotId {
        let image = tempfile::tempfile().unwrap();
        image.write_all_at(&number.to_le_bytes(), 0).unwrap();
        image.set_len(20 * PAGE as u64).unwrap();
        let mut digests = tempfile::tempfile().unwrap();
        let identity = write_digests(&FileImage::new(image, 20 * PAGE as u64, "image"), 1, &mut digests).unwrap();
        let identity = Arc::new(identity);
        keep(path, &identity, &digests).unwrap();
        identity.id()
    }

    #[test]
    fn the_latest_are_kept_and_what_is_damaged_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sketches");
        assert!(recent(&path).is_empty());
        let all: Vec<SnapshotId> = (1..=MOST as u64 + 3).map(|number| stored(&path, number)).collect();
        let kept = recent(&path);
        assert_eq!(kept.len(), MOST);
        assert!(kept.iter().map(|(id, _)| *id).eq(all.iter().rev().take(MOST).copied()));
        // One that comes again is the latest, once.
        let again = stored(&path, 100);
        assert_eq!((recent(&path)[0].0, recent(&path).len()), (again, MOST));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(recent(&path).is_empty());
        stored(&path, 7);
        assert_eq!(recent(&path).len(), 1);
    }
}
