//! Bytes that no layer can make smaller: random, and no two pages of an image alike.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;

use crate::MIB;

/// What an image is made of.
const BLOCK: u64 = 64 * MIB;
/// The unit in which storage looks for what it has already.
const PAGE: usize = 4096;

/// So many random bytes.
pub fn random(len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len)?];
    getrandom::fill(&mut bytes).context("the system has no random bytes")?;
    Ok(bytes)
}

/// Random bytes to be handed around.
pub fn random_bytes(len: u64) -> Result<Bytes> {
    random(len).map(Bytes::from)
}

/// Writes an image of `len` bytes: a random block again and again, with a counter in each page, so that neither
/// compression nor deduplication nor holes make it smaller than it says.
pub fn write_image(path: &Path, len: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut block = random(BLOCK.min(len))?;
    let (mut written, mut page) = (0, 0_u64);
    while written < len {
        for bytes in block.chunks_exact_mut(PAGE) {
            bytes[..8].copy_from_slice(&page.to_le_bytes());
            page += 1;
        }
        let now = (len - written).min(block.len() as u64);
        file.write_all(&block[..usize::try_from(now)?]).with_context(|| format!("cannot fill {}", path.display()))?;
        written += now;
    }
    // What the kernel still has to write shall not slow down what is measured next.
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_pages_of_an_image_are_alike() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("image");
        let len = BLOCK + 3 * PAGE as u64 + 5;
        write_image(&path, len)?;
        let bytes = std::fs::read(&path)?;
        assert_eq!(bytes.len() as u64, len);
        let pages: BTreeSet<&[u8]> = bytes.chunks(PAGE).collect();
        assert_eq!(pages.len(), bytes.len().div_ceil(PAGE));
        Ok(())
    }
}
